"""The compiled CPU kernel (kernels/cpu/wave.c), called through its library (cpu_library.py).

The functions here take and return arrays on the padded grid, as reference.py does; the two are
interchangeable (see simulator.py).
"""

import ctypes
import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fwi_refine.survey import Survey
from fwi_refine.wave import released_arithmetic
from fwi_refine.wave.cpu_library import load
from fwi_refine.wave.kernel import check_call, check_kernel, check_out
from fwi_refine.wave.threads import number_of_threads

INSTRUCTION_SETS = ("baseline", "avx2", "avx512")
STATUS_TEXT = {
    1: "out of memory in the compiled wave kernel",
    2: "velocity is not finite and positive, or too high for the time step",
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


class _Forks:
    """Whether this process was forked from one that ever had kernels, and the kernels in it.

    A fork takes no threads along but its own. OpenMP, torch's as well, would wait for ever for
    those of its pool, and a kernel for another thread that had its lock.
    """

    def __init__(self) -> None:
        self.happened = False
        self._any = False  # the threads of a kernel stay when it has gone
        self.kernels: weakref.WeakSet[NativeKernel] = weakref.WeakSet()

    def add(self, kernel: "NativeKernel") -> None:
        """Tells of a new kernel."""
        self._any = True
        self.kernels.add(kernel)

    def note(self) -> None:
        """In the child: one thread from now on, and locks that nobody has."""
        if not self._any:
            return
        self.happened = True
        torch.set_num_threads(1)
        for kernel in self.kernels:
            kernel._lock = threading.Lock()


_forks = _Forks()
if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
    os.register_at_fork(after_in_child=_forks.note)


class NativeKernel:
    """The compiled kernel for one survey and one precision: a `kernel.Kernel`.

    After a fork it computes in the calling thread alone.

    Parameters
    ----------
    survey : Survey
        The survey.
    dtype : torch.dtype
        float32 or float64.
    threads : int
        Most threads of the CPU.
    every : int
        Steps between two wavefields that a gradient correlates.
    narrow : bool
        False: compute every cell at every step.

    Raises
    ------
    RuntimeError
        Where the kernel was not built.
    """

    def __init__(
        self, survey: Survey, dtype: torch.dtype, threads: int, every: int, narrow: bool = True
    ):
        check_kernel(dtype, every)
        library = load()
        if library is None:
            raise RuntimeError("the compiled wave kernel is not available: reinstall fwi-refine")
        self._library = library
        self.name = f"native {INSTRUCTION_SETS[self._library.fwi_best_isa()]}"
        if not self._library.fwi_has_openmp():
            self.name += " without OpenMP"
        self._survey, self._dtype = survey, dtype
        self._threads = number_of_threads(threads)
        self._scratch: torch.Tensor | None = None
        self._lock = threading.Lock()  # one call at a time may use the scratch memory
        _forks.add(self)
        self._suffix = {torch.float32: "f32", torch.float64: "f64"}[dtype]
        # ctypes keeps only addresses: these arrays must live as long as the kernel
        self._arrays: dict[str, np.ndarray[Any, Any]] = {
            "sources": survey.padded_index(survey.sources),
            "receivers": survey.padded_index(survey.receivers),
            "wavelet": np.ascontiguousarray(survey.wavelet * survey.spacing**2),
            "damping_row": np.ascontiguousarray(survey.damping[0]),
            "damping_col": np.ascontiguousarray(survey.damping[1]),
        }
        rows, cols = survey.padded_shape
        self._trace_shape = survey.record_shape
        self._sizes: dict[str, int] = {
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

    def forward(self, alpha: torch.Tensor, vmin: torch.Tensor) -> torch.Tensor:
        """Records, (B, shots, n_steps, receivers)."""
        check_call(self._survey, alpha, vmin)
        record = self._empty(alpha.shape[0], *self._trace_shape)
        self._run("forward", alpha, [self._in(alpha), self._in64(vmin), record])
        return record

    def wavefields(
        self, alpha: torch.Tensor, vmin: torch.Tensor, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """p[every], p[2 every], ... before the last step, (B, shots, frames, rows, cols)."""
        check_call(self._survey, alpha, vmin, every=self._sizes["every"])
        frames, stride, offset = (ctypes.c_int32() for _ in range(3))
        layout = map(ctypes.byref, (self._call(alpha), frames, stride, offset))
        self._library.fwi_frame_layout(*layout)
        samples, rows, cols = alpha.shape
        shape = (samples, self._trace_shape[0], frames.value, rows, stride.value)
        check_out(out, (*shape[:-1], cols), self._dtype, torch.device("cpu"))
        # what is zero is not written
        if out is None:
            fields = torch.zeros(shape, dtype=self._dtype)
        else:
            fields = self._whole(out, shape, offset.value).zero_()
        self._run("fields", alpha, [self._in(alpha), self._in64(vmin), fields])
        return fields[..., offset.value : offset.value + cols]

    @staticmethod
    def _whole(out: torch.Tensor, shape: tuple[int, ...], offset: int) -> torch.Tensor:
        """The memory that an earlier result was cut from. Raises ValueError for what is none."""
        strides = torch.empty(shape, device="meta").stride()
        begin = out.storage_offset() - offset
        used = begin + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + 1
        same = out.stride() == strides or (len(out) == 1 and out.stride()[1:] == strides[1:])
        if not same or begin < 0 or used * out.itemsize > out.untyped_storage().nbytes():
            raise ValueError("out: expected an earlier result, or one sample of it and first shots")
        return out.as_strided(shape, strides, begin)

    def tangent(
        self, alpha: torch.Tensor, vmin: torch.Tensor, dalpha: torch.Tensor, dvmin: torch.Tensor
    ) -> torch.Tensor:
        """Change of the records, to first order, for a change of alpha and of vmin."""
        check_call(self._survey, alpha, vmin, dalpha=dalpha, dvmin=dvmin)
        record = self._empty(alpha.shape[0], *self._trace_shape)
        inputs = [self._in(alpha), self._in64(vmin), self._in(dalpha), self._in64(dvmin)]
        self._run("tangent", alpha, [*inputs, record])
        return record

    def adjoint(
        self, alpha: torch.Tensor, vmin: torch.Tensor, u: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient of sum(u * record) by alpha, (B, rows, cols), and by vmin, (B,) float64."""
        check_call(self._survey, alpha, vmin, data=u, every=self._sizes["every"])
        gradient, by_vmin = self._gradients(alpha)
        inputs = [self._in(alpha), self._in64(vmin), self._in(u)]
        self._run("adjoint", alpha, [*inputs, FRAMES, gradient, by_vmin])
        return gradient.sum(1), by_vmin.sum(1)

    def misfit(
        self, alpha: torch.Tensor, vmin: torch.Tensor, data: torch.Tensor, gradient: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """sum((record - data)^2), (B,) float64, and its gradients where gradient is true."""
        every = self._sizes["every"] if gradient else None
        check_call(self._survey, alpha, vmin, data=data, every=every)
        value = torch.empty(alpha.shape[0], self._trace_shape[0], dtype=torch.float64)
        inputs = [self._in(alpha), self._in64(vmin), self._in(data)]
        if not gradient:
            self._run("misfit", alpha, [*inputs, None, value, None, None])
            return value.sum(1), None, None
        by_alpha, by_vmin = self._gradients(alpha)
        self._run("misfit", alpha, [*inputs, FRAMES, value, by_alpha, by_vmin])
        return value.sum(1), by_alpha.sum(1), by_vmin.sum(1)

    def released(
        self, alpha: torch.Tensor, vmin: torch.Tensor, strength: torch.Tensor
    ) -> torch.Tensor:
        """Records in released arithmetic; strength: (B, shots), of the sources."""
        check_call(self._survey, alpha, vmin, strength=strength, single=self._dtype)
        record = self._empty(alpha.shape[0], *self._trace_shape)
        self._released(alpha, vmin, strength, None, None, False, record)
        return record

    def first_differences(
        self,
        alpha: torch.Tensor,
        vmin: torch.Tensor,
        strength: torch.Tensor,
        data: torch.Tensor,
        stop: bool,
    ) -> torch.Tensor:
        """(B, shots, receivers) first step in which such a record is not the data."""
        check_call(self._survey, alpha, vmin, strength=strength, data=data, single=self._dtype)
        shots, _, receivers = self._trace_shape
        found = torch.empty(alpha.shape[0], shots, receivers, dtype=torch.int32)
        self._released(alpha, vmin, strength, self._in(data), found, stop, None)
        return found

    def _released(
        self,
        alpha: torch.Tensor,
        vmin: torch.Tensor,
        strength: torch.Tensor,
        data: torch.Tensor | None,
        differs: torch.Tensor | None,
        stop: bool,
        record: torch.Tensor | None,
    ) -> None:
        pulses = released_arithmetic.pulses(self._in(strength), self._survey)
        inputs = [self._in(alpha), self._in64(vmin), pulses, data, differs]
        self._run("released", alpha, [*inputs, ctypes.c_int(stop), record])

    def _empty(self, *shape: int) -> torch.Tensor:
        return torch.empty(*shape, dtype=self._dtype)

    def _gradients(self, alpha: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One gradient per shot: they are summed in a fixed order, whichever thread made them."""
        samples, rows, cols = alpha.shape
        shots = self._trace_shape[0]
        return self._empty(samples, shots, rows, cols), torch.empty(
            samples, shots, dtype=torch.float64
        )

    def _in(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to("cpu", self._dtype).contiguous()

    def _in64(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to("cpu", torch.float64).contiguous()

    def _call(self, alpha: torch.Tensor) -> _CpuCall:
        tasks = alpha.shape[0] * self._sizes["shots"]
        return _CpuCall(
            samples=alpha.shape[0],
            # each has scratch memory of its own
            threads=1 if _forks.happened else min(self._threads, tasks),
            **self._sizes,
            **{name: array.ctypes.data for name, array in self._arrays.items()},
        )

    def _run(self, function: str, alpha: torch.Tensor, tensors: Sequence[Any]) -> None:
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

    def _frames(self, call: _CpuCall) -> torch.Tensor:
        """Scratch for wavefields, kept: touching fresh memory costs a quarter of a gradient."""
        size = self._library.fwi_frame_bytes(
            ctypes.byref(call), ctypes.c_size_t(self._dtype.itemsize)
        )
        if self._scratch is None or self._scratch.numel() < size:
            self._scratch = torch.empty(size, dtype=torch.uint8)
        return self._scratch
