"""Parameterisations: affine, their adjoint exact, and the nearest map in least squares."""

import numpy as np
import pytest
import torch
from helpers import dot_test

from fwi_refine.objective.parameterisation import Full, Modes, Regions, Rows

SHAPE = (7, 5)


def random(*shape, seed=0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def modes(k=6) -> Modes:
    basis = torch.linalg.qr(random(SHAPE[0] * SHAPE[1], k)).Q
    return Modes(3000 + 100 * random(*SHAPE, seed=1), basis, torch.linspace(200, 1.5, k).double())


def regions() -> Regions:
    return Regions(torch.randint(0, 6, SHAPE, generator=torch.Generator().manual_seed(2)))


KINDS = {"full": Full(SHAPE), "rows": Rows(SHAPE), "modes": modes(), "regions": regions()}
SIZES = {"full": 36, "rows": 8, "modes": 7, "regions": 7}
kinds = pytest.mark.parametrize("parameters", KINDS.values(), ids=KINDS)


def unknowns(parameters, seed=3) -> torch.Tensor:
    return 2000 + 500 * random(parameters.size, seed=seed)


@kinds
def test_the_pullback_is_the_adjoint_of_the_tangent(parameters):
    for seed in range(20):
        x = random(parameters.size, seed=seed)
        y = (random(*SHAPE, seed=100 + seed), random(seed=200 + seed))
        # The sum has 36 terms of either sign: 1e-14 leaves room for their rounding alone.
        assert dot_test(parameters.tangent, parameters.pullback, x, y) <= 1e-14


@kinds
def test_the_map_is_affine_in_the_unknowns(parameters):
    x, dx = unknowns(parameters), random(parameters.size, seed=4)
    dv, dvmin = parameters.tangent(dx)
    difference = parameters.velocity(x + dx) - parameters.velocity(x)
    torch.testing.assert_close(difference, dv, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(parameters.vmin(x + dx) - parameters.vmin(x), dvmin)
    assert parameters.velocity(x).shape == SHAPE
    assert parameters.velocity(x).is_contiguous()


@pytest.mark.parametrize("name", KINDS)
def test_sizes_count_vmin_as_the_last_unknown(name):
    parameters = KINDS[name]
    assert parameters.size == SIZES[name]
    x = unknowns(parameters)
    assert parameters.vmin(x) == x[-1]
    moved = x.clone()
    moved[-1] += 100
    assert torch.equal(parameters.velocity(moved), parameters.velocity(x))


@kinds
def test_a_map_of_the_parameterisation_comes_back(parameters):
    x = unknowns(parameters)
    back = parameters.from_velocity(parameters.velocity(x), parameters.vmin(x))
    torch.testing.assert_close(back, x, rtol=1e-10, atol=0)


@kinds
def test_any_map_gives_the_nearest_in_least_squares(parameters):
    """The residual of a least-squares fit is orthogonal to every column of B."""
    v = 3000 + 300 * random(*SHAPE, seed=5)
    x = parameters.from_velocity(v)
    assert x.dtype == torch.float64
    assert parameters.vmin(x) == v.min()
    residual = v - parameters.velocity(x)
    assert parameters.gather(residual).abs().max() < 1e-8


@kinds
def test_the_gradient_is_that_of_autograd(parameters):
    def function(v, vmin):
        return (torch.sin(v / 500) * random(*SHAPE, seed=6)).sum() + torch.cos(vmin / 300)

    x = unknowns(parameters).requires_grad_()
    (expected,) = torch.autograd.grad(function(parameters.velocity(x), parameters.vmin(x)), x)
    v = parameters.velocity(x).detach().requires_grad_()
    vmin = parameters.vmin(x).detach().requires_grad_()
    gradients = torch.autograd.grad(function(v, vmin), (v, vmin))
    torch.testing.assert_close(parameters.pullback(*gradients), expected)


@kinds
def test_leading_dimensions_are_a_batch(parameters):
    x = torch.stack([unknowns(parameters, seed) for seed in range(6)]).reshape(2, 3, -1)
    v, vmin = parameters.tangent(x)
    assert v.shape == (2, 3, *SHAPE)
    maps, back = parameters.velocity(x), parameters.pullback(v, vmin)
    for i, j in np.ndindex(2, 3):
        torch.testing.assert_close(maps[i, j], parameters.velocity(x[i, j]))
        torch.testing.assert_close(back[i, j], parameters.pullback(v[i, j], vmin[i, j]))


@kinds
def test_a_map_of_another_shape_is_named(parameters):
    with pytest.raises(ValueError, match=r"shape \(5, 7\), expected \(7, 5\)"):
        parameters.from_velocity(torch.zeros(5, 7))


@kinds
def test_float32_maps_and_plain_numbers_are_taken(parameters):
    v = 3000 + 300 * random(*SHAPE, seed=7)
    x = parameters.from_velocity(v.float(), vmin=1500)
    assert x.dtype == torch.float64
    assert parameters.vmin(x) == 1500


@kinds
def test_a_retraction_is_the_step_to_first_order(parameters):
    x = parameters.from_velocity(2500 + 300 * random(*SHAPE, seed=5), 1800.0)
    dx = parameters.from_velocity(2500 + 300 * random(*SHAPE, seed=6), 1803.0) - x
    for step in (1e-2, 1e-3):
        off = parameters.velocity(parameters.retract(x, step * dx) - step * dx - x)
        off = off - parameters.velocity(torch.zeros_like(x))
        assert off.abs().max() <= 200 * step**2 * 4
    assert parameters.vmin(parameters.retract(x, dx)) == pytest.approx(1803.0)


@pytest.mark.parametrize("name", ["full", "rows", "regions"])
def test_a_retraction_is_straight_in_squared_slowness(name):
    """Modes are left out: they fit the retracted map, so it is not exactly straight."""
    parameters = KINDS[name]
    x = parameters.from_velocity(2500 + 300 * random(*SHAPE, seed=5), 1800.0)
    dx = 50 * random(parameters.size, seed=7)
    v, dv = parameters.velocity(x), parameters.tangent(dx)[0]
    torch.testing.assert_close(
        parameters.velocity(parameters.retract(x, dx)) ** -2, v**-2 - 2 * v**-3 * dv
    )
    far = parameters.retract(x, 1e5 * dx.abs())
    assert not torch.isfinite(parameters.velocity(far)).all()


@kinds
def test_the_matrix_is_the_tangent(parameters):
    dx = random(parameters.size, seed=8)
    dv, dvmin = parameters.tangent(dx)
    torch.testing.assert_close(parameters.matrix() @ dx, torch.cat((dv.flatten(), dvmin[None])))


def test_what_a_prior_acts_on():
    for name, shape in {"full": SHAPE, "rows": (7,), "modes": (6,), "regions": SHAPE}.items():
        parameters = KINDS[name]
        x = unknowns(parameters)
        u = parameters.prior_coordinates(x)
        assert u.shape == shape
        expected = parameters.velocity(x) if u.ndim == 2 else x[:-1]
        assert torch.equal(u, expected)
        assert parameters.prior_pullback(u).shape == x.shape
        assert parameters.prior_pullback(u)[-1] == 0


def test_rows_are_constant():
    v = Rows(SHAPE).velocity(torch.arange(8).double())
    assert torch.equal(v, torch.arange(7).double()[:, None].expand(SHAPE))


def test_regions_of_a_layered_map():
    v = torch.tensor(
        [
            [1500.0, 1500.0, 1500.0, 1500.0],
            [1500.0, 1500.6, 2000.0, 2000.9],
            [2500.0, 2500.0, 2500.0, 2001.8],
            [1500.0, 1500.0, 2500.0, 1500.0],
        ]
    ).double()
    parameters = Regions.from_map(v, tolerance=1.0)
    # A chain 2000, 2000.9, 2001.8 is tied; equal velocities that do not touch are not.
    expected = [[0, 0, 0, 0], [0, 0, 1, 1], [2, 2, 2, 1], [3, 3, 2, 4]]
    ours = parameters.labels.tolist()
    pairing = {
        (a, b)
        for row, other in zip(expected, ours, strict=True)
        for a, b in zip(row, other, strict=True)
    }
    assert len(pairing) == 5 == parameters.size - 1, "labels may be permuted, not merged or split"
    tied = parameters.velocity(parameters.from_velocity(v))
    assert tied[0, 0] == pytest.approx(1500.1)
    assert tied[1, 2] == pytest.approx((2000 + 2000.9 + 2001.8) / 3)


def test_a_difference_of_the_tolerance_is_not_tied():
    v = np.array([[1500.0, 1501.0, 1501.9, 1503.0]])
    assert Regions.from_map(v, tolerance=1.0).size - 1 == 3


def test_regions_are_connected_by_sides_not_by_corners():
    v = np.array([[1500.0, 2000.0], [2000.0, 1500.0]])
    assert Regions.from_map(v, tolerance=1.0).size - 1 == 4
    assert Regions.from_map(np.full(SHAPE, 1500.0), tolerance=1.0).size - 1 == 1


def test_labels_may_have_gaps():
    parameters = Regions(np.array([[7, 7], [-2, 900]]))
    assert parameters.size == 4
    v = torch.tensor([[1.0, 3.0], [5.0, 8.0]])
    expected = torch.tensor([[2.0, 2.0], [5.0, 8.0]]).double()
    assert torch.equal(parameters.velocity(parameters.from_velocity(v)), expected)


def test_arguments_that_do_not_fit_are_named():
    good = modes()
    with pytest.raises(ValueError, match=r"basis \(35, 6\) and scales \(5,\) do not fit"):
        Modes(good.offset, good.basis, good.scales[:5])
    with pytest.raises(ValueError, match="not orthonormal"):
        Modes(good.offset, good.basis * good.scales, good.scales)
    with pytest.raises(ValueError, match=r"scales reach down to 0\.0"):
        Modes(good.offset, good.basis, torch.zeros(6))
    with pytest.raises(ValueError, match=r"labels are torch\.float32 of shape \(2, 2\)"):
        Regions(torch.zeros(2, 2))
