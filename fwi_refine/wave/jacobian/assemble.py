"""Simulates a shot at each source and receiver, and hands the wavefields to an `Assembly`."""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave.interrupt import asker
from fwi_refine.wave.jacobian.plan import longest_interval, make_plan
from fwi_refine.wave.jacobian.reciprocity import Assembly
from fwi_refine.wave.paths import MakeKernel
from fwi_refine.wave.simulator import Simulator
from fwi_refine.wave.threads import number_of_threads, workers

BATCH = 7  # points simulated at a time in float32; 60 MB each for the survey of OpenFWI
GPU_BATCH = 14  # points put into the Jacobian at a time on a GPU, which simulates all at once

Assembled = TypeVar("Assembled", bound=Assembly)


def jacobian_points(survey: Survey = OPENFWI) -> tuple[tuple[int, int], ...]:
    """Cells in which `jacobian` simulates a shot: each source and receiver once, sources first."""
    return tuple(dict.fromkeys((*survey.sources, *survey.receivers)))


def assemble(
    kind: Callable[..., Assembled],
    v: torch.Tensor,
    vmin: float | torch.Tensor | None,
    survey: Survey,
    dtype: torch.dtype = torch.float32,
    kernel: str | MakeKernel = "auto",
    threads: int | None = None,
    every: int | None = None,
    device: str | torch.device | None = None,
) -> Assembled:
    """Simulates a shot at each source and receiver, and hands the wavefields to an `Assembly`.

    Parameters
    ----------
    kind : callable
        Makes it, from the arguments of `Assembly`.
    v, vmin, survey, dtype, kernel, threads, every, device
        As for `jacobian`.

    Returns
    -------
    Assembly
        To which all fields were given.

    Raises
    ------
    ValueError
        As for `jacobian`.
    """
    if tuple(v.shape) != survey.shape:
        raise ValueError(f"velocity of shape {tuple(v.shape)}: expected {survey.shape}")
    device = Simulator(survey, dtype, kernel, threads, device=device).device
    v = v.detach()
    given = v.min() if vmin is None else torch.as_tensor(vmin, dtype=torch.float64)
    if given.numel() != 1:
        raise ValueError(f"vmin of shape {tuple(given.shape)}: expected one number")
    damped = given.detach().reshape(1).cpu().double()
    most = longest_interval(survey)
    every = most if every is None else every
    if not 1 <= every <= most:
        raise ValueError(
            f"every {every}: expected 1 to {most}, or what is kept of the wavefields cannot hold "
            f"a wavelet of {survey.frequency} Hz"
        )
    plan = make_plan(survey, every)
    # the sources come first: every receiver's fields are multiplied with theirs
    points = jacobian_points(survey)

    def simulated(
        batch: Sequence[tuple[int, int]], threads: int, out: torch.Tensor | None
    ) -> torch.Tensor:
        shots = dataclasses.replace(plan.survey, sources=tuple(batch))
        simulator = Simulator(shots, dtype, kernel, threads, every, device=device)
        out = None if out is None else out[:, : len(batch)]
        return simulator.wavefields(v[None], damped, out)

    on_cpu = device.type == "cpu"
    size = BATCH * torch.float32.itemsize // dtype.itemsize if on_cpu else len(points)
    group = max(size if on_cpu else GPU_BATCH, len(set(survey.sources)))
    threads = number_of_threads(threads)
    while True:
        work = kind(survey, plan, v, float(damped), dtype, device)
        try:
            _assemble(work, points, size, group, simulated, threads)
        except torch.OutOfMemoryError:
            if size <= group:
                raise
        else:
            break
        del work
        size = max(size // 2 // group, 1) * group
        torch.cuda.empty_cache()
    work.release()
    return work


def _assemble(
    work: Assembly,
    points: Sequence[tuple[int, int]],
    size: int,
    group: int,
    simulated: Callable[[Sequence[tuple[int, int]], int, torch.Tensor | None], torch.Tensor],
    threads: int,
) -> None:
    """Gives `work` wavefields of `size` points at a time, as long as memory lasts.

    They are assembled `group` points at a time, whatever size is: products of other shapes
    would have other bits, and those must not depend on how much memory was free.
    """
    first = max(size, len(work.sources))
    batches = [points[i : i + size] for i in range(first, len(points), size)]
    memory, ask = threading.local(), asker()

    def wavefields(batch: Sequence[tuple[int, int]], threads: int = 1) -> torch.Tensor:
        ask()
        fields = simulated(batch, threads, getattr(memory, "fields", None))
        memory.fields = fields
        return fields[0]

    def add(batch: Sequence[tuple[int, int]], fields: torch.Tensor) -> None:
        for i in range(0, len(batch), group):
            work.add_receivers(batch[i : i + group], fields[i : i + group])

    fields = wavefields(points[:first], threads)
    with workers(fields.device, threads) as pool:
        work.take_sources(fields[: len(work.sources)], pool)
        rest = pool.map(lambda batch: add(batch, wavefields(batch)), batches)
        pool.submit(add, points[:first], fields).result()
        list(rest)
