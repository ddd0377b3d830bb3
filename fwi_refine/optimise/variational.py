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
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch

from fwi_refine.optimise.definite import Solve, by_factor, scaled_back, to_unit_diagonal
from fwi_refine.optimise.descent import Callback, Evaluation, Retract, Weight
from fwi_refine.optimise.result import LeastSquares, Regulariser, Result, Status

DAMPING = 1e-9  # relative to the diagonal, so that rounding leaves the matrix definite
STAGNATION = 0.999  # corrections that leave more than this fraction of the objective are the last
STEPLENGTH_DECREASE = 1 / 3  # where the corrector lowered nothing
MIN_STEPLENGTH = 0.02  # of the path, whose parameter goes from 0 to 1

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
    if not math.isfinite(run.here.misfit):
        return run.result(Status.NOT_FINITE), prior
    run.weight = weight[0](run.here.misfit, run.here.prior)
    for weight_of in weight:
        if limit - run.spent < hessian_cost + 2:  # the Jacobian, a product, and a trial
            return run.result(Status.MAX_EVALUATIONS), run.prior
        here = run.here
        assert here.residual is not None  # the misfit is finite
        hessian, gradient = misfit.hessian(here.x), misfit.pull_back(here.x, here.residual)
        run.spent += hessian_cost + 1
        run.weight = weight_of(here.misfit, here.prior)
        renewed, step, solve = settle(hessian, gradient, run.prior, here.x, run.weight)
        run.renew(renewed)
        base = run.here
        if run.follow_path(gradient, step, solve, corrections, limit):
            return run.result(Status.STOPPED), run.prior
        if run.here.misfit < target:
            return run.result(Status.CONVERGED), run.prior
        if run.here is base and run.done == len(weight):
            return run.result(Status.STALLED), run.prior
    return run.result(Status.MAX_ITERATIONS), run.prior


@dataclass(frozen=True, eq=False)
class NewtonPath:
    """State of the continuation along Newton's path, with one factor.

    Attributes
    ----------
    step : torch.Tensor, (n,)
        The corrector's iterate u, from the point where the path begins.
    lowest : torch.Tensor, (n,)
        The step to the lowest point so far, zero at first.
    parameter : float
        The corrector's t; at first that of the end of the path.
    steplength : float
        Of the continuation, in t.
    reached : float
        The t up to which the path has been followed.
    lowered : bool
        Whether the corrector has found a lower point at this t.
    previous : float
        The objective at the iterate before; infinite for the predictor.
    """

    step: torch.Tensor
    lowest: torch.Tensor
    parameter: float = 1.0
    steplength: float = 1.0
    reached: float = 0.0
    lowered: bool = False
    previous: float = math.inf

    def accepted(self) -> "NewtonPath":
        """The state where the iterate leads to the lowest point so far."""
        return replace(self, lowest=self.step, lowered=True)

    def corrected(self, value: float, correction: torch.Tensor) -> "NewtonPath":
        """The state after a correction of an iterate whose objective is `value`."""
        return replace(self, step=self.step + correction, previous=value)

    def predicted(self, tangent: Callable[[], torch.Tensor]) -> "NewtonPath | None":
        """The state at the next t, where the corrector has ended; None at the end of the path.

        Where nothing was lowered, the next t is nearer. The tangent is du/dt with the factor.
        """
        reached = self.parameter if self.lowered else self.reached
        steplength = self.steplength * (1.0 if self.lowered else STEPLENGTH_DECREASE)
        if reached == 1.0 or steplength < MIN_STEPLENGTH:
            return None
        parameter = min(1.0, reached + steplength)
        step = self.lowest + (parameter - reached) * tangent()
        return NewtonPath(step, self.lowest, parameter, steplength, reached)


class _Renewals(Generic[P]):
    """The lowest point so far; the present prior and weight; evaluations spent, Jacobians done."""

    def __init__(
        self,
        misfit: LeastSquares,
        prior: P,
        x: torch.Tensor,
        retract: Retract,
        callback: Callback | None,
    ) -> None:
        self.misfit, self.prior, self.retract, self.callback = misfit, prior, retract, callback
        self.spent, self.done = 0, 0
        self.here = self.evaluate(x)
        self.weight = 1.0
        self.history: list[float] = []

    def evaluate(self, x: torch.Tensor) -> Evaluation:
        """The misfit and the present prior at x; infinite where there is no residual."""
        self.spent += 1
        residual = self.misfit.residual(x) if bool(torch.isfinite(x).all()) else None
        if residual is None:
            return Evaluation(x, math.inf, math.inf)
        return Evaluation(x, self.misfit.mean_square(residual), float(self.prior(x)), residual)

    def renew(self, prior: P) -> None:
        """Takes a prior."""
        self.prior = prior
        self.here = replace(self.here, prior=float(prior(self.here.x)))

    def value(self) -> float:
        return self.here.value(self.weight)

    def result(self, status: Status) -> Result:
        here, value = self.here, self.value()
        history = self.history or [value]
        return Result(here.x, value, None, status, self.done, self.spent, history, here.misfit)

    def stops(self) -> bool:
        """Tells the callback of a lower point; whether it stops the run."""
        return self.callback is not None and bool(self.callback(self.result(Status.RUNNING)))

    def follow_path(
        self,
        gradient: torch.Tensor,
        step: torch.Tensor,
        solve: Solve,
        corrections: int,
        limit: float,
    ) -> bool:
        """Follows Newton's path from here, where the misfit has this gradient, and tries its end
        first, by a step; whether the callback has stopped it."""
        base = self.here
        self.history = self.history or [self.value()]
        first_pull = gradient + self.weight * self.prior.gradient(base.x)
        path: NewtonPath | None = NewtonPath(step, torch.zeros_like(step))
        stopped = False
        for _ in range(corrections):
            if path is None or limit - self.spent < 1:
                break
            trial = self.evaluate(self.retract(base.x, path.step))
            value = trial.value(self.weight)
            if value < self.value():
                self.here, path = trial, path.accepted()
                stopped = self.stops()
            if stopped or limit - self.spent < 2:
                break
            if trial.residual is not None and value < STAGNATION * path.previous:
                self.spent += 1
                pull = self.misfit.pull_back(base.x, trial.residual)
                pull = pull + self.weight * self.prior.gradient(trial.x)
                path = path.corrected(value, -solve(pull - (1.0 - path.parameter) * first_pull))
            else:
                path = path.predicted(lambda: -solve(first_pull))
        self.done += 1
        self.history.append(self.value())
        return stopped


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
