"""A stage of the main method: steps by the Jacobian of the record, or by products with it.

What the record does not tell is tied down besides: vmin to its estimate, and the cells at the
sources to what the first row of the record says of them.
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
from fwi_refine.objective.vmin_tie import VminTie
from fwi_refine.optimise import (
    Result,
    gauss_newton_krylov,
    interrupted,
    levenberg_marquardt,
    preconditioned_lbfgs,
    unmoved,
    variational_gauss_newton,
)
from fwi_refine.optimise.variational import Settle, settled
from fwi_refine.priors import LearnedPrior
from fwi_refine.wave import Simulator

ByJacobian = LevenbergMarquardt | KrylovGaussNewton | VariationalGaussNewton | PreconditionedLBFGS

# First damping where the wavelets are estimated as well: a map and its wavelets explain much of
# each other, and more damping keeps steps from what is left.
SOURCE_DAMPING = 1e-9


def minimise_by_jacobian(
    problem: Problem,
    how: ByJacobian,
    budget: Budget,
    note: Callable[[float, int], None],
) -> tuple[Result, Curvature | None]:
    """Minimises a problem by the main method.

    Parameters
    ----------
    problem
        What is minimised.
    how
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
            misfit = _misfit_of(problem, how, budget)
            result, prior = _minimise(problem, how, misfit, budget, watch)
    except OutOfTime:
        result = interrupted(latest)
        if isinstance(how, VariationalGaussNewton):  # nor is its prior known
            misfit = None
    budget.charge(data.cost * result.evaluations)
    if misfit is None:
        return result, None
    return result, _curvature(data, misfit, prior, result, budget, how)


def _minimise(
    problem: Problem,
    how: ByJacobian,
    misfit: BandMisfit,
    budget: Budget,
    watch: Callable[[Result], bool],
) -> tuple[Result, PriorTerm]:
    """The result, and the prior as it was renewed last."""
    data, ties = problem.data, _ties(problem)
    common: dict[str, Any] = {
        "max_evaluations": budget.limit_in(data.cost),
        "target": _target(how, data),
        "retract": problem.parameters.retract,
        "callback": watch,
    }
    if not isinstance(how, KrylovGaussNewton):
        common |= {"corrections": how.corrections, "hessian_cost": misfit.hessian_cost()}
    prior = problem.prior
    if isinstance(how, VariationalGaussNewton):
        result, prior = _variational(problem, how, misfit, ties, common)
    else:
        common |= {"weight": problem.stage.weight_at, "max_iterations": how.iterations}
        penalties = prior + ties
        if isinstance(how, KrylovGaussNewton):
            assert isinstance(misfit, MatrixFreeMisfit)
            damped = partial(DampedPrior, penalties)
            common["products"] = how.products
            result = gauss_newton_krylov(misfit, penalties, damped, problem.x, **common)
        elif isinstance(how, LevenbergMarquardt):
            common["max_damping_increases"] = how.max_damping_increases
            if data.source is not None:
                common["damping"] = SOURCE_DAMPING
            result = levenberg_marquardt(misfit, penalties, problem.x, **common)
        else:
            result = preconditioned_lbfgs(misfit, penalties, problem.x, **common)
    return result, prior


def _ties(problem: Problem) -> Objective:
    """The ties of vmin, of the cells of the sources and of cells with bounds of their own."""
    ties: Objective = VminTie(*problem.stage.vmin(problem.model.v))
    if problem.parameters.prior_acts_on_map:
        ties = ties + SourceCells(problem.data.source_cells, problem.parameters)
    walls = problem.walls
    return ties if walls is None else ties + walls


def _variational(
    problem: Problem,
    how: VariationalGaussNewton,
    misfit: BandMisfit,
    ties: Objective,
    common: dict[str, Any],
) -> tuple[Result, PriorTerm]:
    """The result, and the prior as it was renewed last."""
    first: Any = problem.prior.prior  # one that has `update`
    parameters = problem.parameters

    def renew(covariance: torch.Tensor) -> Objective:
        updated = first.update(parameters.map_covariance(covariance), problem.model.shape)
        return PriorTerm(updated, parameters) + ties

    renewed_by = renew if hasattr(first, "update") else None
    settle: Settle[Objective] = partial(settled, renew=renewed_by, rounds=how.rounds)
    if isinstance(first, LearnedPrior):
        # where total variation ended; with noise that is much the worse estimate
        other = parameters.velocity(problem.x) if problem.data.noise == CLEAN else None
        settle = partial(settled_by_chains, first=problem.prior, ties=ties, other=other)
    result, last = variational_gauss_newton(
        misfit,
        problem.prior + ties,
        problem.x,
        settle=settle,
        weight=[partial(_weight_of_density, problem.data, level) for level in how.noise],
        **common,
    )
    renewed = last.terms[0][1]
    assert isinstance(renewed, PriorTerm)
    return result, renewed


def _weight_of_density(data: Data, least: float, misfit: float, prior: float) -> float:
    """The weight of a prior that is minus twice a log density: noise variance over samples; least:
    rms of the noise of a coefficient."""
    variance = max(noise_variance(misfit, data.survey), least**2)
    return variance / data.count


def _target(how: ByJacobian, data: Data) -> float:
    """The mean square misfit at which a stage ends."""
    target = how.target or 0.0
    if isinstance(how, LevenbergMarquardt | KrylovGaussNewton) and how.remainder:
        return max(target, how.remainder**2 * data.energy)
    return target


def _misfit_of(problem: Problem, how: ByJacobian, budget: Budget) -> BandMisfit:
    """The misfit by its band, or by rows where a Jacobian by rows is to be had."""
    data, parameters, simulator = problem.data, problem.parameters, problem.data.simulator
    if _rounding_is_noise(problem, how):
        cost = data.cost * data.band_misfit(parameters).hessian_cost()
        if budget.affords(cost):
            budget.charge(cost)
            return CorrelatedMisfit(simulator, parameters, data.record, problem.x)
    if isinstance(how, KrylovGaussNewton):
        if data.source is not None:
            return MatrixFreeSourceMisfit(simulator, parameters, data.record, data.source)
        return MatrixFreeMisfit(simulator, parameters, data.record, data.weights)
    if isinstance(how, PreconditionedLBFGS):  # it needs gradients to which every step adds
        simulator = Simulator(data.survey, imaging_step=1, **simulator.how)
    by_trace = data.weights is None or data.weights.by_trace
    rows, known = problem.x[:-1], data.source is None and by_trace
    if known and isinstance(parameters, Rows) and has_flat_misfit(rows, data.survey):
        window = window_before_return(rows, data.survey)
        return FlatMisfit(simulator, parameters, data.record, window, data.weights)
    return data.band_misfit(parameters, simulator)


def _rounding_is_noise(problem: Problem, how: ByJacobian) -> bool:
    """Whether rounded coefficients are most of the noise, and a matrix of them is to be had."""
    data = problem.data
    by_matrix = isinstance(how, LevenbergMarquardt | VariationalGaussNewton)
    clean = data.weights is None and data.source is None and data.noise == CLEAN
    return problem.stage.rounding_is_noise and by_matrix and data.released and clean


def _least_misfit(how: ByJacobian, data: Data) -> float:
    """Mean square misfit that counts as noise in any case."""
    if isinstance(how, VariationalGaussNewton):
        return misfit_of_noise(how.noise[-1] ** 2, data.survey)
    return 0.0


def _curvature(
    data: Data,
    misfit: BandMisfit,
    prior: PriorTerm,
    result: Result,
    budget: Budget,
    how: ByJacobian,
) -> Curvature | None:
    """The source of the expected error; one simulation."""
    hessian, parameters = misfit.last_hessian, misfit.parameters
    if hessian is None:
        return None
    cells = hessian if isinstance(parameters, Full) else None
    # the majoriser of a prior that was settled with the Jacobian stands for a normal prior
    gaussian = prior.quadratic or isinstance(how, VariationalGaussNewton)
    # a part of the record; or a prior that says nothing of single cells
    unknown = isinstance(misfit, FlatMisfit) or (not gaussian and parameters.size > FEW_UNKNOWNS)
    if unknown or not budget.affords(data.cost):
        return Curvature(None, cells)
    budget.charge(data.cost)
    noise = 0.0 if data.noise is None else data.noise.misfit_in_band(data.survey)
    found = Solution(
        parameters,
        hessian,
        max(misfit(result.x), _least_misfit(how, data), noise),
        prior.hessian(result.x) if gaussian else None,
        data.survey,
        getattr(prior.prior, "spread", 1.0),
        samples_used=data.count,
        source=getattr(misfit, "last_source", None),
    )
    if isinstance(prior.prior, LearnedPrior):
        found = SampledSolution(**vars(found), learned=prior.prior)
    return Curvature(found, cells)
