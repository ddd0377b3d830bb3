"""Gauss-Newton with a prior that is renewed by the posterior covariance.

A variational prior is a bound on a density, made tight by the covariance that the posterior has
with it (`priors.VariationalTotalVariation`). With one Jacobian everything but the prior stays, so
its iteration needs no simulation: with H = 2 / N J^T J, g the gradient of the misfit at x, P the
prior's Hessian and w its weight, each round takes one factor of H + w P for

    u <- u - (H + w P)^-1 (g + H u + w prior'(x + u)),    C = 2 w (H + w P)^-1,

u the step and C the covariance: w is the noise variance over N where the prior is minus twice a
log density. Corrections with the last factor and the true residual r follow, as in
`levenberg_marquardt`, where the first step may raise the misfit:

    u <- u - (H + w P)^-1 (F(u) - (1 - t) F(0)),    F(u) = 2 / N J^T r(x + u) + w prior'(x + u),

with t = 1. Where these end above the point before, as the record is too far from linear over the
step, t is smaller, and is raised from there: this follows Newton's path F(u(t)) = (1 - t) F(0)
(P. Deuflhard, Newton Methods for Nonlinear Problems, 2004, section 3.1), along which an objective
falls, with the simplified Newton method. The next Jacobian is taken where this ends.
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
PATH_DECREASE = 1 / 3  # factor of a part of the path whose corrections lowered nothing
SHORTEST = 0.02  # fraction of the path, less of which is not tried

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
        hessian, gradient = misfit.hessian(run.x), misfit.pull_back(run.x, run.residual)
        run.spent += hessian_cost + 1
        run.weight = weight_of(run.square, float(run.prior(run.x)))
        run.prior, step, solve = settle(hessian, gradient, run.prior, run.x, run.weight)
        moved, stopped = run.correct(gradient, step, solve, corrections, limit)
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
        self,
        gradient: torch.Tensor,
        step: torch.Tensor,
        solve: Solve,
        corrections: int,
        limit: float,
    ) -> tuple[bool, bool]:
        """Follows Newton's path with the last factor, from where the gradient of the misfit is, and
        at first at once to its end by a step; whether that led to a lower point, and whether the
        callback has stopped it."""
        base, lowest = self.x, self.value()
        self.history = self.history or [lowest]
        first_pull = gradient + self.weight * self.prior.gradient(base)
        reached, aim, length = 0.0, 1.0, 1.0  # fractions of the path
        lower, best = False, torch.zeros_like(step)
        last = math.inf
        moved = stopped = False
        for _ in range(corrections):
            if limit - self.spent < 1:
                break
            there = self.retract(base, step)
            self.spent += 1
            found = self.misfit.residual(there) if bool(torch.isfinite(there).all()) else None
            value = math.inf
            if found is not None:
                value = self.misfit.mean_square(found) + self.weight * float(self.prior(there))
            if found is not None and value < lowest:
                self.x, self.residual, lowest, best = there, found, value, step
                self.square = self.misfit.mean_square(found)
                moved = lower = True
                stopped = self.callback is not None and bool(
                    self.callback(self.result(Status.RUNNING))
                )
                if stopped:
                    break
            if limit - self.spent < 2:
                break
            if found is not None and value < STAGNATION * last:
                last = value
                self.spent += 1
                pull = self.misfit.pull_back(base, found)
                pull = pull + self.weight * self.prior.gradient(there)
                step = step - solve(pull - (1.0 - aim) * first_pull)
                continue
            # the corrections have ended, on the path if that is lower than before
            if lower:
                reached = aim
            else:
                length *= PATH_DECREASE
            if reached == 1.0 or length < SHORTEST:
                break
            aim = min(1.0, reached + length)
            step = best - (aim - reached) * solve(first_pull)
            lower, last = False, math.inf
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
