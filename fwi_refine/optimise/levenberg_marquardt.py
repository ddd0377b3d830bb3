"""Levenberg-Marquardt: damped Newton steps with an approximate Hessian."""

import math
from collections.abc import Callable

import torch

from fwi_refine.optimise.result import Evaluator, Result, Status

# Damping, relative to the diagonal of the Hessian: at the start, its bounds, and how it moves.
FIRST, LEAST, MOST = 1e-6, 1e-12, 1e3
LESS, MORE = 0.01, 10.0
TRUSTED = 0.5  # share of the predicted decrease from which a smaller damping is tried next


def levenberg_marquardt(
    objective,
    x0: torch.Tensor,  # (n,)
    *,
    max_iterations: int,
    max_evaluations: int | None = None,
    hessian_cost: int = 0,
    relative_decrease: float = 1e-3,
    retract: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.add,
    callback: Callable[[Result], bool | None] | None = None,
) -> Result:
    """Minimise an objective from x0, and return the best point seen, which may be x0 itself.

    objective: has `value_and_gradient(x)` and `hessian(x)`, an (n, n) matrix that is positive
    semidefinite, such as the Gauss-Newton matrix. Each step solves, with s = sqrt(diag H),

        (H / (s s^T) + damping I) y = -g / s,      dx = y / s      (Marquardt, 1963)

    and goes to retract(x, dx). A step that does not lower the objective is repeated with more
    damping, without another Hessian; one that does as the quadratic model says lessens it.

    hessian_cost: evaluations that a Hessian counts as. relative_decrease: a step that lowers the
    objective by a smaller share ends the run ("converged"). callback: as in `lbfgs`.
    """
    evaluate = Evaluator(objective, max_evaluations)
    point = evaluate(x0.detach().to(torch.float64, copy=True))
    values, hessians = [point.value], 0

    def result(status):
        used = evaluate.count + hessian_cost * hessians
        return Result(
            point.x, point.value, point.gradient, status, len(values) - 1, used, list(values)
        )

    if not point.finite:
        return result(Status.NOT_FINITE)
    damping = FIRST
    while len(values) <= max_iterations:
        if evaluate.left - hessian_cost * (hessians + 1) < 1:
            return result(Status.MAX_EVALUATIONS)
        hessian = objective.hessian(point.x)
        hessians += 1
        scale = hessian.diagonal().clamp_min(1e-300).sqrt()
        unit = hessian / scale[:, None] / scale
        while True:
            if evaluate.left - hessian_cost * hessians < 1:
                return result(Status.MAX_EVALUATIONS)
            step = damped_step(unit, point.gradient / scale, damping)
            trial = None
            if step is not None:
                step = step / scale
                trial = evaluate(retract(point.x, step))
            if trial is not None and trial.finite and trial.value < point.value:
                break
            damping *= MORE
            if damping > MOST:
                return result(Status.STALLED)
        model = float(point.gradient @ step + 0.5 * step @ (hessian @ step))
        decrease = point.value - trial.value
        if decrease >= TRUSTED * -model:
            damping = max(damping * LESS, LEAST)
        small = decrease < relative_decrease * point.value
        point = trial
        values.append(point.value)
        if callback is not None and callback(result(Status.RUNNING)):
            return result(Status.STOPPED)
        if small:
            return result(Status.CONVERGED)
    return result(Status.MAX_ITERATIONS)


def damped_step(hessian, gradient, damping):
    """-(hessian + damping I)^-1 gradient, or None where that is not positive definite."""
    damped = hessian + damping * torch.eye(len(gradient)).to(hessian)
    factor, info = torch.linalg.cholesky_ex(damped)
    if int(info) != 0:
        return None
    step = -torch.cholesky_solve(gradient[:, None], factor)[:, 0]
    return step if math.isfinite(float(step.abs().sum())) else None
