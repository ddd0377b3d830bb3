"""Threads that share the linear algebra so that its bits do not depend on how many they are."""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def one_thread_each(threads: int):
    """A pool of threads in which torch uses one thread for an operation.

    A product that torch splits among its own threads may round differently with their number.
    Here the work is cut into fixed pieces, and each is done by one thread, whichever it is.
    """
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted run does not wait for what is queued
        torch.set_num_threads(before)


class _Here:
    """As a pool, but in this thread: a GPU spreads the work itself."""

    map = staticmethod(map)

    @staticmethod
    def submit(function, *arguments):
        done = Future()
        done.set_result(function(*arguments))
        return done


def workers(device: torch.device, threads: int | None):
    """What shares the linear algebra on a device: threads of the CPU, by default as many as torch
    uses, or nobody but the GPU."""
    if device.type == "cpu":
        return one_thread_each(threads or torch.get_num_threads())
    return nullcontext(_Here())
