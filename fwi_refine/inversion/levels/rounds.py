"""One round of level assignment: each cell at a level, to first order about a map.

Where that tells the rounding of the released data, it is done once more with the rounding taken
out, as the Jacobian is at hand.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.levels.assign import AssignedLevels, EdgeCells
from fwi_refine.inversion.levels.exact import ATTEMPTS, certify, search
from fwi_refine.inversion.levels.integers import merge_scattered, to_integers
from fwi_refine.inversion.levels.levels import find_levels
from fwi_refine.inversion.levels.rounding import EVALUATIONS, Rounding, rounding_of, roundings_of
from fwi_refine.inversion.levels.settings import SETTINGS, LevelSettings
from fwi_refine.inversion.model import Model, distinct
from fwi_refine.inversion.recipe import LevelAssignment
from fwi_refine.inversion.uncertainty import LevelBelief
from fwi_refine.objective.noise import noise_variance
from fwi_refine.objective.parameterisation import Full

# Rms misfit of integers below which first differences are looked at: single cells near the top
# leave as much. And the evaluations that this takes at most.
MAX_RMS_FOR_REPAIR, MAX_REPAIR_EVALUATIONS = 1e-2, 80


@dataclass(frozen=True)
class Candidate:
    """A model that may be the result.

    misfit: mean square, for integers without what their rounding adds; belief: of the assignment
    that led to it, None before any.
    """

    model: Model
    misfit: float
    belief: LevelBelief | None = None


@dataclass(frozen=True)
class Assigned:
    """A model with each cell at a level where that is sure: which (nz, nx) bool these are."""

    model: Model
    sure: torch.Tensor
    belief: LevelBelief | None


@dataclass(frozen=True)
class Round:
    """An assignment, the integers that come out, and the data without what their rounding adds.

    misfit: mean square, of the integers, without that.
    """

    assigned: Assigned
    integers: Model
    misfit: float
    data: Data

    def noise_within(self, assignment: LevelAssignment) -> float:
        """The noise of the next, rms."""
        least, most = assignment.noise
        noise = assignment.settings.noise_of_misfit * math.sqrt(self.misfit)
        return min(most, max(least, noise))

    def better_than(self, best: Candidate, noise_floor: float) -> Candidate:
        """The likelier of it and a candidate: of two that fit to the noise floor the later."""
        if self.misfit < max(best.misfit, noise_floor):
            return Candidate(self.integers, self.misfit, self.assigned.belief)
        return best


@dataclass(frozen=True)
class Linear:
    """A record to first order about a map, by what is assigned; see `BandMisfit.linearise`. It
    holds the whole Jacobian.

    cells: with nothing found there is nothing to assign, and no matrix
    """

    x: torch.Tensor
    parameters: Full
    cells: EdgeCells
    settings: LevelSettings
    normal: torch.Tensor | None = None
    pull_back: Callable[[torch.Tensor], torch.Tensor] | None = None


def integer_levels(model: Model, settings: LevelSettings, snap: float | None = None) -> list[Model]:
    """The map in integers, and that with cells that scatter about a velocity at it, each with cells
    above the highest level at that or not: at most four."""
    reading = settings.reading
    return distinct(
        Model(*to_integers(v, snap, reading, above=above))
        for v in (model.v, merge_scattered(model.v, reading))
        for above in (False, True)
    )


def round_cost(data: Data, model: Model, settings: LevelSettings) -> int:
    """Evaluations that a round takes at most, but for the stage that follows."""
    jacobian = data.band_misfit(Full(model.shape)).hessian_cost()
    return 2 * jacobian + settings.round_cost


def rounding_limit(data: Data, settings: LevelSettings) -> float:
    """`max_rms_for_rounding` as a mean square, in the unit of the record."""
    return data.misfit_limit(settings.max_rms_for_rounding)


def _linearise(data: Data, model: Model, budget: Budget, settings: LevelSettings) -> Linear:
    """The record to first order at a map."""
    fixed = None if data.constraints is None else data.constraints.fixed.cpu()
    cells = EdgeCells(model.v.cpu(), model.vmin.cpu(), settings, fixed)
    parameters = Full(model.shape)
    x = parameters.from_velocity(model.v, model.vmin)
    if not cells.found:
        return Linear(x, parameters, cells, settings)
    misfit = data.band_misfit(parameters)
    normal, pull_back = misfit.linearise(x, cells.columns)
    budget.iterations += 1
    budget.charge(data.cost * misfit.hessian_cost())
    return Linear(x, parameters, cells, settings, normal, pull_back)


def assign_twice(
    data: Data,
    cleared: Data,
    model: Model,
    noise: float,
    assignment: LevelAssignment,
    noise_floor: float,
    budget: Budget,
) -> tuple[list[Round], bool]:
    """([`Round`, ...], whether they are beyond doubt): a second one where the first tells the
    rounding and leaves less noise, as the Jacobian is at hand; none where it was stopped.

    cleared: the data without what is taken for their rounding. They are beyond doubt if the map is
    hardly another one, or if they fit to the noise floor and less noise has changed no integer.
    """
    settings = assignment.settings
    linear = budget.in_time(partial(_linearise, data, model, budget, settings), None)
    first = None if linear is None else _assign_once(linear, data, cleared, noise, budget)
    if linear is None or first is None:
        return [], False
    nearby = first.assigned.model.mean_change(model.v) < settings.nearby_change
    less = first.noise_within(assignment)
    fits = nearby and first.misfit < noise_floor
    if fits or first.misfit >= rounding_limit(data, settings) or less >= noise:
        return [first], nearby
    second = _assign_once(linear, data, first.data, less, budget)
    if second is None:
        return [first], nearby
    same = second.misfit < noise_floor and first.integers.same_as(second.integers)
    nearby = second.assigned.model.mean_change(model.v) < settings.nearby_change
    return [first, second], same or nearby


def _assign_once(
    linear: Linear, data: Data, cleared: Data, noise: float, budget: Budget
) -> Round | None:
    """A round on data without their rounding; None where it was stopped before its end."""
    return budget.in_time(partial(_round, linear, data, cleared, noise, budget), None)


def _round(linear: Linear, data: Data, cleared: Data, noise: float, budget: Budget) -> Round | None:
    """The same, but for time that is used up."""
    assigned = _assign_cells(linear, cleared, noise, budget)
    if assigned.belief is None and budget.should_stop():
        return None
    maps = integer_levels(assigned.model, linear.settings)
    integers, found, shift = roundings_of(maps, data, budget)
    # other software's records have no such rounding
    limit = rounding_limit(data, linear.settings)
    none = found.misfit_with < found.misfit_without and found.misfit_with < limit
    return Round(assigned, integers, found.misfit, data if none else data.without(shift))


def _assign_cells(linear: Linear, data: Data, noise: float, budget: Budget) -> Assigned:
    """Each cell at a level where that is sure; noise: rms, of the residual."""
    parameters, x, cells = linear.parameters, linear.x, linear.cells
    model = Model(parameters.velocity(x), parameters.vmin(x))
    unassigned = Assigned(model, torch.ones(model.v.shape, dtype=torch.bool), None)
    if not cells.found or linear.normal is None or linear.pull_back is None:
        return unassigned
    residual = data.band_misfit(parameters).residual(x)
    if residual is None:  # the map is outside the velocity bounds
        return unassigned
    budget.charge(2 * data.cost)
    half = residual.numel() / 2
    gradient = linear.pull_back(residual).cpu() * half
    assign = partial(cells.assign, linear.normal * half, gradient)
    found = _best_assignment(assign, data, noise, parameters, x, budget, linear.settings)
    if found is None:
        return unassigned
    assigned, y = found
    v = model.v
    between = parameters.velocity(parameters.retract(x, assigned.between.to(x)))
    belief = LevelBelief(
        levels=assigned.levels.to(v),
        variance=assigned.level_variance.to(v),
        probabilities=assigned.probabilities.to(v),
        # a step changes a velocity by (new / old)^3 of its change
        between=(between, assigned.between_variance.to(v) * (between / v) ** 6),
    )
    model = data.constrained(Model(parameters.velocity(y), parameters.vmin(y)))
    return Assigned(model, assigned.sure, belief)


def _best_assignment(
    assign: Callable[..., AssignedLevels | None],
    data: Data,
    noise: float,
    parameters: Full,
    x: torch.Tensor,
    budget: Budget,
    settings: LevelSettings = SETTINGS,
) -> tuple[AssignedLevels, torch.Tensor] | None:
    """(`AssignedLevels`, its unknowns): with more noise than it should be where that fits better.

    assign: makes them from a variance of the noise and whether to stop. Where the record is far
    from linear in what is to be changed, that is noise as well, and with less of it assumed others
    make up for it.
    """
    best, least = None, math.inf
    for more in settings.more_noise:
        variance = noise_variance((more * noise) ** 2, data.survey)
        assigned = assign(variance, budget.should_stop)
        if assigned is None:
            break
        # a level may lie beyond the bounds, by as much as it is not known
        found = parameters.retract(x, assigned.step.to(x)).clamp(*data.survey.velocity_bounds)
        model = Model(parameters.velocity(found), parameters.vmin(found))
        fits = math.sqrt(data.misfit(model, budget))
        if best is None or fits < settings.better_rms_ratio * least:
            best, least = (assigned, found), fits
        if fits < settings.expected_rms_ratio * more * noise:
            break
    return best


@dataclass(frozen=True)
class Repair:
    """Integers of which some were put right, the rounding in their record, and whether they are
    proven."""

    integers: Model
    rounding: Rounding
    exact: bool


def repaired(whole: Model, misfit: float, data: Data, budget: Budget) -> Repair | None:
    """Integers of a mean square misfit, with those put right that the first differences of their
    record tell; None: none are.

    What is wrong near the top shows there well above what all other wrong cells leave of the
    record, in which an assignment sees all at once.
    """
    if misfit >= data.misfit_limit(MAX_RMS_FOR_REPAIR) or not Model.of(whole.v).same_as(whole):
        return None
    with budget.at_most(MAX_REPAIR_EVALUATIONS * data.cost):
        own = certify(whole.v, data, budget)
        levels = find_levels(whole.v).velocities
        v, certificate = search(whole.v, own, levels, data, budget, ATTEMPTS[:1])
    better = (certificate.equal_fraction or 0.0) > (own.equal_fraction or 0.0)
    integers = Model.of(v)
    if not better or not data.constrained(integers).same_as(integers):
        return None
    if not budget.affords(EVALUATIONS * data.cost):
        return None
    found = rounding_of(integers, data, budget)
    # with much wrong, chance may make a few more samples equal
    if found.misfit > misfit and not certificate.exact:
        return None
    return Repair(integers, found, bool(certificate.exact))
