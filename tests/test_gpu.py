"""On a GPU: results are those of the CPU. Skipped, with the reason, where there is none."""

from dataclasses import replace

import numpy as np
import pytest
import small_samples
import torch
from jacobian_cases import relative, smooth_change, textured
from wave_cases import NATIVE, SMALL, calls, random_like, random_maps

from fwi_refine.cli import run
from fwi_refine.inversion.initial_model import start_from_record
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.io.samples import Chunk
from fwi_refine.objective.parameterisation import Full, Modes, Regions, Rows
from fwi_refine.priors import TotalVariation1D, TotalVariation2D, load
from fwi_refine.runs import batch, gpu_streams
from fwi_refine.runs.executors import Serial
from fwi_refine.survey import OPENFWI
from fwi_refine.wave import Simulator, devices, flat_jacobian, gpu_problem, jacobian, simulate
from fwi_refine.wave.cuda import program as cuda
from fwi_refine.wave.cuda.kernel import BlockKernel

pytestmark = [
    pytest.mark.skipif(gpu_problem() is not None, reason=f"no GPU: {gpu_problem()}"),
    NATIVE,
]
# After a thousand steps two float32 kernels of the CPU differ by up to 1.2e-4 in gradients by vmin,
# 4e-5 in others and 2e-6 in records.
LONG = {"forward": 2e-5, "misfit": 2e-5, "value": 2e-5}
LONG_OTHERS = 5e-4
ODD = replace(SMALL, n_steps=140, shape=(9, 13))  # one column for each thread
DTYPES = [(torch.float64, 1e-12), (torch.float32, 2e-5)]


class OneBlock(cuda.Program):
    """A card without clusters."""

    def layout(self, kernel, survey, dtype):
        layout = super().layout(kernel, survey, dtype)
        return replace(layout, blocks=1, halo=2, shared=False, resident=1)


class NoHalo(cuda.Program):
    """A card whose blocks have no room for rows of their neighbours."""

    def layout(self, kernel, survey, dtype):
        layout = super().layout(kernel, survey, dtype)
        return replace(layout, halo=0) if layout.shared else layout


def on_gpu(survey, dtype, every, program=cuda.Program, memory=None):
    simulator = Simulator(survey, dtype, imaging_step=every, device="cuda")
    simulator._kernel = BlockKernel(survey, dtype, every, program(), memory)
    return simulator


@pytest.mark.parametrize("program", [cuda.Program, OneBlock, NoHalo])
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("survey", [replace(SMALL, n_steps=140), ODD, OPENFWI])
def test_equal_to_the_cpu(survey, dtype, tolerance, program):
    samples = 3 if survey is not OPENFWI else 2
    expected_of = Simulator(survey, dtype, "native", imaging_step=5)
    found_of = on_gpu(survey, dtype, 5, program)
    for name, call in calls(survey, samples).items():
        if name == "wavefields":
            continue  # the CPU leaves out what reaches no receiver
        expected, found = call(expected_of).double(), call(found_of)
        assert found.device.type == "cuda"
        if survey is OPENFWI and dtype == torch.float32:
            tolerance = LONG.get(name, LONG_OTHERS)
        assert (found.cpu().double() - expected).norm() <= tolerance * expected.norm(), name


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_reference_cpu_and_gpu_agree(dtype, tolerance):
    kernels = [Simulator(SMALL, dtype, kind, imaging_step=3) for kind in ("reference", "native")]
    gpu = on_gpu(SMALL, dtype, 3)
    for name, call in calls(SMALL).items():
        if name == "wavefields":
            continue
        reference, native = (call(kernel).double() for kernel in kernels)
        bound = tolerance * reference.norm()
        assert (native - reference).norm() <= bound, name
        assert (call(gpu).cpu().double() - reference).norm() <= bound, name


def test_a_cluster_has_room_or_is_not_used(monkeypatch):
    program = cuda.Program()
    chosen = program.layout("forward", OPENFWI, torch.float32)
    if chosen.blocks > 1:
        assert program.room("forward", chosen, OPENFWI, torch.float32) >= 1
    monkeypatch.setattr(program, "room", lambda *key: 0)
    assert program.layout("forward", OPENFWI, torch.float32).blocks == 1


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs")
def test_a_launch_leaves_the_current_device_as_it_is():
    v = random_maps(SMALL)
    expected = Simulator(SMALL, device="cuda:0").forward(v)
    torch.cuda.set_device(0)
    found = Simulator(SMALL, device="cuda:1").forward(v)
    assert torch.cuda.current_device() == 0
    assert found.device.index == 1
    assert torch.equal(found.cpu(), expected.cpu())


def test_threads_with_streams_of_their_own_do_not_disturb_each_other():
    simulator = Simulator(OPENFWI, device="cuda")
    maps, u = random_maps(OPENFWI, 8), random_like((8, *OPENFWI.record_shape), 4)

    def work(k):
        return [x.cpu() for x in simulator.misfit_and_gradient(maps[k : k + 1], u[k : k + 1])]

    expected = [work(k) for k in range(8)]
    for found, alone in zip(gpu_streams.each(work, range(8), 4, "cuda"), expected, strict=True):
        for one, other in zip(found, alone, strict=True):
            assert torch.equal(one, other)


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


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0, -2000.0])
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
    simulate(v, simulator=Simulator(SMALL, device="cuda")).square().mean().backward()
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
    # with another instruction set, the CPU's own differs by 7e-6
    assert relative(found.matvec(dv.cuda(), 2.0).cpu(), on_cpu.matvec(dv, 2.0)) <= 5e-5
    u = on_cpu.matvec(dv)
    for one, other in zip(found.rmatvec(u), on_cpu.rmatvec(u), strict=True):
        assert relative(one.cpu(), other) <= 1e-5
    again = jacobian(v, device="cuda")
    assert torch.equal(again.matrix, found.matrix)


def test_flat_jacobian():
    layers = torch.linspace(1800.0, 3600.0, 70, dtype=torch.float64)
    on_cpu, found = (flat_jacobian(layers, 1750.0, device=device) for device in ("cpu", "cuda"))
    assert found.device.type == "cuda"
    assert relative(found.cpu(), on_cpu) <= 1e-4  # with another instruction set, 1.7e-5


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


def refined(chunk, per_job, order=slice(None)):
    """(velocities, misfits) of a chunk's samples on the GPU, in the order of their numbers."""
    settings = replace(small_samples.SETTINGS, device="cuda", per_job=per_job)
    ((_, outcomes),) = batch.run([Chunk(0, chunk.samples[order])], settings, Serial())
    assert all(outcome.row.status == "refined" for outcome in outcomes), outcomes
    outcomes.sort(key=lambda outcome: outcome.index)
    velocities = np.stack([outcome.velocity for outcome in outcomes])
    return velocities, [outcome.row.misfit_after for outcome in outcomes]


def assert_same(found, expected):
    """The stated tolerance for a sample in other company: linear algebra may round differently."""
    assert np.abs(found[0] - expected[0]).max() <= 1e-3
    assert found[1] == pytest.approx(expected[1], rel=1e-3)


@pytest.mark.parametrize(("per_job", "order"), [(1, slice(None, None, -1)), (2, slice(None))])
def test_samples_in_other_company(per_job, order):
    chunk = small_samples.small_chunk()
    assert_same(refined(chunk, per_job, order), refined(chunk, 4))


def test_a_card_that_is_full_loses_no_sample():
    chunk = small_samples.small_chunk()
    expected = refined(chunk, 1)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    refined(chunk, 1)
    peak = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(1.5 * peak / total)
    try:
        assert_same(refined(chunk, 4), expected)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_start_without_a_network():
    truth = textured(small_samples.SMALL)
    record = Simulator(small_samples.SMALL).forward(truth[None])[0].numpy()
    options = {"survey": small_samples.SMALL, "priors": small_samples.SETTINGS.priors}
    found, expected = (
        start_from_record(record, device=device, **options) for device in ("cuda", "cpu")
    )
    assert np.abs(found - expected).max() <= 0.01 * np.ptp(expected)


def test_the_command_line_on_every_gpu(made, baseline, tmp_path):
    """Processes with the samples shared among them, as --device auto has it."""
    out = tmp_path / "out.npy"
    quick = ["--method", "lbfgs", "--max-evaluations", "4", "--jobs", "2", "--per-job", "2"]
    assert run([made.starts_file, made.seismic, "--out", str(out), *quick]) == 0
    assert np.abs(np.load(out) - baseline.maps).max() <= 0.01
    assert run(["doctor", "--device", "cuda"]) == 0


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
