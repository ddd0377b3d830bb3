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

import math
from collections.abc import Callable
from typing import Protocol

import torch

from fwi_refine.optimise.gauss_newton import PRODUCT_COST
from fwi_refine.optimise.levenberg_marquardt import Callback, Retract, Weight
from fwi_refine.optimise.result import Result, Status

# Damping, relative to D: at the start, its bounds, and how it moves.
FIRST, LEAST, MOST = 1e-3, 1e-6, 1.0
LESS, MORE = 0.2, 10.0
GOOD, POOR = 0.7, 0.2  # of the predicted decrease, from where on the damping falls or rises
HALVINGS = 5
# Conjugate gradients end where the last so many have gained less than this fraction each.
LOOK_BACK, LEAST_GAIN = 8, 2e-3


class Misfit(Protocol):
    """A mean of squared residuals, known by products."""

    def residual(self, x: torch.Tensor) -> torch.Tensor | None:
        """r(x), or None where there is none."""
        ...

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
    *,
    weight: Weight,
    max_iterations: int,
    products: int = 30,
    max_evaluations: int | None = None,
    relative_decrease: float = 1e-3,
    target: float = 0.0,
    retract: Retract = torch.add,
    callback: Callback | None = None,
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
    x0, weight, max_evaluations, relative_decrease, target, retract
        As for `levenberg_marquardt`; an iteration is a step.
    max_iterations : int
        Steps at most.
    products : int
        With the Hessian for each step, at most; each counts as `PRODUCT_COST` evaluations.
    callback : callable, optional
        Called with a Result after each step; True ends the run ("stopped").

    Returns
    -------
    Result
        As that of `levenberg_marquardt`.
    """
    run = _Steps(misfit, prior, damped, weight, retract, max_evaluations)
    return run.minimise(
        x0.detach().to(torch.float64, copy=True),
        max_iterations,
        products,
        relative_decrease,
        target,
        callback,
    )


class _Steps:
    def __init__(
        self,
        misfit: Misfit,
        prior: Penalty,
        damped: MakeDamped,
        weight: Weight,
        retract: Retract,
        max_evaluations: int | None,
    ):
        self.misfit, self.prior, self.damped = misfit, prior, damped
        self.weight_of, self.retract = weight, retract
        self.limit = math.inf if max_evaluations is None else max_evaluations
        self.evaluations = 0
        self.weight = math.inf
        self.damping = FIRST

    def minimise(
        self,
        x: torch.Tensor,
        max_iterations: int,
        products: int,
        relative_decrease: float,
        target: float,
        callback: Callback | None,
    ) -> Result:
        residual, squares, prior = self.trial(x)
        if residual is None:
            self.weight = 1.0
            return Result(x, math.inf, None, Status.NOT_FINITE, 0, self.evaluations, [math.inf])
        diagonal: torch.Tensor | None = None
        values: list[float] = []

        def result(status: Status) -> Result:
            value = squares + self.weight * prior
            history = values or [value]
            count = len(history) - 1
            return Result(x, value, None, status, count, self.evaluations, history, squares)

        self.follow(squares, prior)
        values.append(squares + self.weight * prior)
        for _ in range(max_iterations):
            fixed = 2 if diagonal is not None else 2 + self.misfit.diagonal_cost()
            if self.left < fixed + PRODUCT_COST:  # a gradient, a product and a residual
                return result(Status.MAX_EVALUATIONS)
            if diagonal is None:
                diagonal = self.misfit.hessian_diagonal(x)
                self.evaluations += self.misfit.diagonal_cost()
            self.follow(squares, prior)
            before = squares + self.weight * prior
            gradient = self.misfit.pull_back(x, residual) + self.weight * self.prior.gradient(x)
            self.evaluations += 1
            step, predicted = self.solve(x, gradient, diagonal, products)
            found, length = self.descend(x, step, before)
            if found is None:
                if self.damping >= MOST or self.left < 1:
                    return result(Status.STALLED)
                self.damping = min(self.damping * MORE**2, MOST)
                continue
            x, residual, squares, prior = found
            after = squares + self.weight * prior
            values.append(after)
            ratio = (before - after) / max(predicted, 1e-300)
            if length < 1 or ratio < POOR:
                self.damping = min(self.damping * MORE, MOST)
            elif ratio > GOOD:
                self.damping = max(self.damping * LESS, LEAST)
            if callback is not None and callback(result(Status.RUNNING)):
                return result(Status.STOPPED)
            if before - after < relative_decrease * after or squares < target:
                return result(Status.CONVERGED)
        return result(Status.MAX_ITERATIONS)

    def solve(
        self, x: torch.Tensor, gradient: torch.Tensor, diagonal: torch.Tensor, products: int
    ) -> tuple[torch.Tensor, float]:
        """A step, and by how much the quadratic model falls with it."""
        rest = self.damped(x, self.weight, diagonal, self.damping)
        step, r = torch.zeros_like(gradient), -gradient
        z = rest.solve(r)
        p, rz = z, float(r @ z)
        falls: list[float] = []  # of the quadratic model, so far
        while len(falls) < products and self.left >= PRODUCT_COST + 1:
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
                if gained < LOOK_BACK * LEAST_GAIN * falls[-1]:
                    break
            z = rest.solve(r)
            before, rz = rz, float(r @ z)
            p = z + (rz / before) * p
        return step, falls[-1] if falls else 0.0

    def descend(
        self, x: torch.Tensor, step: torch.Tensor, before: float
    ) -> tuple[tuple[torch.Tensor, torch.Tensor, float, float] | None, float]:
        """The point that the step, or a half of a half of it, leads to; and how much of it."""
        length = 1.0
        for _ in range(HALVINGS):
            if self.left < 1:
                break
            there = self.retract(x, length * step)
            residual, squares, prior = self.trial(there)
            if residual is not None and squares + self.weight * prior < before:
                return (there, residual, squares, prior), length
            length /= 2
        return None, length

    def trial(self, x: torch.Tensor) -> tuple[torch.Tensor | None, float, float]:
        """Residual, mean square and prior at x; the residual is None where they are not finite."""
        if not bool(torch.isfinite(x).all()):
            return None, math.inf, math.inf
        residual = self.misfit.residual(x)
        self.evaluations += 1
        if residual is None:
            return None, math.inf, math.inf
        squares, prior = float(residual.square().mean()), float(self.prior(x))
        return (residual if math.isfinite(squares + prior) else None), squares, prior

    @property
    def left(self) -> float:
        return self.limit - self.evaluations

    def follow(self, misfit: float, prior: float) -> None:
        self.weight = min(self.weight, self.weight_of(misfit, prior))
