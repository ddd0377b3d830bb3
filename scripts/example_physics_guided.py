"""An example: a small network is trained with the physics, on made samples of a small survey.

    python scripts/example_physics_guided.py

Few samples have their true map; of many there is only the record. Two networks that begin with the
same weights see the same labelled batches in the same order. One is trained by the maps alone. The
other also has to explain the records, with and without a map: `RecordMisfit` simulates what it
predicts, and the gradient flows back through the wave operator. Printed is the error on maps that
neither has seen. That a misfit may stand in for labels is the idea of Jin et al., "Unsupervised
learning of full-waveform inversion" (ICLR 2022).

In these few steps the records that were not seen are explained better, and the maps are not nearer
to the truth: 326.5 m/s with the physics and 321.8 without, misfit 0.157 and 0.240 of the records'
rms; with --family Style_A 186.8 and 187.2 m/s, misfit 0.163 and 0.240. Waves see the upper part of
a map much better than the lower, and a misfit has minima at wrong maps; a network as a start, and
`refine` behind it, is what the program is for.
"""

import os
import time

import click
import numpy as np
import torch
from torch import nn

from fwi_refine import RecordMisfit, Survey, WaveSimulator
from fwi_refine.synthetic import make_map

# The ground of OpenFWI on every second cell and time step, with longer waves and three shots.
SURVEY = Survey(
    shape=(35, 35),
    spacing=20.0,
    dt=2e-3,
    n_steps=400,
    file_rows=400,
    frequency=8.0,
    absorbing_cells=30,
    sources=((1, 0), (1, 17), (1, 34)),
    receivers=tuple((1, column) for column in range(35)),
    velocity_bounds=(1400.0, 4600.0),
)
BATCH = 16


class Network(nn.Module):
    """Records (B, 3, 400, 35) to maps (B, 35, 35) in m/s: an encoder and a decoder."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *block(3, 16, kernel_size=(7, 1), stride=(4, 1), padding=(3, 0)),
            *block(16, 32, kernel_size=(5, 3), stride=(3, 2), padding=(2, 1)),
            *block(32, 64, kernel_size=3, stride=2, padding=1),
            *block(64, 64, kernel_size=3, stride=(2, 1), padding=1),
            nn.Flatten(),
            nn.LazyLinear(256),
            nn.ReLU(),
            nn.Linear(256, 32 * 9 * 9),
            nn.Unflatten(1, (32, 9, 9)),
            nn.Upsample(scale_factor=2),
            *block(32, 32, kernel_size=3, padding=1),
            nn.Upsample(scale_factor=2),
            *block(32, 16, kernel_size=3, padding=1),
            nn.Conv2d(16, 1, kernel_size=3, padding=1),
        )

    def forward(self, record):
        low, high = SURVEY.velocity_bounds
        return low + (high - low) * torch.sigmoid(self.layers(record)[:, 0, :35, :35])


def block(inputs, outputs, **options):
    return nn.Conv2d(inputs, outputs, **options), nn.BatchNorm2d(outputs), nn.ReLU()


def make_samples(family, count, seed):
    """Maps (count, 35, 35) in m/s and their records (count, 3, 400, 35), float32."""
    rng = np.random.default_rng(seed)
    maps = np.stack([make_map(family, rng)[::2, ::2] for _ in range(count)])
    maps = torch.from_numpy(maps).float()
    with torch.no_grad():
        return maps, WaveSimulator(SURVEY)(maps)


def train(maps, records, steps, warm_up, weight, seed):
    """A trained network. maps: of the first of the records. weight: of the misfit in the loss,
    which begins to count after `warm_up` steps; 0 leaves the records without a map unused."""
    torch.manual_seed(seed)
    network, misfit = Network(), RecordMisfit(SURVEY, threads=os.cpu_count())
    network(records[:2])  # gives the lazy layer its size
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    scale = records.square().mean()
    labelled, any_record = (torch.Generator().manual_seed(seed + k) for k in (1, 2))
    for step in range(steps):
        few = torch.randperm(len(maps), generator=labelled)[:BATCH]
        loss = (network(records[few]) - maps[few]).abs().mean() / 1000.0
        if weight and step >= warm_up:
            many = torch.randperm(len(records), generator=any_record)[:BATCH]
            loss = loss + weight * misfit(network(records[many]), records[many]).mean() / scale
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def errors(network, maps, records):
    """Mean absolute error in m/s, and rms misfit in parts of the records' rms."""
    predicted = network(records)
    misfit = RecordMisfit(SURVEY)(predicted, records).mean() / records.square().mean()
    return (predicted - maps).abs().mean().item(), misfit.sqrt().item()


@click.command(context_settings={"show_default": True})
@click.option("--family", default="CurveVel_A", help="Family of the made maps.")
@click.option("--labelled", default=64, help="Training samples with their map.")
@click.option("--unlabelled", default=192, help="Training records without a map.")
@click.option("--steps", default=400, help="Steps of the optimiser.")
@click.option("--warm-up", default=150, help="Steps without the physics.")
@click.option("--weight", default=1.0, help="Of the misfit in the loss.")
@click.option("--unseen", default=128, help="Samples that the errors are measured on.")
@click.option("--seed", default=0)
def main(family, labelled, unlabelled, steps, warm_up, weight, unseen, seed):
    """Train with and without the physics; print the errors on maps that neither has seen."""
    torch.set_num_threads(1)  # the same figures on any number of cores; the wave kernel has all
    maps, records = make_samples(family, labelled + unlabelled, [seed, 0])
    others = make_samples(family, unseen, [seed, 1])
    mean = maps[:labelled].mean(dim=0)
    guess = (mean - others[0]).abs().mean().item()
    click.echo(f"{'mean of the labelled maps':28} MAE {guess:6.1f} m/s")
    for name, used in (("labelled maps alone", 0.0), ("labelled maps and physics", weight)):
        started = time.monotonic()
        network = train(maps[:labelled], records, steps, warm_up, used, seed)
        mae, misfit = errors(network, *others)
        seconds = time.monotonic() - started
        click.echo(f"{name:28} MAE {mae:6.1f} m/s, misfit {misfit:.3f} of rms, {seconds:.0f} s")


if __name__ == "__main__":
    main()
