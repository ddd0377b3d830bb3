"""The expected error: against the closed form, and against what draws really err by."""

import dataclasses

import numpy as np
import pytest
import torch

from fwi_refine.inversion.uncertainty import LevelBelief, Solution, expected_error
from fwi_refine.objective.base import PriorTerm
from fwi_refine.objective.noise import MIN_NOISE
from fwi_refine.objective.parameterisation import Full, Modes, Regions
from fwi_refine.priors import GaussianProcess
from fwi_refine.survey import OPENFWI
from fwi_refine.wave import record_basis

SHAPE = (4, 5)
SURVEY = dataclasses.replace(OPENFWI, shape=SHAPE, sources=((1, 0),), receivers=((1, 1), (1, 3)))
SAMPLES = int(np.prod(SURVEY.record_shape))
FRACTION = record_basis(SURVEY).shape[1] / SURVEY.n_steps
PROCESS = GaussianProcess(1.5, 150.0, 20.0, 300.0, 10.0, 3000.0, SHAPE)


def jacobian(n, seed=0):
    """Some linear record: (60, n), with vmin, the last unknown, hardly seen."""
    generator = torch.Generator().manual_seed(seed)
    matrix = 1e-4 * torch.randn(60, n, generator=generator, dtype=torch.float64)
    matrix[:, :3] *= 1e-3  # cells that the data do not tell
    return matrix


def standard_deviation(hessian, parameters, misfit, prior_hessian=None):
    return Solution(parameters, hessian, misfit, prior_hessian, SURVEY).deviation()


def test_it_is_the_covariance_in_closed_form():
    parameters, noise = Full(SHAPE), 2e-3
    j = jacobian(parameters.size)
    found = standard_deviation(
        2 / SAMPLES * j.T @ j,
        parameters,
        noise**2 * FRACTION,
        PriorTerm(PROCESS, parameters).hessian(torch.zeros(21).double() + 3000.0),
    )
    precision = j.T @ j / noise**2
    precision[:20, :20] += torch.linalg.inv(PROCESS.covariance())
    precision[20, 20] += 1e-6
    expected = torch.linalg.inv(precision).diagonal()[:20].sqrt().reshape(SHAPE)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_draws_err_by_what_is_expected():
    """Truths from the prior, data with noise, the best estimate: its error is as said."""
    parameters, noise, rng = Full(SHAPE), 1e-2, np.random.default_rng(3)
    j = jacobian(parameters.size)[:, :20]
    precision = torch.linalg.inv(PROCESS.covariance())
    normal = torch.linalg.inv(j.T @ j / noise**2 + precision)
    errors = []
    for _ in range(2000):
        x = PROCESS.sample(rng).flatten() - PROCESS.mean
        data = j @ x + noise * torch.from_numpy(rng.standard_normal(60))
        errors.append(normal @ (j.T @ data) / noise**2 - x)
    full = torch.cat([j, torch.zeros(60, 1).double()], dim=1)
    deviation = standard_deviation(
        2 / SAMPLES * full.T @ full,
        parameters,
        noise**2 * FRACTION,
        PriorTerm(PROCESS, parameters).hessian(torch.zeros(21).double() + 3000.0),
    )
    errors = torch.stack(errors)
    torch.testing.assert_close(
        errors.square().mean(0).sqrt(), deviation.flatten(), rtol=0.1, atol=0
    )
    assert expected_error(deviation) == pytest.approx(float(errors.abs().mean()), rel=0.05)


def test_all_modes_say_what_the_cells_say():
    modes = Modes(*PROCESS.modes(1e-3))
    cells, noise = Full(SHAPE), 1e-2
    j = jacobian(cells.size)
    prior = torch.zeros(modes.size, modes.size).double()
    prior[:-1, :-1] = 2 * torch.eye(modes.size - 1).double()
    along = j @ modes.matrix()
    variance = noise**2 * FRACTION
    first = standard_deviation(2 / SAMPLES * along.T @ along, modes, variance, prior)
    second = standard_deviation(
        2 / SAMPLES * j.T @ j,
        cells,
        variance,
        PriorTerm(PROCESS, cells).hessian(torch.zeros(21).double() + 3000.0),
    )
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def test_cells_of_a_region_share_their_error_and_noise_has_a_floor():
    labels = torch.arange(20).reshape(SHAPE) // 5
    regions = Regions(labels)
    j = jacobian(21) @ regions.matrix()
    hessian = 2 / SAMPLES * j.T @ j
    exact, floor, double = (
        standard_deviation(hessian, regions, variance * FRACTION)
        for variance in (0.0, MIN_NOISE**2, 4 * MIN_NOISE**2)
    )
    assert torch.equal(exact, floor)
    assert all(row.unique().numel() == 1 for row in floor)
    torch.testing.assert_close(double[1:], 2 * floor[1:], rtol=1e-3, atol=0)


def test_a_matrix_that_rounding_made_indefinite_has_no_answer():
    hessian = torch.diag(torch.tensor([1.0, 1.0, 1e-30]).double())
    hessian[0, 1] = hessian[1, 0] = 1 + 1e-12
    regions = Regions(torch.arange(20).reshape(SHAPE) // 10)
    assert standard_deviation(1e6 * hessian, regions, 1e-10) is None


def test_maps_drawn_as_is_believed_err_by_what_is_expected():
    rng, draws = np.random.default_rng(5), 20_000
    levels, spread = np.array([2000.0, 2300.0]), np.array([3.0, 8.0])
    probabilities = rng.dirichlet(np.ones(3), SHAPE).transpose(2, 0, 1)
    probabilities[:, 0, 0] = 1.0, 0.0, 0.0
    mean, deviation = rng.uniform(2000, 2300, SHAPE), rng.uniform(5, 40, SHAPE)
    shifted = levels + spread * rng.standard_normal((draws, 2))
    between = mean + deviation * rng.standard_normal((draws, *SHAPE))
    chosen = (rng.random((draws, *SHAPE, 1)) > probabilities.cumsum(0).transpose(1, 2, 0)).sum(-1)
    truths = np.where(chosen == 2, between, shifted[np.arange(draws)[:, None, None], chosen % 2])
    v = rng.uniform(1990, 2310, SHAPE)
    v[0, 0] = 2000.0
    belief = LevelBelief(
        *map(torch.from_numpy, (levels, spread**2, probabilities)),
        between=(torch.from_numpy(mean), torch.from_numpy(deviation**2)),
    )
    expected = belief.deviation(torch.from_numpy(v)).numpy()
    np.testing.assert_allclose(np.sqrt(((truths - v) ** 2).mean(0)), expected, rtol=0.05)
    assert expected[0, 0] == pytest.approx(3.0)
