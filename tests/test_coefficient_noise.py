"""The rounding of coefficients as noise: its size, its derivative, the misfit that counts it."""

import numpy as np
import pytest
import torch
from wave_cases import THREE_SHOTS as SURVEY

from fwi_refine.objective.coefficient_noise import CorrelatedMisfit
from fwi_refine.objective.parameterisation import Full
from fwi_refine.wave import (
    Simulator,
    coefficient_jacobian,
    coefficient_rounding,
    jacobian,
    record_basis,
    released_record,
)
from fwi_refine.wave.grid import C2, C3, damping, pad

CHANGE = 1e-7  # of a coefficient


@pytest.fixture(scope="module")
def v():
    rng = np.random.default_rng(2)
    slope = np.linspace(1700.0, 2600.0, SURVEY.shape[0])[:, None]
    return torch.from_numpy(slope + rng.uniform(0, 20, SURVEY.shape))


def record(v, change):
    """The scheme in float64 with a change (nz, nx) of 2 - 5 alpha, step by step."""
    alpha = (pad(v[None], SURVEY) * SURVEY.dt / SURVEY.spacing).square()[:, None]
    kappa = damping(SURVEY) * v.min()
    centre = 2 - 5 * alpha - kappa + pad(change[None], SURVEY)[:, None]
    sources, receivers = (
        torch.from_numpy(SURVEY.padded_index(points)).long().T
        for points in (SURVEY.sources, SURVEY.receivers)
    )
    shots = torch.arange(len(SURVEY.sources))
    strength = alpha[0, 0, sources[0], sources[1]] * SURVEY.spacing**2
    p = old = torch.zeros_like(alpha).repeat(1, len(shots), 1, 1)
    traces = []
    for w in torch.from_numpy(SURVEY.wavelet):
        near, far = (
            sum(torch.roll(p, step, dims=dim) for dim in (-2, -1) for step in (n, -n))
            for n in (1, 2)
        )
        following = centre * p - (1 - kappa) * old + alpha * (C2 * near + C3 * far)
        following[0, shots, sources[0], sources[1]] += strength * w
        p, old = following, p
        traces.append(p[0, :, receivers[0], receivers[1]])
    return torch.stack(traces, dim=1)


@pytest.mark.parametrize("cell", [(8, 9), (3, 0), (15, 19)])
def test_the_derivative_by_a_coefficient_is_that_of_the_scheme(v, cell):
    """In a cell of the map, and along edges, where the band repeats it."""
    change = torch.zeros_like(v)
    change[cell] = CHANGE
    difference = (record(v, change) - record(v, 0 * change)) / CHANGE
    expected = torch.einsum("str,tk->srk", difference, record_basis(SURVEY)).flatten()
    number = cell[0] * v.shape[1] + cell[1]
    found = coefficient_jacobian(v, v.min(), survey=SURVEY)[:, number].double()
    assert float((found - expected).norm() / expected.norm()) < 1e-2


def test_its_size_is_that_of_float32():
    rng = np.random.default_rng(6)
    v = rng.uniform(1500.0, 4500.0, (200, 200)).astype(np.float32)
    alpha = np.square(v * np.float32(SURVEY.dt) * np.float32(1 / SURVEY.spacing))
    rounding = (2 + np.float32(-5) * alpha).astype(np.float64) - (2 - 5 * alpha.astype(np.float64))
    expected = coefficient_rounding(torch.from_numpy(v), SURVEY).square().mean().sqrt()
    assert rounding.std() == pytest.approx(float(expected), rel=0.1)


@pytest.fixture(scope="module")
def misfit(v):
    data = released_record(v.float().double(), survey=SURVEY).numpy()
    parameters = Full(SURVEY.shape)
    x = parameters.from_velocity(v, v.min())
    return CorrelatedMisfit(Simulator(SURVEY), parameters, data, x), x


def test_the_misfit_is_that_of_the_covariance(v, misfit):
    misfit, x = misfit
    matrix = misfit.noise.matrix.double()
    weight = torch.linalg.inv(torch.eye(len(matrix), dtype=torch.float64) + matrix @ matrix.T)
    rows = jacobian(v, v.min(), survey=SURVEY).matrix.double()
    residual = misfit.residual(1.01 * x)
    c = torch.einsum("str,tk->srk", residual[0], record_basis(SURVEY)).flatten()
    samples = residual.numel()
    assert misfit(1.01 * x) == pytest.approx(float(c @ weight @ c) / samples, rel=1e-5)
    expected = rows.T @ weight @ rows * (2 / samples)
    torch.testing.assert_close(misfit.hessian(x), expected, rtol=0, atol=1e-9 * expected.max())


def test_its_gradient_is_that_of_its_value(misfit):
    misfit, x = misfit
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    x, step = 1.003 * x, 0.1 * direction / direction.norm()
    value, gradient = misfit.value_and_gradient(x)
    assert value == misfit(x)
    slope = misfit(x + step) - misfit(x - step)
    assert float(2 * gradient @ step) == pytest.approx(slope, rel=1e-3)
