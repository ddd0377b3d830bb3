"""Recipes: a sequence of stages, and the level assignment after them for maps of few levels.

A stage is one minimisation of

    mean((s(v) - d)^2) + weight * prior

over its unknowns, from the map that the stage before it left. vmin is one more unknown. The recipes
themselves are in families/, the settings of optimisers in optimisers.py.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.levels.settings import SETTINGS, LevelSettings
from fwi_refine.inversion.model import Model
from fwi_refine.inversion.optimisers import LevenbergMarquardt, Optimiser, in_squared_unit
from fwi_refine.objective.noise import CLEAN, Noise
from fwi_refine.objective.parameterisation import Parameters
from fwi_refine.optimise import weight_by_fraction
from fwi_refine.priors import Priors
from fwi_refine.routing import can_classify
from fwi_refine.survey import Survey

# Mean square misfit (5e-5 rms) at which the long stages stop: a good fit of released data.
GOOD_FIT = 2.5e-9
# Fraction of the start's rms misfit below which a result that was stopped is likelier to be nearer
# to the truth than a network's map. The prior smooths a start before the record puts back what it
# tells: of six real and three made maps all were farther off after the first step, by up to 3.6
# times, and seven at 0.1. Seven came below 0.03 within as many Jacobians; five of them were nearer
# there, the others 1.1 and 1.6 times as far off.
NEARER_THAN_NETWORK = 0.03


def smallest(v: torch.Tensor) -> tuple[float, float]:
    """vmin as the minimum of a map v (nz, nx): a guess, as a single wrong cell spoils it."""
    return float(v.min()), 30.0


@dataclass(frozen=True)
class Subset:
    """The part of a record that a stage looks at.

    Attributes
    ----------
    shots
        How many, from the first on; None: all.
    receivers
        Every how many-th. Shots and receivers are for the survey of OpenFWI alone, whose first
        shot, at the edge, has all the offsets of the others, and whose receivers are dense: far
        from the solution every second one tells as much, at low frequencies every fourth.
    frequency
        The record as with a wavelet of the frequency times this (survey/frequency.py); None: as it
        is.
    until
        The fraction of the record's time that is used, from its start: what comes early tells of
        what is near. None: all.
    take_out
        take_out(model, data, budget): the data less what the released arithmetic added to their
        record, as the present map tells, see levels/rounding.py; None: that stays.
    """

    shots: int | None = None
    receivers: int = 1
    frequency: float | None = None
    until: float | None = None
    take_out: Callable[[Model, Data, Budget], Data] | None = None

    def survey(self, survey: Survey) -> Survey:
        """The survey with the shots and receivers that are used."""
        if not can_classify(survey):
            return survey
        sources, receivers = survey.sources[: self.shots], survey.receivers[:: self.receivers]
        if (sources, receivers) == (survey.sources, survey.receivers):
            return survey
        return replace(survey, sources=sources, receivers=receivers)


WHOLE = Subset()


@dataclass(frozen=True)
class Stage:
    """One minimisation.

    Attributes
    ----------
    unknowns
        Makes the parameterisation from the present map (nz, nx) and the priors.
    prior
        Makes the prior from the same; it acts on `Parameters.prior_coordinates`.
    weight
        Of the prior; with prior_fraction the least weight.
    optimiser
        How it is minimised, and when that ends.
    prior_fraction
        Where it is not 0, the prior counts this fraction of the misfit as long as that is more
        than its weight.
    data
        What of the record it looks at.
    skip_if
        The stage, with all such that follow with the same number, is left out where the mean
        square misfit is below this already and the stage before has hardly moved the map.
    must_fit
        The result is dropped where the record fits more than twice as badly (rms) as before the
        first such stage, and worse than `GOOD_FIT`.
    vmin
        Makes (m/s, standard deviation), what is known of vmin, from the present map; for the
        optimisers that take a Jacobian.
    density
        Minus twice the logarithm of the prior's density is this times the prior; its weight is then
        the variance of the noise over the number of samples.
    rounding_is_noise
        The misfit counts what rounded coefficients may add to a record in the released arithmetic
        as noise, see objective/coefficient_noise.py; for every cell as an unknown.
    """

    unknowns: Callable[[torch.Tensor, Priors], Parameters]
    prior: Callable[[torch.Tensor, Priors], Any]
    weight: float
    optimiser: Optimiser = field(default_factory=LevenbergMarquardt)
    prior_fraction: float = 0.0
    data: Subset = WHOLE
    skip_if: float | None = None
    must_fit: bool = False
    vmin: Callable[[torch.Tensor], tuple[float, float]] = field(default_factory=lambda: smallest)
    density: float = 1.0
    rounding_is_noise: bool = False

    def in_unit(self, unit: float) -> "Stage":
        """The same stage for records that are `unit` times as large as those of OpenFWI."""
        if unit == 1.0:
            return self
        return replace(
            self,
            weight=self.weight * unit**2,
            optimiser=self.optimiser.in_unit(unit),
            skip_if=in_squared_unit(self.skip_if, unit),
        )

    def with_noise(self, noise: Noise, survey: Survey, samples: int) -> "Stage":
        """The same stage for a record with noise, of which so many samples count."""
        if noise == CLEAN:
            return self
        more = self.density * noise.coefficient**2 / samples
        optimiser = self.optimiser.with_noise(noise, survey)
        return replace(self, weight=self.weight + more, optimiser=optimiser)

    def weight_at(self, misfit: float, prior: float) -> float:
        """The prior's weight where the mean square misfit and the prior have these values."""
        return weight_by_fraction(self.prior_fraction, misfit, prior, least=self.weight)


@dataclass(frozen=True)
class LevelAssignment:
    """Rounds in which each cell of a map of few levels is given its level; see levels/refine.py.

    Attributes
    ----------
    rounds
        Most of them.
    noise
        What of the rms residual counts as noise: at least, and at first if the residual is not far
        larger.
    between
        Makes the stage from what one round has assigned to where the next begins, from (width,
        ratio); width (nz, nx): m/s about its level where a cell is expected; ratio: of the present
        noise to the least.
    settings
        The tuning constants of the rounds.
    relaxed
        Stages that follow rounds whose integers do not explain the record, the first of these after
        the first rounds; then rounds begin again.
    """

    rounds: int
    noise: tuple[float, float]
    between: Callable[..., Stage]
    settings: LevelSettings = SETTINGS
    relaxed: tuple[tuple[Stage, ...], ...] = ()


@dataclass(frozen=True)
class Recipe:
    """The treatment of a sample of a family.

    Attributes
    ----------
    stages
        One after the other.
    round
        Whether the velocities of the family are integers.
    assignment
        What follows the stages for maps of few levels.
    if_blended
        What follows instead where the map's edges are blended (`routing.edges`): there integers
        are taken only where they fit as well as the map does.
    nearer_below
        Fraction of the start's rms misfit above which the start is likelier to be nearer to the
        truth than a result that was stopped and does not fit.
    """

    stages: tuple[Stage, ...]
    round: bool
    assignment: LevelAssignment | None = None
    if_blended: tuple[Stage, ...] = ()
    nearer_below: float = math.inf

    def in_unit(self, unit: float) -> "Recipe":
        """The same recipe for records that are `unit` times as large; see `Survey.unit`."""
        if unit == 1.0:
            return self
        recipe = self.each_stage(lambda stage: stage.in_unit(unit))
        assignment = recipe.assignment
        if assignment is None:
            return recipe
        noise = unit * assignment.noise[0], unit * assignment.noise[1]
        return replace(recipe, assignment=replace(assignment, noise=noise))

    def with_noise(self, noise: Noise | None, survey: Survey, samples: int) -> "Recipe":
        """The same recipe for a record with noise, of which so many samples count."""
        if noise is None or noise == CLEAN:
            return self
        recipe = self.each_stage(lambda stage: stage.with_noise(noise, survey, samples))
        assignment = recipe.assignment
        if assignment is None:
            return recipe
        square = noise.misfit_in_band(survey)
        least, most = (math.sqrt(level**2 + square) for level in assignment.noise)
        return replace(recipe, assignment=replace(assignment, noise=(least, most)))

    def each_stage(self, change: Callable[[Stage], Stage]) -> "Recipe":
        """The recipe with change(stage) for each stage, those of its ends as well."""
        assignment = self.assignment
        if assignment is not None:
            between = assignment.between
            relaxed = tuple(tuple(map(change, stages)) for stages in assignment.relaxed)
            assignment = replace(
                assignment, between=lambda *how: change(between(*how)), relaxed=relaxed
            )
        return replace(
            self,
            stages=tuple(map(change, self.stages)),
            assignment=assignment,
            if_blended=tuple(map(change, self.if_blended)),
        )
