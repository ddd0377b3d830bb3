"""Draws truth, estimate and deviation of a map, and how often deviations hold over all maps.

    python scripts/benchmark_style_priors.py --case 1 --linearised --prior tv --out found
    python scripts/plot_posterior.py found/*.npz --out posterior.png

Each .npz holds `truth`, `refined` and `deviation`, (nz, nx) in m/s; the first is drawn. Needs the
extra [plot].
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from scipy.stats import norm

from fwi_refine.analysis.plots import save
from fwi_refine.analysis.plots.style import error_scale, new_figure, styled, velocity_scale

RESOLUTION = 150  # dots per inch
CHANCES = np.linspace(0.02, 0.98, 49)


def main() -> None:
    """Draw one figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("found", type=Path, nargs="+", help="as the benchmark writes them")
    parser.add_argument("--out", type=Path, required=True, help=".png, .pdf or .svg")
    options = parser.parse_args()
    found = [dict(np.load(path)) for path in options.found]
    first = found[0]
    error = np.abs(first["refined"] - first["truth"])
    velocities = velocity_scale(first["truth"], first["refined"])
    errors = error_scale(error, first["deviation"])
    with styled():
        figure = new_figure(11.0, 2.6)
        *maps, last = figure.subplots(1, 5)
        for ax, name, values, scale in (
            (maps[0], "truth", first["truth"], velocities),
            (maps[1], "estimate", first["refined"], velocities),
            (maps[2], "error", error, errors),
            (maps[3], "deviation", first["deviation"], errors),
        ):
            nz, nx = values.shape
            image = scale.draw(ax, values, (0, nx, nz, 0), aspect="equal")
            ax.set(title=name, xticks=(), yticks=())
            figure.colorbar(image, ax=ax, label=scale.label, shrink=0.7)
        draw_calibration(last, np.concatenate([in_deviations(one) for one in found]))
        save([figure], options.out, RESOLUTION)


def in_deviations(one: dict[str, np.ndarray]) -> np.ndarray:
    """Absolute errors of all cells, in the deviations that were expected of them."""
    return (np.abs(one["refined"] - one["truth"]) / one["deviation"]).ravel()


def draw_calibration(ax: Axes, errors: np.ndarray) -> None:
    """Part of the cells within the interval that is to hold a part of them."""
    bounds = norm.ppf((1 + CHANCES) / 2)
    held = [(errors < bound).mean() for bound in bounds]
    ax.plot((0, 1), (0, 1), color="0.6", linewidth=0.8)
    ax.plot(CHANCES, held)
    ax.set(title="calibration", xlabel="expected part", ylabel="part of the cells", aspect="equal")


if __name__ == "__main__":
    main()
