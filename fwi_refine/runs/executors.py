"""Where tasks are worked on: in this process, in several, or on a Dask cluster.

An executor has one method, `map(function, tasks)`. It gives pairs (task, result) as tasks finish,
in any order, and takes tasks from the iterator only as there is room for them, so that memory does
not grow with their number. An exception of the function is raised, except a `DeviceError`, after
which its process is of no use. Where there are workers, a task whose process died, or was ended
for that, is tried again; one whose process dies each time comes with a `WorkerError` as its result.
"""

import contextlib
import itertools
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, wait
from pathlib import Path

import filelock
from joblib.externals.loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

from fwi_refine.errors import DeviceError, InputError, WorkerError

AHEAD = 2  # tasks handed over for each worker: one to work on and one that waits
PARENT_CHECK = 1.0  # s between two looks of a worker at whether its parent lives
DEVICE_CHECK = 0.05  # s between two looks of a worker for a device that is free

log = logging.getLogger(__name__)


class Serial:
    """One task after another, in this process."""

    def map(self, function, tasks: Iterable) -> Iterator:
        for task in tasks:
            try:
                result = function(task)
            except DeviceError as error:
                result = error
            yield task, result


class _Workers:
    """Executors whose tasks are worked on in other processes, which may die."""

    def map(self, function, tasks: Iterable) -> Iterator:
        tasks = iter(tasks)
        while suspects := (yield from self._until_one_dies(function, tasks)):
            log.warning(
                "a worker process died; the %d tasks that it may have had are done one at a time",
                len(suspects),
            )
            alone = iter([task for task, _ in suspects])
            while died := (yield from self._until_one_dies(function, alone, alone=True)):
                ((task, reason),) = died
                text = "its worker process died, also with no other beside it; too little memory is"
                yield task, WorkerError(f"{text} a common reason ({reason})")

    def _until_one_dies(self, function, tasks, alone=False):
        """Yields results until a worker dies; returns [(task, reason)] of what it may have had.

        alone: one task at a time, so that it is the reason.
        """
        raise NotImplementedError


class Processes(_Workers):
    """Processes on this machine.

    threads: of the linear algebra in each of them. devices: GPUs, as CUDA_VISIBLE_DEVICES names
    them. Each process sees one of them; with more jobs than devices, several share one.
    """

    def __init__(self, jobs, threads=1, devices=()):
        self.jobs, self.threads = jobs, threads
        self._devices = [devices[k % len(devices)] for k in range(jobs)] if devices else []
        self._locks = tempfile.TemporaryDirectory() if devices else None

    def _until_one_dies(self, function, tasks, alone=False):
        jobs, ahead = (1, 1) if alone else (self.jobs, AHEAD)
        waiting = {}  # number -> task; a task stays here until it is finished
        numbers = itertools.count()
        futures = {}  # future -> number
        pool = self._pool(jobs)
        try:
            while True:
                for task in itertools.islice(tasks, ahead * jobs - len(waiting)):
                    number = next(numbers)
                    waiting[number] = task
                    futures[pool.submit(_or_end, function, task)] = number
                if not waiting:
                    return []
                done, _ = wait(futures, return_when=FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    yield waiting.pop(futures.pop(future)), result
        except TerminatedWorkerError as error:
            for future, number in futures.items():
                if future.done() and future.exception() is None:
                    yield waiting.pop(number), future.result()
            lines = str(error).splitlines()
            reason = next((line for line in lines if "exit code" in line), lines[0])
            return [(task, reason) for task in waiting.values()]
        finally:
            pool.shutdown(kill_workers=True)

    def _pool(self, jobs):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        return ProcessPoolExecutor(
            jobs,
            initializer=_begin,
            initargs=(os.getpid(), self._locks and self._locks.name, self._devices),
            env=dict.fromkeys(names, str(self.threads)),
        )


def _begin(parent, locks, devices):
    """What a worker does first. The parent answers to Ctrl-C; when it is killed, this ends too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The parent looks at the kernels too, and warns of what is missing: once is enough.
    warnings.filterwarnings("ignore", module="fwi_refine")
    if devices:
        _take_device(Path(locks), devices)

    def watch():
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _take_device(folder, devices):
    """Lets this process see the first device that no other worker has taken, and no other device.

    Taken means that its file in `folder` is locked. The lock is one of the operating system: it
    is free as soon as its process has ended, however that happened.
    """
    locks = [filelock.FileLock(folder / str(place)) for place in range(len(devices))]
    for lock, device in itertools.cycle(zip(locks, devices, strict=True)):
        try:
            lock.acquire(timeout=DEVICE_CHECK)
        except filelock.Timeout:
            continue
        _HELD.append(lock)
        os.environ["CUDA_VISIBLE_DEVICES"] = device
        return


_HELD = []  # a lock is released when nothing refers to it any more


class Dask(_Workers):
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

    def _until_one_dies(self, function, tasks, alone=False):
        finished = self._distributed.as_completed(loop=self._client.loop)
        waiting, suspects = {}, []  # waiting: future -> task
        try:
            while True:
                room = 0 if suspects else 1 if alone else self._room()
                for task in itertools.islice(tasks, max(0, room - len(waiting))):
                    future = self._client.submit(_in_turn, function, task, pure=False)
                    waiting[future] = task
                    finished.add(future)
                if not waiting:
                    return suspects
                future = next(finished)
                task = waiting.pop(future)
                try:
                    result = future.result()
                except self._distributed.KilledWorker as error:
                    suspects.append((task, str(error)))
                    continue
                except CancelledError as error:
                    raise WorkerError(f"the Dask scheduler has gone ({error})") from error
                yield task, result
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


_WORKING = threading.Lock()


def _in_turn(function, task):
    """A Dask worker may have several threads; the tasks share its process, so they take turns."""
    with _WORKING:
        return _or_end(function, task)


def _or_end(function, task):
    """function(task); a GPU that fails ends the process, as no other gets it to work again."""
    try:
        return function(task)
    except DeviceError as error:
        print(f"fwi-refine: a worker ends: {error}", file=sys.stderr, flush=True)
        os._exit(1)
