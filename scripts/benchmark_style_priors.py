"""Refines parts of maps with each prior of Style_B, and compares these.

    python scripts/benchmark_style_priors.py maps.npz --names names.csv --case r47 --rows 48
    python scripts/benchmark_style_priors.py maps.npz --names names.csv --case r47 --linearised

maps.npz holds `truth` and `start`, (n, 70, 70) in m/s; the first column of names.csv names them,
below a line of titles. A part is the top of a map's middle: it takes a minute where a whole map
takes ten, with a smaller survey: five shots, a receiver in every column. Records are made in the
arithmetic of the released data. --linearised leaves out the inversion: the data are linearised
at the true map, as at the end of the recipe, and each prior is put to the same quadratic. --whole
takes whole maps and the survey of OpenFWI. Prints a line of JSON for each part and prior.
"""

import argparse
import csv
import dataclasses
import json
import time
from typing import Any

import numpy as np
import torch

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.chains import settled_by_chains
from fwi_refine.inversion.data import Data, Model
from fwi_refine.inversion.families import PRIORS
from fwi_refine.inversion.families.choices import surface_minimum
from fwi_refine.inversion.levels.rounding import without_expected_rounding
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.inversion.uncertainty import expected_error
from fwi_refine.objective import Full, PriorTerm
from fwi_refine.objective.coefficient_noise import CorrelatedMisfit
from fwi_refine.objective.misfit import VminTie
from fwi_refine.objective.noise import noise_variance
from fwi_refine.objective.source_cells import SourceCells
from fwi_refine.optimise.variational import settled
from fwi_refine.priors import Priors, load
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave import Simulator, released_record

NOISE = 2e-5  # rms of a coefficient of the band, that of the last stage of Style_B
ROUNDS = 5  # of total variation


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


def whole_or_part(options: argparse.Namespace) -> tuple[Survey, tuple[slice, slice]]:
    """The survey, and the cells of a map (70, 70) that it covers."""
    if options.whole:
        return OPENFWI, np.s_[:, :]
    first = (OPENFWI.shape[1] - options.columns) // 2
    part = np.s_[: options.rows, first : first + options.columns]
    return survey_of(options.rows, options.columns, options.steps), part


class Linearised:
    """The quadratic of a record at its true map, as in the last stage of Style_B."""

    def __init__(self, truth: np.ndarray, record: np.ndarray, survey: Survey):
        self.truth, self.survey = truth, survey
        model = Model.of(torch.from_numpy(truth))
        simulator = Simulator(survey)
        data = Data.of_sample(record, model.v, simulator)
        data = without_expected_rounding(model, data, Budget())
        self.parameters = Full(model.shape)
        self.x = self.parameters.from_velocity(model.v, model.vmin)
        misfit = CorrelatedMisfit(simulator, self.parameters, data.record, self.x)
        residual = misfit.residual(self.x)
        assert residual is not None
        self.hessian = misfit.hessian(self.x)
        self.gradient = misfit.pull_back(self.x, residual)
        left = noise_variance(misfit.mean_square(residual), survey)
        self.weight = max(left, NOISE**2) / data.count
        self.ties = VminTie(*surface_minimum(model.v)) + SourceCells(
            data.source_cells, self.parameters
        )

    def term(self, prior: Any) -> Any:
        """A prior with what else is known."""
        return PriorTerm(prior, self.parameters) + self.ties

    def solve(self, prior: str, priors: Priors) -> tuple[np.ndarray, np.ndarray | None]:
        """Map and deviation, m/s, with a prior; all begin where the Gaussian process ends."""
        process = self.term(priors.style_b)
        _, step, _ = settled(self.hessian, self.gradient, process, self.x, self.weight)
        if prior == "gp":
            return self._map(self.x + step), None
        x, gradient = self.x + step, self.gradient + self.hessian @ step
        if prior == "learned":
            first = PriorTerm(priors.style_b_learned.prior(), self.parameters)
            found, step, _ = settled_by_chains(
                self.hessian, gradient, None, x, self.weight, first=first, ties=self.ties
            )
            return self._map(x + step), found.terms[0][1].prior.deviation.numpy()
        start = priors.style_b_variation.prior()
        covariance = torch.zeros(0)

        def renew(latest: torch.Tensor) -> Any:
            nonlocal covariance
            covariance = self.parameters.map_covariance(latest)
            return self.term(start.update(covariance, self.parameters.shape))

        _, step, _ = settled(
            self.hessian, gradient, self.term(start), x, self.weight, renew=renew, rounds=ROUNDS
        )
        deviation = start.spread * covariance.diagonal().sqrt().reshape(self.parameters.shape)
        return self._map(x + step), deviation.numpy()

    def _map(self, x: torch.Tensor) -> np.ndarray:
        return self.parameters.velocity(x).numpy()


def main() -> None:
    """Refine each case with each prior."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", help=".npz with truth and start")
    parser.add_argument("--names", required=True, help=".csv that names them")
    parser.add_argument("--case", action="append", required=True, help="a name; repeatable")
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--columns", type=int, default=32)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--prior", action="append", choices=PRIORS[1:], help="default: all")
    parser.add_argument("--linearised", action="store_true")
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with open(options.names, newline="", encoding="utf-8") as file:
        names = [row[0] for row in csv.reader(file)][1:]
    maps = np.load(options.maps)
    survey, part = whole_or_part(options)
    priors = load().on_grid(survey.shape, survey.spacing)
    for case in options.case:
        truth, start = (maps[k][names.index(case)][part].astype(float) for k in ("truth", "start"))
        record = released_record(torch.from_numpy(truth), survey=survey).numpy()
        linearised = Linearised(truth, record, survey) if options.linearised else None
        for prior in options.prior or PRIORS[1:]:
            began = time.process_time()
            if linearised is not None:
                v, deviation = linearised.solve(prior, priors)
                row = {"case": case, "cells": list(truth.shape), "prior": prior}
                print_row(row | compared(v, deviation, truth), began)
                continue
            found = refine_sample(start, record, survey=survey, family="style-b", prior=prior)
            row = {"case": case, "cells": list(truth.shape), "prior": prior}
            row |= {"start": np.abs(start - truth).mean(), "misfit_rms": found.misfit_after}
            print_row(row | compared(found.velocity, found.deviation, truth), began)


def compared(v: np.ndarray, deviation: np.ndarray | None, truth: np.ndarray) -> dict[str, float]:
    """Figures of a map, its deviations and the true map."""
    error = np.abs(v - truth)
    row = {"refined": error.mean()}
    if deviation is not None:
        row["expected"] = expected_error(torch.from_numpy(deviation))
        row["within_one"] = (error < deviation).mean()
        row["within_two"] = (error < 2 * deviation).mean()
    return row


def print_row(row: dict[str, Any], began: float) -> None:
    """A line of JSON; began: processor time."""
    row = row | {"processor_seconds": time.process_time() - began}
    print(json.dumps({k: _short(v) for k, v in row.items()}), flush=True)


def _short(value: object) -> object:
    """Numbers with four digits."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
