"""Variational total variation: derivatives, majoriser, posterior variances, and what it is for."""

import numpy as np
import pytest
import torch

from fwi_refine import priors
from fwi_refine.objective import Full, PriorTerm
from fwi_refine.priors import VariationalTotalVariation
from fwi_refine.priors.variational_total_variation import STEPS

SHAPE = (7, 6)
SLOPES = [None, 0.0, 12.5]


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def spd(n, seed=0):
    """A well conditioned covariance matrix in (m/s)^2."""
    root = normal(n, n, seed=seed)
    return 900.0 * (root @ root.T / n + 0.1 * torch.eye(n, dtype=torch.float64))


def map_with_a_jump(seed=0):
    v = 3000.0 + 10.0 * normal(*SHAPE, seed=seed)
    v[3:, 2:] += 400.0
    return v


def updated(slope):
    cells = SHAPE[0] * SHAPE[1]
    return VariationalTotalVariation(slope=slope).update(spd(cells), SHAPE)


def difference_matrix(shape, slope_is_fitted):
    """All differences as rows of a dense matrix, written cell by cell."""
    nz, nx = shape
    depth = np.repeat(np.arange(nz)[:, None], nx, axis=1).ravel().astype(float)
    design = np.stack([np.ones(nz * nx), depth], axis=1)
    slope_of = np.linalg.pinv(design)[1]  # least squares: slope = slope_of . v
    rows, kinds = [], []
    for kind, (down, right) in enumerate(STEPS):
        for z in range(nz - down):
            for x in range(nx):
                if not 0 <= x + right < nx:
                    continue
                row = np.zeros(nz * nx)
                row[(z + down) * nx + x + right] += 1.0
                row[z * nx + x] -= 1.0
                rows.append(row - (down * slope_of if slope_is_fitted else 0.0))
                kinds.append(kind)
    return torch.from_numpy(np.array(rows)), np.array(kinds)


@pytest.mark.parametrize("slope", SLOPES)
def test_value_is_the_sum_over_all_differences(slope):
    v, prior = map_with_a_jump(), updated(slope)
    matrix, kinds = difference_matrix(SHAPE, slope is None)
    down = torch.tensor([step[0] for step in STEPS], dtype=torch.float64)[kinds]
    d = matrix @ v.flatten() - down * (slope or 0.0)
    spread = torch.cat([part.flatten() for part in prior.variances])
    b = torch.tensor([150.0, 150.0, 210.0, 210.0], dtype=torch.float64)[kinds]
    expected = (2 / b * torch.sqrt(d**2 + spread)).sum()
    torch.testing.assert_close(prior.value(v), expected, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("first", [True, False])
def test_gradient_by_finite_differences(slope, first):
    v = map_with_a_jump()
    prior = VariationalTotalVariation(slope=slope) if first else updated(slope)
    gradient = prior.gradient(v)
    assert gradient.shape == v.shape
    expected = torch.empty_like(v)
    for cell in np.ndindex(*SHAPE):
        unit = torch.zeros_like(v)
        unit[cell] = 0.01
        expected[cell] = (prior.value(v + unit) - prior.value(v - unit)) / 0.02
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("size", [1.0, 300.0])
def test_quadratic_touches_the_prior_and_lies_above_it(slope, size):
    v, prior = map_with_a_jump(), updated(slope)
    value, gradient = prior.value_and_gradient(v)
    matrix = prior.hessian(v)
    assert torch.equal(matrix, matrix.T)
    spectrum = torch.linalg.eigvalsh(matrix)
    assert spectrum[0] > -1e-12 * spectrum[-1]
    for seed in range(5):
        step = size * normal(v.numel(), seed=seed)
        above = value + gradient.flatten() @ step + 0.5 * step @ matrix @ step
        rest = above - prior.value(v + step.reshape(SHAPE))
        assert rest >= -1e-10
        assert rest < 0.5 * step @ matrix @ step  # the prior is convex: above its tangent


@pytest.mark.parametrize("slope", [None, 0.0])
def test_hessian_times_the_map_is_the_gradient(slope):
    v, prior = map_with_a_jump(), updated(slope)
    product = (prior.hessian(v) @ v.flatten()).reshape(SHAPE)
    torch.testing.assert_close(product, prior.gradient(v), rtol=1e-9, atol=1e-9)


def test_a_trend_costs_nothing_where_it_is_fitted_or_given():
    flat = torch.full(SHAPE, 2000.0, dtype=torch.float64)
    trend = 3000.0 + 20.0 * torch.arange(7, dtype=torch.float64)[:, None] + torch.zeros(SHAPE)
    for slope in (None, 20.0):
        prior = VariationalTotalVariation(slope=slope)
        least = VariationalTotalVariation(slope=0.0).value(flat)
        torch.testing.assert_close(prior.value(trend), least, rtol=1e-12, atol=0.0)
        torch.testing.assert_close(prior.gradient(trend), torch.zeros(SHAPE).double())
    assert VariationalTotalVariation(slope=0.0).value(trend) > 1.001 * least
    assert VariationalTotalVariation(slope=20.0).value(flat) > 1.001 * least


@pytest.mark.parametrize("slope", SLOPES)
def test_variances_of_differences_are_those_of_a_dense_inverse(slope):
    cells = SHAPE[0] * SHAPE[1]
    v, prior = map_with_a_jump(), VariationalTotalVariation(slope=slope)
    precision = torch.linalg.inv(spd(cells, seed=3)) + prior.hessian(v) / 2
    covariance = torch.linalg.inv(precision)
    found = prior.update(covariance, SHAPE)
    matrix, _ = difference_matrix(SHAPE, slope is None)
    expected = (matrix @ covariance @ matrix.T).diagonal()
    variances = torch.cat([part.flatten() for part in found.variances])
    torch.testing.assert_close(variances, expected, rtol=1e-9, atol=0.0)
    assert (found.slope, found.scale, found.diagonal_scale) == (slope, 150.0, 210.0)
    assert prior.variances is None  # a value: what it was made from stays


def test_it_is_a_term_of_an_objective():
    prior, parameters = updated(None), Full(SHAPE)
    term = 0.5 * PriorTerm(prior, parameters)
    v = map_with_a_jump()
    x = parameters.from_velocity(v)
    value, gradient = term.value_and_gradient(x)
    assert value == pytest.approx(0.5 * prior.value(v).item(), rel=1e-13)
    assert torch.equal(gradient[:-1], 0.5 * prior.gradient(v).flatten())
    assert gradient[-1] == 0.0
    assert torch.equal(term.hessian(x)[:-1, :-1], 0.5 * prior.hessian(v))
    assert not term.quadratic


def photograph(shape, seed):
    """Overlapping discs with sharp edges, each shaded, on a trend with depth; m/s."""
    rng = np.random.default_rng(seed)
    z, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    v = np.full(shape, 0.0)
    for _ in range(60):
        centre, radius = rng.uniform(0, shape), rng.uniform(2, 9)
        inside = (z - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
        shade = rng.uniform(-15, 15, 2)
        shaded = rng.uniform(-500, 500) + shade[0] * (z - centre[0]) + shade[1] * (x - centre[1])
        v[inside] = shaded[inside]
    return torch.from_numpy(3000.0 + 40.0 * (z - 0.5 * (shape[0] - 1)) + v)


def solve(precision, right):
    """(precision^-1 right, precision^-1)"""
    covariance = torch.cholesky_inverse(torch.linalg.cholesky(precision))
    return covariance @ right, covariance


@pytest.mark.parametrize("seed", range(3))
def test_it_beats_the_fitted_gaussian_process_on_a_map_with_edges(seed):
    shape, noise = (24, 24), 60.0
    cells = shape[0] * shape[1]
    truth = photograph(shape, seed)
    operator = normal(cells // 2, cells, seed=seed) / cells**0.5
    data = operator @ truth.flatten() + 0.1 * noise * normal(cells // 2, seed=seed + 10)
    normal_matrix = operator.T @ operator / (0.1 * noise) ** 2
    right = operator.T @ data / (0.1 * noise) ** 2

    process = priors.load().on_grid(shape, 10.0).style_b
    precision = process.hessian(truth) / 2
    mean = torch.full((cells,), process.mean, dtype=torch.float64)
    by_process, _ = solve(normal_matrix + precision, right + precision @ mean)

    prior, v = VariationalTotalVariation(), mean.reshape(shape)
    errors = []
    for _ in range(5):
        found, covariance = solve(normal_matrix + prior.hessian(v) / 2, right)
        v = found.reshape(shape)
        prior = prior.update(covariance, shape)
        errors.append((v - truth).abs().mean().item())
    rival = (by_process.reshape(shape) - truth).abs().mean().item()
    assert errors[-1] < 0.9 * rival
    assert errors[-1] < errors[0]  # the variances do it: the first iteration has none


def test_scales_follow_from_the_mean_differences_of_maps():
    maps = np.stack([photograph((24, 24), seed).numpy() for seed in range(3)])
    fitted = VariationalTotalVariation.fit(maps)
    matrix, kinds = difference_matrix((24, 24), True)
    sizes = (matrix @ torch.from_numpy(maps).flatten(1).T).abs().mean(1)
    means = [float(sizes[kinds == kind].mean()) for kind in range(4)]
    assert fitted.scale == pytest.approx(2.85 * (means[0] + means[1]) / 2, rel=1e-9)
    assert fitted.diagonal_scale == pytest.approx(2.85 * (means[2] + means[3]) / 2, rel=1e-9)
    for wrong, words in ((maps[0], "expected \\(n, nz"), (maps * np.nan, "not finite")):
        with pytest.raises(ValueError, match=words):
            VariationalTotalVariation.fit(wrong)


def test_errors_say_what_was_expected():
    for name in ("scale", "diagonal_scale"):
        with pytest.raises(ValueError, match=f"{name} is 0 m/s, expected a finite number above 0"):
            VariationalTotalVariation(**{name: 0})
    with pytest.raises(ValueError, match="spread is -1, expected a finite number above 0"):
        VariationalTotalVariation(spread=-1)
    with pytest.raises(ValueError, match="slope is nan m/s per cell"):
        VariationalTotalVariation(slope=float("nan"))
    with pytest.raises(ValueError, match="found 1 arrays of variances, expected 4"):
        VariationalTotalVariation(variances=(torch.ones(3, 2),))
    with pytest.raises(ValueError, match="variances of differences that are not above 0"):
        VariationalTotalVariation().update(torch.zeros(42, 42), SHAPE)
    with pytest.raises(ValueError, match=r"covariance of shape \(3, 3\), expected \(42, 42\)"):
        VariationalTotalVariation().update(torch.eye(3), SHAPE)
    with pytest.raises(ValueError, match=r"map of shape \(8, 6\), expected \(7, 6\)"):
        updated(None).value(torch.zeros(8, 6))
    with pytest.raises(ValueError, match=r"map of shape \(1, 6\), expected at least 2 x 2"):
        VariationalTotalVariation().value(torch.zeros(1, 6))
