"""Levenberg-Marquardt on problems without physics: converges, counts, never makes worse."""

import math

import pytest
import torch

from fwi_refine.objective import Objective
from fwi_refine.optimise import Status, levenberg_marquardt


class Rosenbrock(Objective):
    """r = (10 (y - x^2), 1 - x): a narrow curved valley, minimum 0 at (1, 1)."""

    def residual_and_jacobian(self, x):
        residual = torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])
        jacobian = torch.tensor([[-20 * float(x[0]), 10.0], [-1.0, 0.0]], dtype=torch.float64)
        return residual, jacobian

    def value_and_gradient(self, x):
        residual, jacobian = self.residual_and_jacobian(x)
        return float(residual @ residual), 2 * jacobian.T @ residual

    def hessian(self, x):
        _, jacobian = self.residual_and_jacobian(x)
        return 2 * jacobian.T @ jacobian


START = torch.tensor([-1.2, 1.0], dtype=torch.float64)


def test_rosenbrock():
    result = levenberg_marquardt(Rosenbrock(), START, max_iterations=60, relative_decrease=0.0)
    assert torch.allclose(result.x, torch.ones(2, dtype=torch.float64), atol=1e-6)
    assert all(b < a for a, b in zip(result.history, result.history[1:], strict=False))
    assert len(result.history) == result.iterations + 1


def test_a_quadratic_takes_two_steps():
    """The damping is small but not zero, so the first step leaves a little."""
    scale = torch.tensor([1e-3, 1.0, 1e3], dtype=torch.float64)

    class Quadratic(Objective):
        def value_and_gradient(self, x):
            return float((scale * (x - 3)) @ (x - 3)), 2 * scale * (x - 3)

        def hessian(self, x):
            return 2 * torch.diag(scale)

    result = levenberg_marquardt(
        Quadratic(), torch.zeros(3, dtype=torch.float64), max_iterations=2, relative_decrease=0.0
    )
    assert torch.allclose(result.x, torch.full((3,), 3.0, dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize("limit", [1, 5, 11, 30])
def test_the_budget_is_kept_and_a_hessian_costs(limit):
    result = levenberg_marquardt(
        Rosenbrock(), START, max_iterations=100, max_evaluations=limit, hessian_cost=4
    )
    assert result.evaluations <= limit
    assert result.value <= Rosenbrock()(START)
    if limit < 6:  # the start, a Hessian and a trial
        assert result.status == Status.MAX_EVALUATIONS
        assert result.iterations == 0


class Broken(Rosenbrock):
    """Rosenbrock with one thing wrong."""

    def __init__(self, fault):
        self.fault, self.calls = fault, 0

    def value_and_gradient(self, x):
        self.calls += 1
        value, gradient = super().value_and_gradient(x)
        if self.fault == "nan later" and self.calls > 2:
            return math.nan, gradient
        if self.fault == "wrong sign":
            return value, -gradient
        return value, gradient

    def hessian(self, x):
        hessian = super().hessian(x)
        if self.fault == "nan hessian":
            return hessian * math.nan
        if self.fault == "indefinite":
            return hessian - 50 * torch.eye(2, dtype=torch.float64)
        return hessian


@pytest.mark.parametrize("fault", ["nan later", "wrong sign", "nan hessian", "indefinite"])
def test_faults_never_make_it_worse(fault):
    result = levenberg_marquardt(Broken(fault), START, max_iterations=20)
    assert result.value <= Rosenbrock()(START)
    assert torch.isfinite(result.x).all()
    assert Rosenbrock()(result.x) == pytest.approx(result.value)


def test_a_start_that_is_not_finite_is_returned():
    start = torch.tensor([math.nan, 1.0], dtype=torch.float64)
    result = levenberg_marquardt(Rosenbrock(), start, max_iterations=5)
    assert result.status == Status.NOT_FINITE


def test_steps_go_through_the_retraction_and_the_callback_stops():
    """With x = log y as coordinates of the step, y stays positive."""
    seen = []

    def retract(x, dx):
        seen.append(dx)
        return x * torch.exp(dx / x)

    start = torch.tensor([2.0, 2.0], dtype=torch.float64)
    result = levenberg_marquardt(
        Rosenbrock(),
        start,
        max_iterations=50,
        retract=retract,
        callback=lambda r: r.iterations == 3,
    )
    assert seen
    assert result.status == Status.STOPPED
    assert result.iterations == 3
    assert (result.x > 0).all()
