"""L-BFGS with a factored Gauss-Newton matrix as the inverse Hessian that it starts from.

Between Levenberg-Marquardt, which renews the residual but not the Jacobian, and L-BFGS, which has
no matrix: one factor serves for several iterations, each with the true gradient at its point. The
unknowns are the step u from the point x0 where the matrix is from, x = retract(x0, u), as the
objective is closer to quadratic in u than in x.

It needs gradients that are exact: with (H + w P)^-1 small errors along directions that the data
hardly see are blown up until the direction no longer goes down.
"""

import math
from typing import Any, Protocol

import torch

from fwi_refine.optimise.definite import Solve
from fwi_refine.optimise.lbfgs import lbfgs
from fwi_refine.optimise.levenberg_marquardt import Callback, Retract, Weight
from fwi_refine.optimise.result import Differentiable, Prior, Result, Status

# Damping, relative to the diagonal of the matrix: at the start, its bounds, and how it moves.
FIRST, LEAST, MOST = 1e-6, 1e-9, 1e-2
LESS, MORE = 0.1, 100.0


class _Misfit(Protocol):
    def __call__(self, x: torch.Tensor) -> float:
        """Its value."""
        ...

    def hessian(self, x: torch.Tensor) -> torch.Tensor:
        """Its Gauss-Newton Hessian, (n, n)."""
        ...

    def __add__(self, other: Any, /) -> Differentiable:
        """The sum with a prior."""
        ...


class _Prior(Prior, Protocol):
    def __rmul__(self, weight: float, /) -> Any:
        """The weighted prior."""
        ...


def preconditioned_lbfgs(
    misfit: _Misfit,
    prior: _Prior,
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
    limit = math.inf if max_evaluations is None else max_evaluations
    x, evaluations, damping = x0.detach().to(torch.float64, copy=True), 1, FIRST
    values: list[float] = []
    mean_square, penalty = misfit(x), prior(x)
    w = 1.0
    status = Status.MAX_ITERATIONS if math.isfinite(mean_square + penalty) else Status.NOT_FINITE

    def result(
        x: torch.Tensor, mean_square: float, penalty: float, status: Status, used: int = 0
    ) -> Result:
        value = mean_square + w * penalty
        history = values or [value]
        return Result(
            x, value, None, status, len(history) - 1, evaluations + used, list(history), mean_square
        )

    if status is Status.NOT_FINITE:
        return result(x, mean_square, penalty, status)
    w, curvature = math.inf, None
    for _ in range(max_iterations):
        w = min(w, weight(mean_square, penalty))
        before = mean_square + w * penalty
        values = values or [before]
        if limit - evaluations < hessian_cost + 2:
            status = Status.MAX_EVALUATIONS
            break
        if curvature is None:
            curvature = misfit.hessian(x)
            evaluations += hessian_cost
        hessian = curvature.clone()
        prior.add_hessian(hessian, x, w)
        step = _Step(misfit + w * prior, x, retract)

        def watch(inner: Result, step: _Step = step, w: float = w) -> bool | None:
            if callback is None:
                return False
            at = step.point(inner.x)
            p = prior(at)
            return callback(
                result(at, inner.value - w * p, p, Status.RUNNING, used=inner.evaluations)
            )

        inner = lbfgs(
            step,
            torch.zeros_like(x),
            max_iterations=corrections,
            max_evaluations=None if math.isinf(limit) else int(limit - evaluations),
            precondition=_inverse(hessian, damping),
            callback=watch,
        )
        evaluations += inner.evaluations
        ended = inner.status in (Status.STOPPED, Status.MAX_EVALUATIONS)
        if not inner.value < before:
            if ended:
                status = inner.status
                break
            if damping >= MOST:
                status = Status.STALLED
                break
            damping = min(damping * MORE, MOST)
            continue
        damping = max(damping * LESS, LEAST)
        x, curvature = step.point(inner.x), None
        penalty = prior(x)
        mean_square = inner.value - w * penalty
        values.append(inner.value)
        if ended:
            status = inner.status
            break
        if before - inner.value < relative_decrease * inner.value or mean_square < target:
            status = Status.CONVERGED
            break
    return result(x, mean_square, penalty, status)


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
