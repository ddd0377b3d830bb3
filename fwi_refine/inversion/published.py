"""A stage of the published method: the plain misfit, and a prior of fixed weight."""

from collections.abc import Callable

from fwi_refine.inversion.budget import Budget, OutOfTime
from fwi_refine.inversion.optimisers import COST_SCALE, LBFGS, GaussNewtonStep
from fwi_refine.inversion.problem import Problem
from fwi_refine.objective.misfit import DataMisfit
from fwi_refine.optimise import Result, gauss_newton_step, interrupted, lbfgs, unmoved

BOUND_WEIGHT = 1e-7  # weight of cells beyond their bounds where no misfit says it: 1e-9 for 1 m/s


def minimise_published(
    problem: Problem,
    optimiser: LBFGS | GaussNewtonStep,
    budget: Budget,
    note: Callable[[float, int], None],
) -> Result:
    """Minimises a problem as published.

    Parameters
    ----------
    problem, budget, note
        As for `minimise_by_jacobian`.
    optimiser
        The optimiser's settings.
    """
    data = problem.data
    penalties = problem.stage.weight * problem.prior
    bound_penalty = problem.bound_penalty
    if bound_penalty is not None:
        penalties = penalties + BOUND_WEIGHT * data.survey.unit**2 * bound_penalty
    misfit: DataMisfit
    if data.source is None:
        misfit = DataMisfit(data.simulator, problem.parameters, data.record, data.weights)
    else:
        misfit = data.band_misfit(problem.parameters)
    objective = misfit + penalties
    limit = budget.limit_in(data.cost)
    latest = unmoved(problem.x)

    def noted(result: Result) -> float:
        left = result.value - penalties(result.x)
        note(max(left, 0.0), result.evaluations)  # rounding may leave it below 0
        return left

    def callback(result: Result) -> bool:
        nonlocal latest
        latest = result
        left = noted(result)
        return (optimiser.target is not None and left < optimiser.target) or budget.should_stop()

    try:
        with budget.interruptible():
            if isinstance(optimiser, GaussNewtonStep):
                result = gauss_newton_step(
                    objective, problem.x, max_evaluations=limit, should_stop=budget.should_stop
                )
                noted(result)
            else:
                result = lbfgs(
                    objective,
                    problem.x,
                    max_iterations=optimiser.iterations,
                    max_evaluations=limit,
                    gradient_tolerance=optimiser.gradient_tolerance,
                    scale=COST_SCALE,
                    initial_step=optimiser.initial_step,
                    callback=callback,
                )
    except OutOfTime:
        result = interrupted(latest)
    budget.charge(data.cost * result.evaluations)
    return result
