"""One Gauss-Newton step, solved by conjugate gradients from products with the Hessian alone."""

import math
from collections.abc import Callable
from typing import Protocol

import torch

from fwi_refine.optimise.result import Differentiable, Evaluator, Point, Result, Status

PRODUCT_COST = 2  # evaluations that a product with the Hessian counts as
STEP_DECREASE = 0.5


class _Objective(Differentiable, Protocol):
    def hessian_product(self, x: torch.Tensor, dx: torch.Tensor) -> torch.Tensor:
        """The positive semidefinite Hessian at x times dx, (n,)."""
        ...


def gauss_newton_step(
    objective: _Objective,
    x0: torch.Tensor,
    *,
    max_products: int = 300,
    max_evaluations: int | None = None,
    tolerance: float = 1e-3,
    should_stop: Callable[[], bool] | None = None,
) -> Result:
    """Minimise the quadratic model at x0 and go there, or part of the way, if that is lower.

    Conjugate gradients (Hestenes and Stiefel, 1952) stop at `tolerance` times the
    norm of the gradient, after max_products, or where the curvature is not positive; every
    iterate of theirs is a descent direction, so stopping early is safe (Steihaug, 1983). Then the
    step is halved until the objective falls.

    Parameters
    ----------
    objective
        Has `value_and_gradient(x)` and `hessian_product(x, dx)`, the latter positive semidefinite.
    x0 : torch.Tensor, (n,)
        The start.
    max_products : int
        Products with the Hessian at most.
    max_evaluations : int, optional
        At most, a product counting as two.
    tolerance : float
        Of the gradient of the quadratic model, relative.
    should_stop : callable, optional
        Asked before each product.

    Returns
    -------
    Result
        The best point seen, which may be x0.
    """
    evaluate = Evaluator(objective, max_evaluations)
    start = evaluate(x0.detach().to(torch.float64, copy=True))
    values = [start.value]
    if not start.finite:
        return _result(start, Status.NOT_FINITE, evaluate.count, 0, values)
    stop = should_stop or (lambda: False)
    products, step = 0, torch.zeros_like(start.x)
    residual = -start.gradient
    direction, square = residual.clone(), float(residual @ residual)
    goal = tolerance * math.sqrt(square)
    # two evaluations are left for the step itself
    while products < max_products and evaluate.left - PRODUCT_COST * (products + 1) >= 2:
        if math.sqrt(square) <= goal or stop():
            break
        product = objective.hessian_product(start.x, direction)
        products += 1
        curvature = float(direction @ product)
        if not curvature > 0.0:
            break
        step += (square / curvature) * direction
        residual -= (square / curvature) * product
        before, square = square, float(residual @ residual)
        direction = residual + (square / before) * direction
    left = evaluate.left - PRODUCT_COST * products
    used = PRODUCT_COST * products
    length = 1.0
    for _ in range(int(min(10, left)) if products else 0):
        trial = evaluate(start.x + length * step)
        if trial.finite and trial.value < start.value:
            values.append(trial.value)
            return _result(trial, Status.CONVERGED, evaluate.count + used, 1, values)
        length *= STEP_DECREASE
    return _result(start, Status.STALLED, evaluate.count + used, 0, values)


def _result(
    point: Point, status: Status, evaluations: int, iterations: int, values: list[float]
) -> Result:
    return Result(
        point.x, point.value, point.gradient, status, iterations, evaluations, list(values)
    )
