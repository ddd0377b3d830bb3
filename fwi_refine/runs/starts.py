"""Maps to start from for many records, on any executor."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fwi_refine.errors import SampleError, WorkerError
from fwi_refine.inversion import initial_model
from fwi_refine.io.record_sources import RecordSource
from fwi_refine.machine_faults import is_machine_fault, machine_error
from fwi_refine.runs import gpu_streams
from fwi_refine.runs.executors import Executor

if TYPE_CHECKING:
    from fwi_refine.runs.unfinished import KeptMaps

Numbered = tuple[int, RecordSource]
Made = NDArray[np.float64] | SampleError | WorkerError


def each_made(
    executor: Executor,
    make: Callable[[Sequence[Numbered]], list[Made]],
    tasks: Iterable[Sequence[Numbered]],
) -> Iterator[tuple[Numbered, Made]]:
    """The map of each record of some tasks; a record whose process dies costs no other its map.

    Parameters
    ----------
    executor : Executor
        Where they are made.
    make : callable
        Makes the maps of a task, see `make_starts`.
    tasks : iterable of sequences
        Numbers and records.

    Yields
    ------
    ((int, RecordSource), array or error)
        A record with its map, (nz, nx) in m/s, or the error that says why there is none.
    """
    for task, found in executor.map(make, tasks):
        if not isinstance(found, WorkerError):
            yield from zip(task, found, strict=True)
        elif len(task) == 1:
            yield task[0], found
        else:
            yield from each_made(executor, make, [[one] for one in task])


def each_kept(
    executor: Executor,
    make: Callable[[Sequence[Numbered]], list[Made]],
    tasks: Iterable[Sequence[Numbered]],
    kept: "KeptMaps",
) -> Iterator[tuple[Numbered, Made]]:
    """The same, first those maps that are kept; each one that is made is kept before it is given.

    Parameters
    ----------
    executor, make, tasks
        As for `each_made`.
    kept : KeptMaps
        The finished maps by their numbers.

    Yields
    ------
    ((int, RecordSource), array or error)
        As `each_made` does.
    """
    missing: list[list[Numbered]] = []
    for task in tasks:
        rest = []
        for one in task:
            v = kept.read(one[0])
            if v is None:
                rest.append(one)
            else:
                yield one, v
        missing += [rest] if rest else []
    for one, made in each_made(executor, make, missing):
        if not isinstance(made, Exception):
            kept.write(one[0], made)
        yield one, made


def make_starts(task: Sequence[Numbered], per_job: int, **options: Any) -> list[Made]:
    """The map of each record of a task, or the SampleError that says why there is none.

    Parameters
    ----------
    task : sequence
        Numbers and records.
    per_job : int
        How many are worked on at a time.
    **options
        Arguments of `initial_model.start_from_record`.

    Raises
    ------
    MachineError, DeviceError
        If the machine fails, which says nothing of a record.
    """

    def make(numbered: Numbered, **other: Any) -> Made:
        _, record = numbered
        try:
            with gpu_streams.one_thread():
                return initial_model.start_from_record(record.read(0), **options | other)
        except SampleError as error:
            return error
        except Exception as error:
            if trouble := gpu_streams.trouble(error):
                raise trouble from None
            if is_machine_fault(error):
                raise machine_error(error, record.where(0)) from error
            # a defect that one record brings to light must not cost the others their maps
            return SampleError(f"{type(error).__name__}: {error}")

    def on_cpu(numbered: Numbered) -> Made:
        return make(numbered, device="cpu", kernel="auto")

    otherwise = None if options["device"] == "cpu" else on_cpu
    return gpu_streams.each(make, task, per_job, options["device"], otherwise)
