"""Several samples at a time in one process, on threads of their own, so that they fill a GPU.

A Jacobian is enough work for a whole card. What stands between two Jacobians is not: it is runs of
a sample's few shots, one after the other, and work of the CPU. Threads of one process, each with a
stream of its own, share a card at the same time; processes take turns on it. torch has a handle of
cuBLAS for each thread, as that library asks for where streams are not to change each other's bits.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

from fwi_refine.errors import DeviceError
from fwi_refine.wave import one_thread_each

TOO_LITTLE = "too little memory for one sample at a time"
Item = TypeVar("Item")
Result = TypeVar("Result")


def each(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    at_a_time: int = 1,
    device: str = "cpu",
    otherwise: Callable[[Item], Result] | None = None,
) -> list[Result]:
    """Calls a function on each of some items, several at the same time.

    An item that memory does not suffice for (torch.OutOfMemoryError) is done again, with half as
    many at a time from then on, as long as this process lives.

    Parameters
    ----------
    function : callable
        Takes an item.
    items : sequence
        The items.
    at_a_time : int
        How many at a time, at most.
    device : str
        "cpu", or a GPU, on which each thread launches to a stream of its own.
    otherwise : callable, optional
        Takes an item in place of the function where memory does not suffice for one alone.

    Returns
    -------
    list
        The results, in the order of the items.

    Raises
    ------
    DeviceError
        If memory does not suffice for one alone, and there is no other function, or not for that
        one either; and whatever else the function raises.
    """
    room = _room(at_a_time, torch.device(device))
    if at_a_time == 1:
        return [room.work(function, item, otherwise) for item in items]
    # A limit that one thread sets is one of them all: here, so that none lifts another's.
    with threadpool_limits(1, user_api="blas"), one_thread_each(at_a_time) as pool:
        return list(pool.map(lambda item: room.work(function, item, otherwise), items))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within it this thread's linear algebra is its own: sums in another number of parts would
    have other bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)


def trouble(error: Exception) -> Exception | None:
    """The error of the GPU behind an error: torch.OutOfMemoryError, DeviceError
    where the process cannot use it any more, or None where it says nothing."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return error
    from_cuda = isinstance(error, RuntimeError) and text.startswith(
        ("CUDA error", "cusolver error")
    )
    if from_cuda and ("ALLOC_FAILED" in text or "out of memory" in text):
        return torch.OutOfMemoryError(text)
    if from_cuda or isinstance(error, DeviceError | torch.AcceleratorError):
        return DeviceError(text)
    return None


class _Room:
    """How many items are worked on at a time, each with a stream that it holds meanwhile."""

    def __init__(self, most: int, device: torch.device) -> None:
        self.most = most
        self._running = 0
        self._change = threading.Condition()
        # kept, as the memory that torch keeps for later belongs to a stream
        streams = device.type == "cuda" and most > 1
        self._streams = [torch.cuda.Stream(device) if streams else None for _ in range(most)]

    def work(
        self,
        function: Callable[[Item], Result],
        item: Item,
        otherwise: Callable[[Item], Result] | None,
    ) -> Result:
        while True:
            with self._one_of_them() as stream:
                most = self.most
                try:
                    with torch.cuda.stream(stream):  # None: where this thread is
                        return function(item)
                except torch.OutOfMemoryError as error:
                    reason = str(error)
            # outside: the error holds on to what its item had allocated
            if most == 1 and otherwise is not None:
                torch.cuda.empty_cache()  # what torch keeps is of no use to others
                return _alone(otherwise, item)
            if most == 1:
                raise DeviceError(f"{TOO_LITTLE}: {reason}")
            with self._change:
                self.most = max(1, min(self.most, most // 2))

    @contextlib.contextmanager
    def _one_of_them(self) -> Iterator[torch.cuda.Stream | None]:
        with self._change:
            self._change.wait_for(lambda: self._running < self.most)
            self._running += 1
            stream = self._streams.pop()
        try:
            yield stream
        finally:
            with self._change:
                self._running -= 1
                self._streams.append(stream)
                self._change.notify_all()


def _alone(otherwise: Callable[[Item], Result], item: Item) -> Result:
    try:
        return otherwise(item)
    except torch.OutOfMemoryError as error:
        raise DeviceError(f"{TOO_LITTLE}, and elsewhere as well: {error}") from None


_room = functools.cache(_Room)
