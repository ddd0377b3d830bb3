"""Where tasks are worked on: in this process, in several, or on a Dask cluster.

An executor has one method, `map(function, tasks)`. It gives pairs (task, result) as tasks finish,
in any order, and takes tasks from the iterator only as there is room for them, so that memory does
not grow with their number. An exception of the function is raised, except a `DeviceError`, after
which its process is of no use. Where there are workers, a task whose process died, or was ended
for that, is tried again; one whose process dies each time comes with a `WorkerError` as its result.
"""

import contextlib
import importlib
import itertools
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Protocol, TypeVar

from joblib.externals.loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

from fwi_refine.errors import DeviceError, InputError, MachineError, WorkerError
from fwi_refine.runs import locks
from fwi_refine.version import __version__

TASKS_PER_WORKER = 2  # tasks handed over for each worker: one to work on and one that waits
PARENT_CHECK = 1.0  # s between two looks of a worker at whether its parent lives
DEVICE_CHECK = 0.05  # s between two looks of a worker for a device that is free

Task = TypeVar("Task")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


class Executor(Protocol):
    """Where tasks are worked on."""

    def map(
        self, function: Callable[[Task], Result], tasks: Iterable[Task]
    ) -> Iterator[tuple[Task, Result | WorkerError]]:
        """Tasks with their results as they finish, in any order."""


class Serial:
    """One task after another, in this process."""

    def map(
        self, function: Callable[[Task], Result], tasks: Iterable[Task]
    ) -> Iterator[tuple[Task, Result | WorkerError]]:
        """Tasks with their results, in their order."""
        result: Result | WorkerError
        for task in tasks:
            try:
                result = function(task)
            except DeviceError as error:
                result = error
            yield task, result


class _Workers:
    """Executors whose tasks are worked on in other processes, which may die."""

    def map(
        self, function: Callable[[Task], Result], tasks: Iterable[Task]
    ) -> Iterator[tuple[Task, Result | WorkerError]]:
        """Tasks with their results as they finish, in any order."""
        waiting = iter(tasks)
        while suspects := (yield from self._until_one_dies(function, waiting)):
            log.warning(
                "a worker process died; the %d tasks that it may have had are done one at a time",
                len(suspects),
            )
            alone = iter([task for task, _ in suspects])
            while died := (yield from self._until_one_dies(function, alone, alone=True)):
                ((task, reason),) = died
                text = "its worker process died, also with no other beside it; too little memory is"
                yield task, WorkerError(f"{text} a common reason ({reason})")

    def _until_one_dies(
        self, function: Callable[[Task], Result], tasks: Iterator[Task], alone: bool = False
    ) -> Generator[tuple[Task, Result], None, list[tuple[Task, str]]]:
        """Yields results until a worker dies; returns [(task, reason)] of what it may have had.

        alone: one task at a time, so that it is the reason.
        """
        raise NotImplementedError


class Processes(_Workers):
    """Processes on this machine.

    Parameters
    ----------
    jobs : int
        How many.
    threads : int
        Of the linear algebra in each of them.
    devices : sequence of str
        GPUs, as CUDA_VISIBLE_DEVICES names them. Each process sees one of them; with more jobs
        than devices, several share one.

    Raises
    ------
    InputError
        In a process that may have none.
    """

    def __init__(self, jobs: int, threads: int = 1, devices: Sequence[str] = ()) -> None:
        if multiprocessing.current_process().daemon:
            raise InputError(
                f"{jobs} jobs: this process is a daemonic one, such as a worker of a pool or of a "
                "loader, which may have no processes of its own; with jobs=1 it works by itself"
            )
        self.jobs, self.threads = jobs, threads
        self._devices = [devices[k % len(devices)] for k in range(jobs)] if devices else []
        self._locks = tempfile.TemporaryDirectory() if devices else None

    def _until_one_dies(
        self, function: Callable[[Task], Result], tasks: Iterator[Task], alone: bool = False
    ) -> Generator[tuple[Task, Result], None, list[tuple[Task, str]]]:
        jobs, ahead = (1, 1) if alone else (self.jobs, TASKS_PER_WORKER)
        waiting: dict[int, Task] = {}  # by number; a task stays here until it is finished
        numbers = itertools.count()
        futures: dict[Any, int] = {}
        with _starting():
            pool = self._pool(jobs)
        try:
            while True:
                for task in itertools.islice(tasks, ahead * jobs - len(waiting)):
                    number = next(numbers)
                    waiting[number] = task
                    with _starting():
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

    def _pool(self, jobs: int) -> Any:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        # Between samples a worker that has grown by much memory is replaced, which costs nothing.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        return ProcessPoolExecutor(
            jobs,
            initializer=_begin,
            initargs=(os.getpid(), self._locks and self._locks.name, self._devices),
            env=dict.fromkeys(names, str(self.threads)),
        )


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """What the system lacks for worker processes as a MachineError that says so."""
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"no worker process can be started: {error.strerror} (on {socket.gethostname()}); it "
            "takes a free process (ulimit -u) and a /dev/shm that can be written to"
        ) from error


def _begin(parent: int, folder: str | None, devices: Sequence[str]) -> None:
    """First acts of a worker. The parent answers to Ctrl-C and to the end of the terminal; when
    it is killed, this ends too."""
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    # The parent looks at the kernels too, and warns of what is missing: once is enough.
    warnings.filterwarnings("ignore", module="fwi_refine")
    if folder is not None:
        _take_device(Path(folder), devices)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _take_device(folder: Path, devices: Sequence[str]) -> None:
    """Lets this process see the first device that no other worker has taken, and no other device.

    Taken means that its file in `folder` is locked. The lock is one of the operating system: it
    is free as soon as its process has ended, however that happened.
    """
    for place, device in itertools.cycle(enumerate(devices)):
        if locks.take(folder / str(place)) is not None:  # held until this process ends
            os.environ["CUDA_VISIBLE_DEVICES"] = device
            return
        time.sleep(DEVICE_CHECK)


class Dask(_Workers):
    """The workers of an existing Dask cluster, which have this program and see the same files.

    Workers may come and go.

    Parameters
    ----------
    address : str
        Of the scheduler, such as tcp://host:8786.
    timeout : float
        How long the scheduler and each worker may take to answer, s.

    Raises
    ------
    InputError
        If dask.distributed is not installed, the scheduler does not answer, or a worker lacks this
        program.
    """

    def __init__(self, address: str, timeout: float = 30) -> None:
        try:
            import distributed
        except ImportError as error:
            raise InputError('--dask needs dask.distributed: pip install "fwi-refine[dask]"') from (
                error
            )
        self._distributed: Any = distributed
        self._client: Any
        try:
            self._client = self._distributed.Client(address, timeout=timeout, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(f"--dask {address}: no scheduler answers ({error})") from error
        if not self._client.nthreads():
            log.warning("%s has no workers yet; the samples wait for them", address)
        try:
            self._check_workers(timeout)
        except BaseException:
            self._client.close()
            raise

    def _check_workers(self, timeout: float) -> None:
        """Raises InputError, naming it, for a worker that does not answer or lacks this program.

        A task that a worker cannot even read would be waited for in vain.
        """
        workers = list(self._client.nthreads())
        pool = ThreadPoolExecutor(max(1, len(workers)))
        try:
            answers = {worker: pool.submit(self._version_at, worker) for worker in workers}
            wait(answers.values(), timeout)
            for worker, answer in answers.items():
                if not answer.done():
                    raise InputError(f"--dask: the worker {worker} does not answer in {timeout} s")
                if (error := answer.exception()) is not None:
                    raise InputError(
                        f"--dask: the worker {worker} cannot import fwi_refine ({error}); install "
                        f"version {__version__} there"
                    )
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _version_at(self, worker: str) -> None:
        """Imports the program at a worker, by what any Python has."""
        self._client.run(importlib.import_module, "fwi_refine.version", workers=[worker])

    def _until_one_dies(
        self, function: Callable[[Task], Result], tasks: Iterator[Task], alone: bool = False
    ) -> Generator[tuple[Task, Result], None, list[tuple[Task, str]]]:
        finished = self._distributed.as_completed(loop=self._client.loop)
        waiting: dict[Any, Task] = {}  # by future
        suspects: list[tuple[Task, str]] = []
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

    def close(self) -> None:
        """Leaves the cluster."""
        self._client.close()

    def _room(self) -> int:
        """How many tasks should be handed over: at least one, for a cluster still to come."""
        try:
            return max(1, TASKS_PER_WORKER * len(self._client.nthreads()))
        except OSError as error:
            raise WorkerError(f"the Dask scheduler has gone ({error})") from error


_WORKING = threading.Lock()


def _in_turn(function: Callable[[Task], Result], task: Task) -> Result:
    """A Dask worker may have several threads; the tasks share its process, so they take turns."""
    with _WORKING:
        return _or_end(function, task)


def _or_end(function: Callable[[Task], Result], task: Task) -> Result:
    """function(task); a GPU that fails ends the process, as no other gets it to work again."""
    try:
        return function(task)
    except DeviceError as error:
        print(f"fwi-refine: a worker ends: {error}", file=sys.stderr, flush=True)
        os._exit(1)
