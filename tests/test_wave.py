"""The wave operator: tangent and adjoint agree, kernels agree, and the waves are the right ones."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import hankel2

from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave import Simulator, simulate
from fwi_refine.wave.native import load
from tests.helpers import dot_test, taylor_test

KERNELS = [
    pytest.param(
        "native",
        marks=pytest.mark.skipif(load() is None, reason="the compiled kernel was not built"),
    ),
    "reference",
]
SMALL = Survey(
    shape=(9, 12),
    n_steps=61,
    absorbing_cells=8,
    sources=((1, 0), (1, 6), (4, 11)),
    receivers=(*((1, c) for c in range(12)), (5, 3), (0, 7)),
)


def random_maps(survey, samples=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (samples, *survey.shape)
    return 1500 + 3000 * torch.rand(shape, generator=generator, dtype=torch.float64)


def random_like(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def dot_error(survey, kernel, seed=0, v=None, **options):
    """Relative error of <J x, y> = <x, J^T y>, x = (dv, dvmin)."""
    v = random_maps(survey, seed=seed) if v is None else v
    simulator = Simulator(survey, kernel=kernel, imaging_step=1, **options)
    vmin = v.amin(dim=(1, 2)) * 0.97
    cells = v.numel()

    def forward(x):
        dv, dvmin = x[:cells].reshape(v.shape), x[cells:]
        return simulator.tangent(v, dv, vmin, dvmin).flatten()

    def adjoint(y):
        by_v, by_vmin = simulator.adjoint(v, y.reshape(len(v), *survey.record_shape), vmin)
        return torch.cat([by_v.flatten(), by_vmin])

    x = random_like((cells + len(v),), seed + 1)
    y = random_like((len(v) * np.prod(survey.record_shape),), seed + 2)
    return dot_test(forward, adjoint, x, y)


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 1000),
    n_steps=st.sampled_from([1, 2, 3, 7, 30, 45]),
    band=st.integers(0, 12),
    in_band=st.booleans(),
)
def test_adjoint_is_the_transpose_of_the_tangent(kernel, seed, n_steps, band, in_band):
    far = -min(band, 5) if in_band else 1
    survey = dataclasses.replace(
        SMALL,
        n_steps=n_steps,
        absorbing_cells=band,
        sources=((far, 2), (1, 9)),
        receivers=((far, 2), (far, 4), (3, 3), (1, 9)),
    )
    assert dot_error(survey, kernel, seed) <= 1e-12


@pytest.mark.skipif(load() is None, reason="the compiled kernel was not built")
def test_adjoint_on_the_real_survey():
    assert dot_error(OPENFWI, "native", v=random_maps(OPENFWI, samples=1)) <= 1e-12


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_flipped_sign_fails_the_dot_test(kernel, monkeypatch):
    """What the dot test is for: an adjoint with one wrong sign must not pass it."""
    flipped = Simulator.adjoint

    def wrong(self, v, u, vmin=None):
        by_v, by_vmin = flipped(self, v, u, vmin)
        return by_v, -by_vmin

    monkeypatch.setattr(Simulator, "adjoint", wrong)
    assert dot_error(SMALL, kernel) > 1e-6


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("seed", [0, 1])
def test_taylor(kernel, seed):
    """The misfit minus its linearisation falls with the square of the step."""
    v, data = random_maps(SMALL, 1, seed), random_like((1, *SMALL.record_shape), seed)
    simulator = Simulator(SMALL, kernel=kernel, imaging_step=1)
    vmin = v.amin(dim=(1, 2))

    def value_and_gradient(x):
        value, by_v, by_vmin = simulator.misfit_and_gradient(x[:-1].reshape(v.shape), data, x[-1:])
        return value[0], torch.cat([by_v.flatten(), by_vmin])

    x = torch.cat([v.flatten(), vmin])
    order = taylor_test(value_and_gradient, x, random_like(x.shape, seed + 5), [8.0, 4.0, 2.0, 1.0])
    assert order == pytest.approx(2.0, abs=0.1)


@pytest.mark.skipif(load() is None, reason="the compiled kernel was not built")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_native_equals_reference(dtype, tolerance):
    survey = dataclasses.replace(SMALL, n_steps=140)
    v, dv = random_maps(survey), random_like((2, *survey.shape), 3)
    vmin, dvmin = v.amin(dim=(1, 2)), torch.tensor([7.0, -3.0], dtype=torch.float64)
    u = random_like((2, *survey.record_shape), 4)
    native, reference = (
        Simulator(survey, dtype=dtype, kernel=k, imaging_step=3) for k in ("native", "reference")
    )
    calls = [
        lambda s: s.forward(v),
        lambda s: s.tangent(v, dv, vmin, dvmin),
        lambda s: s.adjoint(v, u)[0],
        lambda s: s.adjoint(v, u)[1],
        lambda s: s.misfit(v, u),
        *(lambda s, i=i: s.misfit_and_gradient(v, u)[i] for i in range(3)),
    ]
    for call in calls:
        expected, found = call(reference).double(), call(native).double()
        assert (found - expected).norm() <= tolerance * expected.norm()


@pytest.mark.skipif(load() is None, reason="the compiled kernel was not built")
def test_native_equals_reference_on_the_real_survey():
    survey = dataclasses.replace(OPENFWI, sources=OPENFWI.sources[1:2])
    v = random_maps(survey, 1)
    found, expected = (Simulator(survey, kernel=k).forward(v) for k in ("native", "reference"))
    assert (found - expected).norm() <= 1e-12 * expected.norm()


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
            new = now_weight * now - old_weight * old + alpha * (4 / 3 * near - 1 / 12 * far)
            new[nbc + row, nbc + column] += (v[row, column] * survey.dt) ** 2 * survey.wavelet[n]
            old, now = now, new
            expected = [now[nbc + r, nbc + c] for r, c in survey.receivers]
            np.testing.assert_allclose(found[shot, n], expected, rtol=0, atol=1e-12)


def contrasts():
    """Maps on which leaving cells out would show first: strong contrasts, fast and slow."""
    depth = torch.linspace(0, 1, 70, dtype=torch.float64)[:, None].repeat(1, 70)
    slow_over_fast = torch.where(depth < 0.5, 1500.0, 4500.0).double()
    side_by_side = torch.where(depth.T < 0.6, 1600.0, 4400.0).double()
    noise = random_maps(OPENFWI, 1, seed=7)[0]
    constant = torch.full((70, 70), 3000.0, dtype=torch.float64)
    trend = 1500 + 3000 * depth
    return torch.stack(
        [slow_over_fast, slow_over_fast.flip(0), side_by_side, noise, constant, trend]
    )


@pytest.mark.skipif(load() is None, reason="the compiled kernel was not built")
def test_leaving_out_cells_changes_nothing_above_rounding():
    v = contrasts()
    narrow, full = (Simulator(kernel="native", narrow=narrow) for narrow in (True, False))
    expected = full.forward(v)
    for found, wanted in zip(narrow.forward(v), expected, strict=True):
        assert (found - wanted).norm() <= 1e-12 * wanted.norm()
    start = v + 30 * random_like(v.shape, 8)
    for found, wanted in zip(
        narrow.misfit_and_gradient(start, expected)[1],
        full.misfit_and_gradient(start, expected)[1],
        strict=True,
    ):
        assert (found - wanted).norm() <= 1e-12 * wanted.norm()


@pytest.mark.skipif(load() is None, reason="the compiled kernel was not built")
def test_imaging_every_fifth_step_is_enough():
    v = contrasts()[[0, 5]]
    data = Simulator(kernel="native").forward(v + 20 * torch.sin(torch.arange(70.0) / 5))
    _, found, found_vmin = Simulator(kernel="native").misfit_and_gradient(v, data)
    _, wanted, wanted_vmin = Simulator(kernel="native", imaging_step=1).misfit_and_gradient(v, data)
    assert ((found - wanted).flatten(1).norm(dim=1) <= 2e-5 * wanted.flatten(1).norm(dim=1)).all()
    assert torch.allclose(found_vmin, wanted_vmin, rtol=1e-3)


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


def test_autograd():
    """simulate() is differentiable: gradcheck on a tiny grid, and vmin's share reaches the map."""
    survey = dataclasses.replace(
        SMALL, shape=(4, 5), absorbing_cells=3, n_steps=25, sources=((1, 1),), receivers=((1, 3),)
    )
    simulator = Simulator(survey, imaging_step=1)
    v = random_maps(survey, 1, seed=2).requires_grad_()
    scale = 1e3 / simulator.forward(v).abs().max()
    assert torch.autograd.gradcheck(
        lambda x: scale * simulate(x, simulator=simulator), (v,), eps=1e-3, atol=1e-5, rtol=1e-5
    )
    single = simulate(v[0], simulator=simulator)
    assert single.shape == survey.record_shape


@pytest.mark.parametrize("kernel", KERNELS)
def test_samples_do_not_see_their_neighbours(kernel):
    v = random_maps(SMALL, 3)
    simulator = Simulator(SMALL, kernel=kernel)
    together = simulator.forward(v)
    for i in range(3):
        assert torch.equal(together[i : i + 1], simulator.forward(v[i : i + 1]))


@pytest.mark.skipif(load() is None, reason="the compiled kernel was not built")
def test_threads_do_not_change_a_bit():
    v, d = random_maps(SMALL, 3), random_like((3, *SMALL.record_shape), 1)
    one, four = (Simulator(SMALL, kernel="native", threads=t) for t in (1, 4))
    for a, b in zip(one.misfit_and_gradient(v, d), four.misfit_and_gradient(v, d), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0, 20000.0])
def test_a_bad_velocity_is_refused(kernel, bad):
    v = random_maps(SMALL)
    v[1, 4, 4] = bad
    with pytest.raises(ValueError, match="velocity is not finite and positive"):
        Simulator(SMALL, kernel=kernel).forward(v)


def test_wrong_shapes_and_options_are_named():
    with pytest.raises(ValueError, match=r"expected \(B, 70, 70\)"):
        Simulator().forward(torch.ones(70, 70))
    with pytest.raises(ValueError, match="'auto', 'native' or 'reference'"):
        Simulator(kernel="fast")
    with pytest.raises(ValueError, match="imaging_step 0"):
        Simulator(imaging_step=0)
