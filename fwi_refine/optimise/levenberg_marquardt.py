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
from dataclasses import dataclass

import torch

from fwi_refine.optimise.definite import Solve, factorise, scaled_back, to_unit_diagonal
from fwi_refine.optimise.descent import Descent, DescentSettings, Evaluation
from fwi_refine.optimise.result import LeastSquares, Regulariser, Result, Status

# Damping, relative to the diagonal of the matrix: at the start, its bounds, and how it moves.
FIRST_DAMPING, MIN_DAMPING, MAX_DAMPING = 1e-6, 1e-9, 1.0
DAMPING_DECREASE, DAMPING_INCREASE = 0.1, 30.0
STAGNATION = 0.98  # corrections that leave more than this fraction of the objective are the last
# The weight of the prior follows the misfit: how far it may have to fall before it is renewed.
WEIGHT_RENEWAL = 0.3


def levenberg_marquardt(
    misfit: LeastSquares,
    prior: Regulariser,
    x0: torch.Tensor,
    settings: DescentSettings,
    *,
    corrections: int = 8,
    max_damping_increases: int = 3,
    damping: float = FIRST_DAMPING,
    hessian_cost: int = 0,
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
    settings : DescentSettings
        Stopping rules, and the weight of the prior; an iteration takes one Jacobian.
    corrections : int
        Most steps with one Jacobian.
    max_damping_increases : int
        For each Jacobian.
    damping : float
        The first, relative to the diagonal of the matrix.
    hessian_cost : int
        Evaluations that a Jacobian counts as.

    Returns
    -------
    Result
        `history` holds the objective, with the weight of its time, at the start and after each
        iteration.
    """
    run = _LevenbergMarquardt(
        misfit=misfit,
        prior=prior,
        settings=settings,
        corrections=corrections,
        max_damping_increases=max_damping_increases,
        damping=damping,
        hessian_cost=hessian_cost,
    )
    return run.minimise(x0.detach().to(torch.float64, copy=True))


@dataclass(kw_only=True, eq=False)
class _LevenbergMarquardt(Descent):
    misfit: LeastSquares
    prior: Regulariser
    corrections: int
    max_damping_increases: int
    hessian_cost: int
    stopped: bool = False

    def minimise(self, x: torch.Tensor) -> Result:
        here = self.evaluate(self.misfit, self.prior, x)
        if not self.begin(here):
            return self.result(here, Status.NOT_FINITE)
        for _ in range(self.settings.max_iterations):
            # the Jacobian, and a correction, which is a product and a residual
            if self.left < self.hessian_cost + 2:
                return self.result(here, Status.MAX_EVALUATIONS)
            hessian = self.misfit.hessian(here.x)
            self.evaluations += self.hessian_cost
            found = self.correct(here, hessian)
            if found is here:
                return self.result(here, Status.STALLED)
            before, after = here.value(self.weight), found.value(self.weight)
            here = found
            self.values.append(after)
            if self.stopped:
                return self.result(here, Status.STOPPED)
            if self.converged(here, before, after):
                return self.result(here, Status.CONVERGED)
        return self.result(here, Status.MAX_ITERATIONS)

    def correct(self, base: Evaluation, hessian: torch.Tensor) -> Evaluation:
        """The best point that the Jacobian of `base` leads to."""
        here, step = base, torch.zeros_like(base.x)
        left, increases = self.corrections, 0
        while left > 0 and increases < self.max_damping_increases and not self.stopped:
            self.follow(here)
            before = here.value(self.weight)
            solve = self.factorise(hessian, here)
            best, used = self.chain(base.x, here, step, solve, left)
            left -= used
            if best is None:
                self.damping, increases = self.damping * DAMPING_INCREASE, increases + 1
                if self.damping > MAX_DAMPING or (used == 0 and solve is not None):
                    self.damping = min(self.damping, MAX_DAMPING)
                    break
                continue
            here, step = best
            if here.value(self.weight) > STAGNATION * before and not self.fallen(here):
                break
        if increases == 0:
            self.damping = max(self.damping * DAMPING_DECREASE, MIN_DAMPING)
        return here

    def chain(
        self,
        base: torch.Tensor,
        here: Evaluation,
        step: torch.Tensor,
        solve: Solve | None,
        left: int,
    ) -> tuple[tuple[Evaluation, torch.Tensor] | None, int]:
        """The best of a chain of corrections with one factor, and the step to it, or None; and
        the chain's length."""
        best, last, used, trial = None, math.inf, 0, here
        lowest = here.value(self.weight)
        while solve is not None and used < left and self.left >= 2:
            assert trial.residual is not None  # a refused trial ends the chain
            self.evaluations += 1
            gradient = self.misfit.pull_back(base, trial.residual)
            gradient = gradient + self.weight * self.prior.gradient(trial.x)
            step = step - solve(gradient)
            trial = self.evaluate(self.misfit, self.prior, self.settings.retract(base, step))
            used += 1
            value = trial.value(self.weight)
            lower = value < lowest
            if lower:
                best, lowest = (trial, step), value
                self.stopped = self.report(trial)
                if self.stopped:
                    break
            if not self.prior.quadratic or not value < STAGNATION * last:
                break
            if lower and self.fallen(trial):
                break
            last = value
        return best, used

    def factorise(self, hessian: torch.Tensor, here: Evaluation) -> Solve | None:
        """The function g -> (H + w P + damping)^-1 g, or None where that is not definite."""
        matrix = hessian.clone()
        self.prior.add_hessian(matrix, here.x, self.weight)
        scale = to_unit_diagonal(matrix, self.damping)
        solve = factorise(matrix)
        return None if solve is None else scaled_back(solve, scale)

    def fallen(self, here: Evaluation) -> bool:
        return self.settings.weight(here.misfit, here.prior) < WEIGHT_RENEWAL * self.weight
