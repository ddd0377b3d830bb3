"""Where tasks are worked on: in this process, in several, or on a Dask cluster.

An executor has one method, `map(function, tasks)`. It gives pairs (task, result) as tasks finish,
in any order, and takes tasks from the iterator only as there is room for them, so that memory does
not grow with their number. An exception of the function is raised. A task whose process died is
tried again; one whose process dies each time comes with a `WorkerError` as its result.
"""

import contextlib
import itertools
import logging
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, wait

from joblib.externals.loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

from fwi_refine.errors import InputError, WorkerError

AHEAD = 2  # tasks handed over for each worker: one to work on and one that waits
PARENT_CHECK = 1.0  # s between two looks of a worker at whether its parent lives

log = logging.getLogger(__name__)


class Serial:
    """One task after another, in this process."""

    def map(self, function, tasks: Iterable) -> Iterator:
        for task in tasks:
            yield task, function(task)


class Processes:
    """Several processes on this machine. threads: of the linear algebra in each of them."""

    def __init__(self, jobs, threads=1):
        self.jobs, self.threads = jobs, threads

    def map(self, function, tasks: Iterable) -> Iterator:
        tasks = iter(tasks)
        while suspects := (yield from self._until_one_dies(function, tasks)):
            log.warning(
                "a worker process died; the %d tasks that were handed out are done one at a time",
                len(suspects),
            )
            yield from self._one_at_a_time(function, suspects)

    def _until_one_dies(self, function, tasks):
        """Yields results until a worker dies; returns the tasks that were handed out by then."""
        waiting = {}  # number -> task; a task stays here until it is finished
        numbers = itertools.count()
        futures = {}  # future -> number
        pool = self._pool(self.jobs)
        try:
            while True:
                for task in itertools.islice(tasks, AHEAD * self.jobs - len(waiting)):
                    number = next(numbers)
                    waiting[number] = task
                    futures[pool.submit(function, task)] = number
                if not waiting:
                    return []
                done, _ = wait(futures, return_when=FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    yield waiting.pop(futures.pop(future)), result
        except TerminatedWorkerError:
            for future, number in futures.items():
                if future.done() and future.exception() is None:
                    yield waiting.pop(number), future.result()
            return list(waiting.values())
        finally:
            pool.shutdown(kill_workers=True)

    def _one_at_a_time(self, function, tasks):
        """Yields results; where a process dies now, its task is the reason."""
        pool = None
        try:
            for task in tasks:
                pool = pool or self._pool(1)
                try:
                    result = pool.submit(function, task).result()
                except TerminatedWorkerError as error:
                    result = WorkerError(
                        "its worker process died, also with no other beside it; too little memory "
                        f"is a common reason ({str(error).splitlines()[0]})"
                    )
                    pool.shutdown(kill_workers=True)
                    pool = None
                yield task, result
        finally:
            if pool is not None:
                pool.shutdown(kill_workers=True)

    def _pool(self, jobs):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        return ProcessPoolExecutor(
            jobs,
            initializer=_follow_parent,
            initargs=(os.getpid(),),
            env=dict.fromkeys(names, str(self.threads)),
        )


def _follow_parent(parent):
    """In a worker: the parent answers to Ctrl-C, and when it is killed, the worker ends too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Dask:
    """The workers of an existing Dask cluster, which have this program and see the same files.

    address: of the scheduler, such as tcp://host:8786. Workers may come and go. Raises InputError
    if dask.distributed is not installed or the scheduler does not answer.
    """

    def __init__(self, address, timeout=30):
        try:
            import distributed
        except ImportError as error:
            raise InputError('--dask needs dask.distributed: pip install "fwi-refine[dask]"') from (
                error
            )
        self._distributed = distributed
        try:
            self._client = distributed.Client(address, timeout=timeout, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(f"--dask {address}: no scheduler answers ({error})") from error
        if not self._client.nthreads():
            log.warning("%s has no workers yet; the samples wait for them", address)

    def map(self, function, tasks: Iterable) -> Iterator:
        tasks = iter(tasks)
        finished = self._distributed.as_completed(loop=self._client.loop)
        waiting = {}  # future -> task
        try:
            while True:
                for task in itertools.islice(tasks, max(0, self._room() - len(waiting))):
                    future = self._client.submit(_one_at_a_time, function, task, pure=False)
                    waiting[future] = task
                    finished.add(future)
                if not waiting:
                    return
                future = next(finished)
                yield waiting.pop(future), self._result(future)
        finally:
            with contextlib.suppress(OSError):
                self._client.cancel(list(waiting))

    def close(self):
        """Leaves the cluster."""
        self._client.close()

    def _room(self) -> int:
        """How many tasks should be handed over: at least one, for a cluster still to come."""
        try:
            return max(1, AHEAD * len(self._client.nthreads()))
        except OSError as error:
            raise WorkerError(f"the Dask scheduler has gone ({error})") from error

    def _result(self, future):
        try:
            return future.result()
        except self._distributed.KilledWorker as error:
            return WorkerError(f"the workers that took it died ({error})")
        except CancelledError as error:
            raise WorkerError(f"the Dask scheduler has gone ({error})") from error


_WORKING = threading.Lock()


def _one_at_a_time(function, task):
    """A Dask worker may have several threads; the tasks share its process, so they take turns."""
    with _WORKING:
        return function(task)
