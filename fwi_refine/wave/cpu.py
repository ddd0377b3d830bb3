"""Finds, loads and calls the compiled CPU kernel (kernels/cpu/wave.c), built when the package is
installed. Where it is missing, `load` returns None and the caller falls back to reference.py.

The functions here take and return arrays on the padded grid, as reference.py does; the two are
interchangeable (see simulator.py).
"""

import ctypes
import functools
import importlib.machinery
import os
import threading
from pathlib import Path

import numpy as np
import torch

from fwi_refine.survey import Survey
from fwi_refine.wave import released_arithmetic

INSTRUCTION_SETS = ("baseline", "avx2", "avx512")
STATUS_TEXT = {
    1: "out of memory in the compiled wave kernel",
    2: "velocity is not finite and positive, or too high for the time step (v dt / dx must be < 1)",
}


FRAMES = object()  # stands for the scratch memory in a list of arguments


class _CpuCall(ctypes.Structure):
    """`Call` of kernels/cpu/wave.c."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("rows", "cols", "samples", "shots")),
        *((name, ctypes.c_int32) for name in ("n_receivers", "n_steps", "every", "threads")),
        *((name, ctypes.c_int32) for name in ("margin", "narrow", "isa")),
        *((name, ctypes.c_void_p) for name in ("sources", "receivers", "wavelet")),
        *((name, ctypes.c_void_p) for name in ("damping_row", "damping_col")),
    ]


def library_path() -> Path | None:
    """Path of the built kernel, or None when the package was installed without a compiler."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name("_kernel" + suffix)
        if path.exists():
            return path
    return None


@functools.cache
def load() -> ctypes.CDLL | None:
    """The kernel's library, or None when it was not built or cannot be loaded."""
    path = library_path()
    if path is None or os.environ.get("FWI_REFINE_KERNEL") == "reference":
        return None
    try:
        return open_library(path)
    except OSError:
        return None


def open_library(path) -> ctypes.CDLL:
    """A kernel's library with its types declared. Raises OSError where it cannot be loaded."""
    library = ctypes.CDLL(str(path))
    library.fwi_frame_bytes.restype = ctypes.c_size_t
    return library


class NativeKernel:
    """The compiled kernel for one survey and one precision.

    Every method takes alpha = (v dt / dx)^2 on the padded grid, (B, rows, cols), and vmin, (B,)
    m/s, and raises ValueError where the kernel refuses a velocity.
    """

    def __init__(self, survey: Survey, dtype: torch.dtype, threads: int, every: int, narrow=True):
        self._library = load()
        if self._library is None:
            raise RuntimeError("the compiled wave kernel is not available: reinstall fwi-refine")
        self.name = f"native {INSTRUCTION_SETS[self._library.fwi_best_isa()]}"
        if not self._library.fwi_has_openmp():
            self.name += " without OpenMP"
        self._survey, self._dtype = survey, dtype
        self._threads = threads
        self._scratch = None
        self._lock = threading.Lock()  # one call at a time may use the scratch memory
        self._suffix = {torch.float32: "f32", torch.float64: "f64"}[dtype]
        # ctypes keeps only addresses: these arrays must live as long as the kernel
        self._arrays = {
            "sources": survey.padded_index(survey.sources),
            "receivers": survey.padded_index(survey.receivers),
            "wavelet": np.ascontiguousarray(survey.wavelet * survey.spacing**2),
            "damping_row": np.ascontiguousarray(survey.damping[0]),
            "damping_col": np.ascontiguousarray(survey.damping[1]),
        }
        rows, cols = survey.padded_shape
        self._trace_shape = survey.record_shape
        self._sizes = {
            "rows": rows,
            "cols": cols,
            "shots": len(survey.sources),
            "n_receivers": len(survey.receivers),
            "n_steps": survey.n_steps,
            "every": every,
            "margin": survey.absorbing_cells,
            "narrow": int(narrow),
            "isa": self._library.fwi_best_isa(),
        }

    def forward(self, alpha, vmin):
        """Records, (B, shots, steps, receivers)."""
        record = self._empty(alpha.shape[0], *self._trace_shape)
        self._run("forward", alpha, [self._in(alpha), self._in64(vmin), record])
        return record

    def wavefields(self, alpha, vmin, out=None):
        """p[every], p[2 every], ... before the last step, (B, shots, frames, rows, cols)."""
        frames, stride, offset = (ctypes.c_int32() for _ in range(3))
        layout = map(ctypes.byref, (self._call(alpha), frames, stride, offset))
        self._library.fwi_frame_layout(*layout)
        samples, rows, cols = alpha.shape
        shape = (samples, self._trace_shape[0], frames.value, rows, stride.value)
        # what is zero is not written
        if out is None:
            fields = torch.zeros(shape, dtype=self._dtype)
        elif tuple(out.shape) == (*shape[:-1], cols) and out.dtype == self._dtype:
            fields = out.zero_().as_strided(shape, out.stride(), 0)
        else:
            raise ValueError(
                f"out of shape {tuple(out.shape)} and {out.dtype}: expected "
                f"{(*shape[:-1], cols)} and {self._dtype}"
            )
        self._run("fields", alpha, [self._in(alpha), self._in64(vmin), fields])
        return fields[..., offset.value : offset.value + cols]

    def tangent(self, alpha, vmin, dalpha, dvmin):
        """Change of the records, to first order, for a change of alpha and of vmin."""
        record = self._empty(alpha.shape[0], *self._trace_shape)
        inputs = [self._in(alpha), self._in64(vmin), self._in(dalpha), self._in64(dvmin)]
        self._run("tangent", alpha, [*inputs, record])
        return record

    def adjoint(self, alpha, vmin, u):
        """Gradient of sum(u * record) by alpha, (B, rows, cols), and by vmin, (B,) float64."""
        gradient, by_vmin = self._gradients(alpha.shape)
        inputs = [self._in(alpha), self._in64(vmin), self._in(u)]
        self._run("adjoint", alpha, [*inputs, FRAMES, gradient, by_vmin])
        return gradient.sum(1), by_vmin.sum(1)

    def misfit(self, alpha, vmin, data, gradient):
        """sum((record - data)^2), (B,) float64, and its gradients where gradient is true."""
        value = torch.empty(alpha.shape[0], self._trace_shape[0], dtype=torch.float64)
        by_alpha, by_vmin = self._gradients(alpha.shape) if gradient else (None, None)
        inputs = [self._in(alpha), self._in64(vmin), self._in(data)]
        frames = FRAMES if gradient else None
        self._run("misfit", alpha, [*inputs, frames, value, by_alpha, by_vmin])
        if not gradient:
            return value.sum(1), None, None
        return value.sum(1), by_alpha.sum(1), by_vmin.sum(1)

    def released(self, alpha, vmin, strength):
        """Records in released arithmetic; strength: (B, shots), of the sources."""
        record = self._empty(alpha.shape[0], *self._trace_shape)
        self._released(alpha, vmin, strength, None, None, False, record)
        return record

    def first_differences(self, alpha, vmin, strength, data, stop):
        """(B, shots, receivers) first step in which such a record is not the data."""
        shots, _, receivers = self._trace_shape
        found = torch.empty(alpha.shape[0], shots, receivers, dtype=torch.int32)
        self._released(alpha, vmin, strength, self._in(data), found, stop, None)
        return found

    def _released(self, alpha, vmin, strength, data, differs, stop, record):
        pulses = released_arithmetic.pulses(self._in(strength), self._survey)
        inputs = [self._in(alpha), self._in64(vmin), pulses, data, differs]
        self._run("released", alpha, [*inputs, ctypes.c_int(stop), record])

    def _empty(self, *shape):
        return torch.empty(*shape, dtype=self._dtype)

    def _gradients(self, alpha_shape):
        """One gradient per shot: they are summed in a fixed order, whichever thread made them."""
        samples, rows, cols = alpha_shape
        shots = self._trace_shape[0]
        return self._empty(samples, shots, rows, cols), torch.empty(
            samples, shots, dtype=torch.float64
        )

    def _in(self, tensor):
        return tensor.detach().to("cpu", self._dtype).contiguous()

    def _in64(self, tensor):
        return tensor.detach().to("cpu", torch.float64).contiguous()

    def _call(self, alpha):
        tasks = alpha.shape[0] * self._sizes["shots"]
        return _CpuCall(
            samples=alpha.shape[0],
            threads=min(self._threads, tasks),  # each has scratch memory of its own
            **self._sizes,
            **{name: array.ctypes.data for name, array in self._arrays.items()},
        )

    def _run(self, function, alpha, tensors):
        call = self._call(alpha)
        entry = getattr(self._library, f"fwi_{function}_{self._suffix}")
        with self._lock:
            tensors = [self._frames(call) if t is FRAMES else t for t in tensors]
            pointers = [
                ctypes.c_void_p(t.data_ptr()) if isinstance(t, torch.Tensor) else t for t in tensors
            ]
            status = entry(ctypes.byref(call), *pointers)
        if status:
            error = MemoryError if status == 1 else ValueError
            raise error(STATUS_TEXT[status])

    def _frames(self, call):
        """Scratch for wavefields, kept: touching fresh memory costs a quarter of a gradient."""
        size = self._library.fwi_frame_bytes(
            ctypes.byref(call), ctypes.c_size_t(self._dtype.itemsize)
        )
        if self._scratch is None or self._scratch.numel() < size:
            self._scratch = torch.empty(size, dtype=torch.uint8)
        return self._scratch
