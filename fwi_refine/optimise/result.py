"""The result of an optimiser, and the points that it evaluates on its way."""

import enum
import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch

# Two values closer than this, relative to their size, are the same but for rounding: a misfit is
# a sum over 350 000 samples, whose float64 rounding is some ten times the unit roundoff.
ROUNDING = 1e-14


class Differentiable(Protocol):
    """An objective as L-BFGS sees it."""

    def value_and_gradient(self, x: torch.Tensor) -> tuple[float, torch.Tensor]:
        """The value at x (n,) and its gradient (n,)."""
        ...


class LeastSquares(Protocol):
    """A mean of squared residuals, as methods with a Jacobian see it."""

    def __call__(self, x: torch.Tensor) -> float:
        """mean(r(x)^2)."""
        ...

    def residual(self, x: torch.Tensor) -> torch.Tensor | None:
        """r(x), or None where there is none."""
        ...

    def mean_square(self, r: torch.Tensor) -> float:
        """The value for a residual r."""
        ...

    def pull_back(self, x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        """2 / N J(x)^T r, (n,), for any residual r."""
        ...

    def hessian(self, x: torch.Tensor, weight: float | None = None) -> torch.Tensor:
        """2 / N J(x)^T J(x), (n, n).

        weight: of a prior that is minus twice a log density, variance of the noise over N. What
        this noise hides may be left out.
        """
        ...


class Regulariser(Protocol):
    """A term with a Hessian that is added to a misfit."""

    @property
    def quadratic(self) -> bool:
        """Whether its gradient is linear in x."""
        ...

    def __call__(self, x: torch.Tensor) -> float:
        """Its value."""
        ...

    def gradient(self, x: torch.Tensor) -> torch.Tensor:
        """Its gradient, (n,)."""
        ...

    def add_hessian(self, matrix: torch.Tensor, x: torch.Tensor, weight: float) -> object:
        """Adds its Hessian times a weight to a matrix, (n, n)."""
        ...


def rounding_of(value: float) -> float:
    """The change of a value below which float64 cannot tell descent from rounding.

    Parameters
    ----------
    value : float
        The value.

    Returns
    -------
    float
        The change.
    """
    return ROUNDING * abs(value)


class Status(enum.StrEnum):
    """Why an optimiser stopped."""

    RUNNING = "running"  # only in what a callback sees
    CONVERGED = "converged"  # the gradient is within its tolerance
    TARGET = "target"  # the value is at or below its target
    STALLED = "stalled"  # what is left to gain is below the rounding of the value
    MAX_ITERATIONS = "max-iterations"
    MAX_EVALUATIONS = "max-evaluations"
    LINE_SEARCH = "line-search"  # no lower point was found, even along the gradient
    NOT_FINITE = "not-finite"  # value or gradient at the start is NaN or infinite
    STOPPED = "stopped"  # the callback asked for it


@dataclass(frozen=True, eq=False)
class Point:
    """An evaluated point.

    Parameters
    ----------
    x : torch.Tensor, (n,)
        Where.
    value : float
        +inf if the value or the gradient is NaN or infinite.
    gradient : torch.Tensor, (n,)
        Its gradient.
    """

    x: torch.Tensor
    value: float
    gradient: torch.Tensor

    @property
    def finite(self) -> bool:
        """Whether value and gradient are finite."""
        return math.isfinite(self.value)

    @property
    def steepness(self) -> float:
        """Largest entry of the gradient in size."""
        return float(self.gradient.abs().max())


@dataclass(frozen=True, eq=False)
class Result:
    """The best point that an optimiser saw, and how it got there.

    Parameters
    ----------
    x : torch.Tensor of float64, (n,)
        The point.
    value : float
        Its value, never above the value at the start.
    gradient : torch.Tensor, (n,), or None
        Its gradient, where the optimiser has it.
    status : Status
        Why the optimiser stopped.
    iterations, evaluations : int
        How many it took.
    history : list of float
        The value at the start and after each iteration: `iterations + 1` numbers.
    misfit : float, optional
        The value without the prior, where the optimiser knows them apart.
    """

    x: torch.Tensor
    value: float
    gradient: torch.Tensor | None
    status: Status
    iterations: int
    evaluations: int
    history: list[float]
    misfit: float | None = None


def unmoved(x: torch.Tensor) -> Result:
    """The result of an optimiser that has not yet begun.

    Parameters
    ----------
    x : torch.Tensor of float64, (n,)
        Where it begins.

    Returns
    -------
    Result
        Without an iteration; the value is not known, inf.
    """
    return Result(x, math.inf, None, Status.STOPPED, 0, 0, [math.inf])


def interrupted(result: Result) -> Result:
    """The result of an optimiser that was interrupted.

    Parameters
    ----------
    result : Result
        That of its last callback, where it has moved to in its present iteration; or `unmoved`.

    Returns
    -------
    Result
        The same, as one that was stopped at the end of that iteration.
    """
    moved = bool(result.evaluations)
    return replace(result, status=Status.STOPPED, iterations=max(result.iterations, int(moved)))


class Evaluator:
    """Evaluates an objective, counts, and remembers the lowest finite point.

    Parameters
    ----------
    objective : Differentiable
        The objective.
    limit : int, optional
        Number of evaluations allowed, None for any number.

    Raises
    ------
    ValueError
        For a limit below 1.
    """

    def __init__(self, objective: Differentiable, limit: int | None = None):
        if limit is not None and limit < 1:
            raise ValueError(f"max_evaluations is {limit}; the start alone needs 1")
        self.objective = objective
        self.limit = math.inf if limit is None else limit
        self.count = 0
        self.best: Point | None = None

    @property
    def left(self) -> float:
        """Evaluations that are left."""
        return self.limit - self.count

    def __call__(self, x: torch.Tensor) -> Point:
        """Evaluate at x. An x that is not finite counts as infinite and is not evaluated."""
        if not torch.isfinite(x).all():
            return Point(x, math.inf, torch.full_like(x, math.nan))
        self.count += 1
        value, gradient = self.objective.value_and_gradient(x)
        if gradient.shape != x.shape:
            raise ValueError(
                f"the gradient has shape {tuple(gradient.shape)}, expected {tuple(x.shape)} as x"
            )
        # A copy: the objective may use one buffer for every gradient.
        gradient = gradient.detach().to(x, copy=True)
        value = float(value)
        if not (math.isfinite(value) and bool(torch.isfinite(gradient).all())):
            value = math.inf
        point = Point(x, value, gradient)
        if point.finite and (self.best is None or value <= self.best.value):
            self.best = point
        return point
