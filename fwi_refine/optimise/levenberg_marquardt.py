"""Levenberg-Marquardt for a sum of squares and a prior, with several corrections per Jacobian.

A Jacobian costs as much as dozens of residuals. So after the first step r and J are not both
renewed: the residual is, the Jacobian J of the point that the iteration began at is not, and

    (H + w P + damping) d_k = -(J^T r_k 2 / N + w prior'_k),    step <- step + d_k

is solved again, r_k the residual where the step so far leads. This is the simplified Newton
method on J^T r = 0; its first correction is geodesic acceleration (Transtrum and Sethna, 2012)
with a finite step. It must be J^T r_k with the old J: the true gradient at the new point differs
from it by (J_k - J)^T r_k, most of it along directions that the data hardly see, which the solve
amplifies without bounds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from fwi_refine.optimise.definite import Solve, factorise
from fwi_refine.optimise.result import LeastSquares, Regulariser, Result, Status

Weight = Callable[[float, float], float]
Retract = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Callback = Callable[[Result], bool | None]

# Damping, relative to the diagonal of the matrix: at the start, its bounds, and how it moves.
FIRST, LEAST, MOST = 1e-6, 1e-9, 1.0
LESS, MORE = 0.1, 30.0
SLOW = 0.98  # corrections that leave more than this fraction of the objective are the last
# The weight of the prior follows the misfit: how far it may have to fall before it is renewed.
FALLEN = 0.3


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


@dataclass(frozen=True, eq=False)
class _Trial:
    """Where a step leads."""

    step: torch.Tensor
    x: torch.Tensor
    residual: torch.Tensor | None
    misfit: float
    prior: float

    def value(self, weight: float) -> float:
        return self.misfit + weight * self.prior


def levenberg_marquardt(
    misfit: LeastSquares,
    prior: Regulariser,
    x0: torch.Tensor,
    *,
    weight: Weight,
    max_iterations: int,
    corrections: int = 8,
    max_damping_increases: int = 3,
    damping: float = FIRST,
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
    misfit : LeastSquares
        Such as an `objective.SumOfSquaredResiduals`.
    prior : Regulariser
        An objective with a Hessian (see `Objective.quadratic`).
    x0 : torch.Tensor, (n,)
        The start.
    weight : callable
        weight(misfit, prior): the prior's weight for these two values; it never rises during a
        run, so the objective never does.
    max_iterations : int
        Jacobians at most.
    corrections : int
        Most steps with one Jacobian.
    max_damping_increases : int
        For each Jacobian.
    damping : float
        The first, relative to the diagonal of the matrix.
    max_evaluations : int, optional
        At most; a residual counts as one, and so does a product with J^T.
    hessian_cost : int
        Evaluations that a Jacobian counts as.
    relative_decrease : float
        An iteration that lowers the objective by a smaller fraction ends the run ("converged").
    target : float
        So does one to a misfit below this.
    retract : callable
        retract(x, step): where a step leads.
    callback : callable, optional
        Called with a Result after each correction that lowered the objective; True ends the run
        ("stopped").

    Returns
    -------
    Result
        `history` holds the objective, with the weight of its time, at the start and after each
        iteration.
    """
    run = _Descent(
        misfit,
        prior,
        weight,
        retract,
        callback,
        max_evaluations,
        hessian_cost,
        max_damping_increases,
        damping,
    )
    return run.minimise(
        x0.detach().to(torch.float64, copy=True),
        max_iterations,
        corrections,
        relative_decrease,
        target,
    )


class _Descent:
    def __init__(
        self,
        misfit: LeastSquares,
        prior: Regulariser,
        weight: Weight,
        retract: Retract,
        callback: Callback | None,
        max_evaluations: int | None,
        hessian_cost: int,
        max_damping_increases: int,
        damping: float,
    ):
        self.misfit, self.prior, self.weight_of = misfit, prior, weight
        self.retract, self.callback, self.hessian_cost = retract, callback, hessian_cost
        self.max_damping_increases = max_damping_increases
        self.limit = math.inf if max_evaluations is None else max_evaluations
        self.evaluations = 0
        self.weight = math.inf
        self.damping = damping
        self.values: list[float] = []
        self.stopped = False

    def minimise(
        self,
        x: torch.Tensor,
        max_iterations: int,
        corrections: int,
        relative_decrease: float,
        target: float,
    ) -> Result:
        here = self.trial(x, torch.zeros_like(x))
        if not math.isfinite(here.misfit + here.prior):
            self.weight = 1.0
            return self.result(here, Status.NOT_FINITE)
        self.follow(here)
        self.values.append(here.value(self.weight))
        for _ in range(max_iterations):
            # the Jacobian, and a correction, which is a product and a residual
            if self.limit - self.evaluations < self.hessian_cost + 2:
                return self.result(here, Status.MAX_EVALUATIONS)
            hessian = self.misfit.hessian(here.x)
            self.evaluations += self.hessian_cost
            found = self.correct(here, hessian, corrections)
            if found is here:
                return self.result(here, Status.STALLED)
            decrease = here.value(self.weight) - found.value(self.weight)
            here = found
            self.values.append(here.value(self.weight))
            if self.stopped:
                return self.result(here, Status.STOPPED)
            if decrease < relative_decrease * here.value(self.weight) or here.misfit < target:
                return self.result(here, Status.CONVERGED)
        return self.result(here, Status.MAX_ITERATIONS)

    def correct(self, base: _Trial, hessian: torch.Tensor, corrections: int) -> _Trial:
        """The best point that the Jacobian of `base` leads to."""
        here = _Trial(torch.zeros_like(base.x), base.x, base.residual, base.misfit, base.prior)
        left, increases = corrections, 0
        while left > 0 and increases < self.max_damping_increases and not self.stopped:
            self.follow(here)
            before = here.value(self.weight)
            solve = self.factorise(hessian, here)
            best, used = self.chain(base.x, here, solve, left)
            left -= used
            if best is None:
                self.damping, increases = self.damping * MORE, increases + 1
                if self.damping > MOST or (used == 0 and solve is not None):
                    self.damping = min(self.damping, MOST)
                    break
                continue
            here = best
            if here.value(self.weight) > SLOW * before and not self.fallen(here):
                break
        if increases == 0:
            self.damping = max(self.damping * LESS, LEAST)
        return base if here.x is base.x else here

    def chain(
        self, base: torch.Tensor, here: _Trial, solve: Solve | None, left: int
    ) -> tuple[_Trial | None, int]:
        """The best of a chain of corrections with one factor, or None; and its length."""
        best, last, used, trial = None, math.inf, 0, here
        lowest = here.value(self.weight)
        while solve is not None and used < left and self.limit - self.evaluations >= 2:
            assert trial.residual is not None  # a refused trial ends the chain
            self.evaluations += 1
            gradient = self.misfit.pull_back(base, trial.residual)
            gradient = gradient + self.weight * self.prior.gradient(trial.x)
            step = trial.step - solve(gradient)
            trial = self.trial(self.retract(base, step), step)
            used += 1
            value = trial.value(self.weight)
            if value < lowest:
                best, lowest = trial, value
                if self.callback is not None and self.callback(self.result(trial, Status.RUNNING)):
                    self.stopped = True
                    break
            if not self.prior.quadratic or not value < SLOW * last:
                break
            if best is trial and self.fallen(trial):
                break
            last = value
        return best, used

    def trial(self, x: torch.Tensor, step: torch.Tensor) -> _Trial:
        refused = _Trial(step, x, None, math.inf, math.inf)
        if not bool(torch.isfinite(x).all()):
            return refused
        residual = self.misfit.residual(x)
        self.evaluations += 1
        if residual is None:
            return refused
        misfit, prior = self.misfit.mean_square(residual), float(self.prior(x))
        return (
            _Trial(step, x, residual, misfit, prior) if math.isfinite(misfit + prior) else refused
        )

    def factorise(self, hessian: torch.Tensor, here: _Trial) -> Solve | None:
        """The function g -> (H + w P + damping)^-1 g, or None where that is not definite."""
        matrix = hessian.clone()
        self.prior.add_hessian(matrix, here.x, self.weight)
        scale = matrix.diagonal().clamp_min(1e-300).sqrt()
        matrix.div_(scale).div_(scale[:, None]).diagonal().add_(self.damping)
        solve = factorise(matrix)
        return None if solve is None else lambda g: solve(g / scale) / scale

    def follow(self, here: _Trial) -> None:
        self.weight = min(self.weight, self.weight_of(here.misfit, here.prior))

    def fallen(self, here: _Trial) -> bool:
        return self.weight_of(here.misfit, here.prior) < FALLEN * self.weight

    def result(self, here: _Trial, status: Status) -> Result:
        value = here.value(self.weight)
        values = self.values or [value]
        count, history = len(values) - 1, list(values)
        return Result(here.x, value, None, status, count, self.evaluations, history, here.misfit)
