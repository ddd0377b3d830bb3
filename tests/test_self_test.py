"""A kernel proves itself before it is used, here with the emulated kernels of the GPU."""

import json
import shutil
import warnings
from dataclasses import replace

import pytest
import torch
from emulation import KERNELS, NEEDS_COMPILER, Emulation, build, open_library
from helpers import others_slow
from wave_cases import NATIVE

from fwi_refine.survey import OPENFWI
from fwi_refine.wave import Simulator, paths, self_test
from fwi_refine.wave.cpu import NativeKernel
from fwi_refine.wave.cuda import program as cuda
from fwi_refine.wave.cuda.kernel import BlockKernel
from fwi_refine.wave.cuda.layout import Layout

pytestmark = NATIVE
CPU = torch.device("cpu")
ALONE = Layout(1, 1, 1, side=2, halo=2, shared=True)  # nobody waits: quick
CLUSTER = Layout(2, 2, 1, side=2, halo=2, shared=True)
READ_IN_PLACE = replace(CLUSTER, halo=0)
# On a grid this narrow a wave has been round it in 90 steps.
SURVEY = replace(
    OPENFWI,
    shape=(6, 8),
    n_steps=90,
    file_rows=90,
    absorbing_cells=4,
    dt=3e-4,
    frequency=50.0,
    velocity_bounds=(3500.0, 4500.0),
    sources=((1, 0), (4, 7)),
    receivers=((1, 0), (1, 3), (5, 7)),
)


def emulated(layout=ALONE, library=None):
    program = Emulation(layout, library)
    return lambda survey, dtype, every: BlockKernel(survey, dtype, every, program)


def compare(make):
    return self_test.compare(make, CPU, SURVEY)


def test_the_torch_kernel_passes():
    compared = compare(paths.choose("torch", "cpu", 1).make)
    assert all(line.passed for line in compared), [str(line) for line in compared]
    names = " ".join(line.name for line in compared)
    for part in ("records", "tangent", "adjoint", "gradient", "wavefields", "Jacobian", "released"):
        assert part in names
    assert "float64" in names
    assert "float32" in names


@NEEDS_COMPILER
@pytest.mark.parametrize("layout", others_slow([ALONE, CLUSTER, READ_IN_PLACE]), ids=str)
def test_the_emulated_kernels_pass(layout):
    compared = compare(emulated(layout))
    assert all(line.passed for line in compared), [str(line) for line in compared]


ERRORS = {
    "sign": ("cuda/sweeps.h", "FWI_ADD(next[t->source_cell]", "FWI_SUB(next[t->source_cell]"),
    "missing boundary": (
        "cuda/call.h",
        "return i < 0 ? i + n : i < n ? i : i - n;",
        "return i < 0 ? 0 : i < n ? i : n - 1;",
    ),
    "wrong stride": (
        "cuda/thread.h",
        "call->n_steps + n) * call->n_receivers",
        "call->n_steps + n) * 2",
    ),
    "stale constant": (
        "step.h",
        "(REAL)(float)(-1.0 / 12.0) * (far)",
        "(REAL)(-1.0 / 12.0) * (far)",
    ),
    "missing barrier": ("cuda/fields.h", "        FWI_BARRIER();", "        ;"),
}


@NEEDS_COMPILER
@pytest.mark.parametrize("name", others_slow(ERRORS))
def test_a_seeded_error_is_found(name, tmp_path):
    file, right, wrong = ERRORS[name]
    folder = tmp_path / "kernels"
    shutil.copytree(KERNELS, folder)
    text = (folder / file).read_text()
    assert text.count(right) == 1
    (folder / file).write_text(text.replace(right, wrong))
    library = open_library(build(tmp_path / "wrong.so", "-fPIC", "-shared", "-O1", kernels=folder))
    layout = READ_IN_PLACE if name == "missing barrier" else ALONE
    failed = [line for line in compare(emulated(layout, library)) if not line.passed]
    assert failed


class Wrong(NativeKernel):
    """Its records are too large by a millionth."""

    def forward(self, alpha, vmin):
        return super().forward(alpha, vmin) * (1 + 1e-6)


class Changing(NativeKernel):
    """Its records are others each time, within every bound."""

    def forward(self, alpha, vmin):
        return super().forward(alpha, vmin) * (1 + 1e-15 * torch.randn(()).double())


@pytest.mark.parametrize(
    ("kind", "name"), [(Wrong, "records, float64"), (Changing, "records, float64")]
)
def test_what_differs_by_little_is_found(kind, name):
    compared = compare(lambda survey, dtype, every: kind(survey, dtype, 1, every))
    assert name in [line.name for line in compared if not line.passed]


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache folder, and a process that has tested nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for known in (self_test._problem, paths._warn):
        known.cache_clear()
    yield tmp_path / "cache" / "fwi-refine"
    for known in (self_test._problem, paths._warn):
        known.cache_clear()


def counted(kind=NativeKernel, identity="a card\ndriver 1"):
    made = []

    def make(survey, dtype, every):
        made.append(dtype)
        return kind(survey, dtype, 1, every)

    return paths.Path(make, CPU, identity), made


def test_a_test_that_passed_is_remembered(cache):
    path, made = counted()
    assert self_test.problem(path, SURVEY) is None
    first = len(made)
    assert first
    assert self_test.problem(path, SURVEY) is None
    self_test._problem.cache_clear()  # as in another process
    assert self_test.problem(path, SURVEY) is None
    assert len(made) == first
    (file,) = cache.glob("self-test-*.json")
    kept = json.loads(file.read_bytes()[32:])
    assert kept["for"] == ["a card", "driver 1"]
    assert all(line["error"] <= line["bound"] for line in kept["compared"])
    other, made = counted(identity="a card\ndriver 2")  # another driver
    assert self_test.problem(other, SURVEY) is None
    assert made


def test_a_test_that_failed_is_done_again(cache):
    path, made = counted(Wrong)
    assert "its self-test failed: records, float64 differ by 1.0e-06" in self_test.problem(
        path, SURVEY
    )
    assert not [*cache.glob("self-test-*")]
    self_test._problem.cache_clear()
    made.clear()
    assert self_test.problem(path, SURVEY) is not None
    assert made


def test_a_cache_that_cannot_be_written_is_no_failure(cache):
    cache.parent.write_text("a file stands where the folder would be")
    path, _ = counted()
    assert self_test.problem(path, SURVEY) is None


def test_what_needs_no_test_has_none(cache):
    path, made = counted(Wrong, identity=None)
    assert self_test.problem(path, SURVEY) is None
    assert not made


class Broken:
    """A program whose kernels do not compile."""

    name, device, identity = "cuda card", CPU, "a card whose compiler fails"

    def release(self):
        pass

    def layout(self, *args):
        raise RuntimeError("wave.cu cannot be compiled for sm_90: error on line 7")


def test_kernels_that_do_not_compile_are_passed_over_with_one_warning(cache, monkeypatch):
    """A card in the place of which the CPU computes: torch's operations there are right."""
    monkeypatch.setattr(cuda, "existing", lambda device: CPU)
    monkeypatch.setattr(cuda, "program", lambda device: Broken())
    monkeypatch.setattr(self_test.problem, "__defaults__", (SURVEY,))
    with pytest.warns(
        RuntimeWarning, match="cannot be compiled.*torch's operations compute"
    ) as seen:
        simulators = [Simulator(SURVEY, device="cuda") for _ in range(2)]
    assert len(seen) == 1
    assert [s.kernel for s in simulators] == ["torch", "torch"]
    with pytest.raises(RuntimeError, match="cannot be compiled"):
        Simulator(SURVEY, kernel="cuda")


def test_where_nothing_is_right_the_cpu_computes(cache, monkeypatch):
    monkeypatch.setattr(cuda, "existing", lambda device: CPU)
    monkeypatch.setattr(cuda, "program", lambda device: Broken())
    path, _ = counted(Wrong)
    monkeypatch.setattr(paths, "_by_torch", lambda device: path)
    monkeypatch.setattr(self_test.problem, "__defaults__", (SURVEY,))
    with pytest.warns(RuntimeWarning, match="self-test failed.*; computing on the CPU") as seen:
        simulator = Simulator(SURVEY, device="cuda")
    assert len(seen) == 1
    assert simulator.kernel.split()[0] == "native"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Simulator(SURVEY, **simulator.options).device.type == "cpu"
