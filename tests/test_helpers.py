"""The dot test and the Taylor test notice what they are there for."""

import pytest
import torch
from helpers import dot_test, taylor_test

MATRIX = torch.randn((30, 20), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X, Y = MATRIX[0], MATRIX[:, 0]


def test_a_right_adjoint_passes_and_an_almost_right_one_does_not():
    assert dot_test(MATRIX.mv, MATRIX.T.mv, X, Y) < 1e-14
    almost = MATRIX.T.clone()
    almost[3, 4] *= 1 + 1e-6
    assert dot_test(MATRIX.mv, almost.mv, X, Y) > 1e-12
    assert dot_test(MATRIX.mv, lambda y: -MATRIX.T @ y, X, Y) == pytest.approx(2)


def test_several_arguments_and_results_are_taken_as_tuples():
    left, right = X[:7], X[7:]
    error = dot_test(
        lambda a, b: MATRIX @ torch.cat((a, b)),
        lambda y: (MATRIX.T @ y).split((7, 13)),
        (left, right),
        Y,
    )
    assert error < 1e-14


def test_shapes_that_broadcast_are_not_mistaken_for_equal_ones():
    with pytest.raises(ValueError, match="differ"):
        dot_test(MATRIX.mv, lambda y: (MATRIX.T @ y)[None], X, Y)


def test_the_order_is_2_for_a_right_gradient_and_1_for_a_wrong_one():
    steps = (1e-2, 1e-3, 1e-4)
    right = taylor_test(lambda x: (x.exp().sum(), x.exp()), X, X, steps)
    wrong = taylor_test(lambda x: (x.exp().sum(), 1.001 * x.exp()), X, X, (1e-4, 1e-5, 1e-6))
    assert right == pytest.approx(2, abs=0.02)
    assert wrong == pytest.approx(1, abs=0.1)


def test_the_order_of_rounding_is_refused():
    with pytest.raises(ValueError, match="larger steps"):
        taylor_test(lambda x: (x.sum(), torch.ones_like(x)), X, X, (1e-2, 1e-3))
