"""The GPU's kernels and their caller, emulated on the CPU: they are the reference's equals."""

import os
import re
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from emulation import KERNELS, NEEDS_COMPILER, SOURCE, build, emulate, open_library
from helpers import dot_test, others_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from wave_cases import NATIVE, SMALL, calls, random_like, random_maps

from fwi_refine.survey import OPENFWI
from fwi_refine.wave import Simulator, released_record
from fwi_refine.wave.cuda.layout import Layout

pytestmark = NEEDS_COMPILER

ONE_BLOCK = Layout(1, 5, 2, side=2, halo=2, shared=False)  # as on cards without clusters
CLUSTER = Layout(3, 4, 2, side=2, halo=2, shared=True)
LAYOUTS = [
    CLUSTER,
    ONE_BLOCK,
    replace(CLUSTER, halo=0),  # as where rows of the neighbours find no room
    replace(ONE_BLOCK, side=1),
    Layout(8, 3, 1, side=1, halo=2, shared=True),
    Layout(8, 14, 1, side=2, halo=0, shared=True),
    Layout(1, 40, 1, side=1, halo=2, shared=True),
]


def emulated(survey=SMALL, dtype=torch.float64, imaging_step=3, layout=CLUSTER, **options):
    plain = Simulator(survey, dtype, "reference", imaging_step=imaging_step)
    return emulate(plain, layout, **options)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("layout", others_slow(LAYOUTS), ids=str)
def test_equal_to_the_reference(layout, dtype, tolerance):
    """Two samples, three shots, receivers that share a cell or stand in every block."""
    survey = replace(SMALL, n_steps=70, receivers=(*SMALL.receivers, (5, 3), (8, 0)))
    reference = Simulator(survey, dtype, "reference", imaging_step=3)
    found = emulated(survey, dtype, layout=layout)
    for name, call in calls(survey).items():
        expected = call(reference).double()
        assert (call(found).double() - expected).norm() <= tolerance * expected.norm(), name


@pytest.mark.parametrize("layout", others_slow(LAYOUTS[:4]), ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bits_of_the_released_data(layout, dtype):
    survey = replace(SMALL, n_steps=70)
    v = random_maps(survey, 2)
    found = emulated(survey, dtype, layout=layout)
    expected = torch.stack([released_record(one, survey=survey) for one in v])
    assert torch.equal(found.released(v), expected)
    assert bool((found.first_differences(v, expected) == survey.n_steps).all())
    assert not torch.equal(found.forward(v).float(), expected)  # that it is another one


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(st.integers(2, 9), st.integers(1, 9)),
    band=st.integers(2, 6),
    n_steps=st.sampled_from([1, 2, 5, 24]),
    every=st.integers(1, 4),
    blocks=st.integers(1, 9),
    width=st.integers(1, 7),
    strips=st.integers(1, 3),
    width_of_side=st.sampled_from([1, 2]),
    halo=st.sampled_from([0, 2]),
)
def test_any_grid_and_layout(
    seed, shape, band, n_steps, every, blocks, width, strips, width_of_side, halo
):
    """Blocks of one row or none, threads of one cell or none: what is read is what it should be."""
    corner = (shape[0] - 1, shape[1] - 1)
    survey = replace(
        SMALL,
        shape=shape,
        absorbing_cells=band,
        dt=1.5e-4,  # the damping of so narrow a band is strong
        frequency=67.0,
        velocity_bounds=(3500.0, 4600.0),
        n_steps=n_steps,
        sources=((0, 0), (-2, shape[1])),
        receivers=((-band, -band), corner, (0, 0), corner),
    )
    shared = blocks > 1 or seed % 2 == 0
    side = width_of_side if shape[1] % 2 == band % 2 == 0 else 1
    layout = Layout(blocks, width, strips, side, halo if shared else 2, shared)
    every = max(min(every, n_steps - 1), 1)
    found = emulated(survey, imaging_step=every, layout=layout)
    reference = Simulator(survey, kernel="reference", imaging_step=every)
    for name, call in calls(survey).items():
        if name == "wavefields" and n_steps <= every:
            continue  # there are none
        expected = call(reference)
        assert (call(found) - expected).norm() <= 1e-12 * expected.norm(), name


def dot_error(simulator, seed=0):
    """Relative error of <J x, y> = <x, J^T y>, x = (dv, dvmin), for one sample."""
    survey = simulator.survey
    v = random_maps(survey, 1, seed)
    vmin, cells = v.amin(dim=(1, 2)) * 0.97, v.numel()

    def forward(x):
        return simulator.tangent(v, x[:cells].reshape(v.shape), vmin, x[cells:]).flatten()

    def adjoint(y):
        by_v, by_vmin = simulator.adjoint(v, y.reshape(1, *survey.record_shape), vmin)
        return torch.cat([by_v.flatten(), by_vmin])

    y = random_like((np.prod(survey.record_shape),), seed + 2)
    return dot_test(forward, adjoint, random_like((cells + 1,), seed + 1), y)


@pytest.mark.parametrize("layout", LAYOUTS[:2], ids=str)
def test_adjoint_is_the_transpose_of_the_tangent(layout):
    assert dot_error(emulated(imaging_step=1, layout=layout)) <= 1e-12


@pytest.mark.slow  # the same of the CPU's kernel by default: tests/test_wave.py
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("FWI_ADD(next[t->source_cell]", "FWI_SUB(next[t->source_cell]"),
        ("at_source += pulse", "at_source -= pulse"),
        ("fwi_row(t, now, r + 2)", "fwi_row(t, now, r + 1)"),
        ("fwi_frame(t, frame, r + 3, c)", "fwi_frame(t, frame, r + 2, c)"),
        ("after.at[j],", "here.at[j],"),
        ("relative_vmin, centre, cells.at[j]", "relative_vmin, cells.at[j], centre"),
    ],
)
def test_a_wrong_kernel_fails_the_dot_test(right, wrong, tmp_path):
    folder = mutated(tmp_path, right, wrong)
    library = build(tmp_path / "wrong.so", "-fPIC", "-shared", kernels=folder)
    simulator = emulated(imaging_step=1, layout=ONE_BLOCK, library=open_library(library))
    assert not dot_error(simulator) <= 1e-6


def mutated(tmp_path, right, wrong):
    """A copy of the kernels' folder with something else in the place of what is right."""
    folder = tmp_path / "kernels"
    shutil.copytree(KERNELS, folder)
    found = 0
    for path in filter(Path.is_file, folder.rglob("*")):
        found += path.read_text().count(right)
        path.write_text(path.read_text().replace(right, wrong))
    assert found
    return folder


def races(program):
    """Whether the thread sanitizer finds any, a result is not finite because of one, or a counter
    is used for a step whose last one is not over."""
    environment = os.environ | {"TSAN_OPTIONS": "halt_on_error=1 symbolize=0"}
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1, 66, -signal.SIGABRT), done.stdout + done.stderr
    return done.returncode != 0


@pytest.fixture(scope="module")
def sanitizer(tmp_path_factory):
    """Flags of the thread sanitizer; skips where there is none."""
    flags = ("-O1", "-g", "-fsanitize=thread", "-DFWI_MAIN")
    try:
        program = build(tmp_path_factory.mktemp("races") / "program", *flags)
        assert not races(program)
    except (subprocess.CalledProcessError, OSError) as error:
        pytest.skip(f"no thread sanitizer: {error}")
    return flags


def waiting():
    """(text of a header, place of something in it that waits)."""
    for name in ("cuda/blocks.h", "cuda/fields.h"):
        text = (KERNELS / name).read_text()
        calls = re.finditer(r" (FWI_(START|BARRIER|SYNC|WAIT)|fwi_end_of_step)\(.*\);", text)
        yield from ((text, call.span()) for call in calls)


@pytest.mark.slow
@pytest.mark.parametrize(("text", "place"), [*waiting()], ids=lambda part: str(part)[-12:])
def test_all_waiting_is_needed(text, place, sanitizer, tmp_path):
    """The threads of a shot do not race, and without any one of the barriers they would."""
    folder = mutated(tmp_path, text, text[: place[0]] + ";" + text[place[1] :])
    program = build(tmp_path / "program", *sanitizer, kernels=folder)
    assert any(races(program) for _ in range(5))  # it sees most races, not all


def test_parts_that_fit_into_memory_change_no_bit():
    """A limit for 4 of the 6 shots: the batch is halved once, and stays so."""
    everything, limited = emulated(), None
    one_shot = 8 * np.prod(SMALL.padded_shape) * ((SMALL.n_steps - 1) // 3)
    limited = emulated(memory=4 * one_shot)
    for name in ("adjoint", "adjoint by vmin", "value", "gradient", "gradient by vmin"):
        call = calls(SMALL)[name]
        assert torch.equal(call(everything), call(limited)), name
    program = limited._kernel._program
    assert program.released == 1
    assert program.launches[:4] == [("forward", 3), ("adjoint", 3)] * 2
    with pytest.raises(torch.OutOfMemoryError, match="wavefields of 1 shots take"):
        calls(SMALL)["adjoint"](emulated(memory=one_shot - 1))


def test_samples_do_not_see_their_neighbours():
    batch, alone = emulated(), emulated()
    v, u = random_maps(SMALL, 3), random_like((3, *SMALL.record_shape), 4)
    expected = batch.misfit_and_gradient(v, u)
    for i in range(3):
        found = alone.misfit_and_gradient(v[i : i + 1], u[i : i + 1])
        for one, all_ in zip(found, expected, strict=True):
            assert torch.equal(one[0], all_[i])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0, -2000.0])
def test_a_bad_velocity_is_refused(bad):
    v = random_maps(SMALL)
    v[1, 4, 4] = bad
    with pytest.raises(ValueError, match="velocity is not finite and positive"):
        emulated().forward(v)


def test_wavefields_take_the_memory_that_is_offered():
    simulator, v = emulated(), random_maps(SMALL, 1)
    expected = simulator.wavefields(v)
    out = torch.full_like(expected, torch.nan)
    assert simulator.wavefields(v, out=out) is out
    assert torch.equal(out, expected)
    with pytest.raises(ValueError, match=r"expected \(1, 3, 20, 25, 28\) and torch.float64"):
        simulator.wavefields(v, out=out[:, :2])
    shifted = torch.empty(out.numel() + 1, dtype=out.dtype)[1:].view(out.shape)
    with pytest.raises(ValueError, match="contiguous and aligned"):
        simulator.wavefields(v, out=shifted)


@pytest.mark.slow
@NATIVE
def test_equal_to_the_cpu_kernel_on_the_real_grid():
    """A cluster of eight blocks, as GPUs have it, over the 310 x 310 cells of a shot."""
    survey = replace(OPENFWI, sources=OPENFWI.sources[1:2], n_steps=400)
    v, u = random_maps(survey, 1), random_like((1, *survey.record_shape), 4)
    expected = Simulator(survey, kernel="native").misfit_and_gradient(v, u)
    plain = Simulator(survey, kernel="native")
    found = emulate(plain, Layout(8, 2, 1, side=2, halo=2, shared=True)).misfit_and_gradient(v, u)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 1e-12 * other.norm()


def test_the_source_of_the_emulation_is_the_kernels():
    """Nothing of the wave equation is written again in the emulation."""
    text = SOURCE.read_text()
    assert '#include "blocks.h"' in text
    assert "LAPLACIAN" not in text
