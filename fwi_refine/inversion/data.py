"""A map and the data that it is to explain."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch

from fwi_refine.inversion.budget import Budget
from fwi_refine.objective.misfit import BandMisfit
from fwi_refine.objective.parameterisation import Parameters
from fwi_refine.objective.source import SourceFit, impulse_record
from fwi_refine.objective.source_cells import source_cells
from fwi_refine.objective.source_misfit import FreeSourceMisfit
from fwi_refine.objective.source_shape import first_estimate
from fwi_refine.survey import Survey
from fwi_refine.survey.frequency import lower_frequency
from fwi_refine.wave import Simulator


@dataclass(frozen=True)
class Model:
    """A velocity map v (nz, nx) m/s, and vmin (), the velocity that scales the damping, m/s."""

    v: torch.Tensor
    vmin: torch.Tensor

    @classmethod
    def of(cls, v: torch.Tensor) -> "Model":
        """A map with its own minimum."""
        return cls(v, v.min())

    @property
    def shape(self) -> tuple[int, int]:
        """(nz, nx) of the map."""
        nz, nx = self.v.shape
        return nz, nx

    def same_as(self, other: "Model") -> bool:
        """Whether both are equal, to the bit."""
        return torch.equal(self.v, other.v) and torch.equal(self.vmin, other.vmin)

    def mean_change(self, other: torch.Tensor) -> float:
        """Mean absolute difference from another map (nz, nx), m/s."""
        return float((self.v - other).abs().mean())


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
    source
        Where the wavelets are estimated with the map, what finds them; None: they are known. The
        wavelet of `simulator` is then that of the latest estimate.
    """

    record: np.ndarray
    simulator: Simulator
    source_cells: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    cost: Fraction = Fraction(1)
    source: SourceFit | None = None

    @classmethod
    def of_sample(cls, record: np.ndarray, start: torch.Tensor, simulator: Simulator) -> "Data":
        """The whole record of a sample; start (nz, nx): what is near a velocity that it tells."""
        return cls(record, simulator, source_cells(record, start, simulator.survey))

    @classmethod
    def with_free_source(
        cls, record: np.ndarray, start: torch.Tensor, simulator: Simulator, each: bool = False
    ) -> tuple["Data", float]:
        """The record of a sample whose wavelets are to be found, with an amplitude that was divided
        out of it; each: one for each shot. The velocities at the sources, which follow from a
        known amplitude, are taken as not known."""
        measured = torch.from_numpy(record)[:, : simulator.survey.n_steps].double()
        amplitude, source = first_estimate(measured, start, simulator, each)
        none = torch.zeros(0, dtype=torch.int64, device=start.device)
        return cls(
            record.astype(np.float64) / amplitude,
            Simulator(source.survey, **simulator.how),
            (none, none, none.double()),
            source=source,
        ), amplitude

    @property
    def survey(self) -> Survey:
        """The survey of the record."""
        return self.simulator.survey

    def subset(self, survey: Survey, receivers: int) -> "Data":
        """The first shots and every so many-th receiver, which are those of `survey`."""
        shots = len(survey.sources)
        return replace(
            self,
            record=self.record[:shots, :, ::receivers],
            simulator=Simulator(survey, **self.simulator.how),
            cost=self.cost * Fraction(shots, len(self.survey.sources)),
            source=self.source and self.source.on(survey),
        )

    def low_passed(self, factor: float) -> "Data":
        """The record as with a wavelet of a lower frequency, in which a start that is a cycle off
        at the survey's is none; factor: of the frequency."""
        lower, record = lower_frequency(self.record, factor * self.survey.frequency, self.survey)
        return replace(
            self,
            record=record,
            simulator=Simulator(lower, **self.simulator.how),
            source=self.source and self.source.low_passed(factor, lower),
        )

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
        return float(self.simulator.misfit(model.v[None], record, model.vmin[None])[0])

    def band_misfit(self, parameters: Parameters, simulator: Simulator | None = None) -> BandMisfit:
        """The misfit within the band by some unknowns; simulator: in the place of its own."""
        simulator = simulator or self.simulator
        if self.source is None:
            return BandMisfit(simulator, parameters, self.record)
        return FreeSourceMisfit(simulator, parameters, self.record, self.source)

    def at(self, model: Model, budget: Budget) -> "Data":
        """The data with the wavelets that explain the record best with a model, and what is left
        as the noise; themselves where the wavelets are known. One simulation."""
        if self.source is None or not self.simulator.is_stable(model.v[None], model.vmin[None]):
            return self
        budget.charge(self.cost)
        impulse = impulse_record(self.simulator, model.v[None], model.vmin[None])
        record = torch.from_numpy(self.record)[:, : self.survey.n_steps]
        estimate = self.source.estimate(impulse, record)
        wavelets = self.source.all_of(impulse, record)
        survey = self.survey.with_wavelet(wavelets.mean(0).numpy())
        return replace(
            self,
            simulator=Simulator(survey, **self.simulator.how),
            source=self.source.with_noise_of(estimate).on(survey),
        )

    def with_source_of(self, other: "Data") -> "Data":
        """The data with what other data of the same survey know of the wavelets."""
        return replace(self, simulator=other.simulator, source=other.source)
