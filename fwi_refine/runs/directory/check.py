"""How far a run is, and whether what it holds is sound."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fwi_refine.errors import MachineError, PartError
from fwi_refine.runs.directory.parts import VELOCITY, Part
from fwi_refine.runs.directory.run_directory import RunDirectory
from fwi_refine.runs.directory.shards import (
    known_shards,
    last_start,
    locked_shards,
    running_files,
    stored_samples,
)
from fwi_refine.runs.running import Running, read_running, seconds_left

RECENT = 100  # samples of a shard from which its present rate is taken
LONGEST = 1e9  # s that a sample may have taken by a journal, which a disk may have damaged


@dataclass(frozen=True)
class RunState:
    """How far a run is. Parts are counted by name; `check_parts` looks into them.

    Attributes
    ----------
    samples, done : int
        Samples of the run, and those that are finished.
    parts, chunks : int
        Chunks that are finished, and all.
    status, families : dict
        Counts of the samples that the journals know of.
    rate : float or None
        Samples per second of the shards that are worked on, None where there are none or none has
        finished two samples yet.
    shards : list of dict
        Name, pid, host, running, done, chunks.
    running : list of Running
        The samples that are being refined.
    mean_seconds : float or None
        That a finished sample took, None where none is known.
    """

    samples: int
    done: int
    parts: int
    chunks: int
    status: dict[str, int]
    families: dict[str, int]
    rate: float | None
    shards: list[dict[str, Any]]
    running: list[Running]
    mean_seconds: float | None

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes, s: by what finished samples took and running ones had, else at
        this rate; None where neither is known."""
        left = self.samples - self.done
        rest = seconds_left(left, self.running, self.mean_seconds, time.time())
        return left / self.rate if rest is None and self.rate else rest


def read_state(run: RunDirectory) -> RunState:
    """The progress of a run; changes nothing and reads no part."""
    parts = run.parts()
    pieces = {place for place in run.pieces() if run.chunk_of(place) not in parts}
    held = locked_shards(run.shards_folder)
    events: dict[int, dict[str, Any]] = {}
    shards, rate, running = [], 0.0, []
    for shard in known_shards(run.shards_folder):
        finished = [
            entry
            for entry in stored_samples(run.shards_folder, shard)
            if entry["place"] in pieces or run.chunk_of(entry["place"]) in parts
        ]
        events |= {entry["place"]: entry for entry in finished}
        last = last_start(run.shards_folder, shard)
        chunks = run.chunks(shard)
        shards.append(
            {
                "shard": f"{shard[0]}/{shard[1]}",
                "running": shard in held,
                "pid": last.get("pid"),
                "host": last.get("host"),
                "done": sum(number in parts for number in chunks),
                "chunks": len(chunks),
            }
        )
        if shard in held:
            running += read_running(running_files(run.shards_folder, shard))
            since = [e for e in finished if e["time"] >= last.get("time", 0)]
            rate += _rate(since[-RECENT:])
    return RunState(
        samples=run.count,
        done=len(pieces) + sum(len(run.samples(number)) for number in parts),
        parts=len(parts),
        chunks=run.chunk_count,
        status=_counts(events, "status"),
        families=_counts(events, "family"),
        rate=rate or None,
        shards=shards,
        running=running,
        mean_seconds=_mean_seconds(events),
    )


def _counts(events: dict[int, dict[str, Any]], key: str) -> dict[str, int]:
    """How often each value of a key stands in a journal, without what is no text."""
    values = (entry.get(key) for entry in events.values())
    return dict(Counter(value for value in values if value and isinstance(value, str)))


def _mean_seconds(events: dict[int, dict[str, Any]]) -> float | None:
    """Mean time of the samples of journals that have a sensible one, s."""
    values = [entry.get("seconds") for entry in events.values()]
    times = [float(v) for v in values if type(v) in (int, float) and 0 < v < LONGEST]  # type: ignore[operator,arg-type]
    return sum(times) / len(times) if times else None


def _rate(finished: Sequence[dict[str, Any]]) -> float:
    """Samples per second between the first and the last of some."""
    if len(finished) < 2:
        return 0.0
    seconds = finished[-1]["time"] - finished[0]["time"]
    return (len(finished) - 1) / seconds if seconds > 0 else 0.0


def check_parts(run: RunDirectory) -> Iterator[tuple[int, str | None]]:
    """Reads every byte of every part. Changes nothing.

    Parameters
    ----------
    run : RunDirectory
        The run.

    Yields
    ------
    (int, str or None)
        For every part its chunk and what is wrong with it, None if nothing is; missing ones are
        left out. For every piece with which something is wrong its chunk, and what it is.
    """
    ids: set[str] = set()
    for number, paths in run.parts().items():
        problem = None
        if len(paths) > 1:
            problem = f"{paths[0]}: another part of the same chunk stands beside it, {paths[1]}"
        for path in paths:
            try:
                part = run.read(path)
            except (PartError, MachineError) as error:
                problem = str(error)
                break
            problem = problem or _suspicious(path, part, ids)
        yield number, problem
    for place, paths in run.pieces().items():
        for path in paths:
            try:
                run.read(path)
            except (PartError, MachineError) as error:
                yield run.chunk_of(place), str(error)


def _suspicious(path: Path, part: Part, ids: set[str]) -> str | None:
    """The fault of a result, None if there is none. ids: those seen so far."""
    for row, v in zip(part.rows, part.maps[VELOCITY], strict=True):
        if row.status != "failed" and not np.isfinite(v).all():
            return f"{path}: the map of {row.id} is not finite although it did not fail"
        if row.id in ids and row.status != "failed":
            return f"{path}: the sample {row.id} stands in more than one part"
        ids.add(row.id)
    return None
