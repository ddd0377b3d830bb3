"""Carrying out the stages of a recipe."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.chains import settled_by_chains
from fwi_refine.inversion.data import Data, Model
from fwi_refine.inversion.recipe import (
    COST_SCALE,
    GOOD_FIT,
    LBFGS,
    WHOLE,
    GaussNewtonStep,
    KrylovGaussNewton,
    LevenbergMarquardt,
    PreconditionedLBFGS,
    Stage,
    Subset,
    VariationalGaussNewton,
)
from fwi_refine.inversion.uncertainty import (
    noise_of,
    posterior_samples,
    precision,
    standard_deviation,
)
from fwi_refine.objective.base import PriorTerm
from fwi_refine.objective.coefficient_noise import CorrelatedMisfit
from fwi_refine.objective.flat_misfit import FlatMisfit, has_flat_misfit, window_before_return
from fwi_refine.objective.matrix_free import DampedPrior, MatrixFreeMisfit
from fwi_refine.objective.misfit import FEW_UNKNOWNS, BandMisfit, DataMisfit, VminTie
from fwi_refine.objective.noise import CLEAN, misfit_of_noise, noise_variance
from fwi_refine.objective.parameterisation import Full, Parameters, Rows
from fwi_refine.objective.source_cells import SourceCells
from fwi_refine.objective.source_misfit import SourceHessian
from fwi_refine.optimise import (
    Result,
    Status,
    gauss_newton_krylov,
    gauss_newton_step,
    lbfgs,
    levenberg_marquardt,
    preconditioned_lbfgs,
    variational_gauss_newton,
)
from fwi_refine.optimise.variational import Settle, settled
from fwi_refine.priors import LearnedPrior, Priors, VariationalTotalVariation
from fwi_refine.survey import Survey
from fwi_refine.wave import Simulator

PERIODS = 0.9  # of a lower frequency that a record must hold, at least
WALLS = 1e-7  # weight of cells beyond their bounds where no misfit says it: 1e-9 for 1 m/s
AT_REST = 4.0  # m/s, mean change by a stage, after less of which a map may be done

# (evaluations so far, rms misfit) of a stage after each of its iterations
Trace = tuple[tuple[int, float], ...]


class Uncertainty(Protocol):
    """What the expected error of a map follows from."""

    def deviation(self, v: torch.Tensor) -> torch.Tensor | None:
        """Expected rms error of each cell of a map v (nz, nx), m/s; None where it is not known."""


@dataclass(frozen=True)
class Solution:
    """Where a Gauss-Newton stage ended.

    Attributes
    ----------
    parameters
        The unknowns.
    hessian
        Of the misfit, at the last Jacobian.
    misfit
        Mean square, within the band.
    prior_hessian
        Of a prior that is Gaussian, or was made so; None for total variation.
    survey
        Of the record.
    spread
        Factor of the expected errors, which the prior says.
    learned
        The prior, where samples stand for the posterior.
    samples_used
        Of the record, those that count; None: all.
    source
        How map and wavelets depend on each other, where the wavelets are estimated.
    """

    parameters: Parameters
    hessian: torch.Tensor
    misfit: float
    prior_hessian: torch.Tensor | None
    survey: Survey
    spread: float = 1.0
    learned: LearnedPrior | None = None
    samples_used: int | None = None
    source: SourceHessian | None = None

    def precision(self) -> torch.Tensor:
        """Posterior precision of the unknowns."""
        return precision(
            self.hessian,
            self.parameters,
            self.misfit,
            self.survey,
            self.prior_hessian,
            self.samples_used,
        )

    @property
    def variance(self) -> float:
        """Of the noise of a coefficient of the band."""
        return noise_of(self.misfit, self.survey)

    def deviation(self, v: torch.Tensor) -> torch.Tensor | None:
        """Expected rms error of each cell (nz, nx), m/s, or None; it does not depend on v."""
        if self.learned is not None and self.learned.deviation is not None:
            return self.spread * self.learned.deviation
        found = standard_deviation(
            self.hessian,
            self.parameters,
            self.misfit,
            self.survey,
            self.prior_hessian,
            self.samples_used,
        )
        return None if found is None else self.spread * found

    def samples(self, v: torch.Tensor, count: int, seed: int) -> torch.Tensor | None:
        """Maps (count, nz, nx), m/s, drawn from the posterior about a map v (nz, nx), or None."""
        if self.learned is not None and self.learned.mean is not None:
            return v + self.spread * (self.learned.samples(count, seed) - self.learned.mean)
        draws = np.random.default_rng(seed).standard_normal((count, self.parameters.size))
        return posterior_samples(
            self.parameters.from_velocity(v),
            self.precision(),
            self.parameters,
            self.spread * torch.from_numpy(draws),
        )


@dataclass(frozen=True)
class Curvature:
    """What is known of the objective's curvature after some stages.

    Attributes
    ----------
    uncertainty
        What the expected error follows from; None where it is not known.
    cells
        Hessian of the misfit by every cell, the last one; None before there was any.
    """

    uncertainty: Uncertainty | None = None
    cells: torch.Tensor | None = None

    def then(self, later: "Curvature | None") -> "Curvature":
        """After a later stage; None: one that has learnt nothing of it."""
        if later is None:
            return self
        return Curvature(later.uncertainty, self.cells if later.cells is None else later.cells)


@dataclass(frozen=True)
class StageResult:
    """Where one or several stages ended.

    Attributes
    ----------
    model
        The map and vmin.
    curvature
        None where nothing was learnt of it.
    traces
        One for each stage that was carried out.
    stopped
        Whether budget or time ran out.
    """

    model: Model
    curvature: Curvature | None
    traces: tuple[Trace, ...]
    stopped: bool


def penalty(stage: Stage, model: Model, priors: Priors) -> float:
    """Weighted prior of a model, as a stage has it."""
    parameters = stage.unknowns(model.v, priors)
    prior = PriorTerm(stage.prior(model.v, priors), parameters)
    return stage.weight * float(prior(parameters.from_velocity(model.v, model.vmin)))


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
    if stage.data.take_out is not None:
        rest = replace(stage, data=replace(stage.data, take_out=None))
        return run_stage(rest, stage.data.take_out(model, data, budget), model, priors, budget)
    part = stage.data.survey(data.survey)
    if part is not data.survey and data.tells(part, stage.data.receivers):
        subset = data.subset(part, stage.data.receivers)
        whole = replace(stage, data=replace(stage.data, shots=None, receivers=1))
        return run_stage(whole, subset, model, priors, budget)
    if stage.data.frequency is not None:
        lower = data.low_passed(stage.data.frequency, model)
        rest = replace(stage, data=Subset(until=stage.data.until))
        found = run_stage(rest, lower, model, priors, budget)
        # the curvature of another record says nothing of the error
        known = found.curvature and replace(found.curvature, uncertainty=None)
        return replace(found, curvature=known or Curvature())
    if stage.data.until is not None:
        early = data.until(stage.data.until)
        found = run_stage(replace(stage, data=WHOLE), early, model, priors, budget)
        return replace(found, curvature=Curvature())
    data = data.at(model, budget)
    parameters = stage.unknowns(model.v, priors)
    if data.known is not None:
        parameters = data.known.held(parameters)
    prior = PriorTerm(stage.prior(model.v, priors), parameters)
    x = parameters.from_velocity(model.v, model.vmin)
    trace: list[tuple[int, float]] = []

    def note(misfit: float, evaluations: int) -> None:
        so_far = math.ceil(budget.evaluations + data.cost * evaluations)
        trace.append((so_far, math.sqrt(misfit)))
        budget.tell(trace[-1][1])

    if isinstance(stage.optimiser, ByJacobian):
        result, curvature = _by_jacobian(
            stage, stage.optimiser, data, model, parameters, prior, x, budget, note
        )
    else:
        result = _published(stage, stage.optimiser, data, parameters, prior, x, budget, note)
        curvature = None
    budget.iterations += result.iterations
    stopped = result.status == Status.MAX_EVALUATIONS
    if result.iterations:
        model = data.possible(Model(parameters.velocity(result.x), parameters.vmin(result.x)))
    return StageResult(model, curvature, (tuple(trace),), stopped)


Note = Callable[[float, int], None]
ByJacobian = LevenbergMarquardt | KrylovGaussNewton | VariationalGaussNewton | PreconditionedLBFGS


def _by_jacobian(
    stage: Stage,
    how: ByJacobian,
    data: Data,
    model: Model,
    parameters: Parameters,
    prior: PriorTerm,
    x: torch.Tensor,
    budget: Budget,
    note: Note,
) -> tuple[Result, Curvature | None]:
    """A stage of the main method, with what ties vmin and the cells of the sources."""
    misfit = _misfit_of(stage, how, data, parameters, x, budget)
    ties: Any = VminTie(*stage.vmin(model.v))
    if parameters.prior_acts_on_map:
        ties = ties + SourceCells(data.source_cells, parameters)
    walls = None if data.known is None else data.known.walls(parameters)
    if walls is not None:
        ties = ties + walls

    def watch(result: Result) -> bool:
        note(result.misfit or 0.0, result.evaluations)
        return budget.should_stop()

    common: dict[str, Any] = {
        "max_evaluations": budget.limit_in(data.cost),
        "target": _target(how, data),
        "retract": parameters.retract,
        "callback": watch,
    }
    if not isinstance(how, KrylovGaussNewton):
        common |= {"corrections": how.corrections, "hessian_cost": misfit.hessian_cost()}
    least = 0.0  # mean square misfit that counts as noise in any case
    if isinstance(how, VariationalGaussNewton):
        last: Any
        result, last = variational_gauss_newton(
            misfit,
            prior + ties,
            x,
            settle=_settle(prior, ties, how.rounds),
            weight=[partial(_weight_of_density, data, level) for level in how.noise],
            **common,
        )
        prior = last.terms[0][1]
        least = misfit_of_noise(how.noise[-1] ** 2, data.survey)
    elif isinstance(how, KrylovGaussNewton):
        assert isinstance(misfit, MatrixFreeMisfit)
        result = gauss_newton_krylov(
            misfit,
            prior + ties,
            partial(DampedPrior, prior + ties),
            x,
            weight=stage.weight_at,
            max_iterations=how.iterations,
            products=how.products,
            **common,
        )
    elif isinstance(how, LevenbergMarquardt):
        result = levenberg_marquardt(
            misfit,
            prior + ties,
            x,
            weight=stage.weight_at,
            max_iterations=how.iterations,
            max_damping_increases=how.max_damping_increases,
            **common,
        )
    else:
        result = preconditioned_lbfgs(
            misfit,
            prior + ties,
            x,
            weight=stage.weight_at,
            max_iterations=how.iterations,
            **common,
        )
    budget.charge(data.cost * result.evaluations)
    return result, _curvature(data, misfit, prior, result, budget, least)


def _settle(prior: PriorTerm, ties: Any, rounds: int) -> Settle[Any]:
    """How a prior is renewed with the quadratic of a Jacobian."""
    first: Any = prior.prior
    parameters = prior.parameters
    if isinstance(first, LearnedPrior):
        return partial(settled_by_chains, first=prior, ties=ties)

    def renew(covariance: torch.Tensor) -> Any:
        updated = first.update(parameters.map_covariance(covariance), parameters.shape)
        return PriorTerm(updated, parameters) + ties

    return partial(settled, renew=renew, rounds=rounds)


def _target(how: ByJacobian, data: Data) -> float:
    """The mean square misfit at which a stage ends."""
    target = how.target or 0.0
    if isinstance(how, LevenbergMarquardt | KrylovGaussNewton) and how.remainder:
        return max(target, how.remainder**2 * data.energy)
    return target


def _weight_of_density(data: Data, least: float, misfit: float, prior: float) -> float:
    """The weight of a prior that is minus twice a log density: noise variance over samples; least:
    rms of the noise of a coefficient."""
    variance = max(noise_variance(misfit, data.survey), least**2)
    return variance / data.count


def _misfit_of(
    stage: Stage,
    how: ByJacobian,
    data: Data,
    parameters: Parameters,
    x: torch.Tensor,
    budget: Budget,
) -> BandMisfit:
    """The misfit by its band, or by rows where a Jacobian by rows is to be had."""
    simulator = data.simulator
    if _rounding_is_noise(stage, how, data):
        cost = data.cost * data.band_misfit(parameters).hessian_cost()
        if budget.affords(cost):
            budget.charge(cost)
            return CorrelatedMisfit(simulator, parameters, data.record, x)
    if isinstance(how, KrylovGaussNewton):
        return MatrixFreeMisfit(simulator, parameters, data.record, data.weights)
    if isinstance(how, PreconditionedLBFGS):  # it needs gradients to which every step adds
        simulator = Simulator(data.survey, imaging_step=1, **simulator.how)
    by_trace = data.weights is None or data.weights.by_trace
    known = data.source is None and by_trace
    if known and isinstance(parameters, Rows) and has_flat_misfit(x[:-1], data.survey):
        window = window_before_return(x[:-1], data.survey)
        return FlatMisfit(simulator, parameters, data.record, window, data.weights)
    return data.band_misfit(parameters, simulator)


def _rounding_is_noise(stage: Stage, how: ByJacobian, data: Data) -> bool:
    """Whether rounded coefficients are most of the noise, and a matrix of them is to be had."""
    by_matrix = isinstance(how, LevenbergMarquardt | VariationalGaussNewton)
    clean = data.weights is None and data.source is None and data.noise == CLEAN
    return stage.rounding_is_noise and by_matrix and data.released and clean


def _curvature(
    data: Data,
    misfit: BandMisfit,
    prior: PriorTerm,
    result: Result,
    budget: Budget,
    least: float,
) -> Curvature | None:
    """What the expected error follows from; one simulation."""
    hessian, parameters = misfit.last_hessian, misfit.parameters
    if hessian is None:
        return None
    cells = hessian if isinstance(parameters, Full) else None
    gaussian = prior.quadratic or isinstance(prior.prior, VariationalTotalVariation)
    # a part of the record; or a prior that says nothing of single cells
    unknown = isinstance(misfit, FlatMisfit) or (not gaussian and parameters.size > FEW_UNKNOWNS)
    if unknown or not budget.affords(data.cost):
        return Curvature(None, cells)
    budget.charge(data.cost)
    noise = 0.0 if data.noise is None else data.noise.misfit_in_band(data.survey)
    left = max(misfit(result.x), least, noise)
    prior_hessian = prior.hessian(result.x) if gaussian else None
    spread = getattr(prior.prior, "spread", 1.0)
    source = getattr(misfit, "last_source", None)
    found = Solution(
        parameters,
        hessian,
        left,
        prior_hessian,
        data.survey,
        spread,
        prior.prior if isinstance(prior.prior, LearnedPrior) else None,
        samples_used=data.count,
        source=source,
    )
    return Curvature(found, cells)


def _published(
    stage: Stage,
    how: LBFGS | GaussNewtonStep,
    data: Data,
    parameters: Parameters,
    prior: PriorTerm,
    x: torch.Tensor,
    budget: Budget,
    note: Note,
) -> Result:
    """A stage of the published method: the plain misfit and a fixed weight."""
    penalties = stage.weight * prior
    walls = None if data.known is None else data.known.walls(parameters)
    if walls is not None:
        penalties = penalties + WALLS * data.survey.unit**2 * walls
    misfit_term: DataMisfit
    if data.source is None:
        misfit_term = DataMisfit(data.simulator, parameters, data.record, data.weights)
    else:
        misfit_term = data.band_misfit(parameters)
    objective = misfit_term + penalties
    limit = budget.limit_in(data.cost)

    def noted(result: Result) -> float:
        misfit = result.value - penalties(result.x)
        note(max(misfit, 0.0), result.evaluations)  # rounding may leave it below 0
        return misfit

    def callback(result: Result) -> bool:
        misfit = noted(result)
        return (how.target is not None and misfit < how.target) or budget.should_stop()

    if isinstance(how, GaussNewtonStep):
        result = gauss_newton_step(
            objective, x, max_evaluations=limit, should_stop=budget.should_stop
        )
        noted(result)
    else:
        result = lbfgs(
            objective,
            x,
            max_iterations=how.iterations,
            max_evaluations=limit,
            gradient_tolerance=how.gradient_tolerance,
            scale=COST_SCALE,
            initial_step=how.initial_step,
            callback=callback,
        )
    budget.charge(data.cost * result.evaluations)
    return result
