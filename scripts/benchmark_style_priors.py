"""Refines parts of maps with the Gaussian process and with total variation, and compares them.

    python scripts/benchmark_style_priors.py maps.npz --names names.csv --case r47 --rows 48

maps.npz holds `truth` and `start`, (n, 70, 70) in m/s; the first column of names.csv names them,
below a line of titles. A part is the top of a map's middle: it takes a minute where a whole map
takes ten, with a smaller survey: five shots, a receiver in every column. Records are made in the
arithmetic of the released data. Prints a line of JSON for each part and prior.
"""

import argparse
import csv
import dataclasses
import json
import time

import numpy as np
import torch

from fwi_refine.inversion.sample import refine_sample
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave import released_record


def survey_of(rows: int, columns: int, steps: int) -> Survey:
    """A survey of a part: sources and receivers in the second row."""
    sources = (*(k * columns // 4 for k in range(4)), columns - 1)
    return dataclasses.replace(
        OPENFWI,
        shape=(rows, columns),
        n_steps=steps,
        file_rows=steps,
        absorbing_cells=40,
        velocity_bounds=(1000.0, 5000.0),
        sources=tuple((1, column) for column in sources),
        receivers=tuple((1, column) for column in range(columns)),
    )


def main() -> None:
    """Refine each case with each prior."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", help=".npz with truth and start")
    parser.add_argument("--names", required=True, help=".csv that names them")
    parser.add_argument("--case", action="append", required=True, help="a name; repeatable")
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--columns", type=int, default=32)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--prior", action="append", choices=["gp", "tv"], help="default: both")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with open(options.names, newline="", encoding="utf-8") as file:
        names = [row[0] for row in csv.reader(file)][1:]
    maps = np.load(options.maps)
    survey = survey_of(options.rows, options.columns, options.steps)
    first = (maps["truth"].shape[2] - options.columns) // 2
    part = np.s_[: options.rows, first : first + options.columns]
    for case in options.case:
        truth, start = (maps[k][names.index(case)][part].astype(float) for k in ("truth", "start"))
        record = released_record(torch.from_numpy(truth), survey=survey).numpy()
        for prior in options.prior or ["gp", "tv"]:
            began = time.process_time()
            found = refine_sample(start, record, survey=survey, family="style-b", prior=prior)
            error = np.abs(found.velocity - truth)
            row = {"case": case, "cells": list(truth.shape), "prior": prior}
            row |= {"start": np.abs(start - truth).mean(), "refined": error.mean()}
            row |= {"expected": found.expected_error, "misfit_rms": found.misfit_after}
            if found.deviation is not None:
                row["within_one"] = (error < found.deviation).mean()
                row["within_two"] = (error < 2 * found.deviation).mean()
            row["processor_seconds"] = time.process_time() - began
            print(json.dumps({k: _short(v) for k, v in row.items()}), flush=True)


def _short(value: object) -> object:
    """Numbers with four digits."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
