"""Optimisers on objectives that misbehave: the result is never worse than the start."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import FAULTS, Changed, Counted, Quadratic, Rosenbrock, vector

from fwi_refine.optimise import gauss_newton_step, lbfgs
from fwi_refine.optimise.result import ROUNDING


@pytest.mark.parametrize(
    ("value", "gradient"),
    [(math.nan, 0.0), (math.inf, 0.0), (-math.inf, 0.0), (1.0, math.nan), (1.0, math.inf)],
)
def test_a_start_that_is_not_finite_is_returned(value, gradient):
    broken = Changed(Rosenbrock(), lambda count, x, v, g: (v * value, g + gradient))
    x0 = Rosenbrock.start(4)
    result = lbfgs(broken, x0, max_iterations=10)
    assert (result.status, result.iterations, result.evaluations) == ("not-finite", 0, 1)
    assert torch.equal(result.x, x0)


def test_a_nan_in_the_start_is_not_given_to_the_objective():
    counted = Counted(Rosenbrock())
    result = lbfgs(counted, vector(1.0, math.nan), max_iterations=10)
    assert (result.status, result.evaluations, counted.asked) == ("not-finite", 0, [])


def test_a_wrong_sign_gradient_returns_the_start():
    wrong = Changed(Quadratic(6, 10.0), lambda count, x, value, g: (value, -g))
    x0 = torch.zeros(6, dtype=torch.float64)
    result = lbfgs(wrong, x0, max_iterations=100)
    assert result.status == "line-search"
    assert torch.equal(result.x, x0)
    assert result.evaluations <= 21


@given(
    objective=st.sampled_from([Rosenbrock(), Quadratic(4, 1e4), Quadratic(4, 3.0, level=1.0)]),
    faults=st.dictionaries(st.integers(1, 40), st.sampled_from(sorted(FAULTS)), max_size=12),
    from_then_on=st.booleans(),
    decade=st.floats(-12, 12),
    x0=st.lists(st.floats(-5, 5), min_size=4, max_size=4),
    history=st.sampled_from([None, 1, 3]),
    initial_step=st.sampled_from([None, 1e-6, 1e3]),
)
@settings(max_examples=150, deadline=None)
def test_never_worse_than_the_start(
    objective, faults, from_then_on, decade, x0, history, initial_step
):
    """Any faults at any moments, and data of any size: never above the start, always finite."""
    scale = 10.0**decade
    truth = Changed(objective, lambda count, x, value, g: (scale * value, scale * g))
    seen = []

    def change(count, x, value, gradient):
        earlier = [moment for moment in faults if moment <= count]
        if count in faults or (from_then_on and earlier):
            value, gradient = FAULTS[faults[max(earlier)]](x, value, gradient)
        if math.isfinite(value) and torch.isfinite(gradient).all():
            seen.append(value)
        return value, gradient

    start = vector(*x0)
    result = lbfgs(
        Changed(truth, change),
        start,
        max_iterations=40,
        history=history,
        initial_step=initial_step,
    )
    assert result.value <= truth.value_and_gradient(start)[0]
    assert result.value == truth.value_and_gradient(result.x)[0]
    assert result.value <= min(seen) + ROUNDING * abs(min(seen))
    assert torch.isfinite(result.x).all()
    assert torch.isfinite(result.gradient).all()
    assert result.evaluations <= 1 + 20 * result.iterations


@given(x0=st.lists(st.floats(-100, 100), min_size=3, max_size=3), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_a_noisy_objective_never_ends_above_its_start(x0, seed):
    generator = torch.Generator().manual_seed(seed)

    def noise(count, x, value, g):
        shake = torch.randn(g.shape, generator=generator, dtype=torch.float64)
        return value * (1 + 0.01 * float(shake[0])), g + g.norm() * shake

    counted = Counted(Changed(Rosenbrock(), noise))
    result = lbfgs(counted, vector(*x0), max_iterations=30)
    assert result.value <= counted.answered[0]
    assert result.value <= min(counted.answered) * (1 + ROUNDING)


@given(power=st.integers(-80, 80), x0=st.lists(st.floats(-3, 3), min_size=4, max_size=4))
@settings(max_examples=40, deadline=None)
def test_the_path_does_not_depend_on_the_scale_of_the_objective(power, x0):
    """A power of two changes no rounding, so the path must be the same bit for bit."""
    factor = 2.0**power
    scaled = Changed(Rosenbrock(), lambda count, x, value, g: (factor * value, factor * g))
    plain = lbfgs(Rosenbrock(), vector(*x0), max_iterations=25)
    result = lbfgs(scaled, vector(*x0), max_iterations=25)
    assert torch.equal(result.x, plain.x)
    assert result.history == [factor * value for value in plain.history]
    assert (result.status, result.evaluations) == (plain.status, plain.evaluations)


@given(decade=st.floats(-12, 12))
@settings(max_examples=25, deadline=None)
def test_data_of_any_scale_lead_to_the_same_map(decade):
    """Least squares with data and operator times 1e-12..1e12, as records in another unit are."""
    factor = 10.0**decade
    quadratic = Quadratic(8, 100.0, level=1.0)
    scaled = Changed(quadratic, lambda count, x, value, g: (factor**2 * value, factor**2 * g))
    result = lbfgs(scaled, torch.zeros(8).double(), max_iterations=200)
    assert (result.x - quadratic.centre).abs().max() < 1e-7


def test_scale_is_the_unit_of_the_gradient_tolerance_alone():
    options = {"max_iterations": 500}
    factor = 2.0**50  # about 1e15, as in the published recipe
    plain = lbfgs(Rosenbrock(), Rosenbrock.start(6), gradient_tolerance=1e-6, **options)
    scaled = lbfgs(
        Rosenbrock(), Rosenbrock.start(6), gradient_tolerance=factor * 1e-6, scale=factor, **options
    )
    assert torch.equal(plain.x, scaled.x)
    assert (plain.status, plain.history) == (scaled.status, scaled.history)
    longer = lbfgs(Rosenbrock(), Rosenbrock.start(6), gradient_tolerance=1e-6, scale=1e3, **options)
    assert longer.iterations > plain.iterations
    assert longer.history[: len(plain.history)] == plain.history


class WithHessian(Changed):
    """A quadratic, or what was made of it, with the product that a Gauss-Newton step needs."""

    def hessian_product(self, x, dx):
        return self.objective.matrix @ dx


def test_a_gauss_newton_step_ends_in_the_minimum_of_a_quadratic():
    quadratic = Quadratic(20, 100.0)
    plain = WithHessian(quadratic, lambda count, x, value, g: (value, g))
    result = gauss_newton_step(plain, torch.zeros(20).double(), tolerance=1e-10)
    assert (result.status, result.iterations) == ("converged", 1)
    assert (result.x - quadratic.centre).abs().max() < 1e-8


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 9, None])
def test_a_gauss_newton_step_is_never_worse_than_its_start(fault, limit):
    quadratic = Quadratic(20, 100.0)
    broken = WithHessian(
        quadratic, lambda count, x, v, g: FAULTS[fault](x, v, g) if count else (v, g)
    )
    x0 = torch.zeros(20).double()
    result = gauss_newton_step(broken, x0, max_evaluations=limit)
    assert result.value <= quadratic.value_and_gradient(x0)[0]
    assert result.value == quadratic.value_and_gradient(result.x)[0]
    assert limit is None or result.evaluations <= limit
