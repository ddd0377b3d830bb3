"""A stage of the main method: steps by the Jacobian of the record, or by products with it.

Penalties hold what else is known: vmin is near its estimate, and the first row of the record gives
the velocities at the sources.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from fwi_refine.inversion.budget import Budget, OutOfTime
from fwi_refine.inversion.chains import SampledSolution, settled_by_chains
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.optimisers import (
    KrylovGaussNewton,
    LevenbergMarquardt,
    PreconditionedLBFGS,
    VariationalGaussNewton,
)
from fwi_refine.inversion.problem import Problem
from fwi_refine.inversion.stage_result import Curvature
from fwi_refine.inversion.uncertainty import Solution
from fwi_refine.objective.base import Objective, PriorTerm
from fwi_refine.objective.coefficient_noise import CorrelatedMisfit
from fwi_refine.objective.flat_misfit import FlatMisfit, has_flat_misfit, window_before_return
from fwi_refine.objective.matrix_free import DampedPrior, MatrixFreeMisfit, MatrixFreeSourceMisfit
from fwi_refine.objective.misfit import FEW_UNKNOWNS, BandMisfit
from fwi_refine.objective.noise import CLEAN, misfit_of_noise, noise_variance
from fwi_refine.objective.parameterisation import Full, Rows
from fwi_refine.objective.source_cells import SourceCells
from fwi_refine.objective.vmin_prior import VminPrior
from fwi_refine.optimise import (
    DescentSettings,
    Result,
    gauss_newton_krylov,
    interrupted,
    levenberg_marquardt,
    preconditioned_lbfgs,
    unmoved,
    variational_gauss_newton,
)
from fwi_refine.optimise.levenberg_marquardt import FIRST_DAMPING
from fwi_refine.optimise.variational import Settle, settled
from fwi_refine.priors import LearnedPrior
from fwi_refine.wave import Simulator

ByJacobian = LevenbergMarquardt | KrylovGaussNewton | VariationalGaussNewton | PreconditionedLBFGS

# First damping where the wavelets are estimated as well: a map and its wavelets explain much of
# each other, and more damping keeps steps from what is left.
SOURCE_DAMPING = 1e-9


def minimise_by_jacobian(
    problem: Problem,
    optimiser: ByJacobian,
    budget: Budget,
    note: Callable[[float, int], None],
) -> tuple[Result, Curvature | None]:
    """Minimises a problem by the main method.

    Parameters
    ----------
    problem
        What is minimised.
    optimiser
        The optimiser's settings.
    budget
        Is charged for what is simulated.
    note
        Told mean square misfit and evaluations after every iteration.
    """
    latest = unmoved(problem.x)

    def watch(result: Result) -> bool:
        nonlocal latest
        latest = result
        note(result.misfit or 0.0, result.evaluations)
        return budget.should_stop()

    data, misfit, prior = problem.data, None, problem.prior
    try:
        with budget.interruptible():
            misfit = _misfit_of(problem, optimiser, budget)
            result, prior = _minimise(problem, optimiser, misfit, budget, watch)
    except OutOfTime:
        result = interrupted(latest)
        if isinstance(optimiser, VariationalGaussNewton):  # nor is its prior known
            misfit = None
    budget.charge(data.cost * result.evaluations)
    if misfit is None:
        return result, None
    return result, _curvature(data, misfit, prior, result, budget, optimiser)


def _minimise(
    problem: Problem,
    optimiser: ByJacobian,
    misfit: BandMisfit,
    budget: Budget,
    watch: Callable[[Result], bool],
) -> tuple[Result, PriorTerm]:
    """The result, and the prior as it was renewed last."""
    data, penalties = problem.data, _penalties(problem)
    settings = DescentSettings(
        weight=problem.stage.weight_at,
        max_iterations=optimiser.iterations,
        max_evaluations=budget.limit_in(data.cost),
        target=_target(optimiser, data),
        retract=problem.parameters.retract,
        callback=watch,
    )
    if isinstance(optimiser, VariationalGaussNewton):
        return _variational(problem, optimiser, misfit, penalties, settings)
    prior, x = problem.prior + penalties, problem.x
    if isinstance(optimiser, KrylovGaussNewton):
        assert isinstance(misfit, MatrixFreeMisfit)
        damped = partial(DampedPrior, prior)
        products = optimiser.products
        result = gauss_newton_krylov(misfit, prior, damped, x, settings, products=products)
        return result, problem.prior
    steps: dict[str, int] = {
        "corrections": optimiser.corrections,
        "hessian_cost": misfit.hessian_cost(),
    }
    if isinstance(optimiser, LevenbergMarquardt):
        result = levenberg_marquardt(
            misfit,
            prior,
            x,
            settings,
            max_damping_increases=optimiser.max_damping_increases,
            damping=FIRST_DAMPING if data.source is None else SOURCE_DAMPING,
            **steps,
        )
    else:
        result = preconditioned_lbfgs(misfit, prior, x, settings, **steps)
    return result, problem.prior


def _penalties(problem: Problem) -> Objective:
    """What is known besides the prior: vmin, the cells of the sources, bounds of single cells."""
    penalties: Objective = VminPrior(*problem.stage.vmin(problem.model.v))
    if problem.parameters.prior_acts_on_map:
        penalties = penalties + SourceCells(problem.data.source_cells, problem.parameters)
    beyond = problem.bound_penalty
    return penalties if beyond is None else penalties + beyond


def _variational(
    problem: Problem,
    optimiser: VariationalGaussNewton,
    misfit: BandMisfit,
    penalties: Objective,
    settings: DescentSettings,
) -> tuple[Result, PriorTerm]:
    """The result, and the prior as it was renewed last."""
    first: Any = problem.prior.prior  # one that has `update`
    parameters = problem.parameters

    def renew(covariance: torch.Tensor) -> Objective:
        updated = first.update(parameters.map_covariance(covariance), problem.model.shape)
        return PriorTerm(updated, parameters) + penalties

    renewed_by = renew if hasattr(first, "update") else None
    settle: Settle[Objective] = partial(settled, renew=renewed_by, rounds=optimiser.rounds)
    if isinstance(first, LearnedPrior):
        settle = partial(settled_by_chains, first=problem.prior, penalties=penalties)
    result, last = variational_gauss_newton(
        misfit,
        problem.prior + penalties,
        problem.x,
        settle=settle,
        weight=[partial(_weight_of_density, problem.data, level) for level in optimiser.noise],
        corrections=optimiser.corrections,
        hessian_cost=misfit.hessian_cost(),
        max_evaluations=settings.max_evaluations,
        target=settings.target,
        retract=settings.retract,
        callback=settings.callback,
    )
    renewed = last.terms[0][1]
    assert isinstance(renewed, PriorTerm)
    return result, renewed


def _weight_of_density(data: Data, least: float, misfit: float, prior: float) -> float:
    """The weight of a prior that is minus twice a log density: noise variance over samples; least:
    rms of the noise of a coefficient."""
    variance = max(noise_variance(misfit, data.survey), least**2)
    return variance / data.count


def _target(optimiser: ByJacobian, data: Data) -> float:
    """The mean square misfit at which a stage ends."""
    target = optimiser.target or 0.0
    if isinstance(optimiser, LevenbergMarquardt | KrylovGaussNewton) and optimiser.remainder:
        return max(target, optimiser.remainder**2 * data.energy)
    return target


def _misfit_of(problem: Problem, optimiser: ByJacobian, budget: Budget) -> BandMisfit:
    """The misfit by its band, or by rows where a Jacobian by rows is to be had."""
    data, parameters, simulator = problem.data, problem.parameters, problem.data.simulator
    if _rounding_is_noise(problem, optimiser):
        cost = data.cost * data.band_misfit(parameters).hessian_cost()
        if budget.affords(cost):
            budget.charge(cost)
            return CorrelatedMisfit(simulator, parameters, data.record, problem.x)
    if isinstance(optimiser, KrylovGaussNewton):
        if data.source is not None:
            return MatrixFreeSourceMisfit(simulator, parameters, data.record, data.source)
        return MatrixFreeMisfit(simulator, parameters, data.record, data.weights)
    if isinstance(optimiser, PreconditionedLBFGS):  # it needs gradients to which every step adds
        simulator = Simulator(data.survey, imaging_step=1, **simulator.options)
    by_trace = data.weights is None or data.weights.by_trace
    rows, known = problem.x[:-1], data.source is None and by_trace
    if known and isinstance(parameters, Rows) and has_flat_misfit(rows, data.survey):
        window = window_before_return(rows, data.survey)
        return FlatMisfit(simulator, parameters, data.record, window, data.weights)
    return data.band_misfit(parameters, simulator)


def _rounding_is_noise(problem: Problem, optimiser: ByJacobian) -> bool:
    """Whether rounded coefficients are most of the noise, and a matrix of them is to be had."""
    data = problem.data
    by_matrix = isinstance(optimiser, LevenbergMarquardt | VariationalGaussNewton)
    clean = data.weights is None and data.source is None and data.noise == CLEAN
    return problem.stage.rounding_is_noise and by_matrix and data.released and clean


def _least_misfit(optimiser: ByJacobian, data: Data) -> float:
    """Mean square misfit that counts as noise in any case."""
    if isinstance(optimiser, VariationalGaussNewton):
        return misfit_of_noise(optimiser.noise[-1] ** 2, data.survey)
    return 0.0


def _curvature(
    data: Data,
    misfit: BandMisfit,
    prior: PriorTerm,
    result: Result,
    budget: Budget,
    optimiser: ByJacobian,
) -> Curvature | None:
    """The source of the expected error; one simulation."""
    hessian, parameters = misfit.last_hessian, misfit.parameters
    if hessian is None:
        return None
    cells = hessian if isinstance(parameters, Full) else None
    # the majoriser of a prior that was settled with the Jacobian stands for a normal prior
    gaussian = prior.quadratic or isinstance(optimiser, VariationalGaussNewton)
    # a part of the record; or a prior that says nothing of single cells
    unknown = isinstance(misfit, FlatMisfit) or (not gaussian and parameters.size > FEW_UNKNOWNS)
    if unknown or not budget.affords(data.cost):
        return Curvature(None, cells)
    budget.charge(data.cost)
    noise = 0.0 if data.noise is None else data.noise.misfit_in_band(data.survey)
    found = Solution(
        parameters,
        hessian,
        max(misfit(result.x), _least_misfit(optimiser, data), noise),
        prior.hessian(result.x) if gaussian else None,
        data.survey,
        getattr(prior.prior, "spread", 1.0),
        samples_used=data.count,
        source=getattr(misfit, "last_source", None),
    )
    if isinstance(prior.prior, LearnedPrior):
        found = SampledSolution(**vars(found), learned=prior.prior)
    return Curvature(found, cells)
