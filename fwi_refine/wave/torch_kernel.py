"""The wave operator in torch's own operations, on any device: reference.py made fast.

It is the second way for a GPU, where the CUDA kernels cannot be compiled or are found wrong
(self_test.py), and the one for devices that have none. Shots of all samples are one batch, in parts
as memory allows, and nothing leaves the device. Formulas: reference.py.
"""

import functools
import math
from dataclasses import dataclass

import torch

from fwi_refine.precision import Float64, float64, widened
from fwi_refine.survey import Survey
from fwi_refine.wave import released_arithmetic
from fwi_refine.wave.deterministic import add_at, in_order
from fwi_refine.wave.grid import damping
from fwi_refine.wave.kernel import check_call, check_kernel, check_out
from fwi_refine.wave.parts import OnDevice, Parts
from fwi_refine.wave.torch_fields import HALO, Fields, fused_step

MAX_TASKS = 512  # shots at a time on a device with memory of its own
# On the CPU one: its fields stay in the cache, and the time per shot is a third less.
MAX_TASKS_CPU = 1


@dataclass(frozen=True)
class _Medium:
    """The medium of a call, on the device; a task is one shot of one sample."""

    alpha: torch.Tensor  # (B, rows, cols)
    decay: torch.Tensor  # (B, rows, cols), 1 - kappa
    shots: int

    @property
    def tasks(self) -> int:
        return len(self.alpha) * self.shots

    def of(self, by_sample: torch.Tensor, part: range) -> torch.Tensor:
        """The part of the samples of some tasks: of each, or once if they have one sample."""
        first, last = part.start // self.shots, (part.stop - 1) // self.shots
        if first == last:
            return by_sample[first : first + 1]
        samples = torch.arange(part.start, part.stop, device=by_sample.device) // self.shots
        return by_sample[samples]


class TorchKernel(OnDevice):
    """A `kernel.Kernel` of torch's operations, on one device.

    Every cell is computed at every step. A sample has the same bits in any batch, and for any
    memory. Several threads may use one object.

    Parameters
    ----------
    survey, dtype, every, device, memory
        As for `OnDevice`.

    Raises
    ------
    RuntimeError
        For float64 on a device that has none.
    """

    def __init__(
        self,
        survey: Survey,
        dtype: torch.dtype,
        every: int,
        device: torch.device,
        memory: int | None = None,
    ):
        check_kernel(dtype, every)
        if dtype == torch.float64 and float64(device) is Float64.NONE:
            raise RuntimeError(f"device {device}: has no float64; use dtype float32, or the CPU")
        self.name = "torch" if device.type == "cpu" else f"torch on {device.type}"
        super().__init__(survey, dtype, every, device, memory)
        most = MAX_TASKS_CPU if device.type == "cpu" else MAX_TASKS
        self._parts = Parts(most, functools.partial(_release, device))

    def forward(self, alpha: torch.Tensor, vmin: torch.Tensor) -> torch.Tensor:
        """Records, (B, shots, n_steps, receivers)."""
        check_call(self._survey, alpha, vmin)
        medium = self._medium(alpha, vmin)
        record = self._records(medium)
        self._parts.run(medium.tasks, lambda part: self._run(medium, part, record=record))
        return self._by_sample(record)

    def released(
        self, alpha: torch.Tensor, vmin: torch.Tensor, strength: torch.Tensor
    ) -> torch.Tensor:
        """Records in released arithmetic; strength: (B, shots), of the sources."""
        check_call(self._survey, alpha, vmin, strength=strength, single=self._dtype)
        alpha, strength = (x.detach().to(self._device) for x in (alpha, strength))
        # torch's operations one by one: each is rounded, and none is part of a multiply-add
        return released_arithmetic.propagate(alpha, vmin.detach(), strength, self._survey)

    def first_differences(
        self,
        alpha: torch.Tensor,
        vmin: torch.Tensor,
        strength: torch.Tensor,
        data: torch.Tensor,
        stop: bool,
    ) -> torch.Tensor:
        """(B, shots, receivers) first step in which such a record is not the data."""
        del stop
        check_call(self._survey, alpha, vmin, data=data)
        record = self.released(alpha, vmin, strength)
        return released_arithmetic.first_unequal(record, self._cast(data))

    def wavefields(
        self, alpha: torch.Tensor, vmin: torch.Tensor, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """p[every], p[2 every], ... before the last step, (B, shots, frames, rows, cols)."""
        check_call(self._survey, alpha, vmin, every=self._every)
        medium = self._medium(alpha, vmin)
        shape = (len(alpha), medium.shots, self._frames, *self._survey.padded_shape)
        check_out(out, shape, self._dtype, self._device)
        out = self._empty(*shape) if out is None else out
        samples = out  # (B, shots, ...); a view of tasks would need it contiguous

        def work(part: range) -> None:
            kept = [samples[divmod(task, medium.shots)] for task in part]
            self._run(medium, part, frames=kept)

        self._parts.run(medium.tasks, work)
        return out

    def tangent(
        self, alpha: torch.Tensor, vmin: torch.Tensor, dalpha: torch.Tensor, dvmin: torch.Tensor
    ) -> torch.Tensor:
        """Change of the records, to first order, for a change of alpha and of vmin."""
        check_call(self._survey, alpha, vmin, dalpha=dalpha, dvmin=dvmin)
        medium, dalpha = self._medium(alpha, vmin), self._cast(dalpha)
        dkappa = self._cast(damping(self._survey) * _on_cpu(dvmin)[:, None, None])
        record = self._records(medium)
        self._parts.run(
            medium.tasks, lambda part: self._run_tangent(medium, dalpha, dkappa, part, record)
        )
        return self._by_sample(record)

    def adjoint(
        self, alpha: torch.Tensor, vmin: torch.Tensor, u: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient of sum(u * record) by alpha, (B, rows, cols), and by vmin, (B,) float64."""
        check_call(self._survey, alpha, vmin, data=u, every=self._every)
        medium, u = self._medium(alpha, vmin), self._cast(u).flatten(0, 1)
        images = _Images(self, medium)

        def work(part: range) -> None:
            frames = self._kept(part)
            self._run(medium, part, frames=list(frames))
            images.add(part, u[part.start : part.stop], frames)

        self._parts.run(medium.tasks, work)
        return images.gradients()

    def misfit(
        self, alpha: torch.Tensor, vmin: torch.Tensor, data: torch.Tensor, gradient: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """sum((record - data)^2), (B,) float64, and its gradients where gradient is true."""
        check_call(self._survey, alpha, vmin, data=data, every=self._every if gradient else None)
        medium, data = self._medium(alpha, vmin), self._cast(data).flatten(0, 1)
        record = self._records(medium)
        images = _Images(self, medium) if gradient else None

        def work(part: range) -> None:
            frames = self._kept(part) if images is not None else None
            self._run(medium, part, record=record, frames=None if frames is None else list(frames))
            some = record[part.start : part.stop].sub_(data[part.start : part.stop])
            if images is not None and frames is not None:
                images.add(part, 2 * some, frames)

        self._parts.run(medium.tasks, work)
        # one after the other: the order of a sum might follow the batch
        squares = torch.stack([widened(one).square().sum() for one in record])
        value = in_order(self._by_sample(squares))
        return (value, None, None) if images is None else (value, *images.gradients())

    def _run(
        self,
        medium: _Medium,
        part: range,
        record: torch.Tensor | None = None,
        frames: list[torch.Tensor] | None = None,
    ) -> None:
        """p of some tasks: their records, (all tasks, n_steps, receivers), and of each the frames,
        (frames, rows, cols)."""
        alpha, decay = medium.of(medium.alpha, part), medium.of(medium.decay, part)
        fields = Fields(alpha, decay, len(part), fused_step(self._device))
        sources, pulses = self._sources(part), self._pulses(alpha, part)
        receivers = self._receivers
        for n in range(self._survey.n_steps):
            fields.advance()
            self._inject(fields, sources, pulses, n)
            fields.wrap()
            if record is not None:
                traces = fields.now.p.flatten(1).index_select(1, receivers)
                record[part.start : part.stop, n].copy_(traces)
            if frames is not None and (n + 1) % self._every == 0 and n + 1 < self._survey.n_steps:
                slot = (n + 1) // self._every - 1
                for own, p in zip(frames, fields.now.inside, strict=True):
                    own[slot].copy_(p)

    def _run_tangent(
        self,
        medium: _Medium,
        dalpha: torch.Tensor,
        dkappa: torch.Tensor,
        part: range,
        record: torch.Tensor,
    ) -> None:
        alpha, decay, dalpha, dkappa = (
            medium.of(x, part) for x in (medium.alpha, medium.decay, dalpha, dkappa)
        )
        fields, change = (Fields(alpha, decay, len(part)) for _ in range(2))
        sources = self._sources(part)
        pulses, dpulses = self._pulses(alpha, part), self._pulses(dalpha, part)
        receivers = self._receivers
        for n in range(self._survey.n_steps):
            driving = fields.laplacian()
            next_change = change.advance().addcmul_(dalpha, driving)
            next_change.addcmul_(dkappa, fields.old.inside)
            next_change.addcmul_(dkappa, fields.now.inside, value=-1)
            fields.advance(driving)
            self._inject(fields, sources, pulses, n)
            self._inject(change, sources, dpulses, n)
            fields.wrap()
            change.wrap()
            traces = change.now.p.flatten(1).index_select(1, receivers)
            record[part.start : part.stop, n].copy_(traces)

    def _inject(self, fields: Fields, sources: torch.Tensor, pulses: torch.Tensor, n: int) -> None:
        if self._wavelet[n]:
            fields.now.flat[sources] += pulses[n]

    def _medium(self, alpha: torch.Tensor, vmin: torch.Tensor) -> _Medium:
        kappa = damping(self._survey) * _on_cpu(vmin)[:, None, None]
        return _Medium(self._cast(alpha), self._cast(1 - kappa), len(self._survey.sources))

    def _pulses(self, by_task: torch.Tensor, part: range) -> torch.Tensor:
        """The injection at the source of each task, of alpha or its change: (n_steps, tasks)."""
        points = self._survey.padded_index(self._survey.sources)
        rows, cols = torch.from_numpy(points).long().to(self._device).T
        shots = torch.arange(part.start, part.stop, device=self._device) % len(points)
        samples = torch.arange(len(part), device=self._device) if len(by_task) > 1 else 0
        wavelet = torch.tensor(self._wavelet, dtype=self._dtype).to(self._device)
        return wavelet[:, None] * by_task[samples, rows[shots], cols[shots]]

    def _sources(self, part: range) -> torch.Tensor:
        """Indices of the tasks' sources in all their fields."""
        cells = self._indices(self._survey.sources)
        tasks = torch.arange(len(part), device=self._device)
        shots = torch.arange(part.start, part.stop, device=self._device) % len(cells)
        return tasks * self._cells + cells[shots]

    def _indices(self, points: tuple[tuple[int, int], ...]) -> torch.Tensor:
        """Indices of points in a field with its halo."""
        index = torch.from_numpy(self._survey.padded_index(points)).long() + HALO
        width = self._survey.padded_shape[1] + 2 * HALO
        return (index[:, 0] * width + index[:, 1]).to(self._device)

    @functools.cached_property
    def _receivers(self) -> torch.Tensor:
        return self._indices(self._survey.receivers)

    @functools.cached_property
    def _wavelet(self) -> list[float]:
        wavelet: list[float] = (self._survey.wavelet * self._survey.spacing**2).tolist()
        return wavelet

    @property
    def _cells(self) -> int:
        """Of a field with its halo."""
        return math.prod(n + 2 * HALO for n in self._survey.padded_shape)

    def _records(self, medium: _Medium) -> torch.Tensor:
        return self._empty(medium.tasks, *self._survey.record_shape[1:])

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to(self._dtype).to(self._device)


class _Images:
    """The gradients of all tasks, from their wavefields and adjoint runs."""

    def __init__(self, kernel: TorchKernel, medium: _Medium):
        self._kernel, self._medium = kernel, medium
        self._survey = kernel._survey
        shape = (medium.tasks, *self._survey.padded_shape)
        self._image, self._damped = (kernel._empty(*shape).zero_() for _ in range(2))

    def add(self, part: range, u: torch.Tensor, frames: torch.Tensor) -> None:
        """Runs mu of some tasks backwards; u (tasks, n_steps, receivers)."""
        kernel, medium = self._kernel, self._medium
        every, wavelet = kernel._every, kernel._wavelet
        image, damped = (x[part.start : part.stop].zero_() for x in (self._image, self._damped))
        alpha, decay = medium.of(medium.alpha, part), medium.of(medium.decay, part)
        fields = Fields(alpha, decay, len(part), fused_step(kernel._device))
        p = Fields(alpha, decay, len(part))
        sources, at_source = kernel._sources(part), kernel._empty(len(part)).zero_()
        cells, added = self._added(alpha, u)
        for n in reversed(range(self._survey.n_steps)):
            fields.advance()
            fields.now.p.flatten(1)[:, cells] += added[:, n]
            fields.wrap()
            if wavelet[n]:
                # step by step: the order of a sum might follow the batch
                at_source += fields.now.flat[sources] * wavelet[n]
            if n and n % every == 0:
                own = frames[:, n // every - 1]
                p.now.inside.copy_(own)
                p.wrap()
                here, after = fields.now.inside, fields.old.inside
                image.addcmul_(here, p.laplacian(), value=every)
                damped.addcmul_(own, after, value=every).addcmul_(own, here, value=-every)
        points = torch.from_numpy(self._survey.padded_index(self._survey.sources)).long()
        rows, cols = points.to(kernel._device).T
        shots = torch.arange(part.start, part.stop, device=kernel._device) % medium.shots
        tasks = torch.arange(len(part), device=kernel._device)
        image[tasks, rows[shots], cols[shots]] += at_source

    def gradients(self) -> tuple[torch.Tensor, torch.Tensor]:
        """By alpha and by vmin, of each sample."""
        kernel, alpha = self._kernel, self._medium.alpha
        image, damped = (in_order(kernel._by_sample(x)) for x in (self._image, self._damped))
        weights = kernel._cast(damping(self._survey)) / alpha
        # one after the other: the order of a sum might follow the batch
        by_vmin = torch.stack([widened(x).sum() for x in weights * damped])
        return image / alpha, by_vmin

    def _added(self, alpha: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices of where receivers stand, each once, and what is added there in each step."""
        survey, device = self._survey, self._kernel._device
        points = list(dict.fromkeys(survey.receivers))
        which = torch.tensor([points.index(point) for point in survey.receivers]).long()
        own = torch.from_numpy(survey.padded_index(tuple(points))).long().to(device)
        # receivers may stand at the same place: their parts add up
        at_points = u.new_zeros(*u.shape[:2], len(points))
        add_at(at_points, 2, which.to(device), u)
        scaled = at_points * alpha[:, own[:, 0], own[:, 1]][:, None]
        return self._kernel._indices(tuple(points)), scaled


def _on_cpu(numbers: torch.Tensor) -> torch.Tensor:
    """Numbers in float64, on the CPU, which every device can give them to."""
    return numbers.detach().cpu().double()


def _release(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
