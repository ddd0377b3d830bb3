"""Levenberg-Marquardt on problems without physics: converges, counts, never makes worse."""

import math

import pytest
import torch
from least_squares import START, Energy, Quadratic, Rosenbrock, descent

from fwi_refine.objective.base import Objective, SumOfSquaredResiduals, SumOfSquares
from fwi_refine.optimise import DescentSettings, Status, levenberg_marquardt


def minimise(misfit, start=START, **options):
    settings, more = descent({"max_iterations": 60, "relative_decrease": 0.0} | options)
    return levenberg_marquardt(misfit, Energy(), start, settings, **more)


def test_rosenbrock():
    result = minimise(Rosenbrock())
    assert torch.allclose(result.x, torch.ones(2, dtype=torch.float64), atol=1e-6)
    assert all(b < a for a, b in zip(result.history, result.history[1:], strict=False))
    assert len(result.history) == result.iterations + 1


def test_the_minimum_with_a_prior_is_that_of_the_sum():
    weight = 0.3
    result = minimise(Rosenbrock(), weight=weight)
    gradient = Rosenbrock().gradient(result.x) + weight * Energy().gradient(result.x)
    assert gradient.abs().max() < 1e-6
    assert result.value == pytest.approx(Rosenbrock()(result.x) + weight * Energy()(result.x))


def test_a_quadratic_takes_one_jacobian():
    """The damping is small but not zero; the corrections take out what it leaves."""
    result = minimise(Quadratic(), torch.zeros(3, dtype=torch.float64), max_iterations=1)
    assert torch.allclose(result.x, torch.full((3,), 3.0, dtype=torch.float64), atol=1e-9)


class Bent(SumOfSquaredResiduals):
    """r = A (x + 0.05 x^2) - d, so weak along one direction that stale gradients would derail."""

    matrix = torch.tensor([[1.0, 0.5], [0.5, 0.2501]], dtype=torch.float64)
    data = matrix @ torch.tensor([1.05, 2.2], dtype=torch.float64)  # from x = (1, 2)

    def residual(self, x):
        return self.matrix @ (x + 0.05 * x**2) - self.data

    def pull_back(self, x, r):
        return (1 + 0.1 * x) * (self.matrix.T @ r)

    def hessian(self, x):
        jacobian = self.matrix * (1 + 0.1 * x)
        return jacobian.T @ jacobian


def test_corrections_get_further_with_one_jacobian():
    start = torch.tensor([4.0, -2.0], dtype=torch.float64)
    one, many = (
        minimise(Bent(), start, max_iterations=1, corrections=corrections).value
        for corrections in (1, 8)
    )
    assert many < 1e-2 * one


def test_the_weight_follows_the_misfit_and_never_rises():
    seen = []

    def weight(misfit, prior):
        seen.append(misfit)
        return 0.1 * misfit

    settings = DescentSettings(weight=weight, max_iterations=30, relative_decrease=0.0)
    result = levenberg_marquardt(Rosenbrock(), Energy(), START, settings)
    assert min(seen) < 1e-2 * seen[0]
    assert all(b <= a for a, b in zip(result.history, result.history[1:], strict=False))


@pytest.mark.parametrize("limit", [1, 5, 11, 30])
def test_the_budget_is_kept_and_a_jacobian_costs(limit):
    result = minimise(Rosenbrock(), max_evaluations=limit, hessian_cost=4)
    assert result.evaluations <= limit
    assert result.value <= Rosenbrock()(START)
    if limit < 7:  # the start, a Jacobian, a product and a residual
        assert result.status == Status.MAX_EVALUATIONS
        assert result.iterations == 0


class Broken(Rosenbrock):
    """Rosenbrock with one thing wrong."""

    def __init__(self, fault):
        self.fault, self.calls = fault, 0

    def residual(self, x):
        self.calls += 1
        if self.fault == "not allowed later" and self.calls > 2:
            return None
        late = self.fault == "nan later" and self.calls > 2
        return super().residual(x) * (math.nan if late else 1.0)

    def pull_back(self, x, r):
        return super().pull_back(x, r) * (-1 if self.fault == "wrong sign" else 1)

    def hessian(self, x):
        hessian = super().hessian(x)
        if self.fault == "nan hessian":
            return hessian * math.nan
        if self.fault == "indefinite":
            return hessian - 50 * torch.eye(2, dtype=torch.float64)
        return hessian


FAULTS = ["nan later", "not allowed later", "wrong sign", "nan hessian", "indefinite"]


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_never_make_it_worse(fault):
    result = minimise(Broken(fault), max_iterations=20)
    assert result.value <= Rosenbrock()(START)
    assert torch.isfinite(result.x).all()
    assert Rosenbrock()(result.x) == pytest.approx(result.value)


def test_a_start_that_is_not_finite_is_returned():
    start = torch.tensor([math.nan, 1.0], dtype=torch.float64)
    assert minimise(Rosenbrock(), start).status == Status.NOT_FINITE


def test_steps_go_through_the_retraction_and_the_callback_stops():
    """With x = log y as coordinates of the step, y stays positive."""
    seen = []

    def retract(x, dx):
        seen.append(dx)
        return x * torch.exp(dx / x)

    start = torch.tensor([2.0, 2.0], dtype=torch.float64)
    result = minimise(
        Rosenbrock(), start, retract=retract, callback=lambda r: len(seen) > 3, corrections=2
    )
    assert seen
    assert result.status == Status.STOPPED
    assert result.value < Rosenbrock()(start)
    assert (result.x > 0).all()


def test_sum_of_squares_says_that_it_is_quadratic():
    assert SumOfSquares().quadratic
    assert not Objective.quadratic
