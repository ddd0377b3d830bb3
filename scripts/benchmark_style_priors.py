"""Refines parts of maps with each prior of Style_B, and compares these.

    python scripts/benchmark_style_priors.py maps.npz --names names.csv --case r47 --rows 48
    python scripts/benchmark_style_priors.py maps.npz --names names.csv --case r47 --linearised

maps.npz holds `truth` and `start`, (n, 70, 70) in m/s; the first column of names.csv names them,
below a line of titles. A part is the top of a map's middle: it takes a minute where a whole map
takes ten, with a smaller survey: five shots, a receiver in every column. Records are made in the
arithmetic of the released data. --linearised leaves out the inversion: the data are linearised
at the true map, as at the end of the recipe, and each prior is put to the same quadratic, which
--keep keeps; there --noise and --missing make the records worse. --whole takes whole maps and the
survey of OpenFWI. Without maps.npz the maps are made ones. Prints a line of JSON for each part and
prior.
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
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.families import PRIORS
from fwi_refine.inversion.families.choices import surface_minimum
from fwi_refine.inversion.levels.rounding import without_expected_rounding
from fwi_refine.inversion.model import Model
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.inversion.uncertainty import expected_error
from fwi_refine.objective import Full, PriorTerm
from fwi_refine.objective.coefficient_noise import CorrelatedMisfit
from fwi_refine.objective.misfit import BandMisfit
from fwi_refine.objective.noise import noise_variance
from fwi_refine.objective.source_cells import Cells, SourceCells
from fwi_refine.objective.vmin_prior import VminPrior
from fwi_refine.optimise.variational import settled
from fwi_refine.priors import Priors, load
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.synthetic import make_map, make_start
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
        """From a map (nz, nx), m/s, and its record, in the released arithmetic."""
        began = time.process_time()
        data = Data.of_sample(record, torch.from_numpy(truth), Simulator(survey))
        model = Model.of(torch.from_numpy(truth))
        data = without_expected_rounding(model, data, Budget())
        parameters = Full(model.shape)
        x = parameters.from_velocity(model.v, model.vmin)
        misfit = CorrelatedMisfit(data.simulator, parameters, data.record, x)
        return cls._about(model, data, misfit, NOISE, began)

    @classmethod
    def of_noise(
        cls, truth: np.ndarray, record: np.ndarray, survey: Survey, noise: float, missing: int
    ) -> Self:
        """With white noise, a multiple of the record's standard deviation, and lost receivers."""
        began, rng = time.process_time(), np.random.default_rng(0)
        deviation = noise * float(record.std())
        record = record + deviation * rng.standard_normal(record.shape)
        weights = np.ones(survey.record_shape)
        weights[:, :, rng.choice(len(survey.receivers), missing, replace=False)] = 0.0
        data = Data.of_sample(record, torch.from_numpy(truth), Simulator(survey), weights)
        misfit = data.band_misfit(Full(survey.shape), data.simulator)
        return cls._about(Model.of(torch.from_numpy(truth)), data, misfit, deviation, began)

    @classmethod
    def _about(
        cls, model: Model, data: Data, misfit: BandMisfit, least: float, began: float
    ) -> Self:
        """About a map; least: rms noise of a coefficient of the band."""
        x = misfit.parameters.from_velocity(model.v, model.vmin)
        residual = misfit.residual(x)
        assert residual is not None
        left = noise_variance(misfit.mean_square(residual), data.survey)
        return cls(
            x,
            misfit.hessian(x),
            misfit.pull_back(x, residual),
            max(left, least**2) / data.count,
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
    def penalties(self) -> Any:
        """What else is known."""
        return VminPrior(*self.vmin) + SourceCells(self.source_cells, self.parameters)

    def term(self, prior: Any) -> Any:
        """A prior with what else is known."""
        return PriorTerm(prior, self.parameters) + self.penalties

    def solve(self, prior: str, priors: Priors) -> tuple[np.ndarray, np.ndarray]:
        """Map and deviation, m/s, with a prior; each begins where the one before it ends."""
        process, variation = priors.style_b, priors.style_b_variation.prior()
        x, covariance = self._settled(self.x, process, lambda _: process, 1)
        spread = 1.0
        if prior != "gp":
            spread = variation.spread
            x, covariance = self._settled(
                x, variation, lambda latest: variation.update(latest, self.shape), ROUNDS
            )
        if prior == "learned":
            first = PriorTerm(priors.style_b_learned.prior(process), self.parameters)
            gradient = self.gradient + self.hessian @ (x - self.x)
            quadratic = self.hessian, gradient, None, x, self.weight
            found, step, _ = settled_by_chains(*quadratic, first=first, penalties=self.penalties)
            return self._map(x + step), found.terms[0][1].prior.deviation.numpy()
        deviation = spread * covariance.diagonal().sqrt().reshape(self.shape)
        return self._map(x), deviation.numpy()

    def _settled(
        self, x: torch.Tensor, prior: Any, renew: Callable[[torch.Tensor], Any], rounds: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Where rounds with a prior end that begin at x, and the covariance of the map."""
        covariance = torch.zeros(0)

        def renewed(latest: torch.Tensor) -> Any:
            nonlocal covariance
            covariance = self.parameters.map_covariance(latest)
            return self.term(renew(covariance))

        gradient = self.gradient + self.hessian @ (x - self.x)
        _, step, _ = settled(
            self.hessian, gradient, self.term(prior), x, self.weight, renew=renewed, rounds=rounds
        )
        return x + step, covariance

    def _map(self, x: torch.Tensor) -> np.ndarray:
        return self.parameters.velocity(x).numpy()


def main() -> None:
    """Refine each case with each prior."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", nargs="?", help=".npz with truth and start; else made maps")
    parser.add_argument("--names", help=".csv that names them")
    parser.add_argument(
        "--case", action="append", required=True, help="a name, or the seed of a map; repeatable"
    )
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--columns", type=int, default=32)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--prior", action="append", choices=PRIORS[1:], help="default: all")
    parser.add_argument("--linearised", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder of quadratics, made where missing")
    parser.add_argument("--out", type=Path, help="folder of what is found, for plot_posterior.py")
    parser.add_argument("--noise", type=float, default=0.0, help="over the record's deviation")
    parser.add_argument("--missing", type=int, default=0, help="receivers without a trace")
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    if options.missing and not options.noise:
        parser.error("--missing needs --noise")
    torch.set_num_threads(1)
    survey, part = whole_or_part(options)
    priors = load().on_grid(survey.shape, survey.spacing)
    for case in options.case:
        truth, start = (v[part].astype(float) for v in truth_and_start(case, options))
        linearised = quadratic_of(case, truth, survey, options) if options.linearised else None
        for prior in options.prior or PRIORS[1:]:
            began = time.process_time()
            if linearised is not None:
                v, deviation = linearised.solve(prior, priors)
                row = {"case": case, "cells": list(truth.shape), "prior": prior}
                row |= {"noise": options.noise, "missing": options.missing}
                row["jacobian_seconds"] = linearised.seconds
                print_row(row | compared(v, deviation, truth), began)
                if options.out:
                    path = options.out / f"{case}_{prior}.npz"
                    np.savez(path, truth=truth, refined=v, deviation=deviation)
                continue
            record = released_record(torch.from_numpy(truth), survey=survey).numpy()
            found = refine_sample(start, record, survey=survey, family="style-b", prior=prior)
            row = {"case": case, "cells": list(truth.shape), "prior": prior}
            row |= {"start": np.abs(start - truth).mean(), "misfit_rms": found.misfit_after}
            print_row(row | compared(found.velocity, found.deviation, truth), began)


def truth_and_start(case: str, options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Whole maps (70, 70) in m/s."""
    if options.maps is None:
        rng = np.random.default_rng(int(case))
        truth = make_map("Style_B", rng)
        return truth, make_start(truth, "Style_B", rng)
    with open(options.names, newline="", encoding="utf-8") as file:
        k = [row[0] for row in csv.reader(file)][1:].index(case)
    maps = np.load(options.maps)
    return maps["truth"][k], maps["start"][k]


def quadratic_of(
    case: str, truth: np.ndarray, survey: Survey, options: argparse.Namespace
) -> Linearised:
    """That of a true map (nz, nx), m/s; what is kept is not made again."""
    what = (case, *truth.shape, options.noise, options.missing)
    path = options.keep and options.keep / f"{'_'.join(map(str, what))}.npz"
    if path and path.exists():
        return Linearised.read(path)
    record = released_record(torch.from_numpy(truth), survey=survey).numpy()
    if options.noise:
        found = Linearised.of_noise(truth, record, survey, options.noise, options.missing)
    else:
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
