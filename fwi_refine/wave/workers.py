"""Threads that share the linear algebra so that its bits do not depend on how many they are."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

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
