"""L-BFGS with a strong Wolfe line search, which never loses its best point."""

import sys
from collections.abc import Callable

import torch

from fwi_refine.optimise.inverse_hessian import Pairs
from fwi_refine.optimise.line_search import strong_wolfe
from fwi_refine.optimise.result import Differentiable, Evaluator, Point, Result, Status, rounding_of

QUIET = 10  # iterations in a row without progress that make a run stalled
LINE_SEARCH_EVALUATIONS = 20  # at most, in one line search


def lbfgs(
    objective: Differentiable,
    x0: torch.Tensor,
    *,
    max_iterations: int,
    max_evaluations: int | None = None,
    gradient_tolerance: float = 0.0,
    value_target: float | None = None,
    history: int | None = None,
    scale: float = 1.0,
    initial_step: float | None = None,
    precondition: torch.Tensor | Callable[[torch.Tensor], torch.Tensor] | None = None,
    curvature: float = 0.9,
    callback: Callable[[Result], bool | None] | None = None,
) -> Result:
    """Minimise an objective from x0, and return the best point seen, which may be x0 itself.

    A failed line search forgets all pairs and goes on along the steepest descent; a failure there
    ends the run ("line-search").

    Parameters
    ----------
    objective : Differentiable
        The objective.
    x0 : torch.Tensor, (n,)
        The start.
    max_iterations, max_evaluations : int
        Line searches, and evaluations of the objective, at most.
    gradient_tolerance : float
        "converged" when no entry of scale * gradient is larger than this.
    value_target : float, optional
        "target" when the value is not above this.
    history : int, optional
        Pairs that are kept, None for all (16 n bytes each).
    scale : float
        The objective counts as multiplied by it. The path does not depend on it, because every
        other decision is relative: it sets the unit of `gradient_tolerance` alone, and values are
        taken and returned in the objective's own unit.
    initial_step : float, optional
        Largest change of an unknown in the first trial step, in the unit of x. None takes 1, or
        with `precondition` the step that it gives.
    precondition : torch.Tensor or callable, optional
        The inverse Hessian to start from, as its diagonal (n,) or as a function g -> H0 g. It is
        taken as it is, so its size matters.
    curvature : float
        Of the strong Wolfe conditions, 1e-4 to 1; the smaller, the more exact is each line search.
    callback : callable, optional
        Called after each iteration with the result so far (status "running"); the run stops
        ("stopped") when it returns True.

    Returns
    -------
    Result
        The best point seen.

    Raises
    ------
    ValueError
        For an x0 that is not a vector, and for limits that make no sense.
    """
    if x0.ndim != 1 or x0.numel() == 0:
        raise ValueError(f"x0 has shape {tuple(x0.shape)}, expected a vector (n,) with n > 0")
    if max_iterations < 0:
        raise ValueError(f"max_iterations is {max_iterations}, expected 0 or more")
    if not scale > 0.0:
        raise ValueError(f"scale is {scale}, expected a positive factor")
    if initial_step is not None and not initial_step > 0.0:
        raise ValueError(f"initial_step is {initial_step}, expected a positive change of x")
    if isinstance(precondition, torch.Tensor):
        precondition = precondition.mul

    evaluate = Evaluator(objective, max_evaluations)
    pairs = Pairs(history)
    start = point = evaluate(x0.detach().to(torch.float64, copy=True))
    values = [start.value]
    if not start.finite:
        return Result(
            start.x, start.value, start.gradient, Status.NOT_FINITE, 0, evaluate.count, values
        )

    def lowest() -> Point:
        assert evaluate.best is not None  # the start is finite
        return evaluate.best

    def result(status: Status) -> Result:
        best = lowest()
        # Where rounding alone tells two points apart, the one with the smaller gradient is better.
        level = min(start.value, best.value + rounding_of(best.value))
        if point.value <= level and point.steepness < best.steepness:
            best = point
        return Result(
            best.x,
            best.value,
            best.gradient,
            status,
            iterations=len(values) - 1,
            evaluations=evaluate.count,
            history=list(values),
        )

    size = initial_step or 1.0  # largest change of an unknown in the last step
    quiet, gentlest = 0, start.steepness  # iterations without progress; smallest gradient so far
    restarted = stopped = False
    failure = None  # what ends the run after a line search that found nothing lower
    while True:
        if scale * point.steepness <= gradient_tolerance:
            return result(Status.CONVERGED)
        if value_target is not None and lowest().value <= value_target:
            return result(Status.TARGET)
        if stopped:
            return result(Status.STOPPED)
        if evaluate.left <= 0:  # before a failure, for it may be what cut the search short
            return result(Status.MAX_EVALUATIONS)
        if failure is not None or quiet >= QUIET:
            return result(failure or Status.STALLED)
        if len(values) > max_iterations:
            return result(Status.MAX_ITERATIONS)

        steepest = restarted or (not pairs and precondition is None)
        direction = -point.gradient if steepest else -pairs.multiply(point.gradient, precondition)
        step = 1.0
        if steepest or (not pairs and initial_step is not None):
            step = size / max(float(direction.abs().max()), sys.float_info.min)
        allowed = int(min(LINE_SEARCH_EVALUATIONS, evaluate.left))
        search = strong_wolfe(
            evaluate, point, direction, step, curvature=curvature, max_evaluations=allowed
        )
        previous, point = point, search.point
        values.append(point.value)
        if point is not previous:
            change = point.x - previous.x
            pairs.add(change, point.gradient - previous.gradient)
            size = float(change.abs().max())
            lower = previous.value - point.value > rounding_of(previous.value)
            quiet = 0 if lower or point.steepness < gentlest else quiet + 1
            gentlest = min(gentlest, point.steepness)
            restarted = False
        elif search.reason == "below-rounding":
            failure = Status.STALLED
        elif steepest:
            failure = Status.LINE_SEARCH
        else:
            pairs.clear()
            restarted = True
        stopped = callback is not None and bool(callback(result(Status.RUNNING)))
