"""The data of a sample: a measured record and the simulator that is to reproduce it."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.model import Model
from fwi_refine.objective.arithmetic import has_released_arithmetic, is_of_an_arithmetic
from fwi_refine.objective.constraints import Constraints
from fwi_refine.objective.misfit import BandMisfit
from fwi_refine.objective.noise import CLEAN, MARGIN, Noise, early_noise, residual_noise
from fwi_refine.objective.parameterisation import Parameters
from fwi_refine.objective.source import NOISE_RENEWALS, SourceFit, convolve, impulse_record
from fwi_refine.objective.source_cells import source_cells
from fwi_refine.objective.source_misfit import FreeSourceMisfit
from fwi_refine.objective.source_shape import first_estimate
from fwi_refine.objective.weights import Weights
from fwi_refine.survey import Survey
from fwi_refine.survey.frequency import lower_frequency
from fwi_refine.wave import Simulator

UNKNOWN_NOISE = Noise(math.inf, math.inf)
MIN_RECORDED_FRACTION = 0.6  # of the samples of a part of a record that is to stand for all of it


@dataclass(frozen=True)
class Data:
    """A measured record and the simulator that is to reproduce it.

    Attributes
    ----------
    record
        (shots, rows, receivers), of which the first n_steps rows count.
    simulator
        Of the survey of that record.
    source_cells
        (rows, columns, velocities) of the cells that the record's first row tells.
    cost
        What a simulation of all these shots counts as, in evaluations.
    weights
        Of the samples; None: all count the same. What has none is 0 in the record.
    noise
        Of the record; None: it does not tell.
    constraints
        Of single cells; None: there are none.
    released
        Whether the record that was given may be in the released arithmetic.
    source
        Where the wavelets are estimated with the map, what finds them; None: they are known. The
        wavelet of `simulator` is then that of the latest estimate.
    """

    record: np.ndarray
    simulator: Simulator
    source_cells: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    cost: Fraction = Fraction(1)
    weights: Weights | None = None
    noise: Noise | None = CLEAN
    constraints: Constraints | None = None
    released: bool = False
    source: SourceFit | None = None

    @classmethod
    def of_sample(
        cls,
        record: np.ndarray,
        start: torch.Tensor,
        simulator: Simulator,
        weights: np.ndarray | None = None,
        constraints: Constraints | None = None,
    ) -> "Data":
        """The whole record of a sample.

        Parameters
        ----------
        record
            (shots, rows, receivers); NaN only where samples have no weight.
        start
            (nz, nx) m/s: what is near a velocity that the record tells.
        simulator
            Of the survey of the record.
        weights
            As `survey.weights.sample_weights` returns them.
        constraints
            Of single cells.
        """
        survey = simulator.survey
        record = _without_missing(record, survey, weights)
        noise = early_noise(record, survey, weights)
        missing = None if weights is None else weights == 0
        if noise is None and is_of_an_arithmetic(record, survey, missing):
            noise = CLEAN  # noise would not leave the first rows what an arithmetic makes
        cells = source_cells(record, start, survey, UNKNOWN_NOISE if noise is None else noise)
        return cls(
            record,
            simulator,
            cells,
            weights=Weights.of(weights),
            noise=noise,
            constraints=constraints,
            released=has_released_arithmetic(record, survey, missing),
        )

    @classmethod
    def with_free_source(
        cls,
        record: np.ndarray,
        start: torch.Tensor,
        simulator: Simulator,
        each: bool = False,
        weights: np.ndarray | None = None,
        constraints: Constraints | None = None,
    ) -> tuple["Data", float]:
        """The record of a sample whose wavelets are to be found, with an amplitude that was divided
        out of it; each: one for each shot; weights, constraints: as for `of_sample`. The velocities
        at the sources, which follow from a known amplitude, are taken as not known."""
        record = _without_missing(record, simulator.survey, weights)
        measured = torch.from_numpy(record)[:, : simulator.survey.n_steps].double()
        amplitude, source = first_estimate(measured, start, simulator, each, Weights.of(weights))
        none = torch.zeros(0, dtype=torch.int64, device=start.device)
        scaled = record.astype(np.float64) / amplitude
        return cls(
            scaled,
            Simulator(source.survey, **simulator.options),
            (none, none, none.double()),
            weights=source.weights,
            noise=early_noise(scaled, source.survey, weights),
            constraints=constraints,
            source=source,
        ), amplitude

    @property
    def survey(self) -> Survey:
        """The survey of the record."""
        return self.simulator.survey

    @property
    def energy(self) -> float:
        """Mean square of the record's samples that count."""
        record = torch.from_numpy(self.record[:, : self.survey.n_steps]).double()
        return self.mean_square(record)

    def subset(self, survey: Survey, receivers: int) -> "Data":
        """The first shots and every so many-th receiver, which are those of `survey`."""
        shots = len(survey.sources)
        weights = self.weights and self.weights.subset(shots, receivers)
        return replace(
            self,
            record=self.record[:shots, :, ::receivers],
            simulator=Simulator(survey, **self.simulator.options),
            cost=self.cost * Fraction(shots, len(self.survey.sources)),
            weights=weights,
            constraints=self.constraints and self.constraints.without_bounds(),
            source=self.source and self.source.on(survey, weights),
        )

    def covers(self, survey: Survey, receivers: int) -> bool:
        """Whether most samples of a part of the record, as of `subset`, are not missing."""
        if self.weights is None:
            return True
        part = self.weights.subset(len(survey.sources), receivers)
        return part.count > MIN_RECORDED_FRACTION * part.samples.size

    def low_passed(self, factor: float, model: Model) -> "Data":
        """The record as with a wavelet of a lower frequency, in which a start that is a cycle off
        at the survey's is none.

        Parameters
        ----------
        factor
            Of the frequency.
        model
            Its record takes the place of missing samples, which would reach into others.
        """
        record = self.record
        if self.weights is not None and not self.weights.by_trace:
            record = self.weights.filled(record, self._simulated(model))
        lower, record = lower_frequency(record, factor * self.survey.frequency, self.survey)
        return replace(
            self,
            record=record,
            simulator=Simulator(lower, **self.simulator.options),
            constraints=self.constraints and self.constraints.without_bounds(),
            source=self.source and self.source.low_passed(factor, lower),
        )

    def until(self, fraction: float) -> "Data":
        """The first part of the record's time; fraction: of its steps."""
        steps = math.ceil(fraction * self.survey.n_steps)
        shorter = replace(self.survey, n_steps=steps)
        weights = self.weights and self.weights.until(steps)
        return replace(
            self,
            record=self.record[:, :steps],
            simulator=Simulator(shorter, **self.simulator.options),
            cost=self.cost * Fraction(steps, self.survey.n_steps),
            weights=weights,
            constraints=self.constraints and self.constraints.without_bounds(),
            source=self.source and self.source.on(shorter, weights),
        )

    def _simulated(self, model: Model) -> torch.Tensor:
        """The record (shots, n_steps, receivers) of a model, with the best wavelets for it."""
        if self.source is None:
            return self.simulator.forward(model.v[None], model.vmin[None])[0]
        impulse = impulse_record(self.simulator, model.v[None], model.vmin[None])
        record = torch.from_numpy(self.record)[:, : self.survey.n_steps]
        return convolve(impulse, self.source.all_of(impulse, record)[..., None])

    def without(self, shift: np.ndarray) -> "Data":
        """The record less what something else added to it, of the record's shape."""
        return replace(self, record=self.record - shift)

    def with_source_velocities(self, v: torch.Tensor) -> torch.Tensor:
        """The map (nz, nx) with the velocities that the record tells at its sources, m/s."""
        v = v.clone()
        rows, columns, velocities = self.source_cells
        v[rows, columns] = velocities
        return v

    def misfit(self, model: Model, budget: Budget) -> float:
        """Mean square misfit of a model, one simulation; infinite where it cannot be simulated."""
        if not self.simulator.is_stable(model.v[None], model.vmin[None]):
            return math.inf
        budget.charge(self.cost)
        record = torch.from_numpy(self.record)[None, :, : self.survey.n_steps]
        if self.source is not None:
            impulse = impulse_record(self.simulator, model.v[None], model.vmin[None])
            return self.source.mean_square(impulse, record[0])
        if self.weights is not None:
            made = self.simulator.forward(model.v[None], model.vmin[None])
            return self.mean_square(made[0].double() - record[0].to(made.device))
        return float(self.simulator.misfit(model.v[None], record, model.vmin[None])[0])

    def with_noise_of(self, residual: torch.Tensor, explained: float) -> "Data":
        """The same data, its noise being what a map leaves, where the record itself does not tell.

        Parameters
        ----------
        residual
            (shots, n_steps, receivers) within the band, weighted.
        explained
            Rms, in OpenFWI's unit, of what is left of a record without noise.
        """
        square = float(residual.square().mean())
        quiet = square <= (explained * self.survey.unit) ** 2
        noise = CLEAN if quiet else residual_noise(square, square, self.survey)
        return replace(self, noise=noise)

    def mean_square(self, residual: torch.Tensor) -> float:
        """Mean square, by weight, of a residual (shots, n_steps, receivers)."""
        if self.weights is not None:
            residual = self.weights.root(residual) * residual
        return float(residual.square().mean())

    def misfit_limit(self, rms: float) -> float:
        """The mean square misfit that the noise of the record leaves where a clean one of OpenFWI's
        unit leaves an rms misfit."""
        noise = 0.0 if self.noise is None else MARGIN**2 * self.noise.misfit()
        return (rms * self.survey.unit) ** 2 + noise

    def beyond_noise(self, misfit: float) -> float:
        """The excess of a mean square misfit over the noise of the record."""
        noise = 0.0 if self.noise is None else self.noise.misfit()
        return max(misfit - noise, 0.0) if noise else misfit

    @property
    def missing(self) -> np.ndarray | None:
        """Samples (shots, n_steps, receivers) that do not count; None: all do."""
        return None if self.weights is None else self.weights.missing

    @property
    def with_gaps(self) -> np.ndarray:
        """The record, NaN where samples are missing."""
        if self.weights is None:
            return self.record
        record = self.record.copy()
        record[:, : self.survey.n_steps][self.weights.missing] = np.nan
        return record

    @property
    def count(self) -> int:
        """Samples that count."""
        return math.prod(self.survey.record_shape) if self.weights is None else self.weights.count

    def constrained(self, model: Model) -> Model:
        """The model with its map within the constraints of single cells."""
        if self.constraints is None:
            return model
        return Model(self.constraints.applied(model.v), model.vmin)

    def band_misfit(self, parameters: Parameters, simulator: Simulator | None = None) -> BandMisfit:
        """The misfit within the band by some unknowns; simulator: in the place of its own."""
        simulator = simulator or self.simulator
        if self.source is None:
            return BandMisfit(simulator, parameters, self.record, self.weights)
        return FreeSourceMisfit(simulator, parameters, self.record, self.source)

    def with_wavelets_of(self, model: Model, budget: Budget) -> "Data":
        """The data with the wavelets that explain the record best with a model, and what is left
        as the noise; themselves where the wavelets are known. One simulation."""
        if self.source is None or not self.simulator.is_stable(model.v[None], model.vmin[None]):
            return self
        budget.charge(self.cost)
        impulse = impulse_record(self.simulator, model.v[None], model.vmin[None])
        record = torch.from_numpy(self.record)[:, : self.survey.n_steps]
        source = self.source
        for _ in range(NOISE_RENEWALS):
            source = source.with_noise_of(source.estimate(impulse, record))
        survey = self.survey.with_wavelet(source.all_of(impulse, record).mean(0).numpy())
        return replace(
            self,
            simulator=Simulator(survey, **self.simulator.options),
            source=source.on(survey, self.weights),
        )

    def with_source_of(self, other: "Data") -> "Data":
        """The data with what other data of the same survey know of the wavelets."""
        return replace(self, simulator=other.simulator, source=other.source)


def _without_missing(record: np.ndarray, survey: Survey, weights: np.ndarray | None) -> np.ndarray:
    """The record, 0 where samples have no weight."""
    if weights is None:
        return record
    record = record.copy()
    record[:, : survey.n_steps][weights == 0] = 0
    return record
