"""The source: wavelets found with the map, by variable projection."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import dot_test, taylor_test
from jacobian_cases import SMALL, relative, smooth_change, textured
from misfit_cases import SURVEY, random

from fwi_refine.objective import source_misfit
from fwi_refine.objective.matrix_free import MatrixFreeSourceMisfit
from fwi_refine.objective.misfit import BandMisfit
from fwi_refine.objective.parameterisation import Full, Rows
from fwi_refine.objective.source import SourceFit, convolve, impulse_record
from fwi_refine.objective.source_misfit import FreeSourceMisfit
from fwi_refine.objective.source_model import SourceModel
from fwi_refine.objective.source_shape import compare_wavelet, first_estimate, shifted
from fwi_refine.objective.weights import Weights
from fwi_refine.survey import Survey
from fwi_refine.wave import Simulator

TINY = 1e-14  # noise that leaves the least squares as they are
KINDS = {"none": None, "traces": False, "samples": True}


def ricker(survey: Survey, frequency: float = 15.0, delay: float = 0.0) -> np.ndarray:
    """A Ricker wavelet with the survey's delay and more, in s."""
    t = (np.arange(survey.n_steps) - survey.wavelet_centre) * survey.dt - delay
    b = (np.pi * frequency * t) ** 2
    return (1 - 2 * b) * np.exp(-b)


def record_of(v: torch.Tensor, survey: Survey, wavelet: np.ndarray) -> torch.Tensor:
    return Simulator(survey.with_wavelet(wavelet)).forward(v[None])[0]


def weights_of(survey: Survey, by_sample: bool | None) -> Weights | None:
    """A dead trace, others that weigh less and, by_sample, a gap and weights that change."""
    if by_sample is None:
        return None
    random = np.random.default_rng(4)
    shots, steps, receivers = survey.record_shape
    weights = np.broadcast_to(random.uniform(0.2, 2, (shots, 1, receivers)), survey.record_shape)
    weights = weights.copy()
    weights[0, :, 2] = 0
    if by_sample:
        weights *= random.uniform(0.5, 1.5, steps)[:, None]
        weights[:, steps // 2 : steps // 2 + 10, :2] = 0
    return Weights(weights)


weights_by = pytest.mark.parametrize("by_sample", KINDS.values(), ids=KINDS)


def free_misfit(parameters, each=False, noise=TINY, survey=SURVEY, by_sample=None):
    """A misfit with free wavelets, and a point that is off."""
    simulator = Simulator(survey, imaging_step=1)
    truth = 2500 + 120 * random(*survey.shape, seed=0)
    wavelet = 1.1 * np.roll(survey.wavelet, 2)
    record = record_of(truth, survey, wavelet)
    x = parameters.from_velocity(truth + 60 * random(*survey.shape, seed=1))
    weights = weights_of(survey, by_sample)
    fit = SourceFit.of(SourceModel.of(survey, each), survey, noise, weights)
    return FreeSourceMisfit(simulator, parameters, record, fit), x, record


def test_a_record_is_the_impulse_record_with_the_wavelet():
    v = textured(SMALL)
    impulse = impulse_record(Simulator(SMALL), v[None], v.min()[None])
    wavelet = torch.from_numpy(SMALL.wavelet.copy())
    found = convolve(impulse, wavelet[None, :, None])
    assert relative(found, Simulator(SMALL).forward(v[None])[0]) < 1e-13


@pytest.mark.parametrize(
    ("frequency", "delay", "amplitude"), [(15, 0.0, 1.02), (15, 0.004, -0.8), (12.5, 0.01, 1.2)]
)
def test_the_wavelet_of_a_record_is_found_with_its_map(frequency, delay, amplitude):
    v = textured(SMALL)
    wavelet = amplitude * ricker(SMALL, frequency, delay)
    record = record_of(v, SMALL, wavelet)
    fit = SourceFit.of(SourceModel.of(SMALL), SMALL, TINY)
    found = fit.estimate(impulse_record(Simulator(SMALL), v[None], v.min()[None]), record)
    assert np.abs(found.wavelets[0].numpy() - wavelet).max() < 2e-4 * abs(amplitude)
    assert found.mean_square() < 1e-12 * float(record.square().mean())


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("parameters", [Full(SURVEY.shape), Rows(SURVEY.shape)])
@pytest.mark.parametrize("by_sample", [None, False], ids=["none", "traces"])
@pytest.mark.parametrize("noise", [TINY, 1e-2])
def test_gradient(parameters, each, by_sample, noise):
    misfit, x, _ = free_misfit(parameters, each, noise, by_sample=by_sample)
    dx = random(x.numel(), seed=5)
    order = taylor_test(misfit.value_and_gradient, x, dx / dx.abs().max(), [4.0, 2.0, 1.0, 0.5])
    assert order == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("each", [False, True])
def test_gradient_with_gaps_in_time(each):
    """Beside a gap, the part of the wavelets outside the band is left out of the gradient."""
    truth = textured(SMALL)
    record = record_of(truth, SMALL, 1.1 * ricker(SMALL, 14.0, 0.002))
    parameters = Full(SMALL.shape)
    change = 20 * smooth_change(SMALL)
    x, dx = parameters.from_velocity(truth + change), torch.zeros(change.numel() + 1).to(change)
    dx[:-1] = 1e-4 * (parameters.from_velocity(truth) - x)[:-1]
    model = SourceModel.of(SMALL, each)
    fit = SourceFit.of(model, SMALL, 1e-12 * float(record.square().mean()), weights_of(SMALL, True))
    misfit = FreeSourceMisfit(Simulator(SMALL, imaging_step=1), parameters, record, fit)
    expected = (misfit(x + dx) - misfit(x - dx)) / 2
    assert float(misfit.gradient(x) @ dx) == pytest.approx(expected, rel=2e-2)


def test_the_source_takes_part_of_the_misfit():
    misfit, x, record = free_misfit(Full(SURVEY.shape))
    known = BandMisfit(misfit.simulator, misfit.parameters, record)
    assert misfit(x) < 0.1 * known(x)


@pytest.mark.parametrize("each", [False, True])
@weights_by
def test_the_pull_back_is_the_adjoint_of_the_projected_tangent(each, by_sample):
    misfit, x, _ = free_misfit(Full(SURVEY.shape), each, by_sample=by_sample)
    point = misfit._known_point(x)
    scale = misfit._record.numel() / 2

    def forward(dx):
        change = misfit._tangent(point, *misfit._medium(x), dx[None], misfit.simulator)
        change = misfit._in_band(change)
        return misfit._projected(point, change if by_sample is None else misfit._root * change)

    error = dot_test(
        forward,
        lambda u: scale * misfit.pull_back(x, u),
        random(x.numel(), seed=6),
        random(1, *SURVEY.record_shape, seed=7),
    )
    assert error < 1e-12


@pytest.mark.parametrize("each", [False, True])
@weights_by
def test_the_hessian_is_that_of_the_products(each, by_sample):
    """By tangents of single unknowns: exact but for float32."""
    misfit, x, _ = free_misfit(Full(SURVEY.shape), each, by_sample=by_sample)
    dx = random(x.numel(), seed=8)
    expected = misfit.hessian_product(x, dx)
    assert relative(misfit.hessian(x) @ dx, expected) < 1e-4
    assert torch.linalg.eigvalsh(misfit.last_hessian).min() > -1e-9 * misfit.last_hessian.max()


@pytest.mark.parametrize("each", [False, True])
@weights_by
def test_the_hessian_by_reciprocity(each, by_sample, monkeypatch):
    """With the full Jacobian, and what it explains: the same as by tangents."""
    monkeypatch.setattr(source_misfit, "FEW_UNKNOWNS", 0)
    truth = textured(SMALL)
    record = record_of(truth, SMALL, ricker(SMALL, 14.0, 0.003))
    if each:
        record[1] = 0.7 * record_of(truth, SMALL, ricker(SMALL, 14.0, 0.001))[1]
    parameters = Full(SMALL.shape)
    x = parameters.from_velocity(truth + 20 * smooth_change(SMALL))
    noise = 1e-6 * float(record.square().mean())
    weights = weights_of(SMALL, by_sample)
    fit = SourceFit.of(SourceModel.of(SMALL, each), SMALL, noise, weights)
    misfit = FreeSourceMisfit(Simulator(SMALL, imaging_step=1), parameters, record, fit)
    dx = torch.cat([smooth_change(SMALL, seed=9).flatten(), torch.zeros(1)]).double()
    expected = misfit.hessian_product(x, dx)
    plain = MatrixFreeSourceMisfit(misfit.simulator, parameters, record, fit)
    assert relative(plain.hessian_product(x, dx), expected) < 1e-3
    r = misfit.residual(x)
    assert relative(plain.pull_back(x, r), misfit.pull_back(x, r)) < 1e-9
    assert relative(misfit.hessian(x) @ dx, expected) < (0.05 if each else 5e-3)
    normal, pull_back = misfit.linearise(x)
    assert relative(normal, misfit.last_hessian) < 1e-3
    r = misfit.residual(x)
    assert relative(pull_back(r), misfit.pull_back(x, r)) < (0.05 if each else 5e-3)
    assert torch.linalg.eigvalsh(misfit.last_hessian).min() > -1e-9 * misfit.last_hessian.max()


@pytest.mark.parametrize("by_sample", [False, True], ids=["traces", "samples"])
@pytest.mark.parametrize("each", [False, True])
def test_what_has_no_weight_tells_nothing(each, by_sample):
    """Wavelets, misfits and gradients are the same, whatever stands there."""
    misfit, x, record = free_misfit(Full(SURVEY.shape), each, by_sample=by_sample)
    fit = misfit._fit
    other = record.clone()
    other[torch.from_numpy(fit.weights.missing)] = 7.0
    changed = FreeSourceMisfit(misfit.simulator, misfit.parameters, other, fit)
    assert changed(x) == pytest.approx(misfit(x), rel=1e-12)
    assert relative(changed.gradient(x), misfit.gradient(x)) < 1e-9
    v = misfit.parameters.velocity(x)
    impulse = impulse_record(misfit.simulator, v[None], v.min()[None])
    found, same = (fit.all_of(impulse, d) for d in (record, other))
    assert relative(found, same) < 1e-12
    assert fit.mean_square(impulse, record) == pytest.approx(fit.mean_square(impulse, other))


@pytest.mark.parametrize("steps", [3.0, -2.25])
def test_compare_wavelet(steps):
    survey = replace(SMALL, n_steps=200)
    found = compare_wavelet(-1.3 * shifted(ricker(survey, delay=0.02), steps, 200), survey)
    assert found.amplitude == pytest.approx(-1.3, rel=1e-3)
    assert found.delay == pytest.approx((20 + steps) * 1e-3, abs=2e-5)
    assert found.frequency == pytest.approx(15.0, abs=0.3)
    assert found.difference < 0.02
    other = compare_wavelet(ricker(survey, 20.0), survey)
    assert other.frequency == pytest.approx(20.0, abs=0.3)
    assert other.difference > 0.2


def test_the_first_estimate_needs_no_right_map():
    v = textured(SMALL)
    record = record_of(v, SMALL, -250.0 * ricker(SMALL, delay=0.004))
    start = v + 40 * smooth_change(SMALL)
    amplitude, fit = first_estimate(record, start, Simulator(SMALL))
    assert amplitude == pytest.approx(-250, rel=0.1)
    found = compare_wavelet(fit.model.mean.numpy(), SMALL)
    assert found.delay == pytest.approx(0.004, abs=1e-3)
