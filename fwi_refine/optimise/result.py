"""What an optimiser hands back, and the points that it evaluates on its way."""

import enum
import math
from dataclasses import dataclass

import torch

# Two values closer than this, relative to their size, are the same but for rounding: a misfit is
# a sum over 350 000 samples, whose float64 rounding is some ten times the unit roundoff.
ROUNDING = 1e-14


def rounding_of(value: float) -> float:
    """The change of `value` below which float64 cannot tell descent from rounding."""
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
    """An evaluated point. Its value is +inf if the value or the gradient is NaN or infinite."""

    x: torch.Tensor  # (n,)
    value: float
    gradient: torch.Tensor  # (n,)

    @property
    def finite(self) -> bool:
        return math.isfinite(self.value)

    @property
    def steepness(self) -> float:
        """Largest entry of the gradient in size."""
        return float(self.gradient.abs().max())


@dataclass(frozen=True, eq=False)
class Result:
    """The best point that an optimiser saw, and how it got there.

    `value` is never above the value at the start. `history` holds the value at the start and
    after each iteration: `iterations + 1` numbers. `misfit` is the value without the prior, where
    the optimiser knows them apart.
    """

    x: torch.Tensor  # (n,) float64
    value: float
    gradient: torch.Tensor  # (n,)
    status: Status
    iterations: int
    evaluations: int
    history: list[float]
    misfit: float | None = None


class Evaluator:
    """Evaluates an objective, counts, and remembers the lowest finite point.

    objective: has `value_and_gradient(x) -> (float, (n,) tensor)`
    limit: number of evaluations allowed, None for any number
    """

    def __init__(self, objective, limit: int | None = None):
        if limit is not None and limit < 1:
            raise ValueError(f"max_evaluations is {limit}; the start alone needs 1")
        self.objective = objective
        self.limit = math.inf if limit is None else limit
        self.count = 0
        self.best: Point | None = None

    @property
    def left(self) -> float:
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
