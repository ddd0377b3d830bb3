"""Working on a shard of a run: what is missing is refined and stored, sample by sample."""

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace

import numpy as np

from fwi_refine.io import Inputs, read_start
from fwi_refine.io.report import Row
from fwi_refine.io.samples import Sample
from fwi_refine.runs import batch, one_sample
from fwi_refine.runs.directory.parts import (
    DEVIATION,
    SAMPLES,
    VELOCITY,
    Part,
    joined,
    one_of,
)
from fwi_refine.runs.directory.run_directory import RunDirectory
from fwi_refine.runs.directory.shards import Journal, claimed, measured_seconds, running_files
from fwi_refine.runs.executors import Executor
from fwi_refine.runs.one_sample import Outcome
from fwi_refine.runs.running import refine_and_report, running_folder
from fwi_refine.runs.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """The work of a run, and its means.

    Attributes
    ----------
    inputs : Inputs
        Opened predictions and records, see io/inputs.py.
    settings : Settings
        What is done to every sample.
    executor : Executor
        Where it is done, see executors.py.
    shard : (int, int)
        Part i of n, counted from 1.
    refine : callable, optional
        What is done to a sample instead of `refine_one`, for those who measure or test the
        rest.
    task_size : int
        Samples that are handed out, and come back, at a time.
    needs_locks : bool
        Whether a disk without locks is refused.
    """

    inputs: Inputs
    settings: Settings
    executor: Executor
    shard: tuple[int, int] = (1, 1)
    refine: Callable[[Sample, Settings], Outcome] | None = None
    task_size: int = 1
    needs_locks: bool = True


def carry_out(
    run: RunDirectory,
    work: Work,
    found: Callable[[list[Row]], object] = lambda rows: None,
    added: Callable[[list[Row]], object] = lambda rows: None,
    shielded: Callable[[], AbstractContextManager[object]] = nullcontext,
    stored: Callable[[Sequence[int], Part], object] = lambda indices, part: None,
) -> None:
    """Completes a shard of a run.

    A sample is stored as soon as it is finished, as a piece of its chunk; the last one of a chunk
    makes them a part. A finished shard on a read-only disk is read alone.

    Parameters
    ----------
    run : RunDirectory
        The run.
    work : Work
        What is to be done.
    found, added : callable
        Told the rows of samples that were finished before, and that are finished now.
    shielded : callable
        Gives the context in which results are stored and told.
    stored : callable
        Told indices and results of both.

    Raises
    ------
    RunError
        If another process works on these chunks.
    OSError
        If a result cannot be stored; what is stored stays.
    MachineError
        If the machine fails otherwise.
    """
    chunks = run.chunks(work.shard)
    if run.is_archive(chunks):
        log.info("%s: is finished, and cannot be written to", run.path)
        for indices, part in _recovered(run, chunks):
            found(part.rows)
            stored(indices, part)
        return
    files = running_files(run.shards_folder, work.shard).absolute()  # workers may be elsewhere
    refine = work.refine or functools.partial(
        refine_and_report, folder=str(files), refine=one_sample.refine_one
    )
    with (
        claimed(run.shards_folder, work.shard, run.chunk_count, work.needs_locks),
        running_folder(files),
    ):
        journal = Journal(run.shards_folder, work.shard)
        journal.write("start", chunks=len(chunks))
        try:
            pieces = _Pieces(run, chunks)
            for indices, part in _recovered(run, chunks):
                pieces.found(indices, part)
                found(part.rows)
                stored(indices, part)
            log.info("%s: %d of %d parts are there", run.path, pieces.parts, len(chunks))
            todo = [*_tasks(pieces.missing(), work.task_size)]
            chosen = work.inputs.tasks(todo)
            with closing(batch.run(chosen, work.settings, work.executor, refine)) as results:
                for chunk, outcomes in results:
                    with shielded():
                        indices, part = todo[chunk.number], _part(work, outcomes)
                        for k, index in enumerate(indices):
                            pieces.add(index, one_of(part, k))
                            journal.write("sample", place=index, **_facts(part.rows[k]))
                        added(part.rows)
                        stored(indices, part)
        except BaseException as error:
            journal.write("stop", reason=f"{type(error).__name__}: {error}")
            raise
        journal.write("stop", reason="finished")


def _recovered(run: RunDirectory, chunks: range) -> Iterator[tuple[Sequence[int], Part]]:
    """The finished samples, with their times."""
    seconds = measured_seconds([run])
    for indices, part in run.recover(chunks):
        rows = [
            replace(row, seconds=seconds(index))
            for row, index in zip(part.rows, indices, strict=True)
        ]
        yield indices, replace(part, rows=rows)


def _tasks(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for k in range(0, len(indices), size):
        yield indices[k : k + size]


class _Pieces:
    """Samples of chunks that are not finished; those of a finished chunk become its part."""

    def __init__(self, run: RunDirectory, chunks: range) -> None:
        self._run, self._chunks = run, chunks
        self._kept: dict[int, dict[int, Part]] = {}  # by chunk and index
        self._done: set[int] = set()
        self._files = run.pieces()

    @property
    def parts(self) -> int:
        return len(self._done)

    def found(self, indices: Sequence[int], part: Part) -> None:
        """Takes what stands on disk already."""
        chunk = self._run.chunk_of(indices[0])
        if len(indices) == len(self._run.samples(chunk)):
            self._done.add(chunk)
        else:
            self._keep(indices[0], part)

    def add(self, index: int, part: Part) -> None:
        """Stores the result of a sample."""
        chunk = self._run.chunk_of(index)
        if len(self._run.samples(chunk)) == 1:
            self._run.add(chunk, part)
            self._done.add(chunk)
        elif len(self._kept.get(chunk, ())) + 1 < len(self._run.samples(chunk)):
            self._files[index] = [self._run.add_piece(index, part)]
            self._keep(index, part)
        else:
            self._keep(index, part)

    def _keep(self, index: int, part: Part) -> None:
        chunk = self._run.chunk_of(index)
        kept = self._kept.setdefault(chunk, {})
        kept[index] = part
        if len(kept) == len(self._run.samples(chunk)):
            self._run.add(chunk, joined([kept[k] for k in sorted(kept)]))
            self._done.add(chunk)
            for path in (path for k in kept for path in self._files.pop(k, ())):
                path.unlink(missing_ok=True)
            del self._kept[chunk]

    def missing(self) -> list[int]:
        """Indices of the samples that are still to be refined."""
        return [
            index
            for chunk in self._chunks
            if chunk not in self._done
            for index in self._run.samples(chunk)
            if index not in self._kept.get(chunk, ())
        ]


def _facts(row: Row) -> dict[str, object]:
    return {
        "seconds": row.seconds and round(row.seconds, 3),
        "status": row.status,
        "family": row.family,
    }


def _part(work: Work, outcomes: Sequence[Outcome]) -> Part:
    """The entries of some samples in a part: where one failed, its start stands for the map."""
    survey = work.settings.survey
    velocity = [
        read_start(work.inputs.predictions, outcome.index, survey)
        if outcome.velocity is None
        else outcome.velocity.astype(np.float32)
        for outcome in outcomes
    ]
    maps = {VELOCITY: np.stack(velocity)}
    if work.settings.keep_deviation:
        unknown = np.full(survey.shape, np.nan, np.float32)
        found = (outcome.deviation for outcome in outcomes)
        maps[DEVIATION] = np.stack([unknown if v is None else v for v in found])
    if count := work.settings.samples:
        unknown = np.full((count, *survey.shape), np.nan, np.float32)
        drawn = (outcome.samples for outcome in outcomes)
        maps[SAMPLES] = np.stack([unknown if v is None else v for v in drawn])
    histories = [outcome.history for outcome in outcomes]
    return Part([outcome.row for outcome in outcomes], maps, histories)
