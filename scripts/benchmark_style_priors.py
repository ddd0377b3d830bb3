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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

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
from fwi_refine.objective.source_cells import Cells, SourceCells
from fwi_refine.optimise.variational import settled
from fwi_refine.priors import Priors, load
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave import Simulator, released_record

NOISE = 2e-5  # rms of a coefficient of the band, that of the last stage of Style_B
ROUNDS = 5  # of total variation
CELLS = ("rows", "columns", "velocities")  # of the cells at the sources


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


@dataclass(frozen=True, eq=False)
class Linearised:
    """The quadratic of a record at its true map, as in the last stage of Style_B."""

    x: torch.Tensor
    hessian: torch.Tensor
    gradient: torch.Tensor
    weight: float
    source_cells: Cells
    vmin: tuple[float, float]
    shape: tuple[int, int]
    seconds: float  # of a processor, for the Jacobian and what follows from it

    @classmethod
    def of(cls, truth: np.ndarray, record: np.ndarray, survey: Survey) -> Self:
        """From a map (nz, nx), m/s, and its record."""
        began = time.process_time()
        model = Model.of(torch.from_numpy(truth))
        simulator = Simulator(survey)
        data = Data.of_sample(record, model.v, simulator)
        data = without_expected_rounding(model, data, Budget())
        parameters = Full(model.shape)
        x = parameters.from_velocity(model.v, model.vmin)
        misfit = CorrelatedMisfit(simulator, parameters, data.record, x)
        residual = misfit.residual(x)
        assert residual is not None
        left = noise_variance(misfit.mean_square(residual), survey)
        return cls(
            x,
            misfit.hessian(x),
            misfit.pull_back(x, residual),
            max(left, NOISE**2) / data.count,
            data.source_cells,
            surface_minimum(model.v),
            model.shape,
            time.process_time() - began,
        )

    def write(self, path: Path) -> None:
        """As .npz."""
        numbers = {k: v for k, v in vars(self).items() if k != "source_cells"}
        cells = dict(zip(CELLS, self.source_cells, strict=True))
        with open(path, "wb") as file:
            np.savez(file, **(numbers | cells))

    @classmethod
    def read(cls, path: Path) -> Self:
        """As `write` writes it."""
        with np.load(path) as file:
            found = {k: torch.from_numpy(v) if v.ndim else float(v) for k, v in file.items()}
        found["source_cells"] = tuple(found.pop(k) for k in CELLS)
        found |= {k: tuple(found[k].tolist()) for k in ("vmin", "shape")}
        return cls(**found)

    @property
    def parameters(self) -> Full:
        """One unknown for each cell."""
        return Full(self.shape)

    @property
    def ties(self) -> Any:
        """What else is known."""
        return VminTie(*self.vmin) + SourceCells(self.source_cells, self.parameters)

    def term(self, prior: Any) -> Any:
        """A prior with what else is known."""
        return PriorTerm(prior, self.parameters) + self.ties

    def solve(self, prior: str, priors: Priors) -> tuple[np.ndarray, np.ndarray]:
        """Map and deviation, m/s, with a prior; all begin where the Gaussian process ends."""
        process, spread = self.term(priors.style_b), 1.0
        covariance = torch.zeros(0)

        def renewed(latest: torch.Tensor, following: Callable[[torch.Tensor], Any]) -> Any:
            nonlocal covariance
            covariance = self.parameters.map_covariance(latest)
            return following(covariance)

        _, step, _ = settled(
            self.hessian,
            self.gradient,
            process,
            self.x,
            self.weight,
            renew=lambda latest: renewed(latest, lambda _: process),
            rounds=int(prior == "gp"),
        )
        x, gradient = self.x + step, self.gradient + self.hessian @ step
        if prior == "learned":
            first = PriorTerm(priors.style_b_learned.prior(), self.parameters)
            found, step, _ = settled_by_chains(
                self.hessian, gradient, None, x, self.weight, first=first, ties=self.ties
            )
            return self._map(x + step), found.terms[0][1].prior.deviation.numpy()
        if prior == "tv":
            start = priors.style_b_variation.prior()
            spread = start.spread
            _, step, _ = settled(
                self.hessian,
                gradient,
                self.term(start),
                x,
                self.weight,
                renew=lambda latest: renewed(
                    latest, lambda c: self.term(start.update(c, self.shape))
                ),
                rounds=ROUNDS,
            )
            x = x + step
        deviation = spread * covariance.diagonal().sqrt().reshape(self.shape)
        return self._map(x), deviation.numpy()

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
    parser.add_argument("--keep", type=Path, help="folder of quadratics, made where missing")
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
        linearised = quadratic_of(case, truth, survey, options) if options.linearised else None
        for prior in options.prior or PRIORS[1:]:
            began = time.process_time()
            if linearised is not None:
                v, deviation = linearised.solve(prior, priors)
                row = {"case": case, "cells": list(truth.shape), "prior": prior}
                print_row(row | compared(v, deviation, truth), began)
                continue
            record = released_record(torch.from_numpy(truth), survey=survey).numpy()
            found = refine_sample(start, record, survey=survey, family="style-b", prior=prior)
            row = {"case": case, "cells": list(truth.shape), "prior": prior}
            row |= {"start": np.abs(start - truth).mean(), "misfit_rms": found.misfit_after}
            print_row(row | compared(found.velocity, found.deviation, truth), began)


def quadratic_of(
    case: str, truth: np.ndarray, survey: Survey, options: argparse.Namespace
) -> Linearised:
    """That of a true map (nz, nx), m/s; what is kept is not made again."""
    path = options.keep and options.keep / f"{case}_{truth.shape[0]}_{truth.shape[1]}.npz"
    if path and path.exists():
        return Linearised.read(path)
    record = released_record(torch.from_numpy(truth), survey=survey).numpy()
    found = Linearised.of(truth, record, survey)
    if path:
        found.write(path)
    return found


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
