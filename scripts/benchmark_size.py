"""Time and memory of one step against the number of cells.

    python scripts/benchmark_size.py [--case 200x200 ...] [--threads 1] [--products 20]
    python scripts/benchmark_size.py --whole "200x200, 20 shots"
    python scripts/benchmark_size.py --marmousi pair_marmousi.npz

A case is one process: a made map (layers over a fault and a body), a smooth start, and one step of
the last stage of `--family general`, matrix-free with so many products, or with the matrix. Seconds
are of the processor, of all threads. Results of the cases that were run replace those of the same
name in benchmarks/size.json; `scripts/render_benchmarks.py` makes the table.

--whole refines a case to the end with `--family general`, --marmousi the record of a file (arrays
record, start, truth; 70 x 190 cells of 10 m, five shots). Figures alone are stored.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from fwi_refine.analysis.metrics import mean_absolute_error
from fwi_refine.inversion import refine_sample
from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.families import find_family
from fwi_refine.inversion.model import Model
from fwi_refine.inversion.optimisers import KrylovGaussNewton, LevenbergMarquardt
from fwi_refine.inversion.stages import run_stage
from fwi_refine.priors import load
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave import Simulator

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "size.json"
# name: (rows, columns), shots, whether the matrix is made
CASES = {
    "70x70 matrix": ((70, 70), 5, True),
    "70x190 matrix": ((70, 190), 5, True),
    "70x70": ((70, 70), 5, False),
    "70x190": ((70, 190), 5, False),
    "140x190": ((140, 190), 5, False),
    "200x200": ((200, 200), 5, False),
    "200x200, 20 shots": ((200, 200), 20, False),
}


def survey_of(shape: tuple[int, int], shots: int) -> Survey:
    """OpenFWI's survey on a larger map: a receiver for each column, shots spread over them."""
    columns = shape[1]
    sources = np.linspace(0, columns - 1, shots).round().astype(int).tolist()
    return replace(
        OPENFWI,
        shape=shape,
        sources=tuple((1, column) for column in sources),
        receivers=tuple((1, column) for column in range(columns)),
    )


def made_map(shape: tuple[int, int]) -> np.ndarray:
    """Bent layers that a fault has moved, and a fast body; m/s."""
    row, column = np.mgrid[: shape[0], : shape[1]] / np.array(shape)[:, None, None]
    depth = row + 0.06 * np.sin(5 * column) + 0.08 * (column - 0.3 * row > 0.55)
    v = np.select([depth < edge for edge in (0.15, 0.3, 0.5, 0.7)], [1600, 2000, 2500, 3000], 3600)
    return np.where((row - 0.6) ** 2 + (column - 0.3) ** 2 < 0.02, 4300.0, v)


def sample_of(name: str, threads: int) -> tuple[Survey, np.ndarray, np.ndarray, np.ndarray]:
    """Survey, true map, smooth start and record of a case."""
    shape, shots, _ = CASES[name]
    survey, truth = survey_of(shape, shots), made_map(shape)
    record = Simulator(survey, threads=threads).forward(torch.from_numpy(truth)[None])[0].numpy()
    return survey, truth, gaussian_filter(truth, 4.0), record


def one_step(name: str, threads: int, products: int) -> dict:
    """Seconds, memory and misfits of one step of a case."""
    shape, shots, matrix = CASES[name]
    survey, _, start, record = sample_of(name, threads)
    start = torch.from_numpy(start)
    data = Data.of_sample(record, start, Simulator(survey, threads=threads))
    stage = find_family("general").recipe("gauss-newton").stages[-1]
    how = LevenbergMarquardt(1, corrections=1) if matrix else KrylovGaussNewton(1, products)
    model, budget = Model.of(start), Budget()
    before = time.process_time()
    found = run_stage(replace(stage, optimiser=how), data, model, load(), budget)
    seconds = time.process_time() - before
    trace = found.traces[0]
    return {
        "case": name,
        "method": "matrix" if matrix else "matrix-free",
        "cells": shape[0] * shape[1],
        "shots": shots,
        "evaluations": float(budget.evaluations),
        "seconds": round(seconds, 1),
        "peak_memory_gb": peak_memory(),
        "misfit_before": float(data.misfit(model, budget)) ** 0.5,
        "misfit_after": trace[-1][1] if trace else None,
        "threads": threads,
    }


def peak_memory() -> float:
    """Of this process, GB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)


def marmousi(path: Path, threads: int) -> dict:
    """The refinement of a real pair: errors, misfits, time and memory."""
    pair = np.load(path)
    truth, start = pair["truth"].astype(float), pair["start"].astype(float)
    survey = survey_of(truth.shape, 5)
    survey = replace(survey, sources=tuple((1, column) for column in (0, 47, 94, 142, 189)))
    peer = round(mean_absolute_error(pair["peer"], truth), 1) if "peer" in pair else None
    return {"case": path.stem, "peer": peer, **whole(survey, truth, start, pair["record"], threads)}


def whole(
    survey: Survey, truth: np.ndarray, start: np.ndarray, record: np.ndarray, threads: int
) -> dict:
    """A refinement to its end: errors, misfits, time and memory."""
    begin, wall = time.process_time(), time.monotonic()

    def watch(step) -> None:
        print(step, f"{time.process_time() - begin:.0f} s", flush=True)

    refined = refine_sample(
        start,
        record,
        survey=survey,
        family="general",
        simulator=Simulator(survey, threads=threads),
        watch=watch,
    )
    return {
        "start": round(mean_absolute_error(start, truth), 1),
        "refined": round(mean_absolute_error(refined.velocity, truth), 1),
        "misfit_before": refined.misfit_before,
        "misfit_after": refined.misfit_after,
        "evaluations": refined.evaluations,
        "seconds": round(time.process_time() - begin),
        "wall_seconds": round(time.monotonic() - wall),
        "peak_memory_gb": peak_memory(),
        "threads": threads,
    }


def store(row: dict, key: str) -> None:
    """Puts a row into the result file, in place of the one of its case."""
    content = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": [], "pairs": []}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    content |= {
        "date": date.today().isoformat(),
        "commit": commit,
        "machine": f"{platform.processor() or platform.machine()}, torch {torch.__version__} (CPU)",
        "command": "python scripts/benchmark_size.py",
    }
    rows = [old for old in content[key] if old["case"] != row["case"]] + [row]
    order = [*CASES]
    content[key] = sorted(rows, key=lambda r: order.index(r["case"]) if key == "rows" else 0)
    RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=[*CASES], help="default: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--products", type=int, default=20)
    parser.add_argument("--whole", choices=[*CASES], help="to the end, by the method that fits")
    parser.add_argument("--marmousi", type=Path)
    parser.add_argument("--here", action="store_true", help="in this process, and only print")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.whole:
        sample = sample_of(options.whole, options.threads)
        row = {"case": options.whole, "peer": None, **whole(*sample, options.threads)}
        print(json.dumps(row))
        store(row, "pairs")
        return
    if options.marmousi:
        row = marmousi(options.marmousi, options.threads)
        print(json.dumps(row))
        store(row, "pairs")
        return
    if options.here:
        print(json.dumps(one_step(options.case[0], options.threads, options.products)))
        return
    for name in options.case or CASES:
        how = ["--threads", str(options.threads), "--products", str(options.products)]
        command = [sys.executable, __file__, "--here", "--case", name, *how]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        row = json.loads(found.splitlines()[-1])
        print(row, flush=True)
        store(row, "rows")


if __name__ == "__main__":
    main()
