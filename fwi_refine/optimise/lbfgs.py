"""L-BFGS with a strong Wolfe line search, which never loses its best point."""

import sys
from collections.abc import Callable

import torch

from fwi_refine.optimise.inverse_hessian import Pairs
from fwi_refine.optimise.line_search import strong_wolfe
from fwi_refine.optimise.result import Differentiable, Evaluator, Point, Result, Status, rounding_of

MAX_STAGNANT_ITERATIONS = 10  # iterations in a row without progress that make a run stalled
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
    _check(x0, max_iterations, scale, initial_step)
    if isinstance(precondition, torch.Tensor):
        precondition = precondition.mul
    evaluate = Evaluator(objective, max_evaluations)
    start = evaluate(x0.detach().to(torch.float64, copy=True))
    run = _LineSearches(evaluate, start, Pairs(history), precondition, initial_step, curvature)
    if not start.finite:
        return run.result(Status.NOT_FINITE)
    stopped = False
    while True:
        if scale * run.point.steepness <= gradient_tolerance:
            return run.result(Status.CONVERGED)
        if value_target is not None and run.lowest.value <= value_target:
            return run.result(Status.TARGET)
        if stopped:
            return run.result(Status.STOPPED)
        if evaluate.left <= 0:  # before a failure, for it may be what cut the search short
            return run.result(Status.MAX_EVALUATIONS)
        if run.failure is not None or run.stagnant >= MAX_STAGNANT_ITERATIONS:
            return run.result(run.failure or Status.STALLED)
        if len(run.values) > max_iterations:
            return run.result(Status.MAX_ITERATIONS)
        run.iterate()
        stopped = callback is not None and bool(callback(run.result(Status.RUNNING)))


def _check(x0: torch.Tensor, max_iterations: int, scale: float, initial_step: float | None) -> None:
    if x0.ndim != 1 or x0.numel() == 0:
        raise ValueError(f"x0 has shape {tuple(x0.shape)}, expected a vector (n,) with n > 0")
    if max_iterations < 0:
        raise ValueError(f"max_iterations is {max_iterations}, expected 0 or more")
    if not scale > 0.0:
        raise ValueError(f"scale is {scale}, expected a positive factor")
    if initial_step is not None and not initial_step > 0.0:
        raise ValueError(f"initial_step is {initial_step}, expected a positive change of x")


class _LineSearches:
    """The points of a run so far, and what follows from them for the next line search.

    point: the last one; stagnant: iterations in a row without progress; failure: what ends the run
    after a line search that found nothing lower.
    """

    def __init__(
        self,
        evaluate: Evaluator,
        start: Point,
        pairs: Pairs,
        precondition: Callable[[torch.Tensor], torch.Tensor] | None,
        initial_step: float | None,
        curvature: float,
    ) -> None:
        self.evaluate, self.start, self.point, self.pairs = evaluate, start, start, pairs
        self.precondition, self.initial_step = precondition, initial_step
        self.curvature = curvature
        self.values = [start.value]
        self.stagnant = 0
        self.failure: Status | None = None
        self._size = initial_step or 1.0  # largest change of an unknown in the last step
        self._gentlest = start.steepness  # smallest gradient
        self._restarted = False

    @property
    def lowest(self) -> Point:
        """The best point."""
        return self.evaluate.best or self.start  # no best one: the start is not finite

    def result(self, status: Status) -> Result:
        """The best point as a result."""
        best = self.lowest
        # Where rounding alone tells two points apart, the one with the smaller gradient is better.
        level = min(self.start.value, best.value + rounding_of(best.value))
        if self.point.value <= level and self.point.steepness < best.steepness:
            best = self.point
        return Result(
            best.x,
            best.value,
            best.gradient,
            status,
            iterations=len(self.values) - 1,
            evaluations=self.evaluate.count,
            history=list(self.values),
        )

    def iterate(self) -> None:
        """One line search."""
        point, pairs = self.point, self.pairs
        steepest = self._restarted or (not pairs and self.precondition is None)
        if steepest:
            direction = -point.gradient
        else:
            direction = -pairs.multiply(point.gradient, self.precondition)
        step = 1.0
        if steepest or (not pairs and self.initial_step is not None):
            step = self._size / max(float(direction.abs().max()), sys.float_info.min)
        allowed = int(min(LINE_SEARCH_EVALUATIONS, self.evaluate.left))
        search = strong_wolfe(
            self.evaluate,
            point,
            direction,
            step,
            curvature=self.curvature,
            max_evaluations=allowed,
        )
        self.values.append(search.point.value)
        if search.point is not point:
            self._follow(search.point)
        elif search.reason == "below-rounding":
            self.failure = Status.STALLED
        elif steepest:
            self.failure = Status.LINE_SEARCH
        else:
            pairs.clear()
            self._restarted = True

    def _follow(self, point: Point) -> None:
        """Goes on from a lower point."""
        previous, self.point = self.point, point
        change = point.x - previous.x
        self.pairs.add(change, point.gradient - previous.gradient)
        self._size = float(change.abs().max())
        lower = previous.value - point.value > rounding_of(previous.value)
        self.stagnant = 0 if lower or point.steepness < self._gentlest else self.stagnant + 1
        self._gentlest = min(self._gentlest, point.steepness)
        self._restarted = False
