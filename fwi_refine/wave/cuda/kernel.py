"""The caller's side of kernels/cuda/blocks.h: shapes, memory and what is launched.

A `program` launches the kernels: `program.Program` on a GPU, an emulation in the tests. Everything
here stays on the program's device; torch owns the memory.
"""

import ctypes
import functools
from typing import Any, Protocol

import torch

from fwi_refine.survey import Survey
from fwi_refine.wave.cuda.layout import FIELDS, Layout
from fwi_refine.wave.deterministic import in_order
from fwi_refine.wave.kernel import check_call, check_kernel, check_out
from fwi_refine.wave.parts import OnDevice, Parts
from fwi_refine.wave.released_arithmetic import first_unequal

ALIGNMENT = 16  # bytes, of what a thread reads or writes at once
MAX_TASKS = 65535  # shots of one launch, as CUDA limits a grid


class _CudaCall(ctypes.Structure):
    """`Call` of kernels/cuda/call.h."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("rows", "cols", "margin", "map_rows", "map_cols")),
        *((name, ctypes.c_int32) for name in ("block_rows", "strip_rows", "width", "threads")),
        *((name, ctypes.c_int32) for name in ("shots", "n_receivers", "n_steps", "every")),
        ("first_task", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("sources", "receivers", "order", "owned")),
        *((name, ctypes.c_void_p) for name in ("wavelet", "strength", "alpha", "dalpha")),
        ("column_decay", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in ("row_kappa", "relative_vmin", "data", "fields")),
        *((name, ctypes.c_void_p) for name in ("frames", "record", "gradient", "sums")),
    ]


class Launcher(Protocol):
    """Launches the kernels: `program.Program` on a GPU."""

    name: str
    device: torch.device
    identity: str | None  # see identity.py; None needs no self-test

    def layout(self, kernel: str, survey: Survey, dtype: torch.dtype) -> Layout:
        """How a kernel spreads a shot over threads."""
        ...

    def launch(
        self,
        kernel: str,
        layout: Layout,
        survey: Survey,
        dtype: torch.dtype,
        call: ctypes.Structure,
        tasks: int,
    ) -> None:
        """Starts a kernel for some shots."""
        ...

    def release(self) -> None:
        """Gives memory back that is kept for later."""
        ...


Tensors = dict[str, torch.Tensor]


class BlockKernel(OnDevice):
    """The GPU's kernels for one survey and one precision: a `kernel.Kernel`.

    Shots that do not fit into memory are done in parts, each half as many as before when memory
    runs out: that changes no bit of the result. Every cell is computed at every step. Several
    threads may use one object; nothing is put on the device before it is used.

    Parameters
    ----------
    survey, dtype, every, memory
        As for `OnDevice`.
    program : Launcher
        What launches the kernels.
    """

    def __init__(
        self,
        survey: Survey,
        dtype: torch.dtype,
        every: int,
        program: Launcher,
        memory: int | None = None,
    ):
        check_kernel(dtype, every)
        self.name = program.name
        super().__init__(survey, dtype, every, program.device, memory)
        self._program = program
        self._parts = Parts(MAX_TASKS, program.release)
        self._prepared: dict[
            str, tuple[Layout, Tensors]
        ] = {}  # kernel -> its layout and what depends on it

    def forward(self, alpha: torch.Tensor, vmin: torch.Tensor) -> torch.Tensor:
        """Records, (B, shots, n_steps, receivers)."""
        check_call(self._survey, alpha, vmin)
        return self._records("forward", *self._medium(alpha, vmin))

    def released(
        self, alpha: torch.Tensor, vmin: torch.Tensor, strength: torch.Tensor
    ) -> torch.Tensor:
        """Records in released arithmetic; strength: (B, shots), of the sources."""
        check_call(self._survey, alpha, vmin, strength=strength, single=self._dtype)
        medium, tasks = self._medium(alpha, vmin)
        medium["column_decay"] = self._cast(self._vmin(vmin) * self._damping[1])
        medium["strength"] = self._cast(strength)
        medium["wavelet"] = self._wavelet_as(torch.float32)
        return self._records("released", medium, tasks)

    def first_differences(
        self,
        alpha: torch.Tensor,
        vmin: torch.Tensor,
        strength: torch.Tensor,
        data: torch.Tensor,
        stop: bool,
    ) -> torch.Tensor:
        """(B, shots, receivers) first step in which such a record is not the data."""
        del stop  # a record is one launch
        check_call(self._survey, alpha, vmin, data=data)
        return first_unequal(self.released(alpha, vmin, strength), self._cast(data))

    def wavefields(
        self, alpha: torch.Tensor, vmin: torch.Tensor, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """p[every], p[2 every], ... before the last step, (B, shots, frames, rows, cols)."""
        check_call(self._survey, alpha, vmin, every=self._every)
        medium, tasks = self._medium(alpha, vmin)
        shape = (len(alpha), len(self._survey.sources), self._frames, *self._survey.padded_shape)
        check_out(out, shape, self._dtype, self._device)
        if out is None:
            out = self._empty(*shape)
        elif not out.is_contiguous() or out.data_ptr() % ALIGNMENT:
            raise ValueError(f"out: expected it contiguous and aligned to {ALIGNMENT} bytes")
        frames = out.view(tasks, *shape[2:])
        self._parts.run(tasks, lambda part: self._launch("forward", medium, part, frames=frames))
        return out

    def tangent(
        self, alpha: torch.Tensor, vmin: torch.Tensor, dalpha: torch.Tensor, dvmin: torch.Tensor
    ) -> torch.Tensor:
        """Change of the records, to first order, for a change of alpha and of vmin."""
        check_call(self._survey, alpha, vmin, dalpha=dalpha, dvmin=dvmin)
        medium, tasks = self._medium(alpha, vmin)
        medium["dalpha"] = self._map(dalpha)
        vmin, dvmin = (x.to(self._device, torch.float64) for x in (vmin, dvmin))
        medium["relative_vmin"] = (dvmin / vmin).to(self._dtype)
        return self._records("tangent", medium, tasks)

    def adjoint(
        self, alpha: torch.Tensor, vmin: torch.Tensor, u: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient of sum(u * record) by alpha, (B, rows, cols), and by vmin, (B,) float64."""
        check_call(self._survey, alpha, vmin, data=u, every=self._every)
        medium, tasks = self._medium(alpha, vmin)
        u, image = self._traces(u), self._image(tasks)

        def work(part: range) -> None:
            frames = self._kept(part)
            self._launch("forward", medium, part, frames=frames)
            self._launch("adjoint", medium, part, frames=frames, data=u, **image)

        self._parts.run(tasks, work)
        return self._gradients(image, vmin)

    def misfit(
        self, alpha: torch.Tensor, vmin: torch.Tensor, data: torch.Tensor, gradient: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """sum((record - data)^2), (B,) float64, and its gradients where gradient is true."""
        check_call(self._survey, alpha, vmin, data=data, every=self._every if gradient else None)
        medium, tasks = self._medium(alpha, vmin)
        data, squares = self._traces(data), self._sums(tasks, "forward")
        image = self._image(tasks) if gradient else None

        def work(part: range) -> None:
            if image is None:
                self._launch("forward", medium, part, data=data, sums=squares)
                return
            frames, twice = self._kept(part), self._empty(len(part), *data.shape[1:])
            self._launch(
                "forward", medium, part, data=data, sums=squares, frames=frames, record=twice
            )
            self._launch("adjoint", medium, part, frames=frames, data=twice, **image)

        self._parts.run(tasks, work)
        value = in_order(self._by_sample(squares).flatten(1))
        return (value, None, None) if image is None else (value, *self._gradients(image, vmin))

    def _records(self, kernel: str, medium: Tensors, tasks: int) -> torch.Tensor:
        """The records that a kernel writes, by sample."""
        record = self._empty(tasks, *self._survey.record_shape[1:])
        self._parts.run(tasks, lambda part: self._launch(kernel, medium, part, record=record))
        return self._by_sample(record)

    def _launch(self, kernel: str, medium: Tensors, part: range, **by_task: torch.Tensor) -> None:
        """Launches for a range of tasks. Arrays of its length belong to it, longer ones to all."""
        layout, tensors = self._prepare(kernel)
        rows, cols = self._survey.padded_shape
        tensors = {**tensors, **medium}
        if not layout.shared:
            rows += 2 * layout.halo
            tensors["fields"] = self._empty(len(part), FIELDS[kernel], rows, cols)
        for name, tensor in by_task.items():
            tensors[name] = tensor if len(tensor) == len(part) else tensor[part.start :]
        call = _CudaCall(
            **layout.constants(self._survey),
            shots=len(self._survey.sources),
            n_receivers=len(self._survey.receivers),
            n_steps=self._survey.n_steps,
            every=self._every,
            first_task=part.start,
            **{name: tensor.data_ptr() for name, tensor in tensors.items()},
        )
        self._program.launch(kernel, layout, self._survey, self._dtype, call, len(part))

    def _prepare(self, kernel: str) -> tuple[Layout, Tensors]:
        """A kernel's layout, and the receivers in the order of the threads that have them."""
        if kernel not in self._prepared:
            shape = self._survey.padded_shape
            layout = self._program.layout(kernel, self._survey, self._dtype)
            points = self._survey.padded_index(self._survey.receivers)
            owners = torch.tensor([layout.owner(shape, *point) for point in points.tolist()])
            owners, order = owners.long().sort(stable=True)
            threads = torch.arange(layout.blocks * layout.threads + 1)
            self._prepared[kernel] = (
                layout,
                {
                    "sources": self._integers(self._survey.padded_index(self._survey.sources)),
                    "wavelet": self._wavelet_as(torch.float64) * self._survey.spacing**2,
                    "receivers": self._integers(points[order.numpy()]),
                    "order": self._integers(order),
                    "owned": self._integers(torch.searchsorted(owners, threads)),
                },
            )
        return self._prepared[kernel]

    def _medium(self, alpha: torch.Tensor, vmin: torch.Tensor) -> tuple[Tensors, int]:
        """(tensors of the medium, number of tasks)."""
        alpha = self._map(alpha)
        vmin = self._vmin(vmin)
        by_row, by_column = self._damping
        medium = {
            "alpha": alpha,
            "column_decay": self._cast(1 - vmin * by_column),
            "row_kappa": self._cast(torch.nn.functional.pad(vmin * by_row, (0, 1))),
        }
        return medium, len(alpha) * len(self._survey.sources)

    def _vmin(self, vmin: torch.Tensor) -> torch.Tensor:
        return vmin.detach().to(self._device, torch.float64)[:, None]

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to(self._device, self._dtype).contiguous()

    def _map(self, padded: torch.Tensor) -> torch.Tensor:
        """The map, (B, nz, nx), with a layout's `side` columns more on both sides: the band repeats
        its edges, and the kernel knows that."""
        margin, (nz, nx) = self._survey.absorbing_cells, self._survey.shape
        side = self._prepare("forward")[0].side  # every kernel's
        inside = padded.detach()[:, margin : margin + nz, margin : margin + nx]
        left, right = inside[..., :1], inside[..., -1:]
        wider = torch.cat([*side * [left], inside, *side * [right]], dim=2)
        return wider.to(self._device, self._dtype).contiguous()

    def _traces(self, records: torch.Tensor) -> torch.Tensor:
        records = records.detach().to(self._device, self._dtype).contiguous()
        return records.view(-1, *self._survey.record_shape[1:])

    def _wavelet_as(self, dtype: torch.dtype) -> torch.Tensor:
        """The wavelet as it is in a precision, float64."""
        wavelet = torch.from_numpy(self._survey.wavelet).to(dtype).double()
        return wavelet.to(self._device)

    @functools.cached_property
    def _damping(self) -> list[torch.Tensor]:
        return [torch.from_numpy(d).to(self._device) for d in self._survey.damping]

    def _image(self, tasks: int) -> Tensors:
        gradient = self._empty(tasks, *self._survey.padded_shape)
        return {"gradient": gradient, "sums": self._sums(tasks, "adjoint")}

    def _sums(self, tasks: int, kernel: str) -> torch.Tensor:
        blocks = self._prepare(kernel)[0].blocks
        return torch.empty(tasks, blocks, dtype=torch.float64, device=self._device)

    def _gradients(self, image: Tensors, vmin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        vmin = vmin.detach().to(self._device, torch.float64)
        damped = in_order(self._by_sample(image["sums"]).flatten(1))
        return in_order(self._by_sample(image["gradient"])), damped / vmin

    def _integers(self, values: Any) -> torch.Tensor:
        return torch.as_tensor(values).to(self._device, torch.int32).contiguous()
