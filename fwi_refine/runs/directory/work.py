"""Working on a shard of a run: what is missing is refined and stored, chunk by chunk."""

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass

import numpy as np

from fwi_refine.io import read_start
from fwi_refine.io.report import Row
from fwi_refine.runs import batch
from fwi_refine.runs.directory.parts import DEVIATION, VELOCITY, Part
from fwi_refine.runs.directory.run_directory import RunDirectory
from fwi_refine.runs.directory.shards import Journal, claimed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What is to be done, and with what.

    inputs: opened predictions, and `chunks(numbers, size)`, see io/inputs.py; executor: see
    executors.py; shard: (i, n), i from 1; refine: what is done to a sample instead of
    `batch.refine_one`, for those who measure or test the rest.
    """

    inputs: object
    settings: batch.Settings
    executor: object
    shard: tuple[int, int] = (1, 1)
    refine: Callable | None = None


def carry_out(
    run: RunDirectory,
    work: Work,
    found: Callable[[list[Row]], None] = lambda rows: None,
    added: Callable[[list[Row]], None] = lambda rows: None,
    shielded: Callable[[], AbstractContextManager] = nullcontext,
):
    """Completes a shard of a run.

    found, added: told the rows of each chunk that was finished before, and that is finished now;
    shielded: the context in which a result is stored and told. Raises RunError if another process
    works on these chunks, OSError if a result cannot be stored; what is stored stays.
    """
    chunks = run.chunks(work.shard)
    with claimed(run.shards_folder, work.shard, run.chunk_count):
        journal = Journal(run.shards_folder, work.shard)
        journal.write("start", chunks=len(chunks))
        try:
            done = set()
            for number, part in run.recover(chunks):
                done.add(number)
                found(part.rows)
            log.info("%s: %d of %d parts are there", run.path, len(done), len(chunks))
            missing = [number for number in chunks if number not in done]
            todo = work.inputs.chunks(missing, run.chunk_size)
            with closing(batch.run(todo, work.settings, work.executor, work.refine)) as results:
                for chunk, outcomes in results:
                    with shielded():
                        run.add(chunk.number, _part(work, outcomes))
                        rows = [outcome.row for outcome in outcomes]
                        journal.write("part", chunk=chunk.number, **_facts(rows))
                        added(rows)
        except BaseException as error:
            with suppress(OSError):  # a full disk, most likely, and that is what is raised
                journal.write("stop", reason=f"{type(error).__name__}: {error}")
            raise
        journal.write("stop", reason="finished")


def _facts(rows) -> dict:
    return {
        "seconds": [row.seconds and round(row.seconds, 3) for row in rows],
        "status": Counter(row.status for row in rows),
        "family": Counter(row.family for row in rows if row.family),
    }


def _part(work, outcomes) -> Part:
    """What is stored of a chunk: where a sample failed, its start stands for the map."""
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
    return Part([outcome.row for outcome in outcomes], maps)
