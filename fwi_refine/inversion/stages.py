"""Carrying out the stages of a recipe, one from where the other ended."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.by_jacobian import minimise_by_jacobian
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.model import Model
from fwi_refine.inversion.optimisers import LBFGS, GaussNewtonStep
from fwi_refine.inversion.problem import Problem
from fwi_refine.inversion.published import minimise_published
from fwi_refine.inversion.recipe import GOOD_FIT, WHOLE, Stage, Subset
from fwi_refine.inversion.stage_result import Curvature, StageResult, Trace
from fwi_refine.optimise import Status
from fwi_refine.priors import Priors
from fwi_refine.survey import Survey

MIN_PERIODS = 0.9  # of a lower frequency that a record must hold
CONVERGED_CHANGE = 4.0  # m/s, mean change by a stage below which a map may have converged


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
        Of the recipe, for progress reports.

    Returns
    -------
    StageResult
        Of all stages, or of those that the budget allows.
    """
    so_far = _StagesSoFar(model, misfit)
    for number, stage in enumerate(stages, 1):
        so_far = so_far.with_skip_of(stage.skip_if, data)
        if so_far.skips or not _is_long_enough(stage, data.survey):
            continue
        if stage.must_fit and so_far.by_all is None:
            if not budget.affords(data.cost):
                return so_far.result(stopped=True)
            so_far = so_far.measured(data.misfit(so_far.model, budget))
        budget.enter(f"{name}, stage {number} of {len(stages)}")
        with budget.keeping(data.cost if stage.must_fit else 0):
            found = run_stage(stage, data, so_far.model, priors, budget)
        by_all = None
        if stage.must_fit and found.traces:
            by_all = data.misfit(found.model, budget)
            if data.beyond_noise(by_all) > so_far.limit(data):
                found, by_all = replace(found, model=so_far.model, curvature=None), so_far.by_all
        so_far = so_far.then(found, by_all)
        if found.stopped or budget.should_stop():
            return so_far.result(stopped=True)
    return so_far.result(stopped=False)


@dataclass(frozen=True)
class _StagesSoFar:
    """The result of the stages so far, and what decides on the next.

    Attributes
    ----------
    model, curvature, traces
        As of `StageResult`.
    misfit
        Mean square, of what the last stage looked at.
    by_all
        Mean square of the model's misfit by all data; None where it is not known.
    reference
        The first one that was known.
    moved
        Mean change by the last stage, m/s.
    skip_if, skipped
        That of the last stage, carried out or not, and whether stages with it are left out.
    """

    model: Model
    misfit: float
    curvature: Curvature = field(default_factory=Curvature)
    traces: tuple[Trace, ...] = ()
    by_all: float | None = None
    reference: float | None = None
    moved: float = 0.0
    skip_if: float | None = None
    skipped: bool = False

    def with_skip_of(self, skip_if: float | None, data: Data) -> "_StagesSoFar":
        """With the decision for a stage; the same for all in a row with one `skip_if`."""
        if skip_if in (None, self.skip_if):
            return replace(self, skip_if=skip_if)
        left = data.beyond_noise(self.misfit if self.by_all is None else self.by_all)
        return replace(
            self, skip_if=skip_if, skipped=left < skip_if and self.moved < CONVERGED_CHANGE
        )

    @property
    def skips(self) -> bool:
        """Whether the present stage is left out."""
        return self.skip_if is not None and self.skipped

    def measured(self, by_all: float) -> "_StagesSoFar":
        """With the misfit by all data."""
        reference = by_all if self.reference is None else self.reference
        return replace(self, by_all=by_all, reference=reference)

    def limit(self, data: Data) -> float:
        """Mean square misfit beyond the noise above which a stage that must fit is dropped."""
        # what fits better than the data's own rounding has fitted some of it
        good_fit = GOOD_FIT * data.survey.unit**2 + data.beyond_noise(data.misfit_limit(0.0))
        return max(4 * data.beyond_noise(self.reference or 0.0), good_fit)

    def then(self, found: StageResult, by_all: float | None) -> "_StagesSoFar":
        """After one more stage; by_all: misfit of its model by all data, where it is known."""
        traces = self.traces + found.traces
        return replace(
            self,
            model=found.model,
            misfit=next((trace[-1][1] ** 2 for trace in reversed(traces) if trace), self.misfit),
            curvature=self.curvature.then(found.curvature),
            traces=traces,
            by_all=by_all,
            moved=found.model.mean_change(self.model.v),
        )

    def result(self, stopped: bool) -> StageResult:
        """The result of all."""
        return StageResult(self.model, self.curvature, self.traces, stopped)


def _is_long_enough(stage: Stage, survey: Survey) -> bool:
    """Whether the records of a survey hold a wavelet of the frequency that a stage looks at."""
    factor = stage.data.frequency
    return factor is None or survey.n_steps * survey.dt * survey.frequency * factor >= MIN_PERIODS


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
    return _on_data(stage, data.with_wavelets_of(model, budget), model, priors, budget)


def _on_part(
    stage: Stage, data: Data, model: Model, priors: Priors, budget: Budget
) -> StageResult | None:
    """The same stage on the part of the record that it looks at; None where that is all of it."""
    which = stage.data
    if which.take_out is not None:
        rest = replace(stage, data=replace(which, take_out=None))
        return run_stage(rest, which.take_out(model, data, budget), model, priors, budget)
    part = which.survey(data.survey)
    if part is not data.survey and data.covers(part, which.receivers):
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
        budget.report(trace[-1][1])

    optimiser, curvature = stage.optimiser, None
    if isinstance(optimiser, LBFGS | GaussNewtonStep):
        result = minimise_published(problem, optimiser, budget, note)
    else:
        result, curvature = minimise_by_jacobian(problem, optimiser, budget, note)
    budget.iterations += result.iterations
    if result.iterations:
        by, x = problem.parameters, result.x
        model = data.constrained(Model(by.velocity(x), by.vmin(x)))
    stopped = result.status == Status.MAX_EVALUATIONS
    return StageResult(model, curvature, (tuple(trace),), stopped)
