"""Threads that share the linear algebra so that its bits do not depend on how many they are."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ParamSpec, Protocol, TypeVar

import torch

from fwi_refine.limits import MAX_THREADS, whole_number

P = ParamSpec("P")
T = TypeVar("T")


class Pool(Protocol):
    """A pool of threads, or a stand-in for one."""

    def map(self, fn: Callable[..., T], *iterables: Any) -> Iterator[T]:
        """fn of the members of the iterables, in their order."""
        ...

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """The coming result of fn."""
        ...


def number_of_threads(threads: int | None) -> int:
    """A number of threads of the CPU, checked.

    Parameters
    ----------
    threads : int or None
        None for as many as torch uses.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    InputError
        For what is no whole number from 1 to `MAX_THREADS`.
    """
    if threads is None:
        return torch.get_num_threads()
    return whole_number(threads, "threads", 1, MAX_THREADS)


@contextmanager
def one_thread_each(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads in which torch uses one thread for an operation.

    A product that torch splits among its own threads may round differently with their number.
    Here the work is cut into fixed pieces, and each is done by one thread, whichever it is.

    Parameters
    ----------
    threads : int
        Of the pool.

    Yields
    ------
    ThreadPoolExecutor
        The pool; what has not begun when the context ends is not done.
    """
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(
        number_of_threads(threads), initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted run does not wait for what is queued
        torch.set_num_threads(before)


class _Here:
    """As a pool, but in this thread: a GPU spreads the work itself."""

    def map(self, fn: Callable[..., T], *iterables: Any) -> Iterator[T]:
        return map(fn, *iterables)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        done: Future[T] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def workers(device: torch.device, threads: int | None) -> AbstractContextManager[Pool]:
    """The pool that shares the linear algebra on a device.

    Parameters
    ----------
    device : torch.device
        The CPU or a GPU.
    threads : int or None
        Of the CPU, None for as many as torch uses.

    Returns
    -------
    context manager
        Of a pool of threads, or for a GPU of nobody but the GPU.
    """
    if device.type == "cpu":
        return one_thread_each(number_of_threads(threads))
    return nullcontext(_Here())
