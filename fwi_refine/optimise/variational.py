"""Gauss-Newton with a prior that is renewed by the posterior covariance.

A variational prior is a bound on a density, made tight by the covariance that the posterior has
with it (`priors.VariationalTotalVariation`). With one Jacobian everything but the prior stays, so
its iteration needs no simulation: with H = 2 / N J^T J, g the gradient of the misfit at x, P the
prior's Hessian and w its weight, each round takes one factor of H + w P for

    u <- u - (H + w P)^-1 (g + H u + w prior'(x + u)),    C = 2 w (H + w P)^-1,

u the step and C the covariance: w is the noise variance over N where the prior is minus twice a
log density. Corrections with the last factor and the true residual follow, as in
`levenberg_marquardt`, where the first step may raise the misfit, and the next Jacobian is taken
where these end.
"""

import math
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch

from fwi_refine.optimise.definite import Solve, by_factor, scaled_back, to_unit_diagonal
from fwi_refine.optimise.descent import Callback, Retract, Weight
from fwi_refine.optimise.result import LeastSquares, Regulariser, Result, Status

DAMPING = 1e-9  # relative to the diagonal, so that rounding leaves the matrix definite
STAGNATION = 0.999  # corrections that leave more than this fraction of the objective are the last
STEP_DECREASE = 0.3  # factor of a step whose corrections lowered nothing

P = TypeVar("P", bound=Regulariser)

# (Hessian and gradient of the misfit, prior, x, weight) -> (prior, step, solve), as of `settled`
Settle = Callable[
    [torch.Tensor, torch.Tensor, P, torch.Tensor, float], tuple[P, torch.Tensor, Solve]
]


def variational_gauss_newton(
    misfit: LeastSquares,
    prior: P,
    x0: torch.Tensor,
    *,
    settle: Settle[P],
    weight: Sequence[Weight],
    corrections: int = 8,
    max_evaluations: int | None = None,
    hessian_cost: int = 0,
    target: float = 0.0,
    retract: Retract = torch.add,
    callback: Callback | None = None,
) -> tuple[Result, P]:
    """Minimise misfit + weight * prior from x0, the prior being renewed.

    Parameters
    ----------
    misfit : LeastSquares
        Such as an `objective.SumOfSquaredResiduals`.
    prior : Regulariser
        To begin with.
    x0 : torch.Tensor, (n,)
        The start, near the solution.
    settle : callable
        settle(hessian, gradient, prior, x, weight): the prior for the quadratic of one Jacobian,
        the step from x to its minimum and the solver, as `settled` has them.
    weight : sequence of callable
        weight(misfit, prior) of each Jacobian, of which there are at most so many.
    corrections : int
        Most trials with one Jacobian.
    max_evaluations, hessian_cost, target, retract, callback
        As for `levenberg_marquardt`.

    Returns
    -------
    Result
        Its objective, with the last prior and weight, is not above that of the point before.
    Regulariser
        The last one.
    """
    run = _Renewals(misfit, prior, x0.detach().to(torch.float64, copy=True), retract, callback)
    limit = math.inf if max_evaluations is None else max_evaluations
    run.weight = weight[0](run.square, float(prior(run.x)))
    if not math.isfinite(run.square):
        return run.result(Status.NOT_FINITE), prior
    for weight_of in weight:
        if limit - run.spent < hessian_cost + 2:  # the Jacobian, a product, and a trial
            return run.result(Status.MAX_EVALUATIONS), run.prior
        assert run.residual is not None  # the misfit is finite
        run.weight = weight_of(run.square, float(run.prior(run.x)))
        hessian = misfit.hessian(run.x, run.weight)
        gradient = misfit.pull_back(run.x, run.residual)
        run.spent += hessian_cost + 1
        run.prior, step, solve = settle(hessian, gradient, run.prior, run.x, run.weight)
        moved, stopped = run.correct(step, solve, corrections, limit)
        if stopped:
            return run.result(Status.STOPPED), run.prior
        if run.square < target:
            return run.result(Status.CONVERGED), run.prior
        if not moved and run.done == len(weight):
            return run.result(Status.STALLED), run.prior
    return run.result(Status.MAX_ITERATIONS), run.prior


class _Renewals(Generic[P]):
    """The best point so far, with residual and mean square there; the present prior and weight;
    evaluations spent and Jacobians done."""

    def __init__(
        self,
        misfit: LeastSquares,
        prior: P,
        x: torch.Tensor,
        retract: Retract,
        callback: Callback | None,
    ) -> None:
        self.misfit, self.prior, self.retract, self.callback = misfit, prior, retract, callback
        self.x, self.residual = x, misfit.residual(x)
        self.square = math.inf if self.residual is None else misfit.mean_square(self.residual)
        self.weight = 1.0
        self.spent, self.done = 1, 0
        self.history: list[float] = []

    def value(self) -> float:
        return self.square + self.weight * float(self.prior(self.x))

    def result(self, status: Status) -> Result:
        value = self.value()
        history = self.history or [value]
        return Result(self.x, value, None, status, self.done, self.spent, history, self.square)

    def correct(
        self, step: torch.Tensor, solve: Solve, corrections: int, limit: float
    ) -> tuple[bool, bool]:
        """Follows a step and corrects it with the last factor; whether that led to a lower point,
        and whether the callback has stopped it."""
        base, first, lowest, length = self.x, step, self.value(), 1.0
        moved = stopped = False
        self.history = self.history or [lowest]
        last = math.inf
        for _ in range(corrections):
            if limit - self.spent < 1:
                break
            there = self.retract(base, step)
            self.spent += 1
            found = self.misfit.residual(there) if bool(torch.isfinite(there).all()) else None
            value = math.inf
            if found is not None:
                value = self.misfit.mean_square(found) + self.weight * float(self.prior(there))
            enough = not value < STAGNATION * last
            if found is not None and value < lowest:
                self.x, self.residual, lowest, moved = there, found, value, True
                self.square = self.misfit.mean_square(found)
                stopped = self.callback is not None and bool(
                    self.callback(self.result(Status.RUNNING))
                )
                if stopped:
                    break
            elif enough or found is None:  # the chain has ended above where it began
                if moved:
                    break
                length *= STEP_DECREASE
                step, last = length * first, math.inf
                continue
            if enough or limit - self.spent < 2:
                break
            last = value
            self.spent += 1
            gradient = self.misfit.pull_back(base, found)
            step = step - solve(gradient + self.weight * self.prior.gradient(there))
        self.done += 1
        self.history.append(lowest)
        return moved, stopped


def settled(
    hessian: torch.Tensor,
    gradient: torch.Tensor,
    prior: P,
    x: torch.Tensor,
    weight: float,
    *,
    renew: Callable[[torch.Tensor], P] | None = None,
    rounds: int = 0,
) -> tuple[P, torch.Tensor, Solve]:
    """The prior, and the step from x, after some rounds on the quadratic of one Jacobian.

    Parameters
    ----------
    hessian : torch.Tensor, (n, n)
        Of the misfit at x.
    gradient : torch.Tensor, (n,)
        Of the misfit at x.
    prior : Regulariser
        To begin with.
    x : torch.Tensor, (n,)
        Where the Jacobian is from.
    weight : float
        Of the prior, w of the module's formula.
    renew : callable, optional
        renew(covariance): the prior for a posterior covariance (n, n); by default it stays.
    rounds : int
        Renewals.

    Returns
    -------
    prior : Regulariser
        The last one, or that before the matrix was not definite.
    step : torch.Tensor, (n,)
        To the minimum with it.
    solve : callable
        The function g -> (H + w P)^-1 g with it.
    """
    step = torch.zeros_like(x)
    solve: Solve = torch.zeros_like
    for k in range(rounds + 1):
        matrix = hessian.clone()
        prior.add_hessian(matrix, x + step, weight)
        scale = to_unit_diagonal(matrix, DAMPING)
        info = torch.empty((), dtype=torch.int32, device=matrix.device)
        factor, _ = torch.linalg.cholesky_ex(matrix, out=(matrix, info))  # in its place
        if int(info) != 0 or not math.isfinite(float(factor.diagonal().sum())):
            break
        solve = scaled_back(by_factor(factor), scale)
        step = step - solve(gradient + hessian @ step + weight * prior.gradient(x + step))
        if renew is not None and k < rounds:
            covariance = torch.cholesky_inverse(factor).div_(scale).div_(scale[:, None])
            prior = renew(covariance.mul_(2 * weight))
    return prior, step, solve
