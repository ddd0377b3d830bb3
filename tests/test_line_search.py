"""The strong Wolfe line search, and the pairs that give L-BFGS its directions."""

import math

import pytest
import torch
from problems import Counted, Quadratic, vector

from fwi_refine.optimise import Evaluator, strong_wolfe
from fwi_refine.optimise.inverse_hessian import BLOCK, Pairs


class Line:
    """A function of one unknown and its derivative."""

    def __init__(self, function, derivative):
        self.function, self.derivative = function, derivative

    def value_and_gradient(self, x):
        return self.function(x.item()), vector(self.derivative(x.item()))


# Decreasing at 0, with minima at different distances.
LINES = {
    "parabola": Line(lambda t: (t - 3) ** 2, lambda t: 2 * (t - 3)),
    "quartic": Line(lambda t: (t - 3) ** 4, lambda t: 4 * (t - 3) ** 3),
    "wavy": Line(
        lambda t: (t - 3) ** 2 / 10 + math.cos(4 * t), lambda t: (t - 3) / 5 - 4 * math.sin(4 * t)
    ),
    # Moré and Thuente (1994), function 1: concave, then almost linear.
    "concave": Line(lambda t: -t / (t * t + 2), lambda t: (t * t - 2) / (t * t + 2) ** 2),
    "wall": Line(
        lambda t: -t - 0.1 * math.log(2 - t) if t < 2 else math.nan,
        lambda t: -1 + 0.1 / (2 - t) if t < 2 else math.nan,
    ),
}


@pytest.mark.parametrize("curvature", [0.9, 0.1, 0.01])
@pytest.mark.parametrize("step", [1e-3, 0.1, 1.0, 10.0, 1e3])
@pytest.mark.parametrize("name", LINES)
def test_line_search_ends_in_the_strong_wolfe_conditions(name, step, curvature):
    evaluate = Evaluator(Counted(LINES[name]))
    start = evaluate(vector(0.0))
    search = strong_wolfe(evaluate, start, vector(1.0), step, curvature=curvature)
    slope, t = start.gradient.item(), search.point.x.item()
    assert search.reason == "wolfe"
    assert search.point.value <= start.value + 1e-4 * t * slope
    assert abs(search.point.gradient.item()) <= curvature * abs(slope)
    # What is handed back was evaluated there, and nothing was evaluated twice.
    value, gradient = LINES[name].value_and_gradient(search.point.x)
    assert (search.point.value, search.point.gradient.item()) == (value, gradient.item())
    asked = [x.item() for x in evaluate.objective.asked]
    assert len(asked) == len(set(asked)) == evaluate.count <= 20


@pytest.mark.parametrize("direction", [-1.0, 0.0, math.nan])
def test_line_search_reports_what_is_not_a_descent_direction(direction):
    evaluate = Evaluator(LINES["parabola"])
    start = evaluate(vector(0.0))
    search = strong_wolfe(evaluate, start, vector(direction), 1.0)
    assert (search.point, search.reason, evaluate.count) == (start, "not-descent", 1)


def test_line_search_keeps_the_lowest_point_when_it_runs_out_of_evaluations():
    evaluate = Evaluator(LINES["quartic"])
    start = evaluate(vector(0.0))
    search = strong_wolfe(evaluate, start, vector(1.0), 5.999, max_evaluations=1)
    assert (search.reason, search.point.x.item(), evaluate.count) == ("lower", 5.999, 2)
    assert search.point.value < start.value


def test_line_search_up_a_wrong_gradient_ends_at_its_start():
    evaluate = Evaluator(Line(lambda t: t * t + t, lambda t: -2 * t - 1))
    start = evaluate(vector(0.0))
    search = strong_wolfe(evaluate, start, vector(1.0), 1.0)
    assert (search.point, search.reason) == (start, "no-decrease")
    assert evaluate.count <= 21


def test_line_search_tells_convergence_from_failure():
    """A gain of 1e-20 cannot be seen where values are off by 1e-12: the gradient may be right."""
    evaluate = Evaluator(Line(lambda t: 1.0 if t == 0 else 1 + 1e-12, lambda t: -1e-20))
    start = evaluate(vector(0.0))
    search = strong_wolfe(evaluate, start, vector(1.0), 1.0)
    assert (search.point, search.reason, evaluate.count) == (start, "below-rounding", 2)


def test_line_search_does_not_evaluate_where_x_cannot_change():
    evaluate = Evaluator(Line(lambda t: t, lambda t: 1.0))
    start = evaluate(vector(1e20))
    search = strong_wolfe(evaluate, start, vector(-1.0), 1.0)
    assert (search.point, evaluate.count) == (start, 1)


def two_loops(pairs, g, precondition=None):
    """Algorithm 7.4 of Nocedal & Wright as it is printed there."""
    q, a = g.clone(), []
    for s, y in reversed(pairs):
        a.append((s @ q) / (s @ y))
        q = q - a[-1] * y
    s, y = pairs[-1]
    r = precondition(q) if precondition else (s @ y) / (y @ y) * q
    for s, y in pairs:
        r = r + s * (a.pop() - (y @ r) / (s @ y))
    return r


@pytest.mark.parametrize("history", [None, 1, 5, BLOCK - 1, BLOCK, BLOCK + 3])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_blocks_of_pairs_are_the_two_loop_recursion(history, preconditioned):
    n, count = 40, 2 * BLOCK + 7
    matrix = Quadratic(n, 100.0).matrix
    torch.manual_seed(1)
    steps = torch.randn(count, n, dtype=torch.float64)
    diagonal = 0.1 + torch.rand(n, dtype=torch.float64)
    precondition = diagonal.mul if preconditioned else None
    given = [(s, matrix @ s) for s in steps]
    pairs = Pairs(history)
    for number, (s, y) in enumerate(given, 1):
        assert pairs.add(s, y)
        kept = min(number, history or number)
        assert len(pairs) == kept
        if number in (1, 2, BLOCK, BLOCK + 1, count):
            g = torch.randn(n, dtype=torch.float64)
            expected = two_loops(given[number - kept : number], g, precondition)
            error = (pairs.multiply(g, precondition) - expected).norm() / expected.norm()
            assert error < 1e-10
            # The secant equation: the newest change of the gradient gives the newest step.
            assert (pairs.multiply(y, precondition) - s).norm() / s.norm() < 1e-10


def test_pairs_without_positive_curvature_are_left_out():
    pairs, s = Pairs(), vector(1.0, 2.0)
    for y in (-s, vector(-2.0, 1.0), 0 * s, math.nan * s):
        assert not pairs.add(s, y)
    assert len(pairs) == 0
    assert torch.equal(pairs.multiply(s), s)
