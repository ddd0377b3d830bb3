"""Expected errors against real ones, on made samples that scripts/benchmark_accuracy.py refined.

    python scripts/benchmark_accuracy.py --per-family 3 --save maps
    python scripts/benchmark_posterior.py maps/*.npz

For each: mean absolute error that was expected, the real one, their ratio, and the rms of error
over deviation, over all cells and below row 10, where it should be 1. Where each cell is either
exact or far off, as in maps of layers, only the means can be compared.
"""

import argparse
from pathlib import Path

import numpy as np

from fwi_refine.inversion.uncertainty import expected_error


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", nargs="+", type=Path)
    options = parser.parse_args()
    print("| sample | expected MAE | MAE | ratio | error / deviation, rms | below row 10 |")
    print("|---" * 6 + "|")
    for path in options.maps:
        found = np.load(path)
        deviation = found["deviation"]
        if np.isnan(deviation).any():
            print(f"| {path.stem} | not known |  |  |  |  |")
            continue
        error = found["velocity"] - found["truth"]
        expected, real = expected_error(deviation), np.abs(error).mean()
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = np.where(error == 0, 0.0, error / deviation) ** 2
        print(
            f"| {path.stem} | {expected:.3f} | {real:.3f} | {real / expected:.2f} "
            f"| {scores.mean() ** 0.5:.2f} | {scores[10:].mean() ** 0.5:.2f} |"
        )


if __name__ == "__main__":
    main()
