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


@dataclass(frozen=True, kw_only=True)
class DescentSettings:
    """How misfit + weight * prior is minimised, whatever the method.

    Attributes
    ----------
    weight : callable
        weight(misfit, prior): the prior's weight for these two values; it never rises during a
        run, so the objective never does.
    max_iterations : int
        At most; an iteration takes one Jacobian, one matrix or one step.
    max_evaluations : int, optional
        At most; a residual counts as one, and so does a product with J^T.
    relative_decrease : float
        An iteration that lowers the objective by a smaller fraction ends the run ("converged").
    target : float
        So does one to a misfit below this.
    retract : callable
        retract(x, step): where a step leads.
    callback : callable, optional
        Called with a Result after each step that lowered the objective; True ends the run
        ("stopped").
    """

    weight: Weight
    max_iterations: int
    max_evaluations: int | None = None
    relative_decrease: float = 1e-3
    target: float = 0.0
    retract: Retract = field(default_factory=lambda: torch.add)
    callback: Callback | None = None


@dataclass(kw_only=True, eq=False)
class Descent:
    """A run of a method that minimises misfit + weight * prior.

    Attributes
    ----------
    settings : DescentSettings
        Stopping rules, and the weight of the prior.
    damping : float
        The present one.
    evaluations : int
        Spent so far.
    weight : float
        The present one, of the prior.
    values : list of float
        The objective at the start and after each iteration.
    """

    settings: DescentSettings
    damping: float
    evaluations: int = 0
    weight: float = math.inf
    values: list[float] = field(default_factory=list)

    @property
    def left(self) -> float:
        """Evaluations that are left."""
        most = self.settings.max_evaluations
        return math.inf if most is None else most - self.evaluations

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
        self.weight = min(self.weight, self.settings.weight(here.misfit, here.prior))

    def converged(self, here: Evaluation, before: float, after: float) -> bool:
        """Whether an iteration from one value to another, which led here, is the last."""
        settings = self.settings
        return before - after < settings.relative_decrease * after or here.misfit < settings.target

    def report(self, here: Evaluation, used: int = 0) -> bool:
        """Calls the callback with a lower point; whether it stops the run. used: see `result`."""
        callback = self.settings.callback
        return callback is not None and bool(callback(self.result(here, Status.RUNNING, used)))

    def result(self, here: Evaluation, status: Status, used: int = 0) -> Result:
        """The result; used: evaluations that are not counted yet."""
        value = here.value(self.weight)
        history = list(self.values) or [value]
        count, evaluations = len(history) - 1, self.evaluations + used
        return Result(here.x, value, None, status, count, evaluations, history, here.misfit)
