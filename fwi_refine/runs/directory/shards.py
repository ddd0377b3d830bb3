"""Shards: which chunks a process works on, and the lock that keeps others away from them."""

import contextlib
import json
import logging
import math
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from fwi_refine.errors import RunError
from fwi_refine.files import read_bytes
from fwi_refine.runs import locks
from fwi_refine.runs.directory.run_directory import RunDirectory, shard_chunks

WAIT = 1.5  # s; whoever only looks at a lock holds it for a moment
LARGEST_JOURNAL = 2**32  # bytes

_LOCK = re.compile(r"(\d{1,9})-of-(\d{1,9})\.lock")

log = logging.getLogger(__name__)


def log_file(run: RunDirectory, shard: tuple[int, int]) -> Path:
    """Where the messages of a shard go."""
    return run.shards_folder / f"{shard_name(shard)}.log"


def running_files(folder: Path, shard: tuple[int, int]) -> Path:
    """Where the samples of a shard that are being refined have their files, see running.py."""
    return folder / f"{shard_name(shard)}.running"


def shard_name(shard: tuple[int, int]) -> str:
    """How the files of a shard are called."""
    return f"{shard[0]}-of-{shard[1]}"


@contextlib.contextmanager
def claimed(
    folder: Path, shard: tuple[int, int], count: int, needs_locks: bool = True
) -> Iterator[None]:
    """Holds a shard.

    Parameters
    ----------
    folder : Path
        Where the locks are.
    shard : (int, int)
        Part i of n, counted from 1.
    count : int
        Chunks of the run.
    needs_locks : bool
        Whether a disk without locks is refused.

    Raises
    ------
    RunError
        If a process holds it, or another shard with its chunks, or the disk has no locks.
    """
    own = shard_chunks(shard, count)
    deadline = time.monotonic() + WAIT
    with contextlib.ExitStack() as stack:
        try:
            path = folder / f"{shard_name(shard)}.lock"
            stack.enter_context(locks.locked(path, WAIT, needs_locks))
        except locks.LockHeld:
            raise RunError(_in_use(folder, shard)) from None
        # Its own lock first: of two processes that begin at once, at least one sees the other.
        # Another that begins looks too, and holds for a moment what it looks at: so look again.
        while (other := _overlapping(folder, shard, own, count)) is not None:
            if time.monotonic() >= deadline:
                raise RunError(_in_use(folder, other))
            time.sleep(locks.CHECK)
        yield


def _overlapping(
    folder: Path, shard: tuple[int, int], own: range, count: int
) -> tuple[int, int] | None:
    """A shard that is held now and has chunks of this one."""
    for other in locked_shards(folder):
        chunks = shard_chunks(other, count)
        if other != shard and max(own.start, chunks.start) < min(own.stop, chunks.stop):
            return other
    return None


def known_shards(folder: Path) -> list[tuple[int, int]]:
    """Shards that a process has worked on, or does."""
    found = (_LOCK.fullmatch(path.name) for path in folder.glob("*.lock"))
    shards = sorted((int(name[1]), int(name[2])) for name in found if name)
    return [(i, n) for i, n in shards if 1 <= i <= n]


def locked_shards(folder: Path) -> list[tuple[int, int]]:
    """Shards that a process holds now."""
    return [shard for shard in known_shards(folder) if _is_locked(folder, shard)]


def _is_locked(folder: Path, shard: tuple[int, int]) -> bool:
    try:
        number = locks.take(folder / f"{shard_name(shard)}.lock", create=False)
    except (OSError, locks.NoLocks):  # somebody else's run, or no locks: nothing can be said
        return False
    if number is None:
        return True
    os.close(number)
    return False


def _in_use(folder: Path, shard: tuple[int, int]) -> str:
    last = last_start(folder, shard)
    who = f"process {last.get('pid')} on {last.get('host')}" if last else "a process"
    return f"{folder.parent}: {who} works on shard {shard[0]}/{shard[1]} of this run"


def last_start(folder: Path, shard: tuple[int, int]) -> dict[str, Any]:
    """The entry of the process that began last to work on a shard; empty if none is known."""
    starts = [entry for entry in read_journal(folder, shard) if entry.get("event") == "start"]
    return starts[-1] if starts else {}


class Journal:
    """The journal of a shard, a line of JSON for each event. Only the holder of the shard writes.

    It tells people and `status` how a run went; no result depends on it, so a line that was cut
    by a crash, or could not be written, is of no importance.
    """

    def __init__(self, folder: Path, shard: tuple[int, int]) -> None:
        self._path = folder / f"{shard_name(shard)}.jsonl"

    def write(self, event: str, **facts: Any) -> None:
        """Adds an event, with time, process and host."""
        entry = {"time": round(time.time(), 3), "event": event, **facts}
        entry |= {"pid": os.getpid(), "host": socket.gethostname()}
        try:
            self._append(json.dumps(entry).encode() + b"\n")
        except OSError as error:
            log.debug("%s: cannot be written (%s)", self._path, error)

    def _append(self, line: bytes) -> None:
        with open(self._path, "ab+") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    file.write(b"\n")  # after a line that was cut
            file.write(line)


def read_journal(folder: Path, shard: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """Events of a shard, oldest first; lines that cannot be read are left out."""
    try:
        path = folder / f"{shard_name(shard)}.jsonl"
        lines = read_bytes(path, LARGEST_JOURNAL).splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and _is_finite(entry.get("time")):
            yield entry


def _is_finite(value: object) -> bool:
    """Whether a value of a journal is a number that can be reckoned with."""
    try:
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    except OverflowError:
        return False


def stored_samples(folder: Path, shard: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """The events of stored samples in the journal of a shard, oldest first."""
    for entry in read_journal(folder, shard):
        if entry.get("event") == "sample" and type(entry.get("place")) is int:
            yield entry


def measured_seconds(runs: Iterable[RunDirectory]) -> Callable[[int], float | None]:
    """A function that gives the seconds that a sample took by its place, None where not known."""
    known: dict[int, object] = {}
    for run in runs:
        for shard in known_shards(run.shards_folder):
            for entry in stored_samples(run.shards_folder, shard):
                known[entry["place"]] = entry.get("seconds")

    def seconds(place: int) -> float | None:
        value = known.get(place)
        return float(value) if _is_finite(value) else None  # type: ignore[arg-type]

    return seconds
