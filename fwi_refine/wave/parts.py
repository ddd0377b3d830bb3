"""Shots in parts that fit into a device's memory, and what the kernels of a device share."""

import math
from collections.abc import Callable

import torch

from fwi_refine.survey import Survey


class Parts:
    """How many shots at a time have fitted so far: a run is cut into as many.

    Parameters
    ----------
    most : int
        Shots at a time to begin with.
    release : callable
        Gives memory back that is kept for later.
    """

    def __init__(self, most: int, release: Callable[[], None]):
        self._most, self._release = most, release

    def run(self, tasks: int, work: Callable[[range], None]) -> None:
        """Calls work(range of tasks) for all tasks, with half as many each time memory runs out.

        Parameters
        ----------
        tasks : int
            Shots of all samples.
        work : callable
            Does some of them; it may be called again for the same.

        Raises
        ------
        torch.OutOfMemoryError
            If there is too little memory for one alone.
        """
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
            self._release()


class OnDevice:
    """Common part of kernels that compute on a device; a task is one shot of one sample.

    Parameters
    ----------
    survey : Survey
        The survey.
    dtype : torch.dtype
        float32 or float64.
    every : int
        Steps between two wavefields that a gradient correlates.
    device : torch.device
        Where results are.
    memory : int, optional
        Most bytes of wavefields that are kept at a time; None for what the device has.
    """

    def __init__(
        self,
        survey: Survey,
        dtype: torch.dtype,
        every: int,
        device: torch.device,
        memory: int | None = None,
    ):
        self._survey, self._dtype, self._every = survey, dtype, every
        self._device, self._memory = device, memory

    @property
    def _frames(self) -> int:
        return (self._survey.n_steps - 1) // self._every

    def _kept(self, part: range) -> torch.Tensor:
        """Memory for the wavefields of some tasks. Raises torch.OutOfMemoryError."""
        shape = (len(part), self._frames, *self._survey.padded_shape)
        size = math.prod(shape) * self._dtype.itemsize
        if self._memory is not None and size > self._memory:
            raise torch.OutOfMemoryError(
                f"the wavefields of {len(part)} shots take {size} bytes, more than the limit of "
                f"{self._memory}"
            )
        return self._empty(*shape)

    def _by_sample(self, by_task: torch.Tensor) -> torch.Tensor:
        return by_task.unflatten(0, (-1, len(self._survey.sources)))

    def _empty(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=self._dtype, device=self._device)
