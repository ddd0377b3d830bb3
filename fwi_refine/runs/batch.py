"""Many samples, in chunks, on any executor. Each sample is refined on its own.

What happens to a sample depends on that sample and the settings alone, so the result has the
same bits for any order, any executor, and whatever its neighbours are.
"""

import functools
import logging
import socket
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace

from fwi_refine.errors import WorkerError
from fwi_refine.io.samples import Chunk, Sample
from fwi_refine.runs import gpu_streams, one_sample
from fwi_refine.runs.executors import Executor
from fwi_refine.runs.one_sample import Outcome, failure
from fwi_refine.runs.settings import Settings, identity

# So many samples, one after another, whose processes died: then it is not the samples.
MAX_DEATHS = 5
ON_CPU = "on the CPU: the GPU had too little memory"

log = logging.getLogger(__name__)

RefineFunction = Callable[[Sample, Settings], Outcome]


def run(
    chunks: Iterable[Chunk],
    settings: Settings,
    executor: Executor,
    refine: RefineFunction | None = None,
) -> Generator[tuple[Chunk, list[Outcome]], None, None]:
    """Chunks with the outcomes of their samples as they finish; in any order.

    A sample whose process dies fails alone.

    Parameters
    ----------
    chunks : iterable of Chunk
        The samples.
    settings : Settings
        What is done to each.
    executor : Executor
        Where it is done, see executors.py.
    refine : callable, optional
        What is done to one sample; `refine_one` by default.

    Yields
    ------
    (Chunk, list of Outcome)
        A chunk and what became of its samples, in their order.

    Raises
    ------
    WorkerError
        If the processes die whatever the sample is, or if a worker would compute something else
        than this process.
    MachineError
        If a machine fails in a way that says nothing of a sample.
    """
    function = functools.partial(
        refine_chunk,
        settings=settings,
        refine=refine or one_sample.refine_one,
        expected=identity(settings),
    )
    deaths = 0
    for chunk, outcomes in executor.map(function, chunks):
        if isinstance(outcomes, WorkerError):
            singles = [Chunk(chunk.number, (sample,)) for sample in chunk.samples]
            tried = executor.map(function, singles) if len(singles) > 1 else [(chunk, outcomes)]
            collected: list[Outcome] = []
            for single, found in tried:
                if not isinstance(found, WorkerError):
                    deaths = 0
                    collected += found
                    continue
                deaths += 1
                if deaths >= MAX_DEATHS:
                    raise WorkerError(
                        f"{deaths} samples in a row: {found}; use fewer --jobs, or more memory"
                    )
                collected.append(_died(single.samples[0], found))
            outcomes = sorted(collected, key=lambda outcome: outcome.index)
        else:
            deaths = 0
        for outcome in outcomes:
            if outcome.traceback:  # logged here, as a worker's log may be on another machine
                log.error("sample %s: unexpected error\n%s", outcome.row.id, outcome.traceback)
        yield chunk, outcomes


def refine_chunk(
    chunk: Chunk, settings: Settings, refine: RefineFunction, expected: tuple[str, str]
) -> list[Outcome]:
    """Outcomes of the samples of a chunk, in their order.

    Parameters
    ----------
    chunk : Chunk
        The samples.
    settings : Settings
        What is done to each.
    refine : callable
        Does it.
    expected : (str, str)
        `identity` of the process that asks.

    Raises
    ------
    WorkerError
        If the identity of this process differs.
    DeviceError
        If the GPU fails, whatever the samples are.
    MachineError
        If the machine fails otherwise.
    """
    found = identity(settings)
    if found != expected:
        raise WorkerError(
            f"the worker on {socket.gethostname()} has fwi-refine {' with the kernel '.join(found)}"
            f", expected {' with the kernel '.join(expected)}"
        )
    on_cpu = None
    if settings.device != "cpu":
        on_cpu = functools.partial(_refine_on_cpu, refine, settings)
    return gpu_streams.each(
        lambda sample: refine(sample, settings),
        chunk.samples,
        settings.per_job,
        settings.device,
        otherwise=on_cpu,
    )


def _refine_on_cpu(refine: RefineFunction, settings: Settings, sample: Sample) -> Outcome:
    """A sample that the memory of its GPU does not suffice for; the report says so."""
    outcome = refine(sample, replace(settings, device="cpu", kernel="auto"))
    flags = "; ".join(filter(None, (outcome.row.flags, ON_CPU)))
    return replace(outcome, row=replace(outcome.row, flags=flags))


def _died(sample: Sample, error: WorkerError) -> Outcome:
    return failure(sample, f"sample {sample.id}: {error}")
