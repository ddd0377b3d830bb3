"""The data misfit as an objective: its gradient, its Gauss-Newton product, its bounds."""

import dataclasses
import math

import pytest
import torch
from helpers import taylor_test
from misfit_cases import SURVEY, misfit_near, random

from fwi_refine.objective import misfit as misfits
from fwi_refine.objective.misfit import BandMisfit, DataMisfit
from fwi_refine.objective.parameterisation import Full, Modes, Regions, Rows
from fwi_refine.objective.vmin_prior import VminPrior
from fwi_refine.wave import Simulator


def modes():
    basis = torch.linalg.qr(random(80, 7, seed=3)).Q
    return Modes(torch.full((8, 10), 2500.0).double(), basis, torch.linspace(400, 50, 7).double())


@pytest.fixture(params=["full", "rows", "modes", "regions"])
def parameters(request):
    labels = torch.arange(8)[:, None] // 2 * 3 + torch.arange(10)[None, :] // 4
    return {
        "full": Full((8, 10)),
        "rows": Rows((8, 10)),
        "modes": modes(),
        "regions": Regions(labels),
    }[request.param]


@pytest.mark.parametrize("kind", [DataMisfit, BandMisfit])
def test_gradient(parameters, kind):
    misfit, x, _ = misfit_near(parameters, kind=kind)
    dx = random(x.numel(), seed=5)
    order = taylor_test(misfit.value_and_gradient, x, dx / dx.abs().max(), [4.0, 2.0, 1.0, 0.5])
    assert order == pytest.approx(2.0, abs=0.1)
    assert misfit(x) == pytest.approx(misfit.value_and_gradient(x)[0], rel=1e-13)


def test_it_vanishes_at_the_map_of_the_record(parameters):
    misfit, x, true_x = misfit_near(parameters)
    value, gradient = misfit.value_and_gradient(true_x)
    assert value <= 1e-24 * misfit(x)
    assert gradient.norm() <= 1e-10 * misfit.gradient(x).norm()


def test_gauss_newton_product(parameters):
    """It is the Hessian at the map of the record, symmetric and positive there."""
    misfit, _, x = misfit_near(parameters)
    a, b = (random(x.numel(), seed=s) for s in (7, 8))
    product = misfit.hessian_product(x, a)
    step = 0.02
    difference = (misfit.gradient(x + step * a) - misfit.gradient(x - step * a)) / (2 * step)
    assert (product - difference).norm() <= 1e-3 * product.norm()
    assert torch.dot(b, product) == pytest.approx(torch.dot(a, misfit.hessian_product(x, b)).item())
    assert torch.dot(a, product) > 0


@pytest.mark.parametrize(("cell", "value"), [(0, 900.0), (5, 7000.0), (-1, -5.0), (-1, 7000.0)])
def test_it_is_infinite_outside_the_bounds(cell, value):
    misfit, x, _ = misfit_near(Full((8, 10)))
    x[cell] = value
    assert misfit(x) == math.inf
    assert misfit.value_and_gradient(x)[0] == math.inf


def test_rows_of_the_record_beyond_the_steps_are_not_used():
    misfit, x, _ = misfit_near(Full((8, 10)))
    padded = torch.cat([misfit._record[0], torch.full((2, 1, 10), torch.nan)], dim=1)
    assert DataMisfit(misfit.simulator, misfit.parameters, padded)(x) == misfit(x)


def test_another_survey_is_another_misfit():
    """The number of steps is taken from the simulator's survey."""
    misfit, x, _ = misfit_near(Full((8, 10)))
    shorter = Simulator(dataclasses.replace(SURVEY, n_steps=40), imaging_step=1)
    other = DataMisfit(shorter, misfit.parameters, misfit._record[0])(x)
    assert other > 0
    assert other != misfit(x)


def test_noise_outside_the_band_is_not_seen():
    """A gradient that images every few steps folds such noise onto the band.

    Away from the sources, that is: their cells see the wavelet's own cut ends.
    """
    v = 2500 + 120 * random(8, 10, seed=0)
    parameters = Full((8, 10))
    x = parameters.from_velocity(v)
    record = Simulator(SURVEY).forward(v[None])[0]
    noise = 1e-3 * random(*record.shape, seed=1)

    def error(kind):
        """Of the gradient that images every 5th step, against that of every step."""
        sparse, exact = (
            kind(Simulator(SURVEY, imaging_step=step), parameters, record + noise).gradient(x)[:-1]
            for step in (5, 1)
        )
        off = [0, 2, 3, 4, 5, 6, 7]  # rows without sources
        sparse, exact = (g.reshape(8, 10)[off] for g in (sparse, exact))
        return (sparse - exact).norm() / exact.norm()

    misfit = BandMisfit(Simulator(SURVEY), parameters, record + noise)
    assert misfit(x) < 0.5 * float(noise.square().mean())
    assert error(BandMisfit) < 5e-3
    assert error(DataMisfit) > 2 * error(BandMisfit)


def test_a_correction_uses_the_jacobian_of_its_base():
    """pull_back is linear in the residual: the product with J^T at x, whatever r is."""
    misfit, x, _ = misfit_near(Full((8, 10)), kind=BandMisfit)
    r = misfit.residual(x)
    torch.testing.assert_close(misfit.pull_back(x, r), misfit.gradient(x), rtol=1e-12, atol=0)
    torch.testing.assert_close(misfit.pull_back(x, 3 * r), 3 * misfit.gradient(x))


def test_what_is_pulled_back_is_the_product_with_the_transposed_jacobian():
    """Of columns that were simulated, with a residual that is not the one at x."""
    parameters = Full((8, 10))
    misfit, x, _ = misfit_near(parameters, kind=BandMisfit)
    dx = 0.01 * random(x.numel(), seed=1)
    r = misfit.residual(parameters.retract(x, dx))
    v, vmin = parameters.velocity(x)[None], parameters.vmin(x)[None]
    dv, dvmin = parameters.tangent(dx)
    change = Simulator(SURVEY).tangent(v, dv[None], vmin, dvmin[None])
    expected = 2 * float((change * r).mean())
    assert float(misfit.pull_back(x, r) @ dx) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("few", [1000, 0])
def test_gauss_newton_matrix(parameters, few, monkeypatch):
    """From columns or from the full Jacobian, it is what the products with it say."""
    monkeypatch.setattr(misfits, "FEW_UNKNOWNS", few)
    misfit, x, _ = misfit_near(parameters, kind=BandMisfit)
    hessian = misfit.hessian(x)
    torch.testing.assert_close(hessian, hessian.T, rtol=1e-12, atol=0)
    for seed in (1, 2):
        dx = random(x.numel(), seed=seed)
        wanted = misfit.hessian_product(x, dx)
        assert (hessian @ dx - wanted).norm() <= 5e-3 * wanted.norm()


def matrices(monkeypatch):
    """A small misfit by the full Jacobian, a point, and the exact Gauss-Newton matrix there."""
    monkeypatch.setattr(misfits, "FEW_UNKNOWNS", 0)
    misfit, x, _ = misfit_near(Full((8, 10)), kind=BandMisfit)
    rows = misfit._jacobian(x).matrix.double()
    return misfit, x, rows, 2 / misfit._record.numel() * rows.T @ rows


def test_the_matrix_leaves_out_what_the_noise_of_a_weight_hides(monkeypatch):
    """Of each row less than a fraction of the noise by cells that are 30 m/s off; it is definite,
    as good as whole for rounding alone, and coarser for more noise."""
    misfit, x, rows, exact = matrices(monkeypatch)
    left_out = []
    for noise in (0.0, 1e-4, 1e-2):
        found = misfit.hessian(x, noise**2 / misfit._record.numel())
        left_out.append(float((found - exact).norm() / exact.norm()))
        assert torch.linalg.eigvalsh(found)[0] > -1e-13 * found.trace()
        hidden = misfits.SENSITIVITY * misfits.OF_WEIGHT * noise
        most = 2 * hidden * len(rows) ** 0.5 * torch.linalg.matrix_norm(rows, 2)
        assert (found - exact).norm() < 2 / misfit._record.numel() * most + 1e-6 * exact.norm()
    assert left_out[0] < 1e-6 < left_out[1] < left_out[2]


def test_without_a_weight_only_rounding_is_noise(monkeypatch):
    """Another prior may be far weaker than the noise of the residual."""
    misfit, x, _, exact = matrices(monkeypatch)
    found = misfit.hessian(x)
    assert torch.equal(found, misfit.hessian(x, 0.0))
    assert (found - exact).norm() < 1e-6 * exact.norm()


def test_the_prior_of_vmin():
    x = torch.tensor([2000.0, 1560.0], dtype=torch.float64)
    prior = VminPrior(1500.0)
    assert prior(x) == pytest.approx(4.0)
    order = taylor_test(prior.value_and_gradient, x, torch.ones_like(x), [8.0, 4.0, 2.0])
    assert order == pytest.approx(2.0, abs=1e-6)
    hessian = prior.hessian(x)
    x[-1] -= prior.gradient(x)[-1] / hessian[-1, -1]
    assert prior(x) == pytest.approx(0.0, abs=1e-12)
    assert hessian.count_nonzero() == 1
