"""An example: a tiny network learns from records alone, by a loss that simulates waves.

    python examples/loss_of_records.py

The network sees a record and predicts a velocity map. `RecordMisfit` simulates the record of that
map and compares; its gradient flows back through the wave equation into the network. No true map is
used. The loss that is printed is the mean square misfit in parts of that of the untrained network.
"""

from dataclasses import replace

import torch

from fwi_refine import OPENFWI, RecordMisfit, WaveSimulator

SURVEY = replace(
    OPENFWI,
    shape=(12, 16),
    n_steps=150,
    file_rows=150,
    absorbing_cells=16,
    velocity_bounds=(1000.0, 4500.0),
    sources=((1, 2), (1, 13)),
    receivers=tuple((1, column) for column in range(16)),
)
LOW, HIGH = 1500.0, 3500.0  # m/s
STEPS, SAMPLES = 40, 8


def make_maps(count: int) -> torch.Tensor:
    """Two flat layers each, (count, 12, 16) in m/s."""
    random = torch.Generator().manual_seed(0)
    upper = 1600 + 600 * torch.rand(count, 1, 1, generator=random)
    lower = upper + 300 + 900 * torch.rand(count, 1, 1, generator=random)
    edges = torch.randint(4, 9, (count, 1, 1), generator=random)
    depth = torch.arange(12)[None, :, None]
    return torch.where(depth < edges, upper, lower).expand(count, 12, 16).contiguous()


class Network(torch.nn.Module):
    """Records (B, 2, 150, 16) to maps (B, 12, 16), m/s."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Flatten(),
            torch.nn.LayerNorm(2 * 150 * 16),
            torch.nn.Linear(2 * 150 * 16, 64),
            torch.nn.Tanh(),
            torch.nn.Linear(64, 12),
        )

    def forward(self, record: torch.Tensor) -> torch.Tensor:
        rows = torch.sigmoid(self.layers(record))  # bounded, as velocities have to be
        return (LOW + (HIGH - LOW) * rows)[:, :, None].expand(-1, 12, 16)


def train() -> list[float]:
    """The loss of every step, in parts of the first."""
    torch.manual_seed(0)
    with torch.no_grad():
        records = WaveSimulator(SURVEY)(make_maps(SAMPLES))
    network, misfit = Network(), RecordMisfit(SURVEY)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(STEPS):
        loss = misfit(network(records), records).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return [loss / losses[0] for loss in losses]


if __name__ == "__main__":
    for step, loss in enumerate(train()):
        if step % 5 == 0 or step + 1 == STEPS:
            print(f"step {step:3d}  loss {loss:.4f}")
