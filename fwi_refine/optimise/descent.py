"""The course of a run that minimises misfit + weight * prior, which several methods share.

The weight follows the misfit down and never rises, so the objective never does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch

from fwi_refine.optimise.result import Result, Status

Weight = Callable[[float, float], float]
Retract = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Callback = Callable[[Result], bool | None]


def weight_by_fraction(fraction: float, misfit: float, prior: float, least: float = 0.0) -> float:
    """The weight with which a prior counts a fraction of the misfit.

    Parameters
    ----------
    fraction : float
        Of the misfit, as a fraction.
    misfit, prior : float
        Their values.
    least : float
        The least weight.

    Returns
    -------
    float
        The weight.
    """
    # a prior of almost nothing, as of a constant map, must not get a weight without bounds
    return max(least, fraction * misfit / max(prior, 1.0))


class Residuals(Protocol):
    """A misfit that is a mean of squared residuals."""

    def residual(self, x: torch.Tensor) -> torch.Tensor | None:
        """r(x), or None where there is none."""
        ...

    def mean_square(self, r: torch.Tensor) -> float:
        """The value for a residual r."""
        ...


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A point, with the misfit and the prior there; residual: where a method has it."""

    x: torch.Tensor
    misfit: float
    prior: float
    residual: torch.Tensor | None = None

    def value(self, weight: float) -> float:
        """The objective, with a weight of the prior."""
        return self.misfit + weight * self.prior


@dataclass(kw_only=True, eq=False)
class Descent:
    """The settings of a run, and where it stands.

    Attributes
    ----------
    weight_of, retract, callback, max_iterations, max_evaluations, relative_decrease, target
        As for `levenberg_marquardt`; weight_of: its `weight`.
    damping : float
        The present one.
    evaluations : int
        Spent so far.
    weight : float
        The present one, of the prior.
    values : list of float
        The objective at the start and after each iteration.
    """

    weight_of: Weight
    retract: Retract
    callback: Callback | None
    max_iterations: int
    max_evaluations: int | None
    relative_decrease: float
    target: float
    damping: float
    evaluations: int = 0
    weight: float = math.inf
    values: list[float] = field(default_factory=list)

    @property
    def left(self) -> float:
        """Evaluations that are left."""
        return math.inf if self.max_evaluations is None else self.max_evaluations - self.evaluations

    def evaluate(
        self, misfit: Residuals, prior: Callable[[torch.Tensor], float], x: torch.Tensor
    ) -> Evaluation:
        """The evaluation at x; infinite and without a residual where it is not finite."""
        refused = Evaluation(x, math.inf, math.inf)
        if not bool(torch.isfinite(x).all()):
            return refused
        residual = misfit.residual(x)
        self.evaluations += 1
        if residual is None:
            return refused
        square, penalty = misfit.mean_square(residual), float(prior(x))
        finite = math.isfinite(square + penalty)
        return Evaluation(x, square, penalty, residual) if finite else refused

    def begin(self, here: Evaluation) -> bool:
        """Takes the first weight and value from the start; False where that is not finite."""
        if not math.isfinite(here.misfit + here.prior):
            self.weight = 1.0
            return False
        self.follow(here)
        self.values.append(here.value(self.weight))
        return True

    def follow(self, here: Evaluation) -> None:
        """Lets the weight follow the misfit."""
        self.weight = min(self.weight, self.weight_of(here.misfit, here.prior))

    def converged(self, here: Evaluation, before: float, after: float) -> bool:
        """Whether an iteration from one value to another, which led here, is the last."""
        return before - after < self.relative_decrease * after or here.misfit < self.target

    def tell(self, here: Evaluation, used: int = 0) -> bool:
        """Tells the callback of a lower point; whether it stops the run. used: see `result`."""
        return self.callback is not None and bool(
            self.callback(self.result(here, Status.RUNNING, used))
        )

    def result(self, here: Evaluation, status: Status, used: int = 0) -> Result:
        """The result; used: evaluations that are not counted yet."""
        value = here.value(self.weight)
        history = list(self.values) or [value]
        count, evaluations = len(history) - 1, self.evaluations + used
        return Result(here.x, value, None, status, count, evaluations, history, here.misfit)
