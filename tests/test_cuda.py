"""The CUDA source compiles for cards of three generations and fits them; no GPU is needed here."""

import hashlib
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from emulation import KERNELS
from helpers import others_slow

from fwi_refine.errors import DeviceError
from fwi_refine.survey import OPENFWI
from fwi_refine.wave import Simulator, devices, gpu_problem
from fwi_refine.wave.cuda import compiler
from fwi_refine.wave.cuda import program as cuda
from fwi_refine.wave.cuda.layout import CLUSTER, COUNTERS, FIELDS, RESERVED, choose_layout

NVCC = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
# compute capability, bytes of shared memory that a block may have and that a multiprocessor has
CARDS = {
    "sm_90": ((9, 0), 227 << 10, 228 << 10),
    "sm_80": ((8, 0), 163 << 10, 164 << 10),
    "sm_120": ((12, 0), 99 << 10, 100 << 10),
}
REGISTERS = 65536  # of a multiprocessor
SPILLED = 256  # bytes that a thread may have to keep in memory for want of registers


def layout(arch, fields, dtype, room=lambda layout: 1):
    capability, shared_memory, _ = CARDS[arch]
    return choose_layout(OPENFWI, fields, dtype.itemsize, capability, shared_memory, room)


def test_clusters_where_the_fields_fit():
    single, double = torch.float32, torch.float64
    clusters = {
        (arch, fields, dtype)
        for arch in CARDS
        for fields in (2, 4)
        for dtype in (single, double)
        if layout(arch, fields, dtype).blocks > 1
    }
    assert clusters == {
        ("sm_90", 2, single),
        ("sm_90", 4, single),
        ("sm_90", 2, double),
        ("sm_120", 2, single),
    }
    halos = {case: layout(*case).halo for case in clusters}
    assert halos == {case: 0 if case[0] == "sm_120" else 2 for case in clusters}
    assert layout("sm_80", 2, single).threads <= 1024


def test_a_part_of_a_card_without_room_for_a_cluster():
    """A MIG slice has the card's shared memory for each block, but may have too few blocks."""
    asked = []

    def none(layout):
        asked.append(layout)
        return 0

    assert layout("sm_90", 2, torch.float64, none) == layout("sm_80", 2, torch.float64)
    assert [(found.blocks, found.halo) for found in asked] == [(CLUSTER, 2), (CLUSTER, 0)]
    layout("sm_80", 2, torch.float64, none)  # no clusters there: nothing to be asked
    layout("sm_90", 4, torch.float64, none)  # and nothing where the fields do not fit
    assert len(asked) == 2


def test_a_missing_compiler_is_said_before_it_is_needed(monkeypatch):
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="the extra [gpu] is not installed")

    def missing():
        raise RuntimeError("no libnvrtc.so anywhere")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(nvrtc, "nvrtcVersion", missing)
    assert "compiler is missing (no libnvrtc.so anywhere)" in gpu_problem()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert devices() == ["3", "5"]  # which torch's own operations can use


def test_what_the_driver_says():
    driver = pytest.importorskip("cuda.bindings.driver", reason="the extra [gpu] is not installed")
    status = driver.CUresult
    assert cuda.check((status.CUDA_SUCCESS, 7), "a call") == [7]
    with pytest.raises(torch.OutOfMemoryError, match="a call: CUDA_ERROR_OUT_OF_MEMORY"):
        cuda.check((status.CUDA_ERROR_OUT_OF_MEMORY,), "a call")
    with pytest.raises(DeviceError, match="a call: CUDA_ERROR_ILLEGAL_ADDRESS"):
        cuda.check((status.CUDA_ERROR_ILLEGAL_ADDRESS,), "a call")


@NVCC
@pytest.mark.parametrize("dtype", others_slow([torch.float32, torch.float64]), ids=str)
@pytest.mark.parametrize("arch", others_slow(CARDS))
def test_nvcc_compiles_and_the_card_has_room(arch, dtype, tmp_path):
    """Registers and shared memory suffice for as many blocks as the layout counts on."""
    for fields in (2, 4):
        chosen = layout(arch, fields, dtype)
        macros = dict(compiler.defines(chosen, OPENFWI, dtype))
        command = ["nvcc", "-cubin", f"-arch={arch}", "-Xptxas", "-v", "-Werror", "all-warnings"]
        command += [f"-D{name}={value}" for name, value in macros.items()]
        command += [KERNELS / "cuda" / "wave.cu", "-o", tmp_path / "wave.cubin"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        used = resources(done.stderr)
        assert set(used) == set(FIELDS)
        memory = chosen.memory(OPENFWI.padded_shape, fields, dtype.itemsize) + COUNTERS
        resident = int(macros["FWI_RESIDENT"])
        _, of_a_block, of_all = CARDS[arch]
        assert memory <= of_a_block
        # where there is room for one block only, the second one waits
        room = (of_all // (memory + RESERVED)) if chosen.shared else resident
        assert room >= 1
        for kernel in (k for k, count in FIELDS.items() if count == fields):
            registers, spilled = used[kernel]
            assert registers * chosen.threads * resident <= REGISTERS
            assert spilled <= SPILLED


def resources(log):
    """(registers, bytes spilled) of each kernel, from what ptxas says."""
    found = {}
    for part in log.split("Compiling entry function")[1:]:
        name = re.search(r"'(\w+)'", part)[1]
        spilled = max(int(n) for n in re.findall(r"(\d+) bytes spill", part))
        found[name] = int(re.search(r"Used (\d+) registers", part)[1]), spilled
    return found


def test_the_compiler_that_users_have(tmp_path, monkeypatch):
    """cuda.core compiles without a GPU, once; a changed source or card is compiled again."""
    pytest.importorskip("cuda.core", reason="the extra [gpu] is not installed")
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="the extra [gpu] is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    macros = compiler.defines(layout("sm_90", 2, torch.float32), OPENFWI, torch.float32)
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError as error:
        pytest.skip(f"NVRTC is not installed: {error}")
    code = compiler.cubin(macros, "sm_90")
    assert code[:4] == b"\x7fELF"
    (stored,) = (tmp_path / "fwi-refine").iterdir()
    assert stored.read_bytes()[32:] == code
    before = stored.stat().st_mtime_ns
    assert compiler.cubin(macros, "sm_90") == code
    assert stored.stat().st_mtime_ns == before
    assert compiler.cubin(macros, "sm_120") != code
    folder = tmp_path / "kernels"
    shutil.copytree(KERNELS, folder)
    (folder / "step.h").write_text((folder / "step.h").read_text() + "#error changed\n")
    monkeypatch.setattr(compiler, "KERNELS", folder)
    with pytest.raises(RuntimeError, match=r"wave.cu cannot be compiled for sm_90(.|\n)*changed"):
        compiler.cubin(macros, "sm_90")


def test_the_cache_notices_damage(tmp_path):
    path, made = tmp_path / "folder" / "a.cubin", []

    def make():
        made.append(b"code")
        return b"code"

    assert compiler.cached(path, make) == compiler.cached(path, make) == b"code"
    assert len(made) == 1
    for damaged in (b"", path.read_bytes()[:-1], path.read_bytes()[:-1] + b"x"):
        path.write_bytes(damaged)
        assert compiler.cached(path, make) == b"code"
        assert path.read_bytes() == hashlib.sha256(b"code").digest() + b"code"
    assert len(made) == 4
    assert list(path.parent.iterdir()) == [path]


def test_a_cache_that_cannot_be_written(tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    assert compiler.cached(in_the_way / "a.cubin", lambda: b"code") == b"code"


def test_two_that_compile_at_once(tmp_path):
    path, both = tmp_path / "a.cubin", threading.Barrier(2)

    def make():
        both.wait(timeout=10)
        return b"code" * 1000

    threads = [threading.Thread(target=compiler.cached, args=(path, make)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compiler.cached(path, lambda: b"") == b"code" * 1000
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu():
    assert devices() == []
    assert "torch" in gpu_problem()
    with pytest.raises(RuntimeError, match="the CUDA kernels cannot be used: torch"):
        Simulator(device="cuda")
    with pytest.raises(RuntimeError, match="the CUDA kernels cannot be used: torch"):
        Simulator(kernel="cuda")


@pytest.mark.skipif(not all(map(shutil.which, ("nvcc", "nvdisasm"))), reason="no nvdisasm")
def test_instructions_are_counted():
    script = Path(__file__).parents[1] / "scripts" / "count_gpu_instructions.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if ", float" in line]
    assert len(rows) == 7  # all of both precisions, but tangents in float64
    for _, _, _, instructions, computes, moved in rows:
        # kernels/step.h: 13 operations for a cell; and a row is read and written once at least
        assert 13 <= float(computes) <= float(instructions)
        assert float(moved) >= 12


@pytest.mark.process
def test_without_a_disassembler_nothing_is_counted(monkeypatch):
    script = Path(__file__).parents[1] / "scripts" / "count_gpu_instructions.py"
    monkeypatch.setenv("PATH", "")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "nothing was counted: nvcc and nvdisasm not found\n"


@pytest.mark.skipif(gpu_problem() is None, reason="there is a GPU: the benchmark would run")
@pytest.mark.process
def test_the_benchmark_says_that_it_measured_nothing():
    script = Path(__file__).parents[1] / "scripts" / "benchmark_gpu.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nothing was measured: torch" in done.stderr
    assert done.stdout == ""
