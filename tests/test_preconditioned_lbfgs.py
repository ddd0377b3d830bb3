"""L-BFGS with a factored matrix on problems without physics: it promises what LM promises."""

import math

import pytest
import torch
from least_squares import START, Energy, Quadratic, Rosenbrock, descent

from fwi_refine.objective.parameterisation import Full
from fwi_refine.optimise import Status, preconditioned_lbfgs


def minimise(misfit, start=START, **options):
    settings, more = descent({"max_iterations": 30, "relative_decrease": 0.0} | options)
    return preconditioned_lbfgs(misfit, Energy(), start, settings, **more)


def test_rosenbrock():
    result = minimise(Rosenbrock())
    assert torch.allclose(result.x, torch.ones(2, dtype=torch.float64), atol=1e-5)
    assert all(b < a for a, b in zip(result.history, result.history[1:], strict=False))
    assert len(result.history) == result.iterations + 1


def test_the_minimum_with_a_prior_is_that_of_the_sum():
    weight = 0.3
    result = minimise(Rosenbrock(), weight=weight)
    gradient = Rosenbrock().gradient(result.x) + weight * Energy().gradient(result.x)
    assert gradient.abs().max() < 1e-5
    assert result.value == pytest.approx(result.misfit + weight * Energy()(result.x))


def test_a_quadratic_of_any_condition_takes_one_matrix():
    start = torch.zeros(3, dtype=torch.float64)
    result = minimise(Quadratic(), start, max_iterations=1, corrections=2)
    assert torch.allclose(result.x, torch.full((3,), 3.0, dtype=torch.float64), atol=1e-4)
    plain = minimise(Identity(), start, max_iterations=1, corrections=2)
    assert float((plain.x - 3).abs().max()) > 1.0


class Identity(Quadratic):
    """The same without its matrix."""

    def hessian(self, x):
        return torch.eye(3, dtype=torch.float64)


def test_the_gradient_by_the_step_is_that_of_a_step_that_is_bent():
    """With a retraction in squared slowness, and a target that straight steps would miss."""
    parameters = Full((2, 2))
    target = torch.tensor([2000.0, 2500.0, 3000.0, 3500.0, 2000.0], dtype=torch.float64)

    class Slowness(Rosenbrock):
        def residual(self, x):
            return 1e6 * (x**-2 - target**-2)

        def jacobian(self, x):
            return torch.diag(-2e6 * x**-3)

        def pull_back(self, x, r):
            return 2 / 5 * self.jacobian(x).T @ r

        def hessian(self, x):
            return 2 / 5 * self.jacobian(x).T @ self.jacobian(x)

    start = torch.full((5,), 2200.0, dtype=torch.float64)
    result = minimise(
        Slowness(), start, max_iterations=1, corrections=6, retract=parameters.retract
    )
    assert float((result.x - target)[:4].abs().max()) < 1e-3


@pytest.mark.parametrize("limit", [1, 3, 6, 20])
def test_no_more_evaluations_than_allowed(limit):
    result = minimise(Rosenbrock(), max_evaluations=limit, hessian_cost=3)
    assert result.evaluations <= limit
    assert result.status == Status.MAX_EVALUATIONS
    assert result.value <= Rosenbrock()(START)


def test_it_stops_when_told_to_and_hands_back_what_it_has():
    seen = []
    result = minimise(Rosenbrock(), callback=lambda r: seen.append(r.value) or len(seen) == 2)
    assert result.status == Status.STOPPED
    assert result.value <= min(seen)


def test_a_start_that_is_not_finite():
    result = minimise(Rosenbrock(), torch.tensor([math.nan, 0.0], dtype=torch.float64))
    assert result.status == Status.NOT_FINITE
    assert result.iterations == 0


def test_a_wrong_gradient_makes_nothing_worse():
    class Wrong(Rosenbrock):
        def pull_back(self, x, r):
            return -super().pull_back(x, r)

    result = minimise(Wrong())
    assert result.value <= Rosenbrock()(START)
    assert result.status == Status.STALLED
