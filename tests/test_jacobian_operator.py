"""The Jacobian as an operator of scipy, and of PyLops where that is installed."""

import numpy as np
import pytest
import torch
from jacobian_cases import SMALL, smooth_change, textured
from scipy.sparse.linalg import lsqr

from fwi_refine import jacobian_operator
from fwi_refine.wave import Simulator, jacobian

V = textured(SMALL)
RECORD = int(np.prod(SMALL.record_shape))


@pytest.fixture(scope="module", params=[False, True], ids=["simulated", "assembled"])
def operator(request):
    return jacobian_operator(V, survey=SMALL, assembled=request.param, by_vmin=True)


def test_it_passes_the_dot_test(operator):
    random = np.random.default_rng(0)
    x, y = random.normal(size=V.numel() + 1), random.normal(size=RECORD)
    left, right = y @ (operator @ x), (operator.T @ y) @ x
    assert left == pytest.approx(right, rel=1e-11)
    assert left != pytest.approx(y @ (operator @ -x), rel=1e-11)


def test_pylops_own_dot_test_passes(operator):
    pylops = pytest.importorskip("pylops", reason="PyLops is not installed")
    made = pylops.aslinearoperator(operator)
    assert pylops.utils.dottest(made, RECORD, V.numel() + 1, rtol=1e-9, raiseerror=True)


def test_it_is_the_derivative_of_the_simulator():
    """Central differences: halving the step quarters what is left of them."""
    operator, simulator = jacobian_operator(V.numpy(), survey=SMALL), Simulator(SMALL)
    change, vmin = smooth_change(SMALL), V.min().reshape(1)
    expected = operator @ change.numpy().ravel()
    errors = []
    for step in (2.0, 1.0):
        sides = [simulator.forward((V + s * step * change)[None], vmin) for s in (1, -1)]
        found = ((sides[0] - sides[1]) / (2 * step)).numpy().ravel()
        errors.append(np.abs(found - expected).max() / np.abs(expected).max())
    assert errors[1] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)


def test_both_forms_agree_within_the_band():
    forms = [jacobian_operator(V, 1500.0, survey=SMALL, assembled=how) for how in (False, True)]
    assert forms[0].shape == forms[1].shape == (RECORD, V.numel())
    change = smooth_change(SMALL).numpy().ravel()
    exact, banded = (form @ change for form in forms)
    assert np.linalg.norm(exact - banded) < 2e-3 * np.linalg.norm(exact)
    matrix = jacobian(V, 1500.0, survey=SMALL, dtype=torch.float64)
    np.testing.assert_array_equal(banded, matrix.matvec(torch.tensor(change)).numpy().ravel())


def test_a_solver_of_scipy_takes_it(operator):
    change = np.append(smooth_change(SMALL).numpy().ravel(), 0.0)
    data = operator @ change
    found = lsqr(operator, data, iter_lim=60)[0]
    assert np.linalg.norm(operator @ found - data) < 0.02 * np.linalg.norm(data)


def test_what_cannot_be_simulated_is_refused_at_once():
    with pytest.raises(ValueError, match="velocity"):
        jacobian_operator(torch.full(SMALL.shape, -1.0), survey=SMALL)


def test_complex_vectors_are_refused(operator):
    """Their imaginary parts would be dropped."""
    for vector, product in ((V.numel() + 1, operator.matvec), (RECORD, operator.rmatvec)):
        with pytest.raises(ValueError, match="found complex numbers"):
            product(np.full(vector, 1j))


@pytest.mark.parametrize("name", ["assembled", "by_vmin"])
def test_switches_are_true_or_false(name):
    with pytest.raises(ValueError, match=f"{name} 'no': expected True or False"):
        jacobian_operator(V, survey=SMALL, **{name: "no"})
