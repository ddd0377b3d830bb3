"""Accuracy by family on made samples: start -> refined error and misfit, evaluations, seconds.

    python scripts/benchmark_accuracy.py --per-family 2 --max-evaluations 400 --seed 7001

Samples are drawn from the seed (see fwi_refine/synthetic), so that they can be named before a
method is tuned. Prints one line for each sample as it ends, and Markdown tables at the end: a
line for each sample, the mean of each family, and the score that the test set's shares give.
"""

import argparse
import resource
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fwi_refine.analysis.metrics import mean_absolute_error
from fwi_refine.inversion.initial_model import start_from_record
from fwi_refine.inversion.refined import Refined
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.routing import OPENFWI_FAMILIES
from fwi_refine.synthetic import FAMILIES, make_sample
from fwi_refine.synthetic.samples import SyntheticSample
from fwi_refine.wave import Simulator

# Shares of the benchmark's test set; the six fault and curve families in equal parts.
SHARES = {"FlatVel_A": 0.0905, "FlatVel_B": 0.0905, "Style_A": 0.086, "Style_B": 0.096}
SHARES |= {name: 0.636 / 6 for name in FAMILIES if name not in SHARES}


@dataclass(frozen=True)
class Measured:
    """One sample refined: start (nz, nx) m/s, and the seconds that it took with that."""

    family: str
    index: int
    sample: SyntheticSample
    start: np.ndarray
    refined: Refined
    seconds: float

    @property
    def errors(self) -> tuple[float, float]:
        """Mean absolute error of start and result, m/s."""
        before, after = (
            mean_absolute_error(v, self.sample.truth) for v in (self.start, self.refined.velocity)
        )
        return before, after

    @property
    def row(self) -> str:
        """A row of the Markdown table."""
        (before, after), refined = self.errors, self.refined
        expected = refined.expected_error
        return (
            f"| {self.family} | {self.index} | {refined.family} | {before:.2f} | {after:.3f} "
            f"| {'' if expected is None else format(expected, '.2f')} "
            f"| {refined.misfit_before:.1e} | {refined.misfit_after:.1e} "
            f"| {refined.evaluations} | {self.seconds:.0f} | {'; '.join(refined.flags)} |"
        )


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--per-family", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="index of each family's first sample")
    parser.add_argument("--max-evaluations", type=int)
    parser.add_argument("--method", default="lbfgs")
    parser.add_argument("--seed", type=int, default=7001)
    parser.add_argument("--hardness", type=float, default=1.0)
    parser.add_argument(
        "--without-network", action="store_true", help="start from the record alone"
    )
    parser.add_argument(
        "--known-family", action="store_true", help="on the route of the sample's family"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", type=Path, help="folder for the refined maps and their truths")
    return parser.parse_args()


def measure(family: str, index: int, options: argparse.Namespace, simulator: Simulator) -> Measured:
    """Makes a sample, and refines it."""
    sample = make_sample(family, options.seed, index, options.hardness)
    began = time.perf_counter()
    start = sample.start
    if options.without_network:
        start = start_from_record(sample.record, threads=options.threads)
    refined = refine_sample(
        start,
        sample.record,
        family=OPENFWI_FAMILIES[family] if options.known_family else "auto",
        method=options.method,
        max_evaluations=options.max_evaluations,
        simulator=simulator,
    )
    return Measured(family, index, sample, start, refined, time.perf_counter() - began)


def save(measured: Measured, options: argparse.Namespace) -> None:
    """Stores truth, start and result."""
    options.save.mkdir(parents=True, exist_ok=True)
    name = f"{measured.family}_{options.seed}_{measured.index}_{options.hardness:g}.npz"
    deviation = measured.refined.deviation
    np.savez(
        options.save / name,
        truth=measured.sample.truth,
        start=measured.start,
        velocity=measured.refined.velocity,
        deviation=np.nan if deviation is None else deviation,
    )


def print_tables(all_measured: list[Measured]) -> None:
    """Prints a row for each sample, the mean of each family, and the score of the test set."""
    print("\n| family | sample | route | start MAE | refined MAE | expected ", end="")
    print("| misfit rms before | after | evaluations | seconds | notes |\n" + "|---" * 11 + "|")
    print("\n".join(measured.row for measured in all_measured))
    print("\n| family | start MAE | refined MAE |\n|---|---|---|")
    errors = defaultdict(list)
    for measured in all_measured:
        errors[measured.family].append(measured.errors)
    means = {family: np.mean(values, axis=0) for family, values in errors.items()}
    for family, (before, after) in means.items():
        print(f"| {family} | {before:.2f} | {after:.3f} |")
    if set(means) == set(SHARES):
        before, after = sum(SHARES[family] * means[family] for family in SHARES)
        print(f"| leaderboard-equivalent | {before:.2f} | {after:.2f} |")


def main():
    options = read_options()
    torch.set_num_threads(options.threads)
    simulator = Simulator(threads=options.threads)
    print(f"kernel: {simulator.kernel}, {options.threads} threads", flush=True)
    all_measured = []
    for index in range(options.first, options.first + options.per_family):
        for family in options.families.split(","):
            measured = measure(family, index, options, simulator)
            all_measured.append(measured)
            print(measured.row, flush=True)
            if options.save:
                save(measured, options)
    print_tables(all_measured)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\nPeak memory of the process: {memory:.1f} GiB")


if __name__ == "__main__":
    main()
