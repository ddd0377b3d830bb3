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

from fwi_refine.optimise.definite import Solve, by_factor, scaled_back, to_unit_diagonal
from fwi_refine.optimise.descent import Descent, DescentSettings, Evaluation, Retract
from fwi_refine.optimise.lbfgs import lbfgs
from fwi_refine.optimise.result import Differentiable, Regulariser, Result, Status

# Damping, relative to the diagonal of the matrix: at the start, its bounds, and how it moves.
FIRST_DAMPING, MIN_DAMPING, MAX_DAMPING = 1e-6, 1e-9, 1e-2
DAMPING_DECREASE, DAMPING_INCREASE = 0.1, 100.0


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
    settings: DescentSettings,
    *,
    corrections: int = 10,
    hessian_cost: int = 0,
) -> Result:
    """Minimise misfit + weight * prior from x0; returns x0 itself if nothing lower was found.

    Parameters
    ----------
    misfit
        A callable with `value_and_gradient` and `hessian`, to which a prior can be added.
    prior
        An objective with a Hessian, which can be multiplied by a weight.
    x0, settings, hessian_cost
        As for `levenberg_marquardt`; an iteration takes one matrix, an evaluation value and
        gradient, and torch differentiates `settings.retract`.
    corrections : int
        L-BFGS iterations with each matrix.

    Returns
    -------
    Result
        As that of `levenberg_marquardt`.
    """
    run = _PreconditionedLBFGS(
        misfit=misfit,
        prior=prior,
        settings=settings,
        corrections=corrections,
        damping=FIRST_DAMPING,
        hessian_cost=hessian_cost,
    )
    return run.minimise(x0.detach().to(torch.float64, copy=True))


@dataclass(kw_only=True, eq=False)
class _PreconditionedLBFGS(Descent):
    misfit: _Curved
    prior: _Weighted
    corrections: int
    hessian_cost: int

    def minimise(self, x: torch.Tensor) -> Result:
        here = Evaluation(x, self.misfit(x), self.prior(x))
        self.evaluations += 1
        if not self.begin(here):
            return self.result(here, Status.NOT_FINITE)
        curvature = None
        for _ in range(self.settings.max_iterations):
            self.follow(here)
            before = here.value(self.weight)
            if self.left < self.hessian_cost + 2:
                return self.result(here, Status.MAX_EVALUATIONS)
            if curvature is None:
                curvature = self.misfit.hessian(here.x)
                self.evaluations += self.hessian_cost
            inner, found = self.descend(here, curvature)
            ended = inner.status in (Status.STOPPED, Status.MAX_EVALUATIONS)
            if not inner.value < before:
                if ended or self.damping >= MAX_DAMPING:
                    return self.result(here, inner.status if ended else Status.STALLED)
                self.damping = min(self.damping * DAMPING_INCREASE, MAX_DAMPING)
                continue
            self.damping = max(self.damping * DAMPING_DECREASE, MIN_DAMPING)
            here, curvature = found, None
            self.values.append(inner.value)
            if ended:
                return self.result(here, inner.status)
            if self.converged(here, before, inner.value):
                return self.result(here, Status.CONVERGED)
        return self.result(here, Status.MAX_ITERATIONS)

    def descend(self, here: Evaluation, curvature: torch.Tensor) -> tuple[Result, Evaluation]:
        """L-BFGS in the step from a point, with the matrix there; and where that leads."""
        hessian = curvature.clone()
        self.prior.add_hessian(hessian, here.x, self.weight)
        step = _Step(self.misfit + self.weight * self.prior, here.x, self.settings.retract)

        def trial(inner: Result) -> Evaluation:
            x = step.point(inner.x)
            penalty = self.prior(x)
            return Evaluation(x, inner.value - self.weight * penalty, penalty)

        def watch(inner: Result) -> bool:
            return self.report(trial(inner), inner.evaluations)

        inner = lbfgs(
            step,
            torch.zeros_like(here.x),
            max_iterations=self.corrections,
            max_evaluations=None if self.settings.max_evaluations is None else int(self.left),
            precondition=_inverse(hessian, self.damping),
            callback=watch,
        )
        self.evaluations += inner.evaluations
        return inner, trial(inner)


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
    """The function g -> (matrix + damping)^-1 g, with more damping where it is not definite; the
    matrix is overwritten."""
    scale = to_unit_diagonal(matrix, damping)
    factor, info = torch.linalg.cholesky_ex(matrix)
    while int(info) != 0 and damping < 1.0:
        matrix.diagonal().add_((DAMPING_INCREASE - 1) * damping)
        damping *= DAMPING_INCREASE
        factor, info = torch.linalg.cholesky_ex(matrix)
    return scaled_back(by_factor(factor), scale)
