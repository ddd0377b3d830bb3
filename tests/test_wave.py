"""The wave operator: tangent and adjoint agree, kernels agree, neighbours do not matter."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import dot_test, others_slow, taylor_test
from hypothesis import given, settings
from hypothesis import strategies as st
from wave_cases import KERNELS, NATIVE, SMALL, random_like, random_maps

from fwi_refine.survey import OPENFWI
from fwi_refine.wave import Simulator, cpu, cpu_library, paths, simulate


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
    strong = 2 <= band < 8  # damping, which makes longer steps unstable
    survey = dataclasses.replace(
        SMALL,
        n_steps=max(n_steps, 3) if strong else n_steps,
        dt=2.5e-4 if strong else 1e-3,
        absorbing_cells=band,
        sources=((far, 2), (1, 9)),
        receivers=((far, 2), (far, 4), (3, 3), (1, 9)),
    )
    assert dot_error(survey, kernel, seed) <= 1e-12


@pytest.mark.slow
@NATIVE
def test_adjoint_on_the_real_survey():
    assert dot_error(OPENFWI, "native", v=random_maps(OPENFWI, samples=1)) <= 1e-12


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    others_slow(
        [
            ("cpu/loops.h", "mu[c] += NAME(row)(s, m.alpha", "mu[c] -= NAME(row)(s, m.alpha"),
            ("cpu/loops.h", "at_source += s->wavelet", "at_source -= s->wavelet"),
            ("step.h", "((mu_next) - (mu))", "((mu_next) + (mu))"),
            ("step.h", "((old) - (centre))", "((old) + (centre))"),
        ]
    ),
)
def test_a_flipped_sign_in_the_kernel_fails_the_dot_test(file, right, wrong, tmp_path, monkeypatch):
    """What the dot test is for: the kernel is compiled with one sign turned, and must not pass."""
    folder = tmp_path / "kernels"
    shutil.copytree(Path(cpu.__file__).with_name("kernels"), folder)
    source = (folder / file).read_text()
    assert right in source
    (folder / file).write_text(source.replace(right, wrong))
    library = tmp_path / "flipped.so"
    command = ["cc", "-O1", "-fPIC", "-shared", folder / "cpu" / "wave.c", "-o", library, "-lm"]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setattr(cpu, "load", lambda: cpu_library.open_library(library))
    assert not dot_error(SMALL, "native") <= 1e-6


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


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("n_steps", "band"), [(1, 8), (2, 8), (33, 0), (61, 5)])
def test_taylor_where_surveys_end(kernel, n_steps, band):
    """A single step, no band, source and receiver within it. Against no data at all, so that what
    has hardly begun counts too."""
    places = ((-min(band, 3), 2), (1, 9))
    survey = dataclasses.replace(
        SMALL,
        n_steps=n_steps,
        dt=1e-3 if band != 5 else 5e-4,  # the damping of so narrow a band is strong
        absorbing_cells=band,
        sources=places,
        receivers=places,
    )
    simulator = Simulator(survey, kernel=kernel, imaging_step=1)
    v, nothing = random_maps(survey, 1), torch.zeros(1, *survey.record_shape, dtype=torch.float64)
    vmin = v.amin(dim=(1, 2))

    def value_and_gradient(x):
        value, by_v, by_vmin = simulator.misfit_and_gradient(
            x[:-1].reshape(v.shape), nothing, x[-1:]
        )
        return value[0], torch.cat([by_v.flatten(), by_vmin])

    x = torch.cat([v.flatten(), vmin])
    order = taylor_test(value_and_gradient, x, random_like(x.shape, 5), [8.0, 4.0, 2.0, 1.0])
    assert order == pytest.approx(2.0, abs=0.1)


@NATIVE
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


@pytest.mark.slow
@NATIVE
def test_native_equals_reference_on_the_real_survey():
    survey = dataclasses.replace(OPENFWI, sources=OPENFWI.sources[1:2])
    v = random_maps(survey, 1)
    found, expected = (Simulator(survey, kernel=k).forward(v) for k in ("native", "reference"))
    assert (found - expected).norm() <= 1e-12 * expected.norm()


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


@NATIVE
@pytest.mark.parametrize(
    ("maps", "shots"), others_slow([(slice(1), 1), (slice(None), 5)]), ids=["one", "all"]
)
def test_leaving_out_cells_changes_nothing_above_rounding(maps, shots):
    v, survey = contrasts()[maps], dataclasses.replace(OPENFWI, sources=OPENFWI.sources[:shots])
    narrow, full = (Simulator(survey, kernel="native", narrow=narrow) for narrow in (True, False))
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


@pytest.mark.slow
@NATIVE
def test_imaging_every_fifth_step_is_enough():
    v = contrasts()[[0, 5]]
    data = Simulator(kernel="native").forward(v + 20 * torch.sin(torch.arange(70.0) / 5))
    _, found, found_vmin = Simulator(kernel="native").misfit_and_gradient(v, data)
    _, wanted, wanted_vmin = Simulator(kernel="native", imaging_step=1).misfit_and_gradient(v, data)
    assert ((found - wanted).flatten(1).norm(dim=1) <= 2e-5 * wanted.flatten(1).norm(dim=1)).all()
    assert torch.allclose(found_vmin, wanted_vmin, rtol=1e-3)


def test_autograd():
    """simulate() is differentiable: gradcheck on a tiny grid, and vmin's share reaches the map."""
    survey = dataclasses.replace(
        SMALL,
        shape=(4, 5),
        absorbing_cells=3,
        dt=3e-4,  # the damping of so narrow a band is strong
        n_steps=25,
        sources=((1, 1),),
        receivers=((1, 3),),
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
    many = simulator.forward(v)
    for i in range(3):
        assert torch.equal(many[i : i + 1], simulator.forward(v[i : i + 1]))


@NATIVE
def test_threads_do_not_change_a_bit():
    v, d = random_maps(SMALL, 3), random_like((3, *SMALL.record_shape), 1)
    one, four = (Simulator(SMALL, kernel="native", threads=t) for t in (1, 4))
    for a, b in zip(one.misfit_and_gradient(v, d), four.misfit_and_gradient(v, d), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0, -2000.0])
def test_a_bad_velocity_is_refused(kernel, bad):
    v = random_maps(SMALL)
    v[1, 4, 4] = bad
    with pytest.raises(ValueError, match="velocity is not finite and positive"):
        Simulator(SMALL, kernel=kernel).forward(v)


def test_without_the_compiled_kernel_there_is_one_warning(monkeypatch):
    monkeypatch.setattr("fwi_refine.wave.paths.load_native", lambda: None)
    monkeypatch.delenv("FWI_REFINE_KERNEL", raising=False)
    paths._warn.cache_clear()  # as in another process
    with pytest.warns(RuntimeWarning, match="compiled wave kernel is not available") as warned:
        simulator = Simulator(SMALL)
    assert len(warned) == 1
    assert simulator.kernel == "reference"
    assert simulator.forward(random_maps(SMALL)).shape == (2, *SMALL.record_shape)


def test_the_build_succeeds_without_a_compiler(tmp_path):
    pytest.importorskip("setuptools")
    folders = ["--build-lib", str(tmp_path / "lib"), "--build-temp", str(tmp_path / "temp")]
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", *folders],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"CC": "/bin/false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("_kernel*"))


def test_wrong_shapes_and_options_are_named():
    with pytest.raises(ValueError, match=r"expected \(B, 70, 70\)"):
        Simulator().forward(torch.ones(70, 70))
    with pytest.raises(ValueError, match="'auto', 'cuda', 'torch', 'native' or 'reference'"):
        Simulator(kernel="fast")
    with pytest.raises(ValueError, match="'cuda' does not run on the device cpu"):
        Simulator(kernel="cuda", device="cpu")
    with pytest.raises(ValueError, match="'reference' does not run on the device cuda"):
        Simulator(kernel="reference", device="cuda")
    with pytest.raises(ValueError, match="imaging_step 0"):
        Simulator(imaging_step=0)
