"""How far a run is, and whether what it holds is sound."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fwi_refine.errors import PartError
from fwi_refine.runs.directory.parts import VELOCITY
from fwi_refine.runs.directory.run_directory import RunDirectory
from fwi_refine.runs.directory.shards import held_shards, known_shards, last_start, stored_parts

RECENT = 20  # parts of a shard from which its present rate is taken


@dataclass(frozen=True)
class RunState:
    """How far a run is. Parts are counted by name; `check_parts` looks into them.

    status, families: of the samples that the journals know of. rate: samples per second of the
    shards that are worked on, None where there are none or none has finished two parts yet.
    """

    samples: int
    done: int
    parts: int
    chunks: int
    status: dict[str, int]
    families: dict[str, int]
    rate: float | None
    shards: list[dict]  # name, pid, host, running, done, chunks

    @property
    def seconds_left(self) -> float | None:
        return (self.samples - self.done) / self.rate if self.rate else None


def look(run: RunDirectory) -> RunState:
    """The progress of a run; changes nothing and reads no part."""
    parts = run.parts()
    held = held_shards(run.shards_folder)
    events, shards, rate = {}, [], 0.0
    for shard in known_shards(run.shards_folder):
        finished = [e for e in stored_parts(run.shards_folder, shard) if e["chunk"] in parts]
        events |= {entry["chunk"]: entry for entry in finished}
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
            since = [e for e in finished if e["time"] >= last.get("time", 0)]
            rate += _rate(run, since[-RECENT:])
    status, families = Counter(), Counter()
    for entry in events.values():
        for counts, name in ((status, "status"), (families, "family")):
            counts.update(_counts(entry.get(name)))
    return RunState(
        samples=run.count,
        done=sum(len(run.samples(number)) for number in parts),
        parts=len(parts),
        chunks=run.chunk_count,
        status=dict(status),
        families=dict(families),
        rate=rate or None,
        shards=shards,
    )


def _counts(value) -> dict:
    """Counts of a journal, nothing where it holds something else."""
    items = value.items() if isinstance(value, dict) else ()
    return {name: n for name, n in items if type(n) is int}


def _rate(run, finished) -> float:
    """Samples per second between the first and the last of some parts."""
    if len(finished) < 2:
        return 0.0
    seconds = finished[-1]["time"] - finished[0]["time"]
    samples = sum(len(run.samples(entry["chunk"])) for entry in finished[1:])
    return samples / seconds if seconds > 0 else 0.0


def check_parts(run: RunDirectory) -> Iterator[tuple[int, str | None]]:
    """(chunk, what is wrong with it, None if nothing is) for every part; missing ones are left out.

    Every byte of every part is read. Changes nothing.
    """
    ids = set()
    for number, paths in run.parts().items():
        problem = None
        if len(paths) > 1:
            problem = f"{paths[0]}: another part of the same chunk stands beside it, {paths[1]}"
        for path in paths:
            try:
                part = run.read(path)
            except PartError as error:
                problem = str(error)
                break
            problem = problem or _suspicious(path, part, ids)
        yield number, problem


def _suspicious(path, part, ids):
    """What cannot be in a result, None if there is nothing such. ids: those seen so far."""
    for row, v in zip(part.rows, part.maps[VELOCITY], strict=True):
        if row.status != "failed" and not np.isfinite(v).all():
            return f"{path}: the map of {row.id} is not finite although it did not fail"
        if row.id in ids and row.status != "failed":
            return f"{path}: the sample {row.id} stands in more than one part"
        ids.add(row.id)
    return None
