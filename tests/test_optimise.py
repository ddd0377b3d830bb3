"""L-BFGS: convergence, limits and what it reports."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import Changed, Counted, Quadratic, Rosenbrock, vector

from fwi_refine.optimise import Point, lbfgs


@pytest.mark.parametrize("history", [None, 5, 20])
@pytest.mark.parametrize("n", [2, 10, 40])
def test_rosenbrock(n, history):
    result = lbfgs(
        Rosenbrock(),
        Rosenbrock.start(n),
        max_iterations=1000,
        gradient_tolerance=1e-9,
        history=history,
    )
    assert result.status == "converged"
    assert (result.x - 1).abs().max() < 1e-9
    assert result.evaluations < 20 * n + 30
    assert len(result.history) == result.iterations + 1
    assert result.history == sorted(result.history, reverse=True)


@pytest.mark.parametrize("n", [5, 20, 50])
def test_full_history_solves_a_quadratic_in_n_steps(n):
    quadratic = Quadratic(n, 100.0, level=1.0)
    start = torch.zeros(n, dtype=torch.float64)
    options = {"max_iterations": 1000, "gradient_tolerance": 1e-7}
    exact = lbfgs(quadratic, start, curvature=0.01, **options)  # conjugate gradients in effect
    assert exact.status == "converged"
    assert exact.iterations <= n + 2
    loose = lbfgs(quadratic, start, **options)
    assert loose.status == "converged"
    assert loose.iterations <= 3 * n + 10
    for result in (exact, loose):
        assert (result.x - quadratic.centre).abs().max() < 1e-7


def test_the_minimum_is_found_below_the_rounding_of_the_value():
    """A value of 1 + 1e-20 is 1: only the gradient still tells the distance to the minimum."""
    quadratic = Quadratic(10, 10.0, level=1.0)
    result = lbfgs(quadratic, quadratic.centre + 1.0, max_iterations=200, gradient_tolerance=1e-12)
    assert result.status == "converged"
    assert (result.x - quadratic.centre).abs().max() < 1e-12


def test_a_run_that_cannot_gain_any_more_stalls_soon():
    quadratic = Quadratic(10, 10.0, level=1.0)
    shaky = Changed(quadratic, lambda count, x, value, g: (value, g + 1e-10 * math.cos(count)))
    result = lbfgs(shaky, torch.zeros(10).double(), max_iterations=10_000)
    assert result.status == "stalled"
    assert result.evaluations < 100
    assert (result.x - quadratic.centre).abs().max() < 1e-9


@given(limit=st.integers(1, 50))
@settings(max_examples=25, deadline=None)
def test_evaluations_are_counted_and_limited_exactly(limit):
    counted = Counted(Rosenbrock())
    result = lbfgs(counted, Rosenbrock.start(4), max_iterations=1000, max_evaluations=limit)
    assert result.evaluations == len(counted.asked) == limit
    assert result.status == "max-evaluations"
    assert result.value == min(counted.answered)
    asked = {tuple(x.tolist()) for x in counted.asked}
    assert len(asked) == limit, "a point was evaluated twice"


@pytest.mark.parametrize("iterations", [0, 1, 7])
def test_iterations_are_limited_exactly(iterations):
    result = lbfgs(Rosenbrock(), Rosenbrock.start(4), max_iterations=iterations)
    assert (result.status, result.iterations) == ("max-iterations", iterations)
    assert result.history[-1] == result.value


def test_a_value_target_ends_the_run():
    result = lbfgs(Rosenbrock(), Rosenbrock.start(4), max_iterations=1000, value_target=1e-3)
    assert result.status == "target"
    assert result.value <= 1e-3 < result.history[-2]


def test_a_start_within_the_tolerance_is_returned_at_once():
    result = lbfgs(Rosenbrock(), vector(1.0, 1.0), max_iterations=5)
    assert (result.status, result.iterations, result.evaluations) == ("converged", 0, 1)


def test_the_callback_sees_every_iteration_and_can_stop():
    seen = []

    def callback(result):
        seen.append(result)
        return len(seen) == 5

    result = lbfgs(Rosenbrock(), Rosenbrock.start(4), max_iterations=100, callback=callback)
    assert (result.status, result.iterations) == ("stopped", 5)
    assert [state.iterations for state in seen] == [1, 2, 3, 4, 5]
    assert {state.status for state in seen} == {"running"}
    assert seen[-1].value == result.value
    assert torch.equal(seen[-1].x, result.x)
    assert len({state.value for state in seen}) == 5, "states must not share what changes"


def test_the_first_step_has_the_size_that_was_asked_for():
    for size in (1e-3, 10.0):
        counted = Counted(Quadratic(6, 10.0))
        lbfgs(counted, torch.zeros(6).double(), max_iterations=1, initial_step=size)
        assert float((counted.asked[1] - counted.asked[0]).abs().max()) == pytest.approx(size)


def test_the_start_is_not_changed_and_may_have_another_precision():
    x0 = Rosenbrock.start(4).float()
    before = x0.clone()
    result = lbfgs(Rosenbrock(), x0, max_iterations=0)
    assert result.x.dtype == torch.float64
    result.x.zero_()
    assert torch.equal(x0, before)


def test_an_objective_may_reuse_its_gradient():
    buffer = torch.empty(4, dtype=torch.float64)
    reusing = Changed(Rosenbrock(), lambda count, x, value, g: (value, buffer.copy_(g)))
    result = lbfgs(reusing, Rosenbrock.start(4), max_iterations=60)
    plain = lbfgs(Rosenbrock(), Rosenbrock.start(4), max_iterations=60)
    assert torch.equal(result.x, plain.x)
    assert torch.equal(result.gradient, plain.gradient)


def test_the_exact_inverse_hessian_gives_newtons_step():
    quadratic = Quadratic(30, 1e6)
    start = torch.zeros(30, dtype=torch.float64)
    inverse = torch.linalg.inv(quadratic.matrix)
    result = lbfgs(
        quadratic,
        start,
        max_iterations=10,
        gradient_tolerance=1e-6,
        precondition=lambda g: inverse @ g,
    )
    assert result.status == "converged"
    assert result.iterations <= 2


def test_a_diagonal_preconditioner_removes_bad_scaling():
    class Scaled(Rosenbrock):
        units = torch.logspace(0, 6, 10).double()

        def value_and_gradient(self, x):
            value, gradient = super().value_and_gradient(self.units * x)
            return value, self.units * gradient

    options = {"max_iterations": 400, "value_target": 1e-12}
    start = Rosenbrock.start(10) / Scaled.units
    diagonal = 1e-3 / Scaled.units**2
    with_it = lbfgs(Scaled(), start, precondition=diagonal, **options)
    without = lbfgs(Scaled(), start, **options)
    assert with_it.status == "target"
    assert with_it.evaluations < 150
    assert without.evaluations > 2 * with_it.evaluations


def test_a_wrong_preconditioner_is_passed_over_by_steepest_descent():
    result = lbfgs(
        Quadratic(4, 3.0),
        torch.zeros(4, dtype=torch.float64),
        max_iterations=300,
        gradient_tolerance=1e-8,
        precondition=lambda g: -g,
    )
    assert result.status == "converged"


def test_the_result_holds_value_and_gradient_of_its_x():
    result = lbfgs(Rosenbrock(), Rosenbrock.start(6), max_iterations=20)
    value, gradient = Rosenbrock().value_and_gradient(result.x)
    assert result.value == value
    assert torch.equal(result.gradient, gradient)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x0": torch.zeros(2, 2)}, r"x0 has shape \(2, 2\)"),
        ({"x0": torch.zeros(0)}, r"x0 has shape \(0,\)"),
        ({"max_iterations": -1}, "max_iterations is -1"),
        ({"max_evaluations": 0}, "max_evaluations is 0"),
        ({"scale": 0.0}, "scale is 0.0"),
        ({"history": 0}, "history is 0"),
        ({"initial_step": 0.0}, "initial_step is 0.0"),
        ({"curvature": 1.0}, r"curvature \(1.0\) < 1"),
    ],
)
def test_arguments_that_make_no_sense_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        lbfgs(Rosenbrock(), **{"x0": Rosenbrock.start(4), "max_iterations": 5, **arguments})


def test_a_gradient_of_another_shape_is_named():
    wrong = Changed(Rosenbrock(), lambda count, x, value, g: (value, g[:-1]))
    with pytest.raises(ValueError, match=r"shape \(3,\), expected \(4,\)"):
        lbfgs(wrong, Rosenbrock.start(4), max_iterations=5)


def test_points_know_whether_they_are_finite():
    assert Point(vector(0.0), 1.0, vector(2.0)).finite
    assert not Point(vector(0.0), math.inf, vector(2.0)).finite


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_run_on_a_gpu():
    result = lbfgs(
        Rosenbrock(), Rosenbrock.start(6).cuda(), max_iterations=500, gradient_tolerance=1e-8
    )
    assert result.x.is_cuda
    assert result.status == "converged"
    assert (result.x.cpu() - 1).abs().max() < 1e-7
