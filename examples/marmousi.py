"""Marmousi from a smoothed start: a large map, refined without its matrix.

    python examples/marmousi.py [--map marmousi.npy] [--raw 2301x751 --map velocity.bin] [--out DIR]

Cell by cell, as in a notebook: `# %%` parts them. The Marmousi model itself is not part of this
project (R. Versteeg, The Leading Edge 13, 927-936, 1994; it is found with its 2301 x 751 float32
numbers, trace by trace, 4 m apart). Without --map the section is made after its published
description: water-bottom velocities, beds that dip and thicken towards growth faults, an anticline
below an unconformity, 1500 to 4500 m/s. The record is simulated on the grid that it is inverted on,
which flatters every method.
"""

# %%
import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from fwi_refine import OPENFWI, Survey, refine, simulate

BEDS = (1550, 1700, 1650, 1850, 2000, 1900, 2200, 2450, 2300, 2650, 2900, 2700, 3200, 3600, 4500)
FAULTS = ((0.34, 0.18, 0.10), (0.50, 0.22, 0.13), (0.64, 0.26, 0.12))  # top, lean, throw: fractions


# %% The map: a user's file, or a section after the published description
def read_map(path: Path, raw: str | None) -> np.ndarray:
    """A velocity map (nz, nx), m/s: a .npy file, or raw float32 numbers, trace by trace."""
    if raw is None:
        return np.load(path).astype(np.float64)
    columns, rows = map(int, raw.split("x"))
    return np.fromfile(path, "<f4", rows * columns).reshape(columns, rows).T.astype(np.float64)


def made_section(shape: tuple[int, int]) -> np.ndarray:
    """Beds over growth faults and an anticline below an unconformity, (nz, nx) m/s."""
    z, x = ((np.indices(shape).T + 0.5) / shape).T
    depth = z.copy()
    for place, lean, throw in FAULTS:  # growth: the throw increases with depth
        depth -= throw * z * (x > place + lean * z)
    depth += 0.10 * z * np.exp(-(((x - 0.55) / 0.25) ** 2)) - 0.10 * z * (x - 0.5)
    edges = np.linspace(0.0, 0.95, len(BEDS))[1:] ** 1.1
    v = np.array(BEDS, float)[np.searchsorted(edges, depth)]
    folded = z + 0.25 * np.exp(-(((x - 0.45) / 0.22) ** 2))
    deep = np.array([2600.0, 3000.0, 3400.0, 3900.0, 4500.0])[
        np.searchsorted((0.92, 1.0, 1.08, 1.16), folded)
    ]
    return np.where(z > 0.74 - 0.06 * x, deep, v)


def on_grid(v: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map with another number of cells, its slowness averaged."""
    shrunk = np.array(shape) / v.shape
    slowness = gaussian_filter(1 / v, np.maximum(0.4 / shrunk, 0.0) * (shrunk < 1))
    return 1 / zoom(slowness, shrunk, order=1, grid_mode=True, mode="nearest")


# %% The survey: OpenFWI's scheme, a receiver in each column
def survey_of(shape: tuple[int, int], shots: int = 5, steps: int = 999) -> Survey:
    """Sources and receivers in row 1."""
    columns = np.linspace(0, shape[1] - 1, shots).round().astype(int).tolist()
    return replace(
        OPENFWI,
        shape=shape,
        n_steps=steps,
        file_rows=steps,
        sources=tuple((1, column) for column in columns),
        receivers=tuple((1, column) for column in range(shape[1])),
    )


# %% The start: the map with its slowness blurred
def smoothed(v: np.ndarray, cells: float) -> np.ndarray:
    """A start without edges; cells: standard deviation of the blur."""
    return 1 / gaussian_filter(1 / v, cells)


# %% The refinement
def main(arguments: list[str] | None = None) -> None:
    """Prints the errors of start and result, and stores both maps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--map", type=Path, help="a .npy file (nz, nx) in m/s; default: made")
    parser.add_argument("--raw", metavar="COLUMNSxROWS", help="--map holds raw float32 traces")
    parser.add_argument("--rows", type=int, default=70)
    parser.add_argument("--columns", type=int, default=190)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--steps", type=int, default=999)
    parser.add_argument("--blur", type=float, default=10.0, help="of the start, in cells")
    parser.add_argument("--max-evaluations", type=int)
    parser.add_argument("--out", type=Path, default=Path("marmousi"))
    options = parser.parse_args(arguments)

    shape = options.rows, options.columns
    v = made_section(shape) if options.map is None else read_map(options.map, options.raw)
    truth = on_grid(v, shape)
    survey = survey_of(shape, options.shots, options.steps)
    record, start = simulate(truth, survey=survey), smoothed(truth, options.blur)
    found = refine(
        start,
        record,
        survey=survey,
        family="general",
        method="matrix-free",
        max_evaluations=options.max_evaluations,
    )
    for name, map_ in (("start", start), ("refined", found.velocity)):
        print(f"{name:8} MAE {abs(map_ - truth).mean():6.1f} m/s")
    row = found.reports[0]
    print(f"rms misfit {row.misfit_before:.2g} to {row.misfit_after:.2g}, {row.evaluations} runs")
    options.out.mkdir(parents=True, exist_ok=True)
    np.savez(options.out / "maps.npz", truth=truth, start=start, refined=found.velocity)


if __name__ == "__main__":
    main()
