"""A map and the data that it is to explain."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch

from fwi_refine.inversion.budget import Budget
from fwi_refine.objective.arithmetic import has_released_arithmetic
from fwi_refine.objective.source_cells import source_cells
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
    released
        Whether the record that was given may be in the released arithmetic.
    """

    record: np.ndarray
    simulator: Simulator
    source_cells: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    cost: Fraction = Fraction(1)
    released: bool = False

    @classmethod
    def of_sample(cls, record: np.ndarray, start: torch.Tensor, simulator: Simulator) -> "Data":
        """The whole record of a sample; start (nz, nx): what is near a velocity that it tells."""
        survey = simulator.survey
        cells, released = (
            source_cells(record, start, survey),
            has_released_arithmetic(record, survey),
        )
        return cls(record, simulator, cells, released=released)

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
        )

    def low_passed(self, factor: float) -> "Data":
        """The record as with a wavelet of a lower frequency, in which a start that is a cycle off
        at the survey's is none; factor: of the frequency."""
        lower, record = lower_frequency(self.record, factor * self.survey.frequency, self.survey)
        return replace(self, record=record, simulator=Simulator(lower, **self.simulator.how))

    def until(self, fraction: float) -> "Data":
        """The first part of the record's time; fraction: of its steps."""
        steps = math.ceil(fraction * self.survey.n_steps)
        shorter = replace(self.survey, n_steps=steps)
        return replace(
            self,
            record=self.record[:, :steps],
            simulator=Simulator(shorter, **self.simulator.how),
            cost=self.cost * Fraction(steps, self.survey.n_steps),
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
        return float(self.simulator.misfit(model.v[None], record, model.vmin[None])[0])
