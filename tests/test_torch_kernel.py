"""The kernel of torch's own operations equals the compiled one, on any device."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from jacobian_cases import SMALL as JACOBIAN_SURVEY
from jacobian_cases import relative, textured
from pretend import pretended
from test_cuda_kernel import dot_error
from wave_cases import NATIVE, SMALL, calls, random_like, random_maps

from fwi_refine import precision
from fwi_refine.survey import OPENFWI
from fwi_refine.wave import Simulator, jacobian
from fwi_refine.wave import torch_fields as fields
from fwi_refine.wave.torch_kernel import TorchKernel

CPU = torch.device("cpu")
SHORT = replace(SMALL, n_steps=10, file_rows=10)


def kernel(survey=SMALL, dtype=torch.float64, every=3, device=CPU, **how):
    def make(survey, dtype, every):
        return TorchKernel(survey, dtype, every, torch.device(device), **how)

    return Simulator(survey, dtype, make, imaging_step=every, device=device)


@NATIVE
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_equal_to_the_compiled_kernel(dtype, tolerance):
    """Two samples, three shots, receivers that share a cell; wavefields as without receivers."""
    survey = replace(SMALL, n_steps=70, receivers=(*SMALL.receivers, (5, 3), (8, 0)))
    for name, call in calls(survey).items():
        own = replace(survey, receivers=()) if name == "wavefields" else survey
        expected = call(Simulator(own, dtype, "native", imaging_step=3)).double()
        found = call(kernel(own, dtype)).double()
        assert (found - expected).norm() <= tolerance * expected.norm(), name


@NATIVE
@pytest.mark.slow
def test_equal_to_the_compiled_kernel_on_the_real_grid():
    survey = replace(OPENFWI, sources=OPENFWI.sources[1:2], n_steps=400)
    v, u = random_maps(survey, 1), random_like((1, *survey.record_shape), 4)
    expected = Simulator(survey, kernel="native").misfit_and_gradient(v, u)
    for one, other in zip(kernel(survey, every=5).misfit_and_gradient(v, u), expected, strict=True):
        assert (one - other).norm() <= 1e-12 * other.norm()


@NATIVE
def test_the_jacobian_of_the_compiled_kernel():
    survey = replace(JACOBIAN_SURVEY, n_steps=160, file_rows=160)
    v = textured(survey)
    how = {"survey": survey, "dtype": torch.float64}
    expected, found = (jacobian(v, kernel=name, **how).matrix for name in ("native", "torch"))
    assert relative(found, expected) <= 1e-12


@NATIVE
def test_the_bits_of_the_released_data():
    v = random_maps(SMALL)
    found, expected = (Simulator(SMALL, kernel=name) for name in ("torch", "native"))
    assert torch.equal(found.released(v), expected.released(v))
    record = expected.released(v)
    assert bool((found.first_differences(v, record) == SMALL.n_steps).all())


def test_adjoint_is_the_transpose_of_the_tangent():
    assert dot_error(kernel(every=1)) <= 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_do_not_see_their_neighbours_nor_parts_each_other(dtype):
    """Parts of four of the nine shots, of which some have shots of two samples."""
    v, u = random_maps(SMALL, 3), random_like((3, *SMALL.record_shape), 4)
    dv = random_like(tuple(v.shape), 5)
    whole, parts = kernel(dtype=dtype), kernel(dtype=dtype)
    whole._kernel._parts._most, parts._kernel._parts._most = 9, 4
    expected = *whole.misfit_and_gradient(v, u), whole.tangent(v, dv), whole.wavefields(v)
    found = *parts.misfit_and_gradient(v, u), parts.tangent(v, dv), parts.wavefields(v)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    for i in range(3):
        some = slice(i, i + 1)
        alone = *whole.misfit_and_gradient(v[some], u[some]), whole.tangent(v[some], dv[some])
        for one, all_ in zip(alone, expected, strict=False):
            assert torch.equal(one[0], all_[i])


def test_memory_that_runs_out_halves_the_parts():
    one_shot = 8 * np.prod(SMALL.padded_shape) * ((SMALL.n_steps - 1) // 3)
    v, u = random_maps(SMALL), random_like((2, *SMALL.record_shape), 4)
    limited = kernel(memory=2 * one_shot)
    limited._kernel._parts._most = 6
    for one, other in zip(
        limited.misfit_and_gradient(v, u), kernel().misfit_and_gradient(v, u), strict=True
    ):
        assert torch.equal(one, other)
    assert limited._kernel._parts._most == 1
    with pytest.raises(torch.OutOfMemoryError, match="wavefields of 1 shots take"):
        kernel(memory=one_shot - 1).misfit_and_gradient(v, u)


def test_wavefields_take_the_memory_that_is_offered():
    simulator, v = kernel(), random_maps(SMALL, 1)
    expected = simulator.wavefields(v)
    out = torch.full((1, 5, *expected.shape[2:]), torch.nan, dtype=torch.float64)
    assert torch.equal(simulator.wavefields(v, out=out[:, :3]), expected)
    assert torch.equal(out[:, :3], expected)


def test_on_a_device_of_its_own():
    expected = kernel(SHORT)
    with pretended() as device:
        found = kernel(SHORT, device=device)
        for name, call in calls(SHORT).items():
            value = call(found)
            assert value.device == device
            assert torch.equal(value.cpu(), call(expected)), name


@pytest.fixture
def without_float64(monkeypatch):
    monkeypatch.setattr(precision, "WITHOUT_FLOAT64", ("pretend",))
    precision.float64.cache_clear()
    with pretended(float64=False) as device:
        yield device
    precision.float64.cache_clear()


def test_on_a_device_without_float64(without_float64):
    """All in float32, and on the CPU what is summed in float64."""
    device = without_float64
    with pytest.raises(TypeError, match="float64"):
        torch.ones(3, device=device).double()
    with pytest.raises(RuntimeError, match="has no float64; use dtype float32"):
        kernel(device=device)
    expected = kernel(SHORT, torch.float32)
    found = kernel(SHORT, torch.float32, device=device)
    for name, call in calls(SHORT).items():
        assert relative(call(found).cpu().double(), call(expected).double()) <= 2e-6, name


@pytest.mark.slow
def test_a_jacobian_on_a_device_without_float64(without_float64):
    survey = replace(JACOBIAN_SURVEY, n_steps=160, file_rows=160)
    v = textured(survey)
    expected = jacobian(v, survey=survey, kernel="torch")
    there = jacobian(v, survey=survey, kernel="torch", device=without_float64)
    assert there.matrix.device == without_float64
    assert relative(there.matrix.cpu(), expected.matrix) <= 1e-6
    for one, other in zip(there.normal_matrix(), expected.normal_matrix(), strict=True):
        assert relative(one, other) <= 1e-6
    u = expected.matvec(torch.ones_like(v))
    for one, other in zip(there.rmatvec(u), expected.rmatvec(u), strict=True):
        assert relative(one, other) <= 1e-5


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler for torch to use")
def test_the_fused_step_equals_the_others():
    fused = fields.compiled(CPU)
    if fused is None:
        pytest.skip("torch compiles nothing here")
    draws = torch.Generator().manual_seed(0)
    alpha, decay = (
        0.2 * torch.rand(2, 9, 11, dtype=torch.float64, generator=draws) for _ in range(2)
    )
    plain, other = fields.Fields(alpha, decay, 2), fields.Fields(alpha, decay, 2, fused)
    for some in (plain, other):
        some.now.inside[:, 4, 5] = 10.0
        some.wrap()
        for _ in range(20):
            some.advance()
            some.wrap()
    assert relative(other.now.p, plain.now.p) <= 1e-13
    assert bool(plain.now.p.abs().sum() > 1)
