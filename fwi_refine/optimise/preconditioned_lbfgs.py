"""L-BFGS with a factored Gauss-Newton matrix as the inverse Hessian that it starts from.

Between Levenberg-Marquardt, which renews the residual but not the Jacobian, and L-BFGS, which has
no matrix: one factor serves for several iterations, each with the true gradient at its point. The
unknowns are the step u from the point x0 where the matrix is from, x = retract(x0, u), as the
objective is closer to quadratic in u than in x.

It needs gradients that are exact: with (H + w P)^-1 small errors along directions that the data
hardly see are blown up until the direction no longer goes down.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from fwi_refine.optimise.definite import Solve
from fwi_refine.optimise.lbfgs import lbfgs
from fwi_refine.optimise.levenberg_marquardt import Callback, Retract, Weight
from fwi_refine.optimise.result import Differentiable, Regulariser, Result, Status

# Damping, relative to the diagonal of the matrix: at the start, its bounds, and how it moves.
FIRST, LEAST, MOST = 1e-6, 1e-9, 1e-2
LESS, MORE = 0.1, 100.0


class _Curved(Protocol):
    def __call__(self, x: torch.Tensor) -> float:
        """Its value."""
        ...

    def hessian(self, x: torch.Tensor) -> torch.Tensor:
        """Its Gauss-Newton Hessian, (n, n)."""
        ...

    def __add__(self, other: Any, /) -> Differentiable:
        """The sum with a prior."""
        ...


class _Weighted(Regulariser, Protocol):
    def __rmul__(self, weight: float, /) -> Any:
        """The weighted prior."""
        ...


def preconditioned_lbfgs(
    misfit: _Curved,
    prior: _Weighted,
    x0: torch.Tensor,
    *,
    weight: Weight,
    max_iterations: int,
    corrections: int = 10,
    max_evaluations: int | None = None,
    hessian_cost: int = 0,
    relative_decrease: float = 1e-3,
    target: float = 0.0,
    retract: Retract = torch.add,
    callback: Callback | None = None,
) -> Result:
    """Minimise misfit + weight * prior from x0; returns x0 itself if nothing lower was found.

    Parameters
    ----------
    misfit
        A callable with `value_and_gradient` and `hessian`, to which a prior can be added.
    prior
        An objective with a Hessian, which can be multiplied by a weight.
    x0, weight, hessian_cost, relative_decrease, target, callback
        As for `levenberg_marquardt`.
    max_iterations : int
        Matrices at most.
    corrections : int
        L-BFGS iterations with each matrix.
    max_evaluations : int, optional
        Of value and gradient, at most.
    retract : callable
        retract(x, step): where a step leads; differentiable by torch.

    Returns
    -------
    Result
        As that of `levenberg_marquardt`.
    """
    run = _Descents(misfit, prior, weight, retract, callback, max_evaluations, hessian_cost)
    return run.minimise(
        x0.detach().to(torch.float64, copy=True),
        max_iterations,
        corrections,
        relative_decrease,
        target,
    )


@dataclass(frozen=True, eq=False)
class _Point:
    """A point, with the misfit and the prior there."""

    x: torch.Tensor
    misfit: float
    prior: float

    def value(self, weight: float) -> float:
        return self.misfit + weight * self.prior


class _Descents:
    def __init__(
        self,
        misfit: _Curved,
        prior: _Weighted,
        weight: Weight,
        retract: Retract,
        callback: Callback | None,
        max_evaluations: int | None,
        hessian_cost: int,
    ) -> None:
        self.misfit, self.prior, self.weight_of = misfit, prior, weight
        self.retract, self.callback, self.hessian_cost = retract, callback, hessian_cost
        self.limit = math.inf if max_evaluations is None else max_evaluations
        self.evaluations = 0
        self.weight = math.inf
        self.damping = FIRST
        self.values: list[float] = []

    def minimise(
        self,
        x: torch.Tensor,
        max_iterations: int,
        corrections: int,
        relative_decrease: float,
        target: float,
    ) -> Result:
        here = _Point(x, self.misfit(x), self.prior(x))
        self.evaluations += 1
        if not math.isfinite(here.misfit + here.prior):
            self.weight = 1.0
            return self.result(here, Status.NOT_FINITE)
        curvature = None
        for _ in range(max_iterations):
            self.weight = min(self.weight, self.weight_of(here.misfit, here.prior))
            before = here.value(self.weight)
            self.values = self.values or [before]
            if self.limit - self.evaluations < self.hessian_cost + 2:
                return self.result(here, Status.MAX_EVALUATIONS)
            if curvature is None:
                curvature = self.misfit.hessian(here.x)
                self.evaluations += self.hessian_cost
            inner, x = self.descend(here, curvature, corrections)
            ended = inner.status in (Status.STOPPED, Status.MAX_EVALUATIONS)
            if not inner.value < before:
                if ended or self.damping >= MOST:
                    return self.result(here, inner.status if ended else Status.STALLED)
                self.damping = min(self.damping * MORE, MOST)
                continue
            self.damping = max(self.damping * LESS, LEAST)
            penalty = self.prior(x)
            here = _Point(x, inner.value - self.weight * penalty, penalty)
            curvature = None
            self.values.append(inner.value)
            if ended:
                return self.result(here, inner.status)
            if before - inner.value < relative_decrease * inner.value or here.misfit < target:
                return self.result(here, Status.CONVERGED)
        return self.result(here, Status.MAX_ITERATIONS)

    def descend(
        self, here: _Point, curvature: torch.Tensor, corrections: int
    ) -> tuple[Result, torch.Tensor]:
        """L-BFGS in the step from a point, with the matrix there; and where that leads."""
        hessian = curvature.clone()
        self.prior.add_hessian(hessian, here.x, self.weight)
        step = _Step(self.misfit + self.weight * self.prior, here.x, self.retract)

        def watch(inner: Result) -> bool | None:
            if self.callback is None:
                return False
            x = step.point(inner.x)
            penalty = self.prior(x)
            at = _Point(x, inner.value - self.weight * penalty, penalty)
            return self.callback(self.result(at, Status.RUNNING, used=inner.evaluations))

        inner = lbfgs(
            step,
            torch.zeros_like(here.x),
            max_iterations=corrections,
            max_evaluations=None if math.isinf(self.limit) else int(self.limit - self.evaluations),
            precondition=_inverse(hessian, self.damping),
            callback=watch,
        )
        self.evaluations += inner.evaluations
        return inner, step.point(inner.x)

    def result(self, here: _Point, status: Status, used: int = 0) -> Result:
        value = here.value(self.weight)
        values = self.values or [value]
        count, history, evaluations = len(values) - 1, list(values), self.evaluations + used
        return Result(here.x, value, None, status, count, evaluations, history, here.misfit)


class _Step:
    """The objective as a function of the step u from x0."""

    def __init__(self, objective: Differentiable, x0: torch.Tensor, retract: Retract):
        self.objective, self.x0, self.retract = objective, x0, retract

    def point(self, u: torch.Tensor) -> torch.Tensor:
        return self.retract(self.x0, u).detach()

    def value_and_gradient(self, u: torch.Tensor) -> tuple[float, torch.Tensor]:
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            x = self.retract(self.x0, u)
        value, by_x = self.objective.value_and_gradient(x.detach())
        if not math.isfinite(value):
            return value, torch.zeros_like(by_x)
        return value, torch.autograd.grad(x, u, by_x)[0]


def _inverse(matrix: torch.Tensor, damping: float) -> Solve:
    """The function g -> (matrix + damping)^-1 g, with more damping where it is not definite."""
    scale = matrix.diagonal().clamp_min(1e-300).sqrt()
    unit = matrix / scale / scale[:, None]
    unit.diagonal().add_(damping)
    factor, info = torch.linalg.cholesky_ex(unit)
    while int(info) != 0 and damping < 1.0:
        unit.diagonal().add_((MORE - 1) * damping)
        damping *= MORE
        factor, info = torch.linalg.cholesky_ex(unit)
    return lambda g: torch.cholesky_solve((g / scale)[:, None], factor)[:, 0] / scale
