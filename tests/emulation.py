"""The GPU's kernels on the CPU: builds tests/emulation.cpp and launches what it holds."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from fwi_refine.wave import cpu
from fwi_refine.wave.cuda.kernel import BlockKernel
from fwi_refine.wave.cuda.layout import FIELDS, Layout, side

KERNELS = Path(cpu.__file__).with_name("kernels")
SOURCE = Path(__file__).with_name("emulation.cpp")
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")


def build(out, *flags, kernels=KERNELS):
    """Compiles the emulation; returns `out`."""
    command = ["c++", "-std=c++17", "-O2", "-ffp-contract=off", "-pthread"]
    command += [f"-I{kernels}", f"-I{kernels}/cuda", *flags, SOURCE, "-o", out]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return out


@functools.cache
def _library():
    """Built once for all workers; its folder is named by the bytes that it is built from."""
    digest = hashlib.sha256(SOURCE.read_bytes())
    for path in sorted(KERNELS.rglob("*.h")) + sorted(KERNELS.rglob("*.cu")):
        digest.update(path.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"fwi-refine-{os.getuid()}-{digest.hexdigest()[:16]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / "emulation.so"
    with FileLock(folder / "lock"):
        if not library.exists():
            build(folder / "new.so", "-fPIC", "-shared").rename(library)
    return open_library(library)


def open_library(path):
    library = ctypes.CDLL(str(path))
    library.emulate.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.POINTER(_Launch)]
    library.size_of_call.restype = ctypes.c_size_t
    return library


class _Launch(ctypes.Structure):
    """`Launch` of emulation.cpp."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("bits", "side", "halo", "tasks", "blocks")),
        *((name, ctypes.c_int) for name in ("threads", "shared")),
        ("bytes", ctypes.c_size_t),
    ]


class Emulation:
    """A program as `BlockKernel` wants it, for one layout, with single columns where it must."""

    name = "cuda emulation"
    identity = None

    def __init__(self, layout: Layout, library=None, device="cpu"):
        self.device = torch.device(device)
        self._layout = layout
        self._library = library or _library()
        self.launches = []  # (kernel, tasks)
        self.released = 0

    def layout(self, kernel, survey, dtype):
        return replace(self._layout, side=min(self._layout.side, side(survey)))

    def launch(self, kernel, layout, survey, dtype, call, tasks):
        assert self._library.size_of_call() == ctypes.sizeof(call)
        self.launches.append((kernel, tasks))
        how = _Launch(
            bits=8 * dtype.itemsize,
            side=layout.side,
            halo=layout.halo,
            tasks=tasks,
            blocks=layout.blocks,
            threads=layout.threads,
            shared=layout.shared,
            bytes=layout.memory(survey.padded_shape, FIELDS[kernel], dtype.itemsize),
        )
        assert not self._library.emulate(kernel.encode(), ctypes.byref(call), how)

    def release(self):
        assert sys.exception() is None  # it would hold on to what is to be given back
        self.released += 1


def emulate(simulator, layout, *, library=None, memory=None):
    """Puts the emulated kernel in the place of the one that the simulator has; returns it."""
    kernel = simulator._kernel
    every = getattr(kernel, "_every", None) or kernel._sizes["every"]
    program = Emulation(layout, library)
    simulator._make = lambda dtype: BlockKernel(simulator.survey, dtype, every, program, memory)
    simulator._kernel = simulator._make(simulator.dtype)
    return simulator
