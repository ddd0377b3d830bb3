"""Shots in parts that fit into a device's memory."""

from collections.abc import Callable

import torch


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
