"""Draws start, refined map and truth of the samples in a folder, as the picture in the README.

    python scripts/make_picture.py data_samples refined.npy --out data_samples/refined.png

The folder is laid out as data_samples is. Needs the extra [plot].
"""

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("samples", type=Path)
    parser.add_argument("refined", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    truth = np.load(options.samples / "truth.npy").astype(float)
    columns = {
        "start": np.load(options.samples / "predictions.npy").astype(float),
        "refined": np.load(options.refined).astype(float).reshape(truth.shape),
        "truth": truth,
    }
    with open(options.samples / "samples.csv", newline="") as file:
        families = [row["family"].replace("_", " ") for row in csv.DictReader(file)]

    figure, axes = plt.subplots(
        3, len(truth), figsize=(2.3 * len(truth), 7.2), layout="constrained", squeeze=False
    )
    extent = (0, 10 * truth.shape[2], 10 * truth.shape[1], 0)
    for k, family in enumerate(families):
        low, high = truth[k].min(), truth[k].max()
        for i, (name, maps) in enumerate(columns.items()):
            ax = axes[i, k]
            image = ax.imshow(maps[k], cmap="viridis", vmin=low, vmax=high, extent=extent)
            error = np.abs(maps[k] - truth[k]).mean()
            title = name if name == "truth" else f"{name}, error {error:.2f} m/s"
            ax.set_title(f"{family}\n{title}" if i == 0 else title, fontsize=9)
            ax.tick_params(labelsize=7, labelleft=k == 0, labelbottom=i == 2)
        figure.colorbar(image, ax=axes[:, k], orientation="horizontal", label="m/s", shrink=0.9)
    axes[1, 0].set_ylabel("depth, m")
    figure.savefig(options.out, dpi=100)


if __name__ == "__main__":
    main()
