"""Accuracy by family on made samples: start -> refined error and misfit, evaluations, seconds.

    python scripts/benchmark_accuracy.py --method auto --seed 9801 --threads 1
    python scripts/benchmark_accuracy.py --families FlatVel_A --per-family 5 --out flat.json

Samples are drawn from the seed (see fwi_refine/synthetic), so that they can be named before a
method is tuned. Prints one line for each sample as it ends; the result file is written anew each
time, with the score that the test set's shares give once every family is in it.
"""

import argparse
import resource
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from benchmark_real import ROOT, origin, rounded, write

from fwi_refine.analysis.metrics import mean_absolute_error
from fwi_refine.inversion.initial_model import start_from_record
from fwi_refine.inversion.refined import Refined
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.routing import OPENFWI_FAMILIES
from fwi_refine.synthetic import FAMILIES, make_sample
from fwi_refine.synthetic.samples import SyntheticSample
from fwi_refine.wave import Simulator

RESULTS = ROOT / "benchmarks" / "made_maps.json"
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
    def row(self) -> dict:
        """The figures, as the result file has them."""
        (before, after), refined = self.errors, self.refined
        return {
            "family": self.family,
            "index": self.index,
            "start": round(before, 2),
            "refined": round(after, 4),
            "expected": rounded(refined.expected_error),
            "misfit_before": float(f"{refined.misfit_before:.2e}"),
            "misfit_after": float(f"{refined.misfit_after:.2e}"),
            "evaluations": refined.evaluations,
            "seconds": round(self.seconds),
            "exact": refined.exact,
            "route": str(refined.family),
            "flags": list(refined.flags),
        }


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--per-family", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="index of each family's first sample")
    parser.add_argument("--max-evaluations", type=int)
    parser.add_argument("--method", default="auto")
    parser.add_argument("--seed", type=int, default=9801)
    parser.add_argument("--hardness", type=float, default=1.0)
    parser.add_argument(
        "--without-network", action="store_true", help="start from the record alone"
    )
    parser.add_argument(
        "--known-family", action="store_true", help="on the route of the sample's family"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the result file")
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


def score(rows: list[dict]) -> dict | None:
    """Errors before and after, weighted by the families' shares; None where a family is missing."""
    errors = defaultdict(list)
    for row in rows:
        errors[row["family"]].append((row["start"], row["refined"]))
    if set(errors) != set(SHARES):
        return None
    means = {family: np.mean(values, axis=0) for family, values in errors.items()}
    before, after = sum(SHARES[family] * means[family] for family in SHARES)
    return {"start": round(before, 2), "refined": round(after, 2)}


def main():
    options = read_options()
    torch.set_num_threads(options.threads)
    simulator = Simulator(threads=options.threads)
    print(f"kernel: {simulator.kernel}, {options.threads} threads", flush=True)
    source, rows = origin("benchmark_accuracy.py"), []
    for index in range(options.first, options.first + options.per_family):
        for family in options.families.split(","):
            measured = measure(family, index, options, simulator)
            rows.append(measured.row)
            print(rows[-1], flush=True)
            if options.save:
                save(measured, options)
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            content = {"score": score(rows), "peak_memory_gib": round(memory, 1), "rows": rows}
            write(options.out, source | content)


if __name__ == "__main__":
    main()
