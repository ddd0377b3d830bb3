"""What blending by the misfit is worth, on made samples.

    python scripts/benchmark_blend.py [--per-family 2] [--families Style_A Style_B] [--seed 77]

Each sample has two network-like predictions, A and B, that differ in their random errors and are
both wrong in what such networks get wrong. Weights are found for each family by the misfit of its
samples, as `blend --records` does, then areas are mixed as with `--mix`. Prints Markdown: mean
absolute errors in m/s, and in brackets the mean rms misfits in thousandths.
"""

import argparse

import numpy as np

from fwi_refine.analysis.blend import MisfitScore, climb, combine, misfits
from fwi_refine.analysis.metrics import mean_absolute_error
from fwi_refine.analysis.mosaic import make_mosaic
from fwi_refine.synthetic import FAMILIES, make_sample, make_start
from fwi_refine.wave import Simulator


def two_predictions(family, seed, index):
    """(sample, its two predictions (2, nz, nx))."""
    sample = make_sample(family, seed, index)
    rng = np.random.default_rng([seed, index, 1])
    other = make_start(sample.truth.astype(np.float64), family, rng, 1.0)
    return sample, np.stack([sample.start, other.astype(np.float32)])


def measure(family, seed, count, simulator):
    """({name: (mean absolute error, mean rms misfit)}, weights, simulations of a mix)."""
    samples, maps = zip(*(two_predictions(family, seed, k) for k in range(count)), strict=True)
    records = [sample.record for sample in samples]
    weights = climb(MisfitScore(maps, records, simulator), 2).weights
    found, costs = {name: [] for name in ("A", "B", "mean", "blend", "mix")}, []
    for sample, (a, b) in zip(samples, maps, strict=True):
        blended = combine([a, b], weights)
        mixed = make_mosaic([blended, a, b], sample.record, simulator)
        candidates = {"A": a, "B": b, "mean": (a + b) / 2, "blend": blended, "mix": mixed.velocity}
        values = np.sqrt(misfits(simulator, [*candidates.values()], sample.record))
        for (name, v), misfit in zip(candidates.items(), values, strict=True):
            found[name].append((mean_absolute_error(v, sample.truth), misfit))
        costs.append(mixed.simulations)
    means = {name: np.mean(pairs, axis=0) for name, pairs in found.items()}
    return means, weights, np.median(costs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--per-family", type=int, default=2)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--seed", type=int, default=77)
    options = parser.parse_args()
    simulator = Simulator()
    print("| family | samples | A | B | mean | blend | weights | mix | its simulations |")
    print("|---|---|---|---|---|---|---|---|---|")
    for family in options.families:
        found, weights, cost = measure(family, options.seed, options.per_family, simulator)
        a, b, mean, blend, mixed = (f"{e:.2f} ({1e3 * m:.2f})" for e, m in found.values())
        shown = ", ".join(f"{w:.2f}" for w in weights)
        print(f"| {family} | {options.per_family} | {a} | {b} | {mean} | {blend} | {shown} | "
              f"{mixed} | {cost:.0f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
