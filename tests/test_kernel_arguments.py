"""Every argument of every kernel's call is checked, in one place, before memory is touched."""

from dataclasses import replace

import pytest
import torch
from emulation import NEEDS_COMPILER, Emulation
from wave_cases import NATIVE, SMALL, random_like, random_maps

from fwi_refine.survey import Survey
from fwi_refine.wave import RecordMisfit, Simulator, WaveSimulator, jacobian, simulate
from fwi_refine.wave.cpu import NativeKernel
from fwi_refine.wave.cuda.kernel import BlockKernel
from fwi_refine.wave.cuda.layout import Layout
from fwi_refine.wave.grid import pad
from fwi_refine.wave.reference import ReferenceKernel
from fwi_refine.wave.threads import one_thread_each, workers
from fwi_refine.wave.torch_kernel import TorchKernel

TWO = random_maps(SMALL)
SHAPE = (2, *SMALL.record_shape)
LAYOUT = Layout(blocks=2, width=4, strips=2, side=2, halo=2, shared=True)


def native(dtype=torch.float64, every=5, survey=SMALL):
    return NativeKernel(survey, dtype, 2, every)


def reference(dtype=torch.float64, every=5, survey=SMALL):
    return ReferenceKernel(survey, dtype, 2, every)


def plain_torch(dtype=torch.float64, every=5, survey=SMALL):
    return TorchKernel(survey, dtype, every, torch.device("cpu"))


def blocks(dtype=torch.float64, every=5, survey=SMALL):
    return BlockKernel(survey, dtype, every, Emulation(LAYOUT))


kernels = pytest.mark.parametrize(
    "make",
    [
        pytest.param(native, marks=NATIVE),
        reference,
        plain_torch,
        pytest.param(blocks, marks=NEEDS_COMPILER),
    ],
)


def arguments(dtype=torch.float64):
    """Right arguments of every call, by name."""
    alpha = (pad(TWO, SMALL).square() * (SMALL.dt / SMALL.spacing) ** 2).to(dtype)
    vmin = TWO.amin((1, 2))
    records = random_like(SHAPE, 1)
    strength = torch.ones(2, 3)
    return {
        "forward": {"alpha": alpha, "vmin": vmin},
        "wavefields": {"alpha": alpha, "vmin": vmin},
        "tangent": {"alpha": alpha, "vmin": vmin, "dalpha": alpha, "dvmin": vmin},
        "adjoint": {"alpha": alpha, "vmin": vmin, "u": records},
        "misfit": {"alpha": alpha, "vmin": vmin, "data": records, "gradient": True},
        "released": {"alpha": alpha, "vmin": vmin, "strength": strength},
        "first_differences": {
            "alpha": alpha, "vmin": vmin, "strength": strength, "data": records, "stop": False
        },
    }  # fmt: skip


CALLS = [
    (call, name)
    for call, given in arguments().items()
    for name, value in given.items()
    if isinstance(value, torch.Tensor)
]
SPOILED = {
    "a sample less": lambda x: x[:1],
    "a sample more": lambda x: torch.cat([x, x[:1]]),
    "no dimension": lambda x: x.flatten()[0],
    "a dimension more": lambda x: x[None],
    "whole numbers": lambda x: x.long(),
    "complex numbers": lambda x: x.to(torch.complex64),
}


@kernels
@pytest.mark.parametrize(("call", "name"), CALLS)
@pytest.mark.parametrize("spoiled", SPOILED)
def test_a_wrong_argument_is_refused(make, call, name, spoiled):
    dtype = torch.float32 if call in ("released", "first_differences") else torch.float64
    kernel, given = make(dtype), arguments(dtype)[call]
    getattr(kernel, call)(**given)  # as it is, it is right
    given[name] = SPOILED[spoiled](given[name])
    with pytest.raises(ValueError, match="expected"):
        getattr(kernel, call)(**given)


@kernels
@pytest.mark.parametrize("call", ["adjoint", "misfit", "first_differences"])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_record_of_another_size_is_refused(make, call, dim):
    dtype = torch.float32 if call == "first_differences" else torch.float64
    given = arguments(dtype)[call]
    name = "u" if call == "adjoint" else "data"
    given[name] = torch.cat([given[name]] * 2, dim=dim)
    with pytest.raises(ValueError, match="records of shape"):
        getattr(make(dtype), call)(**given)


@kernels
@pytest.mark.parametrize("vmin", [0.0, -1500.0, torch.nan, torch.inf])
def test_a_vmin_that_is_no_velocity(make, vmin):
    for call, given in arguments(torch.float32).items():
        given["vmin"] = torch.tensor([1500.0, vmin])
        with pytest.raises(ValueError, match="map 1: vmin of"):
            getattr(make(torch.float32), call)(**given)


@kernels
@pytest.mark.parametrize("alpha", [0.0, -0.1, torch.nan, torch.inf])
def test_an_alpha_that_is_no_square(make, alpha):
    for call, given in arguments(torch.float32).items():
        given["alpha"] = given["alpha"].clone()
        given["alpha"][1, 12, 12] = alpha
        with pytest.raises(ValueError, match="map 1: velocity is not finite and positive"):
            getattr(make(torch.float32), call)(**given)


@kernels
def test_what_a_kernel_is_made_with(make):
    for every in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="imaging_step"):
            make(every=every)
    for dtype in (torch.float16, torch.int32, torch.complex64):
        with pytest.raises(ValueError, match=r"expected torch\.float32 or torch\.float64"):
            make(dtype)


@kernels
def test_released_arithmetic_is_that_of_float32(make):
    for call in ("released", "first_differences"):
        with pytest.raises(ValueError, match="released arithmetic is float32"):
            getattr(make(torch.float64), call)(**arguments(torch.float32)[call])


@kernels
def test_an_imaging_step_that_leaves_no_wavefield(make):
    """The gradient would be that of the sources' own cells alone."""
    kernel = make(every=SMALL.n_steps)
    given = arguments()
    for call in ("adjoint", "misfit", "wavefields"):
        with pytest.raises(ValueError, match="imaging_step 61: expected less than the survey's 61"):
            getattr(kernel, call)(**given[call])
    kernel.misfit(**{**given["misfit"], "gradient": False})


@NATIVE
def test_wavefields_are_written_where_they_belong():
    """Into an earlier result, or the first shots of one; never beside it."""
    kernel, given = native(), arguments()["wavefields"]
    expected = kernel.wavefields(**given)
    again = kernel.wavefields(**given, out=kernel.wavefields(**given))
    assert torch.equal(again, expected)
    for out in (
        expected.clone(),  # has no room beside the grid
        torch.empty(3, *expected.shape[1:], dtype=expected.dtype)[1:],
        expected.transpose(3, 4).contiguous().transpose(3, 4),
        expected.float(),
    ):
        before = out.clone()
        with pytest.raises(ValueError, match="out"):
            kernel.wavefields(**given, out=out)
        assert torch.equal(out, before)


@pytest.mark.parametrize("module", [WaveSimulator, RecordMisfit])
def test_one_vmin_for_all_maps(module):
    others = [] if module is WaveSimulator else [random_like(SHAPE, 2)]
    expected = module(SMALL)(TWO, *others, torch.tensor([1400.0, 1400.0]))
    for vmin in (1400.0, 1400, torch.tensor(1400.0), torch.tensor(1400)):
        assert torch.equal(module(SMALL)(TWO, *others, vmin), expected)
    one = torch.tensor(1400.0, dtype=torch.float64, requires_grad=True)
    each = torch.full((2,), 1400.0, dtype=torch.float64, requires_grad=True)
    for vmin in (one, each):
        module(SMALL)(TWO, *others, vmin).square().sum().backward()
    torch.testing.assert_close(one.grad, each.grad.sum(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("vmin", [torch.full((1,), 1400.0), torch.full((3,), 1400.0), [[1400.0]]])
def test_a_vmin_of_another_length_than_the_batch(vmin):
    simulator = Simulator(SMALL)
    for call in (
        lambda: WaveSimulator(SMALL)(TWO, vmin),
        lambda: RecordMisfit(SMALL)(TWO, random_like(SHAPE, 1), vmin),
        lambda: simulate(TWO, vmin, simulator),
        lambda: simulator.forward(TWO, torch.as_tensor(vmin)),
        lambda: simulator.released(TWO, torch.as_tensor(vmin)),
    ):
        with pytest.raises(ValueError, match=r"vmin of shape .*expected .*\(2,\)"):
            call()


def test_changes_of_another_shape():
    simulator = Simulator(SMALL)
    with pytest.raises(ValueError, match="change of velocity of shape"):
        simulator.tangent(TWO[:1], TWO)  # would be multiplied with each
    with pytest.raises(ValueError, match="dvmin of shape"):
        simulator.tangent(TWO, TWO, None, torch.ones(3))


@pytest.mark.parametrize("threads", [0, -1, -(2**31), 1.0, True])
def test_a_number_of_threads_that_is_none(threads):
    for call in (
        lambda: Simulator(SMALL, threads=threads),
        lambda: WaveSimulator(SMALL, threads=threads),
        lambda: NativeKernel(SMALL, torch.float32, threads, 5),
        lambda: jacobian(TWO[0], survey=SMALL, threads=threads),
        lambda: one_thread_each(threads).__enter__(),
        lambda: workers(torch.device("cpu"), threads),
    ):
        with pytest.raises(ValueError, match=r"threads .*: expected a whole number, 1 to 4096"):
            call()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"shape": (5, 12), "absorbing_cells": 0}, r"\(5, 12\) rows and columns"),
        ({"shape": (12, 1), "absorbing_cells": 0}, r"\(12, 1\) rows and columns"),
        ({"shape": (3, 12), "absorbing_cells": 1}, r"\(5, 14\) rows and columns"),
        ({"shape": (0, 12)}, r"shape\[0\] is 0"),
        ({"shape": (9, 12, 3)}, r"expected \(nz, nx\)"),
        ({"shape": (9.0, 12)}, "a whole number"),
        ({"n_steps": 0}, "n_steps is 0"),
        ({"absorbing_cells": -1}, "absorbing_cells is -1"),
        ({"receivers": ((1, 2.5),)}, r"receiver at \(1, 2.5\): expected whole numbers"),
    ],
)
def test_a_grid_that_no_kernel_can_compute(change, expected):
    points = {"sources": ((1, 0),), "receivers": ((0, 0),)}
    with pytest.raises(ValueError, match=expected):
        replace(SMALL, **{**points, **change})


@NATIVE
@NEEDS_COMPILER
@pytest.mark.parametrize(
    ("shape", "band"), [((6, 2), 0), ((6, 12), 0), ((12, 2), 0), ((7, 3), 0), ((4, 1), 1)], ids=str
)
def test_the_smallest_grids(shape, band):
    """The same numbers from every kernel where waves go round a few cells."""
    rows, cols = shape
    survey = Survey(
        shape=shape,
        n_steps=120,
        absorbing_cells=band,
        sources=((rows - 1, 0), (0, cols - 1)),
        receivers=((0, 0), (rows - 1, cols - 1), (rows // 2, cols // 2)),
        velocity_bounds=(1000.0, 4000.0),
    )
    v = random_maps(survey, 1).clamp(max=3500)
    u = random_like((1, *survey.record_shape), 3)
    alpha = pad(v, survey).square() * (survey.dt / survey.spacing) ** 2
    vmin = v.amin((1, 2))

    def results(make):
        kernel, single = (make(dtype, 1, survey) for dtype in (torch.float64, torch.float32))
        strength = torch.ones(1, 2)
        return [
            kernel.forward(alpha, vmin),
            kernel.tangent(alpha, vmin, alpha, vmin),
            *kernel.adjoint(alpha, vmin, u),
            *kernel.misfit(alpha, vmin, u, True),
            single.released(alpha.float(), vmin, strength).double(),
        ]

    expected = results(reference)
    for make in (native, blocks):
        for found, wanted in zip(results(make), expected, strict=True):
            scale = float(wanted.abs().max())
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10 * scale)
