"""Gauss-Newton for a sum of squares and a prior, each step by conjugate gradients.

A step solves

    (H + w P + damping D) d = -gradient,    D about the diagonal of H,

H the Gauss-Newton matrix of the misfit, known by its products alone, P the sparse matrix of the
prior. Conjugate gradients (M. R. Hestenes and E. Stiefel, J. Res. Natl. Bur. Stand. 49, 1952) are
preconditioned by the factor of D + w P: what the data do not tell is then solved by it alone. They
end where the quadratic model gains little more (J. Martens, ICML 2010); each of their iterates is
a descent direction (T. Steihaug, SIAM J. Numer. Anal. 20, 1983), which is halved until the
objective falls.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from fwi_refine.optimise.descent import Descent, DescentSettings, Evaluation, Residuals
from fwi_refine.optimise.gauss_newton import PRODUCT_COST
from fwi_refine.optimise.result import Result, Status

# Damping, relative to D: at the start, its bounds, and how it moves.
FIRST_DAMPING, MIN_DAMPING, MAX_DAMPING = 1e-3, 1e-6, 1.0
DAMPING_DECREASE, DAMPING_INCREASE = 0.2, 10.0
# Of a decrease to the predicted one, from where on the damping falls or rises.
GOOD_RATIO, POOR_RATIO = 0.7, 0.2
HALVINGS = 5
# Conjugate gradients end where the last so many have gained less than this fraction each.
LOOK_BACK, MIN_GAIN = 8, 2e-3


class Misfit(Residuals, Protocol):
    """A mean of squared residuals, known by products."""

    def pull_back(self, x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        """2 / N J(x)^T r, (n,)."""
        ...

    def hessian_product(self, x: torch.Tensor, dx: torch.Tensor) -> torch.Tensor:
        """2 / N J(x)^T J(x) dx, (n,)."""
        ...

    def hessian_diagonal(self, x: torch.Tensor) -> torch.Tensor:
        """About the diagonal of 2 / N J(x)^T J(x), (n,), positive."""
        ...

    def diagonal_cost(self) -> int:
        """Cost of the diagonal, in evaluations."""
        ...


class Penalty(Protocol):
    """A term that is added to a misfit."""

    def __call__(self, x: torch.Tensor) -> float:
        """Its value."""
        ...

    def gradient(self, x: torch.Tensor) -> torch.Tensor:
        """Its gradient, (n,)."""
        ...


class Damped(Protocol):
    """w P + damping D at one point; all vectors (n,)."""

    def product(self, p: torch.Tensor) -> torch.Tensor:
        """(w P + damping D) p."""
        ...

    def solve(self, r: torch.Tensor) -> torch.Tensor:
        """(w P + (1 + damping) D)^-1 r."""
        ...


MakeDamped = Callable[[torch.Tensor, float, torch.Tensor, float], Damped]


def gauss_newton_krylov(
    misfit: Misfit,
    prior: Penalty,
    damped: MakeDamped,
    x0: torch.Tensor,
    settings: DescentSettings,
    *,
    products: int = 30,
) -> Result:
    """Minimise misfit + weight * prior from x0; returns x0 itself if nothing lower was found.

    Parameters
    ----------
    misfit : Misfit
        Such as an `objective.MatrixFreeMisfit`.
    prior : Penalty
        An objective.
    damped : callable
        damped(x, weight, diagonal, damping): its Hessian there, such as an
        `objective.DampedPrior`.
    x0, settings
        As for `levenberg_marquardt`; an iteration is a step.
    products : int
        With the Hessian for each step, at most; each counts as `PRODUCT_COST` evaluations.

    Returns
    -------
    Result
        As that of `levenberg_marquardt`.
    """
    run = _KrylovGaussNewton(
        misfit=misfit,
        prior=prior,
        damped=damped,
        settings=settings,
        products=products,
        damping=FIRST_DAMPING,
    )
    return run.minimise(x0.detach().to(torch.float64, copy=True))


@dataclass(kw_only=True, eq=False)
class _KrylovGaussNewton(Descent):
    misfit: Misfit
    prior: Penalty
    damped: MakeDamped
    products: int

    def minimise(self, x: torch.Tensor) -> Result:
        here = self.evaluate(self.misfit, self.prior, x)
        if not self.begin(here):
            return self.result(here, Status.NOT_FINITE)
        diagonal: torch.Tensor | None = None
        for _ in range(self.settings.max_iterations):
            cost = self.misfit.diagonal_cost() if diagonal is None else 0
            if self.left < cost + 2 + PRODUCT_COST:  # a gradient, a product and a residual
                return self.result(here, Status.MAX_EVALUATIONS)
            if diagonal is None:
                diagonal = self.misfit.hessian_diagonal(here.x)
                self.evaluations += cost
            self.follow(here)
            before = here.value(self.weight)
            step, predicted = self.solve(here.x, self.gradient(here), diagonal)
            found, length = self.descend(here, step)
            if found is None:
                if self.damping >= MAX_DAMPING or self.left < 1:
                    return self.result(here, Status.STALLED)
                self.damping = min(self.damping * DAMPING_INCREASE**2, MAX_DAMPING)
                continue
            here, after = found, found.value(self.weight)
            self.values.append(after)
            self.damp(length, (before - after) / max(predicted, 1e-300))
            if self.report(here):
                return self.result(here, Status.STOPPED)
            if self.converged(here, before, after):
                return self.result(here, Status.CONVERGED)
        return self.result(here, Status.MAX_ITERATIONS)

    def gradient(self, here: Evaluation) -> torch.Tensor:
        assert here.residual is not None  # see `descend`
        self.evaluations += 1
        by_misfit = self.misfit.pull_back(here.x, here.residual)
        return by_misfit + self.weight * self.prior.gradient(here.x)

    def damp(self, length: float, ratio: float) -> None:
        """Moves the damping; ratio: of the decrease to the predicted one."""
        if length < 1 or ratio < POOR_RATIO:
            self.damping = min(self.damping * DAMPING_INCREASE, MAX_DAMPING)
        elif ratio > GOOD_RATIO:
            self.damping = max(self.damping * DAMPING_DECREASE, MIN_DAMPING)

    def solve(
        self, x: torch.Tensor, gradient: torch.Tensor, diagonal: torch.Tensor
    ) -> tuple[torch.Tensor, float]:
        """A step, and by how much the quadratic model falls with it."""
        rest = self.damped(x, self.weight, diagonal, self.damping)
        step, r = torch.zeros_like(gradient), -gradient
        z = rest.solve(r)
        p, rz = z, float(r @ z)
        falls: list[float] = []  # of the quadratic model, so far
        while len(falls) < self.products and self.left >= PRODUCT_COST + 1:
            product = self.misfit.hessian_product(x, p) + rest.product(p)
            self.evaluations += PRODUCT_COST
            curvature = float(p @ product)
            if not curvature > 0:
                break
            step = step + (rz / curvature) * p
            r = r - (rz / curvature) * product
            falls.append(0.5 * float(step @ (r - gradient)))
            if len(falls) > LOOK_BACK:
                gained = falls[-1] - falls[-1 - LOOK_BACK]
                if gained < LOOK_BACK * MIN_GAIN * falls[-1]:
                    break
            z = rest.solve(r)
            before, rz = rz, float(r @ z)
            p = z + (rz / before) * p
        return step, falls[-1] if falls else 0.0

    def descend(self, here: Evaluation, step: torch.Tensor) -> tuple[Evaluation | None, float]:
        """The point that the step, or a half of a half of it, leads to; and how much of it."""
        length = 1.0
        for _ in range(HALVINGS):
            if self.left < 1:
                break
            there = self.settings.retract(here.x, length * step)
            found = self.evaluate(self.misfit, self.prior, there)
            if found.value(self.weight) < here.value(self.weight):
                return found, length
            length /= 2
        return None, length
