"""On a GPU: results are those of the CPU. Skipped, with the reason, where there is none."""

import dataclasses

import numpy as np
import pytest
import torch
from test_blocks import calls
from test_jacobian import relative, smooth_change, textured
from wave_cases import NATIVE, SMALL, random_like, random_maps

from fwi_refine.inversion import refine_sample
from fwi_refine.parameters import Full, Modes, Regions, Rows
from fwi_refine.priors import TotalVariation1D, TotalVariation2D, load
from fwi_refine.survey import OPENFWI
from fwi_refine.wave import Simulator, cuda, devices, gpu_problem, jacobian, simulate
from fwi_refine.wave.blocks import BlockKernel, Layout

pytestmark = [
    pytest.mark.skipif(gpu_problem() is not None, reason=f"no GPU: {gpu_problem()}"),
    NATIVE,
]
DTYPES = [(torch.float64, 1e-12), (torch.float32, 2e-5)]


class OneBlock(cuda.Program):
    """A card without clusters."""

    def layout(self, kernel, shape, dtype):
        layout = super().layout(kernel, shape, dtype)
        return Layout(1, layout.width, layout.strips, shared=False)


def on_gpu(survey, dtype, every, program=cuda.Program, memory=None):
    simulator = Simulator(survey, dtype, imaging_step=every, device="cuda")
    simulator._kernel = BlockKernel(survey, dtype, every, program(), memory)
    return simulator


@pytest.mark.parametrize("program", [cuda.Program, OneBlock])
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("survey", [dataclasses.replace(SMALL, n_steps=140), OPENFWI])
def test_equal_to_the_cpu(survey, dtype, tolerance, program):
    samples = 3 if survey is not OPENFWI else 2
    expected_of = Simulator(survey, dtype, "native", imaging_step=5)
    found_of = on_gpu(survey, dtype, 5, program)
    for name, call in calls(survey, samples).items():
        if name == "wavefields":
            continue  # the CPU leaves out what reaches no receiver
        expected, found = call(expected_of).double(), call(found_of)
        assert found.device.type == "cuda"
        assert (found.cpu().double() - expected).norm() <= tolerance * expected.norm(), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_same_bits_each_time_and_in_any_batch(dtype):
    simulator = Simulator(OPENFWI, dtype, device="cuda")
    v, u = random_maps(OPENFWI, 5), random_like((5, *OPENFWI.record_shape), 4)
    expected = simulator.misfit_and_gradient(v, u)
    for i in (0, 4):
        found = simulator.misfit_and_gradient(v[i : i + 1], u[i : i + 1])
        for one, all_ in zip(found, expected, strict=True):
            assert torch.equal(one[0], all_[i])


def test_memory_that_runs_out_halves_the_batch():
    v, u = random_maps(OPENFWI, 2), random_like((2, *OPENFWI.record_shape), 4)
    limited = on_gpu(OPENFWI, torch.float64, 5, memory=3 * 199 * 310 * 310 * 8)
    expected = Simulator(OPENFWI, device="cuda").misfit_and_gradient(v, u)
    for one, other in zip(limited.misfit_and_gradient(v, u), expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0, 20000.0])
def test_a_bad_velocity_is_refused(bad):
    v = random_maps(SMALL)
    v[1, 4, 4] = bad
    with pytest.raises(ValueError, match="velocity is not finite and positive"):
        Simulator(SMALL, device="cuda").forward(v)


def test_a_device_that_does_not_exist():
    with pytest.raises(RuntimeError, match="expected one of"):
        Simulator(device=f"cuda:{torch.cuda.device_count()}")


def test_autograd_stays_on_the_gpu():
    v = random_maps(SMALL, 1).cuda().requires_grad_()
    simulate(v).square().mean().backward()
    assert v.grad.device == v.device
    on_cpu = v.detach().cpu().requires_grad_()
    simulate(on_cpu, simulator=Simulator(SMALL)).square().mean().backward()
    assert relative(v.grad.cpu(), on_cpu.grad) <= 1e-12


def test_devices_are_named_as_the_environment_names_them(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices() == [str(i) for i in range(torch.cuda.device_count())]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert devices()[0] == "0"


@pytest.fixture(scope="module")
def jacobians():
    """(v, Jacobian on the CPU, Jacobian on the GPU)."""
    v = textured()
    return v, jacobian(v), jacobian(v, device="cuda")


def test_jacobian(jacobians):
    v, on_cpu, found = jacobians
    assert found.matrix.device.type == "cuda"
    # modes have signs that depend on how they are computed: compare what does not
    dv = smooth_change(OPENFWI)
    assert relative(found.matvec(dv.cuda(), 2.0).cpu(), on_cpu.matvec(dv, 2.0)) <= 1e-5
    u = on_cpu.matvec(dv)
    for one, other in zip(found.rmatvec(u), on_cpu.rmatvec(u), strict=True):
        assert relative(one.cpu(), other) <= 1e-5
    again = jacobian(v, device="cuda")
    assert torch.equal(again.matrix, found.matrix)


def test_normal_matrix(jacobians):
    _, on_cpu, found = jacobians
    expected, scale = on_cpu.normal_matrix()
    normal, found_scale = found.normal_matrix()
    assert relative(found_scale.cpu(), scale) <= 1e-5
    assert relative(normal.cpu(), expected) <= 1e-5
    again, _ = found.normal_matrix()
    assert torch.equal(again, normal)


PRIORS = {
    "Gaussian process": (load().style_b, (70, 70)),
    "total variation": (TotalVariation2D(), (70, 70)),
    "total variation of rows": (TotalVariation1D(), (70,)),
}


@pytest.mark.parametrize(("prior", "shape"), PRIORS.values(), ids=PRIORS.keys())
def test_priors(prior, shape):
    v = 3000 + 300 * random_like(shape, 1)
    value, gradient = prior.value_and_gradient(v)
    found, found_gradient = prior.value_and_gradient(v.cuda())
    assert float(found) == pytest.approx(float(value), rel=1e-10)
    assert relative(found_gradient.cpu(), gradient) <= 1e-10
    assert relative(prior.hessian(v.cuda()).cpu(), prior.hessian(v)) <= 1e-12


def test_parameters():
    v = textured()
    modes = load().style_a.modes(1.0)
    labels = (v / 300).long()
    pairs = [
        (Full(v.shape), Full(v.shape)),
        (Rows(v.shape), Rows(v.shape)),
        (Modes(*modes), Modes(*(part.cuda() for part in modes))),
        (Regions(labels), Regions(labels.cuda())),
    ]
    for on_cpu, found in pairs:
        expected = on_cpu.pullback(v, 1.0)
        assert relative(found.pullback(v.cuda(), 1.0).cpu(), expected) <= 1e-13
        x = on_cpu.from_velocity(v)
        assert relative(found.from_velocity(v.cuda()).cpu(), x) <= 1e-12
        assert relative(found.velocity(x.cuda()).cpu(), on_cpu.velocity(x)) <= 1e-13
        assert torch.equal(found.matrix("cuda").cpu(), on_cpu.matrix())


@pytest.mark.parametrize("family", ["flat-vel", "style-a", "style-b", "layered"])
def test_a_refined_sample(family, made):
    """One sample refined on the GPU fits its record as well as on the CPU, within rounding."""
    evaluations = 60
    found, expected = (
        refine_sample(
            made.starts[1],
            made.records[1],
            family=family,
            max_evaluations=evaluations,
            simulator=Simulator(device=device),
        )
        for device in ("cuda", "cpu")
    )
    assert isinstance(found.velocity, np.ndarray)
    assert found.status == expected.status
    assert found.misfit_after == pytest.approx(expected.misfit_after, rel=0.05)
    assert np.abs(found.velocity - expected.velocity).mean() <= 1.0
