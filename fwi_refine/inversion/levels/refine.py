"""Each cell of a layered map at a level, with the rounding of the released data taken out."""

import math
from dataclasses import dataclass, replace
from functools import partial

import torch

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.levels import rounding
from fwi_refine.inversion.levels.integers import to_integers
from fwi_refine.inversion.levels.rounding import rounding_of, roundings_of
from fwi_refine.inversion.levels.rounds import (
    Candidate,
    Round,
    assign_twice,
    integer_levels,
    repaired,
    round_cost,
    rounding_limit,
)
from fwi_refine.inversion.levels.settings import SETTINGS, LevelSettings
from fwi_refine.inversion.model import Model
from fwi_refine.inversion.problem import penalty
from fwi_refine.inversion.recipe import LevelAssignment
from fwi_refine.inversion.stage_result import Curvature, StageResult, Trace
from fwi_refine.inversion.stages import run_stage, run_stages
from fwi_refine.inversion.uncertainty import LevelBelief, Solution
from fwi_refine.objective.parameterisation import Regions
from fwi_refine.priors import Priors


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
    those; relaxed stages are tried before, unless all of them are above `max_rms_for_fit`.

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
    data = data.with_wavelets_of(model, budget)
    maps = integer_levels(model, settings, settings.snap_tolerance)
    if not budget.affords((1 + rounding.EVALUATIONS * len(maps)) * data.cost):
        return StageResult(model, curvature, (), True)
    begin = partial(_before_rounds, assignment, model, maps, data, curvature, budget)
    so_far = budget.in_time(begin, None)
    if so_far is None:
        return StageResult(model, curvature, (), True)
    given, noise_floor = so_far.closest, data.misfit_limit(settings.noise_floor_rms)
    for number in range(1, 1 if so_far.best.misfit < noise_floor else assignment.rounds + 1):
        if not budget.affords(round_cost(so_far.data, model, settings)) or budget.should_stop():
            so_far = replace(so_far, stopped=True)
            break
        budget.enter(f"levels of cells, round {number} of at most {assignment.rounds}")
        so_far, go_on = _carry_out_round(assignment, so_far, given, noise_floor, priors, budget)
        if not go_on:
            break
    explained = so_far.best.misfit < noise_floor
    far = min(so_far.closest.misfit, so_far.best.misfit) > data.misfit_limit(
        settings.max_rms_for_fit
    )
    if assignment.relaxed and not (explained or far or so_far.stopped or budget.should_stop()):
        return _from_relaxed(assignment, so_far, priors, budget)
    return _likeliest(so_far, given, curvature, budget, settings)


@dataclass(frozen=True)
class _Rounds:
    """State after some rounds.

    data; cleared: without what is taken for their rounding; model: which the next round assigns
    from; noise: rms, that it expects; best: integers; closest: the likeliest fit, and its
    objective; assigned: by the last round, None before any.
    """

    data: Data
    cleared: Data
    model: Model
    noise: float
    curvature: Curvature
    best: Candidate
    closest: Candidate
    objective: float = math.inf
    assigned: Model | None = None
    traces: tuple[Trace, ...] = ()
    stopped: bool = False


def _before_rounds(
    assignment: LevelAssignment,
    model: Model,
    maps: list[Model],
    data: Data,
    curvature: Curvature,
    budget: Budget,
) -> _Rounds:
    """State before the rounds, the given model the closest; maps: that in integers."""
    given = Candidate(model, data.misfit(model, budget))
    noise = assignment.settings.noise_of_misfit * math.sqrt(given.misfit)
    integers, added, shift = roundings_of(maps, data, budget)
    return _Rounds(
        data=data,
        cleared=data.without(shift),
        model=model,
        noise=max(assignment.noise[1], noise),
        curvature=curvature,
        best=Candidate(integers, added.misfit),
        closest=given,
    )


def _carry_out_round(
    assignment: LevelAssignment,
    before: _Rounds,
    given: Candidate,
    noise_floor: float,
    priors: Priors,
    budget: Budget,
) -> tuple[_Rounds, bool]:
    """Levels assigned once more and the fit from there, and whether another round may follow;
    noise_floor: of the mean square."""
    settings = assignment.settings
    made, beyond_doubt = assign_twice(
        before.data, before.cleared, before.model, before.noise, assignment, noise_floor, budget
    )
    best = before.best
    for found in made:
        best = found.better_than(best, noise_floor)
    before = replace(before, best=best)
    if not made or budget.should_stop():
        return before, False
    found = min(reversed(made), key=lambda found: max(found.misfit, noise_floor))
    too_far = found.misfit > before.data.misfit_limit(settings.max_rms_for_fit)
    if too_far and given.misfit < found.misfit and assignment.relaxed:
        return before, False
    last = before.assigned
    change = math.inf if last is None else found.assigned.model.mean_change(last.v)
    if change < settings.converged_change or (beyond_doubt and best.misfit < noise_floor):
        return before, False
    after, go_on = _fit_between(assignment, before, found, given, priors, budget)
    if not go_on:
        return after, False
    whole = partial(_in_integers, after, found.assigned.belief, noise_floor, budget, settings)
    return budget.in_time(whole, (after, True))


def _fit_between(
    assignment: LevelAssignment,
    before: _Rounds,
    found: Round,
    given: Candidate,
    priors: Priors,
    budget: Budget,
) -> tuple[_Rounds, bool]:
    """A fit from the levels that a round found, and whether it has not diverged."""
    settings, (least, _) = assignment.settings, assignment.noise
    assigned, noise = found.assigned.model, found.noise_within(assignment)
    width = torch.where(found.assigned.sure, *settings.fit_widths).to(assigned.v)
    between = assignment.between(width, noise / least)
    with budget.keeping(before.data.cost):
        stage = run_stage(between, found.data, assigned, priors, budget)
    cleared = found.data.with_wavelets_of(stage.model, budget)
    misfit = cleared.misfit(stage.model, budget)
    after = replace(
        before,
        data=before.data.with_source_of(cleared),
        cleared=cleared,
        model=stage.model,
        noise=max(noise, settings.noise_of_misfit * math.sqrt(misfit)),
        curvature=before.curvature.then(stage.curvature),
        assigned=assigned,
        traces=before.traces + stage.traces,
        stopped=before.stopped or stage.stopped,
    )
    if misfit > settings.divergence_factor**2 * min(given.misfit, before.closest.misfit):
        return after, False
    final = assignment.between(settings.fit_widths[0], 1.0)
    objective = misfit + penalty(final, stage.model, priors)
    if objective < before.objective:
        closest = Candidate(stage.model, misfit, found.assigned.belief)
        after = replace(after, closest=closest, objective=objective)
    return after, True


def _in_integers(
    rounds: _Rounds,
    belief: LevelBelief | None,
    noise_floor: float,
    budget: Budget,
    settings: LevelSettings,
) -> tuple[_Rounds, bool]:
    """The rounds with the integers that their last fit tells, and whether another may follow.

    Those that first differences tell are put right. Where integers explain the record, the next
    round begins from them, with their rounding taken out.
    """
    data, model = rounds.data, rounds.model
    maps = integer_levels(model, settings, settings.snap_tolerance)
    if not budget.affords(rounding.EVALUATIONS * len(maps) * data.cost) or budget.should_stop():
        return rounds, True
    integers, found, shift = roundings_of(maps, data, budget)
    repair = repaired(integers, found.misfit, data, budget)
    if repair is not None:
        integers, found, shift = repair.integers, repair.rounding, repair.rounding.shift
    best = rounds.best
    if found.misfit < max(best.misfit, noise_floor):
        best = Candidate(integers, found.misfit, belief)
    after = replace(rounds, best=best)
    if found.misfit_without < rounding_limit(data, settings):
        after = replace(after, model=integers, cleared=data.without(shift))
    return after, not (repair is not None and repair.exact)


def _likeliest(
    rounds: _Rounds,
    given: Candidate,
    curvature: Curvature,
    budget: Budget,
    settings: LevelSettings,
) -> StageResult:
    """The integers of the rounds, the likeliest fit, or the given model with its curvature."""
    data, best = rounds.data, rounds.best
    stopped = rounds.stopped or budget.should_stop()  # within the last round
    noise_left = given.misfit - data.beyond_noise(given.misfit)
    explained = noise_left + settings.explained_fraction * (given.misfit - noise_left)
    fit, known = rounds.closest, rounds.curvature
    if fit.misfit >= explained:
        fit, known = given, rounds.curvature.then(curvature)
    # some cells may be at a wrong level, but most are not
    if best.misfit >= explained and not _are_better_integers(best, fit, data, budget, settings):
        best = fit
    elif best.belief is None:
        known = _of_outlines(best, rounds.curvature, data, settings)
    if best.belief is not None:
        known = Curvature(best.belief, rounds.curvature.cells)
    return StageResult(best.model, known, rounds.traces, stopped)


def _from_relaxed(
    assignment: LevelAssignment, rounds: _Rounds, priors: Priors, budget: Budget
) -> StageResult:
    """Levels assigned from a map that was only drawn to them, from the likeliest fit of rounds."""
    data, (first, *others) = rounds.data, assignment.relaxed
    relaxed = run_stages(first, data, rounds.closest.model, priors, budget, math.inf)
    traces = rounds.traces + relaxed.traces
    known = relaxed.curvature or Curvature()
    if relaxed.stopped:
        return StageResult(relaxed.model, known, traces, True)
    again = replace(assignment, relaxed=tuple(others))
    found = assign_levels(again, data, relaxed.model, priors, budget, known)
    return replace(found, traces=traces + found.traces)


def _of_outlines(
    best: Candidate, curvature: Curvature, data: Data, settings: LevelSettings
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
    assigned: Candidate,
    fit: Candidate,
    data: Data,
    budget: Budget,
    settings: LevelSettings = SETTINGS,
) -> bool:
    """Whether assigned integers explain the record better than a fit will at its levels in
    integers, which are what it ends as where these explain it at all."""
    limit = rounding_limit(data, settings)
    if assigned.belief is None or assigned.misfit >= limit or budget.should_stop():
        return False
    if not budget.affords(rounding.EVALUATIONS * data.cost):
        return False
    found = rounding_of(Model(*to_integers(fit.model.v, reading=settings.reading)), data, budget)
    return found.misfit_with < limit and assigned.misfit < found.misfit
