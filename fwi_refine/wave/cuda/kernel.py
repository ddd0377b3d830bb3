"""The caller's side of kernels/cuda/blocks.h: shapes, memory and what is launched.

A `program` launches the kernels: `program.Program` on a GPU, an emulation in the tests. Everything
here stays on the program's device; torch owns the memory.
"""

import ctypes
import functools
import math

import torch

from fwi_refine.survey import Survey
from fwi_refine.wave.cuda.layout import FIELDS
from fwi_refine.wave.deterministic import in_order
from fwi_refine.wave.released_arithmetic import first_unequal

ALIGNMENT = 16  # bytes, of what a thread reads or writes at once
LEAST_SHAPE = 3, 2  # rows and columns of a grid that wraps around but once in the kernels
MOST_TASKS = 65535  # shots of one launch, as CUDA limits a grid


class _CudaCall(ctypes.Structure):
    """`Call` of kernels/cuda/call.h."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("rows", "cols", "margin", "map_rows", "map_cols")),
        *((name, ctypes.c_int32) for name in ("block_rows", "strip_rows", "width", "threads")),
        *((name, ctypes.c_int32) for name in ("shots", "n_receivers", "n_steps", "every")),
        ("first_task", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("sources", "receivers", "places", "owned")),
        *((name, ctypes.c_void_p) for name in ("wavelet", "strength", "alpha", "dalpha")),
        ("column_decay", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in ("row_kappa", "relative_vmin", "data", "fields")),
        *((name, ctypes.c_void_p) for name in ("frames", "record", "gradient", "sums")),
    ]


class BlockKernel:
    """The kernels of one survey and one precision: the interface of `cpu.NativeKernel`.

    program: has `name`, `device`, `layout(kernel, survey, dtype)`, `launch(kernel, layout, survey,
    dtype, call, tasks)` and `release()`. memory: most bytes of wavefields that are kept at a
    time, None for what the device has. Shots that do not fit are done in parts, each half as many
    as before when memory runs out: that changes no bit of the result. Every cell is computed at
    every step. Several threads may use one object; nothing is put on the device before it is used.
    Raises ValueError for a grid of fewer than three rows or two columns.
    """

    def __init__(self, survey: Survey, dtype: torch.dtype, every: int, program, memory=None):
        if any(n < least for n, least in zip(survey.padded_shape, LEAST_SHAPE, strict=True)):
            raise ValueError(
                f"a grid of {survey.padded_shape} cells: expected {LEAST_SHAPE} or more"
            )
        self.name = program.name
        self._program, self._dtype, self._memory = program, dtype, memory
        self._device = program.device
        self._survey, self._every = survey, every
        self._most = MOST_TASKS  # tasks that have fitted so far
        self._prepared = {}  # kernel -> its layout and what depends on it

    def forward(self, alpha, vmin):
        """Records, (B, shots, steps, receivers)."""
        return self._records("forward", *self._medium(alpha, vmin))

    def released(self, alpha, vmin, strength):
        """Records in released arithmetic; strength: (B, shots), of the sources."""
        medium, tasks = self._medium(alpha, vmin)
        medium["column_decay"] = self._cast(self._vmin(vmin) * self._damping[1])
        medium["strength"] = self._cast(strength)
        medium["wavelet"] = self._wavelet_as(torch.float32)
        return self._records("released", medium, tasks)

    def first_differences(self, alpha, vmin, strength, data, stop):
        """(B, shots, receivers) first step in which such a record is not the data."""
        del stop  # a record is one launch
        return first_unequal(self.released(alpha, vmin, strength), data.to(self._device))

    def wavefields(self, alpha, vmin, out=None):
        """p[every], p[2 every], ... before the last step, (B, shots, frames, rows, cols)."""
        medium, tasks = self._medium(alpha, vmin)
        shape = (len(alpha), len(self._survey.sources), self._frames, *self._survey.padded_shape)
        if out is None:
            out = self._empty(*shape)
        elif (
            (tuple(out.shape), out.dtype, out.device) != (shape, self._dtype, self._device)
            or not out.is_contiguous()
            or out.data_ptr() % ALIGNMENT
        ):
            raise ValueError(
                f"out of shape {tuple(out.shape)} and {out.dtype} on {out.device}: expected "
                f"{shape} and {self._dtype} on {self._device}, contiguous and aligned"
            )
        frames = out.view(tasks, *shape[2:])
        self._in_parts(tasks, lambda part: self._launch("forward", medium, part, frames=frames))
        return out

    def tangent(self, alpha, vmin, dalpha, dvmin):
        """Change of the records, to first order, for a change of alpha and of vmin."""
        medium, tasks = self._medium(alpha, vmin)
        medium["dalpha"] = self._map(dalpha)
        vmin, dvmin = (x.to(self._device, torch.float64) for x in (vmin, dvmin))
        medium["relative_vmin"] = (dvmin / vmin).to(self._dtype)
        return self._records("tangent", medium, tasks)

    def adjoint(self, alpha, vmin, u):
        """Gradient of sum(u * record) by alpha, (B, rows, cols), and by vmin, (B,) float64."""
        medium, tasks = self._medium(alpha, vmin)
        u, image = self._traces(u), self._image(tasks)

        def work(part):
            frames = self._kept(part)
            self._launch("forward", medium, part, frames=frames)
            self._launch("adjoint", medium, part, frames=frames, data=u, **image)

        self._in_parts(tasks, work)
        return self._gradients(image, vmin)

    def misfit(self, alpha, vmin, data, gradient):
        """sum((record - data)^2), (B,) float64, and its gradients where gradient is true."""
        medium, tasks = self._medium(alpha, vmin)
        data, squares = self._traces(data), self._sums(tasks, "forward")
        image = self._image(tasks) if gradient else None

        def work(part):
            if not gradient:
                self._launch("forward", medium, part, data=data, sums=squares)
                return
            frames, twice = self._kept(part), self._empty(len(part), *data.shape[1:])
            self._launch(
                "forward", medium, part, data=data, sums=squares, frames=frames, record=twice
            )
            self._launch("adjoint", medium, part, frames=frames, data=twice, **image)

        self._in_parts(tasks, work)
        value = in_order(self._by_sample(squares).flatten(1))
        return (value, *self._gradients(image, vmin)) if gradient else (value, None, None)

    def _records(self, kernel, medium, tasks):
        """What a kernel writes as records, by sample."""
        record = self._empty(tasks, *self._survey.record_shape[1:])
        self._in_parts(tasks, lambda part: self._launch(kernel, medium, part, record=record))
        return self._by_sample(record)

    def _in_parts(self, tasks, work):
        """work(range of tasks) for all of them, as many at a time as memory allows."""
        first = 0
        while first < tasks:
            part = range(first, min(first + self._most, tasks))
            try:
                work(part)
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
            else:
                first = part.stop
                continue
            # not before the error has gone, which holds what was allocated until then
            self._most = min(self._most, len(part) // 2)
            self._program.release()

    def _launch(self, kernel, medium, part, **by_task):
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

    def _prepare(self, kernel):
        """A kernel's layout, and the receivers in the order of the threads that have them."""
        if kernel not in self._prepared:
            shape = self._survey.padded_shape
            layout = self._program.layout(kernel, self._survey, self._dtype)
            points = self._survey.padded_index(self._survey.receivers)
            owners = torch.tensor([layout.owner(shape, *point) for point in points.tolist()])
            owners, places = owners.long().sort(stable=True)
            threads = torch.arange(layout.blocks * layout.threads + 1)
            self._prepared[kernel] = (
                layout,
                {
                    "sources": self._integers(self._survey.padded_index(self._survey.sources)),
                    "wavelet": self._wavelet_as(torch.float64) * self._survey.spacing**2,
                    "receivers": self._integers(points[places.numpy()]),
                    "places": self._integers(places),
                    "owned": self._integers(torch.searchsorted(owners, threads)),
                },
            )
        return self._prepared[kernel]

    def _medium(self, alpha, vmin):
        """(tensors of the medium, number of tasks). Raises ValueError for a bad velocity."""
        alpha = self._map(alpha)
        if not bool(((alpha > 0) & (alpha < 1)).all()):
            raise ValueError("velocity is not finite and positive, or too high for the time step")
        vmin = self._vmin(vmin)
        by_row, by_column = self._damping
        medium = {
            "alpha": alpha,
            "column_decay": self._cast(1 - vmin * by_column),
            "row_kappa": self._cast(torch.nn.functional.pad(vmin * by_row, (0, 1))),
        }
        return medium, len(alpha) * len(self._survey.sources)

    def _vmin(self, vmin):
        return vmin.detach().to(self._device, torch.float64)[:, None]

    def _cast(self, tensor):
        return tensor.detach().to(self._device, self._dtype).contiguous()

    def _map(self, padded):
        """The map, (B, nz, nx), with a layout's `side` columns more on both sides: the band repeats
        its edges, and the kernel knows that."""
        margin, (nz, nx) = self._survey.absorbing_cells, self._survey.shape
        side = self._prepare("forward")[0].side  # every kernel's
        inside = padded.detach()[:, margin : margin + nz, margin : margin + nx]
        left, right = inside[..., :1], inside[..., -1:]
        wider = torch.cat([*side * [left], inside, *side * [right]], dim=2)
        return wider.to(self._device, self._dtype).contiguous()

    def _traces(self, records):
        records = records.detach().to(self._device, self._dtype).contiguous()
        return records.view(-1, *self._survey.record_shape[1:])

    def _wavelet_as(self, dtype):
        """The wavelet as it is in a precision, float64."""
        wavelet = torch.from_numpy(self._survey.wavelet).to(dtype).double()
        return wavelet.to(self._device)

    @functools.cached_property
    def _damping(self):
        return [torch.from_numpy(d).to(self._device) for d in self._survey.damping]

    @property
    def _frames(self):
        return (self._survey.n_steps - 1) // self._every

    def _kept(self, part):
        """Memory for the wavefields of some tasks. Raises torch.OutOfMemoryError."""
        shape = (len(part), self._frames, *self._survey.padded_shape)
        size = math.prod(shape) * self._dtype.itemsize
        if self._memory is not None and size > self._memory:
            raise torch.OutOfMemoryError(
                f"the wavefields of {len(part)} shots take {size} bytes, more than the limit of "
                f"{self._memory}"
            )
        return self._empty(*shape)

    def _image(self, tasks):
        gradient = self._empty(tasks, *self._survey.padded_shape)
        return {"gradient": gradient, "sums": self._sums(tasks, "adjoint")}

    def _sums(self, tasks, kernel):
        blocks = self._prepare(kernel)[0].blocks
        return torch.empty(tasks, blocks, dtype=torch.float64, device=self._device)

    def _gradients(self, image, vmin):
        vmin = vmin.detach().to(self._device, torch.float64)
        damped = in_order(self._by_sample(image["sums"]).flatten(1))
        return in_order(self._by_sample(image["gradient"])), damped / vmin

    def _by_sample(self, by_task):
        return by_task.unflatten(0, (-1, len(self._survey.sources)))

    def _empty(self, *shape):
        return torch.empty(shape, dtype=self._dtype, device=self._device)

    def _integers(self, values):
        return torch.as_tensor(values).to(self._device, torch.int32).contiguous()
