"""The waves are the right ones: the published scheme, reciprocity, the analytic direct wave."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import hankel2
from wave_cases import KERNELS, SMALL, random_maps

from fwi_refine.survey import OPENFWI
from fwi_refine.wave import Simulator


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_scheme_is_the_published_one(kernel):
    """Against the update as it is printed, with np.roll and the whole damping array filled in."""
    survey = dataclasses.replace(SMALL, n_steps=120)
    nbc, steps, scale = survey.absorbing_cells, survey.n_steps, survey.dt / survey.spacing
    v = random_maps(survey, 1, seed=9)[0].numpy()
    padded = np.pad(v, nbc, mode="edge")
    alpha = (padded * scale) ** 2
    width = (nbc - 1) * survey.spacing
    profile = 1.5 * np.log(1e7) / width * (np.arange(nbc) * survey.spacing / width) ** 2
    damp = np.zeros_like(padded)
    damp[:nbc, nbc:-nbc], damp[-nbc:, nbc:-nbc] = profile[::-1, None], profile[:, None]
    damp[:, :nbc], damp[:, -nbc:] = profile[::-1], profile
    kappa = damp * v.min() * survey.dt
    now_weight, old_weight = 2 - 5 * alpha - kappa, 1 - kappa
    found = Simulator(survey, kernel=kernel).forward(torch.from_numpy(v)[None])[0].numpy()
    for shot, (row, column) in enumerate(survey.sources):
        old = now = np.zeros_like(padded)
        for n in range(steps):
            near, far = (
                sum(np.roll(now, k, axis) for k in (d, -d) for axis in (0, 1)) for d in (1, 2)
            )
            stencil = float(np.float32(4 / 3)) * near + float(np.float32(-1 / 12)) * far
            new = now_weight * now - old_weight * old + alpha * stencil
            new[nbc + row, nbc + column] += (v[row, column] * survey.dt) ** 2 * survey.wavelet[n]
            old, now = now, new
            expected = [now[nbc + r, nbc + c] for r, c in survey.receivers]
            np.testing.assert_allclose(found[shot, n], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_reciprocity(kernel):
    """Exchanging source and receiver gives the same trace, in a heterogeneous medium too.

    For unit injections G(r <- x) = G(x <- r) alpha_r / alpha_x; a source injects alpha_x dx^2 w.
    """
    a, b = (1, 2), (4, 9)
    survey = dataclasses.replace(SMALL, sources=(a, b), receivers=(a, b), n_steps=150)
    record = Simulator(survey, kernel=kernel).forward(random_maps(survey, 1))[0]
    there, back = record[0, :, 1], record[1, :, 0]
    assert (there - back).abs().max() <= 1e-12 * there.abs().max()


@pytest.mark.parametrize("kernel", KERNELS)
def test_direct_wave_is_the_analytic_one(kernel):
    """In a constant medium the trace is the wavelet convolved with the 2-D Green's function.

    p_tt = v^2 (laplacian p + dx^2 w(t) delta), so p = dx^2 w * G with G = -i/4 H0^(2)(omega r / v)
    for a time factor exp(i omega t). Bound: 2 % of the peak, which covers the numerical dispersion
    over 20 cells at 15 Hz; the steps end before anything returns from the border.
    """
    survey = dataclasses.replace(
        OPENFWI,
        shape=(90, 110),
        absorbing_cells=10,
        velocity_bounds=(1000.0, 4500.0),
        n_steps=250,
        sources=((45, 45),),
        receivers=((45, 65),),
    )
    velocity, distance = 3000.0, 200.0
    v = torch.full((1, *survey.shape), velocity, dtype=torch.float64)
    trace = Simulator(survey, kernel=kernel).forward(v)[0, 0, :, 0].numpy()

    n = 8192
    omega = 2 * np.pi * np.fft.rfftfreq(n, survey.dt)
    # a signal damped by exp(-sigma t) has the spectrum at omega - i sigma: this keeps the long
    # tail of the 2-D wave from wrapping around in time
    sigma = 2.0
    damped = np.exp(-sigma * np.arange(n) * survey.dt)
    wavelet = np.zeros(n)
    wavelet[: survey.n_steps] = survey.wavelet * survey.spacing**2
    green = -0.25j * hankel2(0, (omega - 1j * sigma) * distance / velocity)
    analytic = np.fft.irfft(np.fft.rfft(wavelet * damped) * green, n) / damped
    analytic = analytic[1 : survey.n_steps + 1]  # row k of a record is the field after step k + 1
    assert np.abs(trace - analytic).max() <= 0.02 * np.abs(analytic).max()


def test_the_convention_of_the_released_data():
    """Row 0 at a source's own receiver is (v dt)^2 w[0] exactly."""
    v = random_maps(OPENFWI, 1)
    record = Simulator().forward(v)[0]
    columns = [column for _, column in OPENFWI.sources]
    for shot, column in enumerate(columns):
        known = 1000 * (record[shot, 0, column] / OPENFWI.wavelet[0]).sqrt()
        assert known.item() == pytest.approx(v[0, 1, column].item(), rel=1e-12)
    assert OPENFWI.wavelet[0] == pytest.approx(-1.64441e-4, rel=1e-5)
    assert np.flatnonzero(OPENFWI.wavelet).max() == 146
    assert OPENFWI.wavelet.argmax() == 73
