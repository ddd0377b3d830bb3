"""Each cell of a layered map at a level, with the rounding of the released data taken out."""

import math
from dataclasses import replace

import torch

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data, Model
from fwi_refine.inversion.levels import rounding
from fwi_refine.inversion.levels.levels import to_integers
from fwi_refine.inversion.levels.rounding import rounding_of, roundings_of
from fwi_refine.inversion.levels.rounds import (
    Candidate,
    assign_twice,
    levels_in_integers,
    round_cost,
    rounding_limit,
)
from fwi_refine.inversion.levels.settings import SETTINGS, LevelSettings
from fwi_refine.inversion.problem import penalty
from fwi_refine.inversion.recipe import LevelAssignment
from fwi_refine.inversion.stage_result import Curvature, StageResult, Trace
from fwi_refine.inversion.stages import run_stage, run_stages
from fwi_refine.inversion.uncertainty import Solution
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
    maps = levels_in_integers(model, settings, settings.snap)
    if not budget.affords((1 + rounding.COST * len(maps)) * data.cost):
        return StageResult(model, curvature, (), True)
    misfit = data.misfit(model, budget)
    floor = data.square(settings.noise_floor_rms)
    least, most = assignment.noise
    noise = max(most, settings.noise_of_misfit * math.sqrt(misfit))
    final = assignment.between(settings.widths[0], 1.0)
    given, present, assigned = curvature, model, None
    closest, least_value = Candidate(model, misfit), math.inf
    integers, added, shift = roundings_of(maps, data, budget)
    best = Candidate(integers, added.misfit)
    cleared, stopped = data.without(shift), False
    traces: tuple[Trace, ...] = ()
    for number in range(1, 1 if best.misfit < floor else assignment.rounds + 1):
        if not budget.affords(round_cost(data, model, settings)) or budget.should_stop():
            stopped = True
            break
        budget.enter(f"levels of cells, round {number} of at most {assignment.rounds}")
        made, beyond_doubt = assign_twice(data, cleared, present, noise, assignment, floor, budget)
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
            closest, least_value = Candidate(present, fits, found.assigned.belief), value
    stopped = stopped or budget.should_stop()  # within the last round
    noise_left = misfit - data.beyond_noise(misfit)
    explained = noise_left + settings.explained * (misfit - noise_left)
    fit, known = closest, curvature
    if closest.misfit >= explained:
        fit, known = Candidate(model, misfit), curvature.then(given)
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
    if not budget.affords(rounding.COST * data.cost):
        return False
    found = rounding_of(Model(*to_integers(fit.model.v, reading=settings.reading)), data, budget)
    return found.misfit_with < limit and assigned.misfit < found.misfit
