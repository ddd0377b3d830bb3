"""Made maps and starts beside real ones: statistics by family.

    python scripts/compare_made.py --per-family 100 --starts 10

Writes benchmarks/made_against_real.json: figures alone, never a map. "rows" hold the medians of
the maps' statistics, a row for the real maps of a family and one for the made ones; "starts" hold
the errors of starts. --data names the folder of the real maps, which scripts/benchmark_real.py
describes. The real maps of the fault and curve families that were read from pictures were made
integer there; their integer fraction says nothing.
"""

import argparse
import csv
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from benchmark_real import DATA, ROOT, origin, write

from fwi_refine.survey import OPENFWI
from fwi_refine.synthetic import FAMILIES, NETWORK_MAE, make_map, make_record, make_sample
from fwi_refine.wave import Simulator

OUT = ROOT / "benchmarks" / "made_against_real.json"
LEVEL = 70  # cells of one value that make a level
BANDS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.8)  # cycles per cell
LAGS = (1, 4, 8)  # cells


def statistics(velocity: np.ndarray) -> dict[str, float]:
    """Statistics of one map.

    Parameters
    ----------
    velocity : numpy.ndarray
        (nz, nx), m/s.

    Returns
    -------
    dict
        distinct: values in the map; levels: values of `LEVEL` cells or more, and coverage: the
        part of the cells that has one; integers: part of the cells; top_row: values in it; across,
        down: part of the neighbours in a row, in a column, that differ, and step: the mean of what
        they differ by down a column, m/s; slowest, fastest, spread (about a linear trend), m/s;
        tails: kurtosis of the gradient; across_N, down_N: correlation at a lag of N cells about
        the trend; power: parts of the energy about the trend in `BANDS`.
    """
    v = velocity.astype(np.float64)
    values, counts = np.unique(velocity, return_counts=True)
    depth = np.arange(len(v))
    rest = v - np.polyval(np.polyfit(depth, v.mean(axis=1), 1), depth)[:, None]
    down, across = np.diff(v, axis=0), np.diff(v, axis=1)
    differing = np.abs(down[down != 0])
    gradient = np.concatenate([np.diff(rest, axis=axis).ravel() for axis in (0, 1)])
    found = {
        "distinct": float(len(values)),
        "levels": float((counts >= LEVEL).sum()),
        "coverage": counts[counts >= LEVEL].sum() / v.size,
        "integers": float(np.mean(v == np.round(v))),
        "top_row": float(len(np.unique(velocity[0]))),
        "across": float(np.mean(across != 0)),
        "down": float(np.mean(down != 0)),
        "step": float(differing.mean()) if differing.size else 0.0,
        "slowest": v.min(),
        "fastest": v.max(),
        "spread": rest.std(),
        "tails": float(np.mean((gradient - gradient.mean()) ** 4) / gradient.var() ** 2),
    }
    for lag in LAGS:
        found[f"across_{lag}"] = np.mean(rest[:, lag:] * rest[:, :-lag]) / rest.var()
        found[f"down_{lag}"] = np.mean(rest[lag:] * rest[:-lag]) / rest.var()
    window = np.outer(*(np.hanning(n) for n in v.shape))
    energy = np.abs(np.fft.fft2((rest - rest.mean()) * window)) ** 2
    wavenumber = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, v.shape), indexing="ij"))
    for number, (low, high) in enumerate(pairwise(BANDS)):
        band = energy[(wavenumber >= low) & (wavenumber < high)]
        found[f"power_{number}"] = band.sum() / energy.sum()
    return found


def medians(maps: list[np.ndarray]) -> dict[str, float]:
    """The median of each statistic."""
    rows = [statistics(v) for v in maps]
    found = {key: float(np.median([row[key] for row in rows])) for key in rows[0]}
    found["top_row_cut"] = float(np.mean([row["top_row"] > 1 for row in rows]))
    return {key: float(f"{value:.3g}") for key, value in found.items()}


def real_maps(folder: Path) -> dict[str, list[np.ndarray]]:
    """The real maps of each family."""
    found: dict[str, list[np.ndarray]] = {}
    with np.load(folder / "maps_exact.npz") as exact:
        for name, family in (
            ("flatvel_a", "FlatVel_A"),
            ("curvevel_a", "CurveVel_A"),
            ("flatfault_a", "FlatFault_A"),
            ("curvefault_b", "CurveFault_B"),
        ):
            found[family] = [*exact[name]]
    with np.load(folder / "style_a_pictures.npz") as pictures:
        found["Style_A"] = [*pictures["maps"]]
    with np.load(folder / "weak_network.npz") as weak:
        for family, v in zip(weak["family"], weak["truth"], strict=True):
            if family.startswith("Style"):
                found.setdefault(str(family), []).append(v)
    for row, truth, _ in cases(folder):
        if row["family"] != "FlatFault_A":  # 300 exact ones are there
            found.setdefault(row["family"], []).append(truth)
    return found


def cases(folder: Path) -> list[tuple[dict[str, str], np.ndarray, np.ndarray]]:
    """(row of cases.csv, truth, start) of each case."""
    with open(folder / "cases.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with np.load(folder / "cases.npz") as maps:
        return list(zip(rows, maps["truth"], maps["start"], strict=True))


def real_starts(folder: Path) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(MAE, rms misfit) of the starts that networks made, by family and network."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row, _, _ in cases(folder):
        if row["start"] == "network":
            errors = float(row["start_mae"]), float(row["start_rms"])
            found.setdefault((row["family"], "network"), []).append(errors)
    with np.load(folder / "weak_network.npz") as weak:
        for family, truth, prediction in zip(
            weak["family"], weak["truth"], weak["prediction"], strict=True
        ):
            errors = float(np.abs(prediction - truth).mean()), misfit(prediction, truth)
            found.setdefault((str(family), "weak network"), []).append(errors)
    return found


def misfit(velocity: np.ndarray, truth: np.ndarray) -> float:
    """Rms between the record of a map and the truth's."""
    record = make_record(truth)[:, : OPENFWI.n_steps]
    simulated = Simulator().forward(torch.from_numpy(velocity.astype(np.float64))[None])[0].numpy()
    return float(np.sqrt(np.mean((simulated - record) ** 2)))


def start_row(family: str, source: str, errors: list[tuple[float, float]]) -> dict:
    """One row of "starts": means, and the misfit for each m/s of error."""
    mae, rms = np.mean(errors, axis=0)
    ratios = [rms / mae for mae, rms in errors]
    return {
        "family": family,
        "source": source,
        "number": len(errors),
        "mae": float(f"{mae:.3g}"),
        "misfit_rms": float(f"{rms:.2e}"),
        "misfit_per_m_s": float(f"{np.median(ratios):.2e}"),
        "least": float(f"{min(ratios):.2e}"),
        "largest": float(f"{max(ratios):.2e}"),
        "network_mae": NETWORK_MAE[family],
    }


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0, or 3 where the real maps are missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real maps")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--per-family", type=int, default=100, help="made maps of each family")
    parser.add_argument("--starts", type=int, default=10, help="made starts of each family")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--family", help="OpenFWI families; all of them if left out")
    options = parser.parse_args(arguments)
    if not (options.data / "cases.csv").exists():
        print(f"{options.data}: no real maps there, nothing compared; --data names their folder")
        return 3
    families = options.family.split(",") if options.family else FAMILIES
    rows = []
    real = real_maps(options.data)
    for number, family in enumerate(families):
        seeds = ([options.seed, number, n] for n in range(options.per_family))
        made = [make_map(family, np.random.default_rng(seed)) for seed in seeds]
        for source, maps in (("real", real.get(family, [])), ("made", made)):
            if maps:
                maps = [v.astype(np.float32) for v in maps]
                rows.append(
                    {"family": family, "source": source, "number": len(maps)} | medians(maps)
                )
    starts = []
    networks = real_starts(options.data) if options.starts else {}
    for family in families if options.starts else ():
        for (name, network), errors in networks.items():
            if name == family:
                starts.append(start_row(family, network, errors))
        samples = (make_sample(family, options.seed, n) for n in range(options.starts))
        errors = [(sample.start_mae, sample.start_misfit) for sample in samples]
        starts.append(start_row(family, "made", errors))
        print(*starts[-3:], sep="\n", flush=True)
    content = origin("compare_made.py") | {
        "records": "the released data's arithmetic, bit for bit",
        "bands": list(BANDS),
        "rows": rows,
        "starts": starts,
    }
    write(options.out, content, ("rows", "starts"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
