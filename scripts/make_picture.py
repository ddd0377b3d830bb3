"""Draws start, refined map and truth of the samples in a folder, as the picture in the README.

    python scripts/make_picture.py data_samples refined.npy --out data_samples/refined.png

The folder is laid out as data_samples is. Needs the extra [plot].
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from fwi_refine.analysis import plots
from fwi_refine.analysis.run_view import RunView
from fwi_refine.io.report import Row

RESOLUTION = 150  # dots per inch


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("samples", type=Path)
    parser.add_argument("refined", type=Path)
    parser.add_argument("--out", type=Path, required=True, help=".png, .pdf or .svg")
    options = parser.parse_args()

    truth = np.load(options.samples / "truth.npy").astype(float)
    starts = np.load(options.samples / "predictions.npy").astype(float)
    refined = np.load(options.refined).astype(float).reshape(truth.shape)
    with open(options.samples / "samples.csv", newline="") as file:
        rows = [Row(line["id"], line["family"], status="refined") for line in csv.DictReader(file)]
    run_views = [
        RunView(row, refined[k], start=starts[k], truth=truth[k]) for k, row in enumerate(rows)
    ]
    plots.save([plots.samples(run_views)], options.out, RESOLUTION)


if __name__ == "__main__":
    main()
