"""The misfit of flat layers: its window in time, its gradient and its matrix."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import taylor_test
from misfit_cases import SURVEY, misfit_near, random
from scipy.ndimage import gaussian_filter

from fwi_refine.inversion.sample import refine_sample
from fwi_refine.objective.flat_misfit import (
    FlatMisfit,
    has_flat_misfit,
    window_before_return,
    window_to,
)
from fwi_refine.objective.misfit import BandMisfit
from fwi_refine.objective.parameterisation import Full, Rows
from fwi_refine.survey import OPENFWI
from fwi_refine.wave import Simulator, first_return

FIRST = replace(OPENFWI, sources=OPENFWI.sources[:1])
SMALL = replace(
    OPENFWI,
    shape=(24, 20),
    n_steps=450,
    file_rows=450,
    sources=((1, 0),),
    receivers=tuple((1, column) for column in range(20)),
)


def windowed(window):
    misfit, x, _ = misfit_near(Rows((8, 10)), kind=BandMisfit)
    record = misfit._record[0]
    return FlatMisfit(misfit.simulator, misfit.parameters, record, window), misfit, x


def test_the_whole_window_is_the_misfit():
    flat, misfit, x = windowed(np.ones(70))
    assert flat(x) == pytest.approx(misfit(x), rel=1e-12)


def test_steps_count_by_their_weight():
    window = torch.linspace(1.5, -0.5, 70, dtype=torch.float64).clamp(0, 1)
    flat, misfit, x = windowed(window)
    expected = window[:, None] * misfit.residual(x)
    assert flat(x) == pytest.approx(float(expected.square().mean()), rel=1e-12)


def test_gradient_of_a_window():
    misfit, _, x = windowed(np.linspace(1.5, -0.5, 70).clip(0, 1))
    dx = random(x.numel(), seed=5)
    order = taylor_test(misfit.value_and_gradient, x, dx / dx.abs().max(), [4.0, 2.0, 1.0, 0.5])
    assert order == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("shots", [1, 2])
def test_the_matrix_is_that_of_the_tangents(shots):
    survey = replace(OPENFWI, n_steps=350, sources=OPENFWI.sources[:shots])
    simulator, parameters = Simulator(survey), Rows(survey.shape)
    layers = torch.tensor([2000.0, 2800.0, 2400.0, 3300.0, 3900.0]).double().repeat_interleave(14)
    record = torch.zeros(survey.record_shape)
    window = window_to(0.2, survey)
    misfit = FlatMisfit(simulator, parameters, record, window)
    whole = BandMisfit(simulator, parameters, record)
    x = parameters.from_velocity(layers[:, None].expand(70, 70), 1950.0)
    found = misfit.hessian(x)
    assert found is misfit.last_hessian
    assert torch.equal(found, found.T)
    columns = whole._columns(*whole._medium(x), torch.eye(71)).unflatten(1, survey.record_shape)
    columns = (window[:, None] * whole._in_band(columns)).flatten(1)
    expected = columns @ columns.T * (2.0 / record.numel())
    assert (found - expected).norm() <= 2e-3 * expected.norm()
    scale = expected.diagonal().sqrt()
    scale = scale.clamp_min(1e-3 * scale.max())  # the waves do not reach the lowest rows
    assert ((found - expected) / scale / scale[:, None]).abs().max() <= 5e-2
    assert misfit.hessian_cost() == (2 if shots == 1 else 1)  # of all shots; by columns 24


def test_a_window_ends_where_the_wave_comes_round():
    fast, slow = torch.full((70,), 4000.0), torch.full((70,), 1500.0)
    assert (window_before_return(slow, FIRST) == 1).all()
    window = window_before_return(fast, FIRST)
    comes = int(first_return(fast, FIRST) / FIRST.dt)
    assert comes < FIRST.n_steps
    assert (window[comes:] == 0).all()
    assert (window[: comes - 120] == 1).all()
    assert (window.diff() <= 0).all()


def test_no_window_where_a_wave_comes_round_before_the_lowest_layer_has_answered():
    fast, slow = (torch.full((70,), v, dtype=torch.float64) for v in (4000.0, 1500.0))
    assert has_flat_misfit(fast, FIRST)
    thin = replace(FIRST, absorbing_cells=40, velocity_bounds=(1000.0, 5000.0))
    assert not has_flat_misfit(fast, thin)
    assert not has_flat_misfit(slow, thin)
    assert has_flat_misfit(slow, replace(thin, n_steps=600))  # nothing comes round in it
    assert not has_flat_misfit(fast, replace(FIRST, receivers=((5, 5),)))


@pytest.mark.parametrize(("band", "flat"), [(10, False), (40, True)])
def test_flat_layers_are_refined_with_any_band(band, flat):
    survey = replace(SMALL, absorbing_cells=band, velocity_bounds=(1000.0, 4500.0))
    layers = torch.tensor([1700.0, 2100.0, 2900.0]).double().repeat_interleave(8)
    assert has_flat_misfit(layers, survey) == flat
    truth = layers[:, None].expand(survey.shape).contiguous()
    record = Simulator(survey).forward(truth[None])[0].numpy()
    start = gaussian_filter(truth.numpy(), (1.5, 0.0))
    refined = refine_sample(start, record, survey=survey, family="flat-vel")
    assert np.array_equal(refined.velocity, truth.numpy())


def test_windows_count_from_the_centre_of_the_wavelet():
    window, centre = window_to(0.2, FIRST), FIRST.wavelet_centre * FIRST.dt
    assert centre == pytest.approx(0.073)
    assert float(window[round((0.2 + centre) / FIRST.dt)]) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("parameters", "changes"),
    [(Full((8, 10)), {}), (Rows((8, 10)), {"sources": ((1, 0), (2, 9))})],
    ids=["unknowns for cells", "sources at two depths"],
)
def test_what_is_not_flat_is_refused(parameters, changes):
    survey = replace(SURVEY, **changes)
    with pytest.raises(
        ValueError, match="an unknown for each row, and a survey that has_flat_jacobian"
    ):
        FlatMisfit(Simulator(survey), parameters, np.zeros(survey.record_shape), np.ones(70))
