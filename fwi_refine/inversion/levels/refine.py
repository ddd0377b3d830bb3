"""Each cell of a layered map at a level, with the rounding of the released data taken out."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data, Model
from fwi_refine.inversion.levels import rounding
from fwi_refine.inversion.levels.assign import AssignedLevels, EdgeCells
from fwi_refine.inversion.levels.levels import merge_scattered, to_integers
from fwi_refine.inversion.levels.rounding import rounding_of, roundings_of
from fwi_refine.inversion.levels.settings import SETTINGS, LevelSettings
from fwi_refine.inversion.problem import penalty
from fwi_refine.inversion.recipe import LevelAssignment
from fwi_refine.inversion.stage_result import Curvature, StageResult, Trace
from fwi_refine.inversion.stages import run_stage, run_stages
from fwi_refine.inversion.uncertainty import LevelBelief, Solution
from fwi_refine.objective.noise import noise_variance
from fwi_refine.objective.parameterisation import Full, Regions
from fwi_refine.priors import Priors


@dataclass(frozen=True)
class _Candidate:
    """A model that may be the result.

    misfit: mean square, for integers without what their rounding adds; belief: of the assignment
    that led to it, None before any.
    """

    model: Model
    misfit: float
    belief: LevelBelief | None = None


@dataclass(frozen=True)
class _Linear:
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


@dataclass(frozen=True)
class _Assigned:
    """A model with each cell at a level where that is sure: which (nz, nx) bool these are."""

    model: Model
    sure: torch.Tensor
    belief: LevelBelief | None


@dataclass(frozen=True)
class _Round:
    """An assignment, the integers that come out, and the data without what their rounding adds.

    misfit: mean square, of the integers, without that.
    """

    assigned: _Assigned
    integers: Model
    misfit: float
    data: Data

    def noise_within(self, assignment: LevelAssignment) -> float:
        """What counts as noise in the next, rms."""
        least, most = assignment.noise
        noise = assignment.settings.noise_of_misfit * math.sqrt(self.misfit)
        return min(most, max(least, noise))

    def better_than(self, best: _Candidate, floor: float) -> _Candidate:
        """The likelier of it and a candidate: of two that fit to the floor the later."""
        if self.misfit < max(best.misfit, floor):
            return _Candidate(self.integers, self.misfit, self.assigned.belief)
        return best


def assign_levels(
    assignment: LevelAssignment,
    data: Data,
    model: Model,
    priors: Priors,
    budget: Budget,
    curvature: Curvature,
) -> StageResult:
    """Gives each cell of a map of few levels its own, in integers where these explain the record.

    In each round the cells are given their levels, and the rounding is computed from the integers
    that come out and taken out of the record, on which they are assigned once more if that leaves
    less noise. Cells assigned wrongly leave a map that does not fit; from there the stage in
    between finds one that does, with fewer wrong cells, as those assigned rightly stay. Where no
    map of integers explains the record, the likeliest of the fits between rounds is returned, or
    the given model if that explains it as well, unless the assigned integers are better than
    those.

    Parameters
    ----------
    assignment
        How many rounds, with how much noise, and the stage in between.
    data, model, priors, budget
        As for `run_stage`.
    curvature
        After the stages before.

    Returns
    -------
    StageResult
        As of a stage, with a trace for each stage in between.
    """
    settings = assignment.settings
    data = data.at(model, budget)
    maps = _integers(model, settings, settings.snap)
    if not budget.affords((1 + rounding.COST * len(maps)) * data.cost):
        return StageResult(model, curvature, (), True)
    misfit = data.misfit(model, budget)
    floor = data.square(settings.noise_floor_rms)
    least, most = assignment.noise
    noise = max(most, settings.noise_of_misfit * math.sqrt(misfit))
    final = assignment.between(settings.widths[0], 1.0)
    given, present, assigned = curvature, model, None
    closest, least_value = _Candidate(model, misfit), math.inf
    integers, added, shift = roundings_of(maps, data, budget)
    best = _Candidate(integers, added.misfit)
    cleared, stopped = data.without(shift), False
    traces: tuple[Trace, ...] = ()
    for number in range(1, 1 if best.misfit < floor else assignment.rounds + 1):
        if not budget.affords(_round_cost(data, model, settings)) or budget.should_stop():
            stopped = True
            break
        budget.enter(f"levels of cells, round {number} of at most {assignment.rounds}")
        made, beyond_doubt = _assign_twice(data, cleared, present, noise, assignment, floor, budget)
        for found in made:
            best = found.better_than(best, floor)
        if not made or budget.should_stop():
            break
        found = min(reversed(made), key=lambda found: max(found.misfit, floor))
        hopeless = found.misfit > data.square(settings.hopeless_rms)
        if hopeless and misfit < found.misfit and assignment.softer:
            return _from_softer(assignment, data, closest.model, priors, budget, traces)
        change = math.inf if assigned is None else found.assigned.model.mean_change(assigned.v)
        if change < settings.converged_change or (beyond_doubt and best.misfit < floor):
            break
        assigned, cleared, noise = found.assigned.model, found.data, found.noise_within(assignment)
        width = torch.where(found.assigned.sure, *settings.widths).to(assigned.v)
        between = assignment.between(width, noise / least)
        with budget.keeping(data.cost):
            stage = run_stage(between, cleared, assigned, priors, budget)
        present, traces = stage.model, traces + stage.traces
        cleared = cleared.at(present, budget)
        data = data.with_source_of(cleared)
        curvature, stopped = curvature.then(stage.curvature), stopped or stage.stopped
        fits = cleared.misfit(present, budget)
        noise = max(noise, settings.noise_of_misfit * math.sqrt(fits))
        if fits > settings.divergence_factor**2 * min(misfit, closest.misfit):
            if assignment.softer and not stopped:
                return _from_softer(assignment, data, closest.model, priors, budget, traces)
            break
        value = fits + penalty(final, present, priors)
        if value < least_value:
            closest, least_value = _Candidate(present, fits, found.assigned.belief), value
    stopped = stopped or budget.should_stop()  # within the last round
    noise_left = misfit - data.beyond_noise(misfit)
    explained = noise_left + settings.explained * (misfit - noise_left)
    fit, known = closest, curvature
    if closest.misfit >= explained:
        fit, known = _Candidate(model, misfit), curvature.then(given)
    # some cells may be at a wrong level, but most are not
    if best.misfit >= explained and not _are_better_integers(best, fit, data, budget, settings):
        best = fit
    elif best.belief is None:
        known = _of_outlines(best, curvature, data, settings)
    if best.belief is not None:
        known = Curvature(best.belief, curvature.cells)
    return StageResult(best.model, known, traces, stopped)


def _from_softer(
    assignment: LevelAssignment,
    data: Data,
    model: Model,
    priors: Priors,
    budget: Budget,
    traces: tuple[Trace, ...],
) -> StageResult:
    """Levels assigned from a map that was only drawn to them; traces: of what went before."""
    first, *others = assignment.softer
    softer = run_stages(first, data, model, priors, budget, math.inf)
    traces += softer.traces
    known = softer.curvature or Curvature()
    if softer.stopped:
        return StageResult(softer.model, known, traces, True)
    again = replace(assignment, softer=tuple(others))
    found = assign_levels(again, data, softer.model, priors, budget, known)
    return replace(found, traces=traces + found.traces)


def _integers(model: Model, settings: LevelSettings, snap: float | None = None) -> list[Model]:
    """The map in integers, and that with cells that scatter about a velocity at it: at most two."""
    reading = settings.reading
    maps = (model.v, merge_scattered(model.v, reading))
    models = [Model(*to_integers(v, snap, reading)) for v in maps]
    return models[:1] if models[0].same_as(models[1]) else models


def _round_cost(data: Data, model: Model, settings: LevelSettings) -> int:
    """Evaluations that a round takes at most, but for the stage that follows."""
    jacobian = data.band_misfit(Full(model.shape)).hessian_cost()
    return 2 * jacobian + settings.round_cost


def _rounding_limit(data: Data, settings: LevelSettings) -> float:
    """`max_rms_for_rounding` as a mean square, in the unit of the record."""
    return data.square(settings.max_rms_for_rounding)


def _of_outlines(
    best: _Candidate, curvature: Curvature, data: Data, settings: LevelSettings
) -> Curvature:
    """The curvature of a map of layers by their velocities, as if their outlines were right."""
    if curvature.cells is None:
        return curvature
    regions = Regions.from_map(best.model.v, settings.same_integer)
    columns = regions.matrix(best.model.v.device)
    hessian = columns.T @ (curvature.cells @ columns)
    return replace(
        curvature,
        uncertainty=Solution(
            regions, hessian, best.misfit, None, data.survey, samples_used=data.count
        ),
    )


def _are_better_integers(
    assigned: _Candidate,
    fit: _Candidate,
    data: Data,
    budget: Budget,
    settings: LevelSettings = SETTINGS,
) -> bool:
    """Whether assigned integers explain the record better than a fit will at its levels in
    integers, which are what it ends as where these explain it at all."""
    limit = _rounding_limit(data, settings)
    if assigned.belief is None or assigned.misfit >= limit or budget.should_stop():
        return False
    if not budget.affords(rounding.COST * data.cost):
        return False
    found = rounding_of(Model(*to_integers(fit.model.v, reading=settings.reading)), data, budget)
    return found.misfit_with < limit and assigned.misfit < found.misfit


def _linearise(data: Data, model: Model, budget: Budget, settings: LevelSettings) -> _Linear:
    """The record to first order at a map."""
    fixed = None if data.known is None else data.known.fixed.cpu()
    cells = EdgeCells(model.v.cpu(), model.vmin.cpu(), settings, fixed)
    parameters = Full(model.shape)
    x = parameters.from_velocity(model.v, model.vmin)
    if not cells.found:
        return _Linear(x, parameters, cells, settings)
    misfit = data.band_misfit(parameters)
    normal, pull_back = misfit.linearise(x, cells.columns)
    budget.iterations += 1
    budget.charge(data.cost * misfit.hessian_cost())
    return _Linear(x, parameters, cells, settings, normal, pull_back)


def _assign_twice(
    data: Data,
    cleared: Data,
    model: Model,
    noise: float,
    assignment: LevelAssignment,
    floor: float,
    budget: Budget,
) -> tuple[list[_Round], bool]:
    """([`_Round`, ...], whether they are beyond doubt): a second one where the first tells the
    rounding and leaves less noise, as the Jacobian is at hand; none where it was stopped.

    cleared: the data without what is taken for their rounding. They are beyond doubt if the map is
    hardly another one, or if they fit to the floor and less noise has changed no integer.
    """
    settings = assignment.settings
    linear = _linearise(data, model, budget, settings)
    first = _assign_once(linear, data, cleared, noise, budget)
    if first is None:
        return [], False
    nearby = first.assigned.model.mean_change(model.v) < settings.nearby_change
    less = first.noise_within(assignment)
    fits = nearby and first.misfit < floor
    if fits or first.misfit >= _rounding_limit(data, settings) or less >= noise:
        return [first], nearby
    second = _assign_once(linear, data, first.data, less, budget)
    if second is None:
        return [first], nearby
    same = second.misfit < floor and first.integers.same_as(second.integers)
    nearby = second.assigned.model.mean_change(model.v) < settings.nearby_change
    return [first, second], same or nearby


def _assign_once(
    linear: _Linear, data: Data, cleared: Data, noise: float, budget: Budget
) -> _Round | None:
    """A round on data without their rounding; None where it was stopped before its end."""
    assigned = _assign_cells(linear, cleared, noise, budget)
    if assigned.belief is None and budget.should_stop():
        return None
    maps = _integers(assigned.model, linear.settings)
    integers, found, shift = roundings_of(maps, data, budget)
    # other software's records have no such rounding
    limit = _rounding_limit(data, linear.settings)
    none = found.misfit_with < found.misfit_without and found.misfit_with < limit
    return _Round(assigned, integers, found.misfit, data if none else data.without(shift))


def _assign_cells(linear: _Linear, data: Data, noise: float, budget: Budget) -> _Assigned:
    """Each cell at a level where that is sure; noise: rms, of the residual."""
    parameters, x, cells = linear.parameters, linear.x, linear.cells
    model = Model(parameters.velocity(x), parameters.vmin(x))
    unassigned = _Assigned(model, torch.ones(model.v.shape, dtype=torch.bool), None)
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
    model = data.possible(Model(parameters.velocity(y), parameters.vmin(y)))
    return _Assigned(model, assigned.sure, belief)


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
        if best is None or fits < settings.better * least:
            best, least = (assigned, found), fits
        if fits < settings.expected * more * noise:
            break
    return best
