"""Total variation: value, gradient, and the matrix that stands in for the Hessian."""

import numpy as np
import pytest
import torch

from fwi_refine.priors import TotalVariation1D, TotalVariation2D

CASES = [(TotalVariation1D, (70,)), (TotalVariation2D, (12, 9)), (TotalVariation2D, (1, 7))]


def layered(shape, seed=0):
    """A map of flat areas with a little noise: differences far below and far above epsilon."""
    generator = torch.Generator().manual_seed(seed)
    v = torch.full(shape, 2000.0, dtype=torch.float64)
    v[shape[0] // 2 :] += 500.0
    return v + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)


def direction(shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_value_is_the_mean_over_all_differences():
    v = torch.tensor([[1.0, 1.0], [4.0, 9.0]], dtype=torch.float64)
    expected = np.mean(np.sqrt(np.array([0.0, 5.0, 3.0, 8.0]) ** 2 + 0.01))
    assert TotalVariation2D(0.1).value(v).item() == pytest.approx(expected, rel=1e-14)
    rows = torch.tensor([1.0, 4.0, 2.0], dtype=torch.float64)
    expected = np.mean(np.sqrt(np.array([3.0, 2.0]) ** 2 + 0.25))
    assert TotalVariation1D(0.5).value(rows).item() == pytest.approx(expected, rel=1e-14)


def test_rows_and_map_agree_up_to_the_number_of_differences():
    rows = layered((70,))
    vertical, horizontal = 69 * 70, 70 * 69
    tall = TotalVariation2D(0.1).value(rows[:, None].expand(70, 70)).item()
    expected = (TotalVariation1D(0.1).value(rows) * vertical + 0.1 * horizontal) / 9660
    assert tall == pytest.approx(expected.item(), rel=1e-13)


@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_gradient_by_taylor_remainder(kind, shape):
    prior, v, dv = kind(0.1), layered(shape), 0.05 * direction(shape)
    value, gradient = prior.value_and_gradient(v)
    slope = (gradient * dv).sum()
    steps = [2.0**-k for k in range(3, 8)]
    rests = [abs(prior.value(v + h * dv) - value - h * slope).item() for h in steps]
    orders = np.diff(np.log(rests)) / np.diff(np.log(steps))
    assert np.all(np.abs(orders - 2.0) < 0.1), orders


@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_gradient_is_that_of_autograd(kind, shape):
    prior, v = kind(0.1), layered(shape).requires_grad_()
    (expected,) = torch.autograd.grad(prior.value(v), v)
    gradient = prior.gradient(v.detach())
    assert gradient.shape == v.shape
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_hessian_is_symmetric_semidefinite_and_consistent_with_the_gradient(kind, shape):
    prior, v = kind(0.1), layered(shape)
    matrix = prior.hessian(v)
    assert matrix.shape == (v.numel(), v.numel())
    assert torch.equal(matrix, matrix.T)
    spectrum = torch.linalg.eigvalsh(matrix)
    assert spectrum[0] > -1e-12 * spectrum[-1]
    assert spectrum[1] > 1e-12 * spectrum[-1]  # only the constant map costs nothing
    torch.testing.assert_close(
        (matrix @ v.flatten()).reshape(shape), prior.gradient(v), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_quadratic_lies_above_the_prior(kind, shape, size):
    prior, v = kind(0.1), layered(shape)
    value, gradient = prior.value_and_gradient(v)
    matrix = prior.hessian(v)
    for seed in range(5):
        dv = size * direction(shape, seed)
        step = dv.flatten()
        above = value + gradient.flatten() @ step + 0.5 * step @ matrix @ step
        assert above >= prior.value(v + dv) - 1e-12


@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_constant_map(kind, shape):
    prior, v = kind(0.1), torch.full(shape, 3000.0, dtype=torch.float64)
    value, gradient = prior.value_and_gradient(v)
    matrix = prior.hessian(v)
    assert value.item() == pytest.approx(0.1, rel=1e-15)
    assert torch.equal(gradient, torch.zeros_like(v))
    assert torch.isfinite(matrix).all()
    # On a constant map the majoriser is the true second derivative.
    dv = 1e-4 * direction(shape)
    second = 0.5 * dv.flatten() @ matrix @ dv.flatten()
    assert (prior.value(v + dv) - value).item() == pytest.approx(second.item(), rel=1e-4)


def test_full_map_is_quick_enough_for_an_inversion():
    prior, v = TotalVariation2D(0.1), layered((70, 70))
    value, gradient = prior.value_and_gradient(v)
    matrix = prior.hessian(v)
    assert matrix.shape == (4900, 4900)
    residual = (matrix @ v.flatten()).reshape(70, 70) - gradient
    assert residual.abs().max() < 1e-9 * gradient.abs().max() * 3000
    assert value > 0


def test_errors_say_what_was_expected():
    with pytest.raises(ValueError, match=r"epsilon must be positive, not 0"):
        TotalVariation2D(0)
    with pytest.raises(ValueError, match=r"TotalVariation2D takes .* 2 dimension.* \(70,\)"):
        TotalVariation2D().value(torch.zeros(70))
    with pytest.raises(ValueError, match=r"TotalVariation1D takes .* 1 dimension.* \(1,\)"):
        TotalVariation1D().value(torch.zeros(1))
