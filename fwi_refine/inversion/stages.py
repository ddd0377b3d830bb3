"""Carrying out the stages of a recipe, one from where the other ended."""

import math
from collections.abc import Sequence
from dataclasses import replace

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.by_jacobian import minimise_by_jacobian
from fwi_refine.inversion.data import Data, Model
from fwi_refine.inversion.optimisers import LBFGS, GaussNewtonStep
from fwi_refine.inversion.problem import Problem
from fwi_refine.inversion.published import minimise_published
from fwi_refine.inversion.recipe import GOOD_FIT, WHOLE, Stage, Subset
from fwi_refine.inversion.stage_result import Curvature, StageResult, Trace
from fwi_refine.optimise import Status
from fwi_refine.priors import Priors
from fwi_refine.survey import Survey

PERIODS = 0.9  # of a lower frequency that a record must hold, at least
AT_REST = 4.0  # m/s, mean change by a stage, after less of which a map may be done


def run_stages(
    stages: Sequence[Stage],
    data: Data,
    model: Model,
    priors: Priors,
    budget: Budget,
    misfit: float,
    name: str = "",
) -> StageResult:
    """Runs the stages of a recipe, one from where the other ended.

    Parameters
    ----------
    stages
        In their order; see `Stage` for which are left out or dropped.
    data, model, priors, budget
        As for `run_stage`.
    misfit
        Mean square misfit of the model.
    name
        How the budget's watcher is told of the stages.

    Returns
    -------
    StageResult
        Of all stages, or of those that the budget allows.
    """
    good_fit = GOOD_FIT * data.survey.unit**2 + data.beyond_noise(data.square(0.0))
    # misfits by all shots, where they are known
    reference: float | None = None
    exact: float | None = None
    curvature = Curvature()
    traces: tuple[Trace, ...] = ()
    moved, asked, skipped = 0.0, None, False
    for number, stage in enumerate(stages, 1):
        if stage.skip_if not in (None, asked):  # asked once for all in a row with one number
            # of all shots where it is known: a stage may have looked at some only
            left = data.beyond_noise(misfit if exact is None else exact)
            skipped = left < stage.skip_if and moved < AT_REST
        asked = stage.skip_if
        if (asked is not None and skipped) or not _is_long_enough(stage, data.survey):
            continue
        if stage.must_fit and exact is None:
            if not budget.affords(data.cost):
                return StageResult(model, curvature, traces, True)
            exact = data.misfit(model, budget)
            reference = exact if reference is None else reference
        before, exact = exact, None
        budget.enter(f"{name}, stage {number} of {len(stages)}")
        with budget.keeping(data.cost if stage.must_fit else 0):
            found = run_stage(stage, data, model, priors, budget)
        if stage.must_fit and found.traces:
            exact = data.misfit(found.model, budget)
            # what fits better than the data's own rounding has fitted some of it
            limit = max(4 * data.beyond_noise(reference or 0.0), good_fit)
            if data.beyond_noise(exact) > limit:
                found, exact = replace(found, model=model, curvature=None), before
        traces += found.traces
        misfit = next((trace[-1][1] ** 2 for trace in reversed(traces) if trace), misfit)
        curvature = curvature.then(found.curvature)
        moved = found.model.mean_change(model.v)
        model = found.model
        if found.stopped or budget.should_stop():
            return StageResult(model, curvature, traces, True)
    return StageResult(model, curvature, traces, False)


def _is_long_enough(stage: Stage, survey: Survey) -> bool:
    """Whether the records of a survey hold a wavelet of the frequency that a stage looks at."""
    factor = stage.data.frequency
    return factor is None or survey.n_steps * survey.dt * survey.frequency * factor >= PERIODS


def run_stage(
    stage: Stage, data: Data, model: Model, priors: Priors, budget: Budget
) -> StageResult:
    """Runs one stage.

    Parameters
    ----------
    stage
        What is minimised, over which unknowns, and how.
    data
        The record that is to be explained.
    model
        Where to begin.
    priors
        On the grid of the survey.
    budget
        Is charged for what is simulated.

    Returns
    -------
    StageResult
        Its model is the given one where nothing lower was found: not what the stage's unknowns
        would make of that.
    """
    if not budget.affords(1):
        return StageResult(model, None, (), True)
    part = _on_part(stage, data, model, priors, budget)
    if part is not None:
        return part
    return _on_data(stage, data.at(model, budget), model, priors, budget)


def _on_part(
    stage: Stage, data: Data, model: Model, priors: Priors, budget: Budget
) -> StageResult | None:
    """The same stage on the part of the record that it looks at; None where that is all of it."""
    which = stage.data
    if which.take_out is not None:
        rest = replace(stage, data=replace(which, take_out=None))
        return run_stage(rest, which.take_out(model, data, budget), model, priors, budget)
    part = which.survey(data.survey)
    if part is not data.survey and data.tells(part, which.receivers):
        subset = data.subset(part, which.receivers)
        whole = replace(stage, data=replace(which, shots=None, receivers=1))
        return run_stage(whole, subset, model, priors, budget)
    if which.frequency is not None:
        lower = data.low_passed(which.frequency, model)
        rest = replace(stage, data=Subset(until=which.until))
        found = run_stage(rest, lower, model, priors, budget)
        # the curvature of another record says nothing of the error
        known = found.curvature and replace(found.curvature, uncertainty=None)
        return replace(found, curvature=known or Curvature())
    if which.until is not None:
        early = data.until(which.until)
        found = run_stage(replace(stage, data=WHOLE), early, model, priors, budget)
        return replace(found, curvature=Curvature())
    return None


def _on_data(stage: Stage, data: Data, model: Model, priors: Priors, budget: Budget) -> StageResult:
    """A stage on all of its data."""
    problem = Problem.at(stage, data, model, priors)
    trace: list[tuple[int, float]] = []

    def note(misfit: float, evaluations: int) -> None:
        so_far = math.ceil(budget.evaluations + data.cost * evaluations)
        trace.append((so_far, math.sqrt(misfit)))
        budget.tell(trace[-1][1])

    how, curvature = stage.optimiser, None
    if isinstance(how, LBFGS | GaussNewtonStep):
        result = minimise_published(problem, how, budget, note)
    else:
        result, curvature = minimise_by_jacobian(problem, how, budget, note)
    budget.iterations += result.iterations
    if result.iterations:
        by, x = problem.parameters, result.x
        model = data.possible(Model(by.velocity(x), by.vmin(x)))
    stopped = result.status == Status.MAX_EVALUATIONS
    return StageResult(model, curvature, (tuple(trace),), stopped)
