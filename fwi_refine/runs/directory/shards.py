"""Shards: which chunks a process works on, and the lock that keeps others away from them."""

import contextlib
import json
import os
import re
import socket
import time

import filelock

from fwi_refine.errors import RunError

WAIT = 1.0  # s; whoever only looks at a lock holds it for a moment

_LOCK = re.compile(r"(\d+)-of-(\d+)\.lock")


def shard_chunks(shard, count) -> range:
    """Chunks of shard (i, n), i from 1, of a run of `count` chunks; it may have none."""
    i, n = shard
    return range(count * (i - 1) // n, count * i // n)


def log_file(run, shard):
    """Where the messages of a shard go."""
    return run.shards_folder / f"{shard_name(shard)}.log"


def shard_name(shard) -> str:
    return f"{shard[0]}-of-{shard[1]}"


@contextlib.contextmanager
def claimed(folder, shard, count):
    """Holds a shard. Raises RunError if a process holds it, or another shard with its chunks.

    The lock is one of the operating system: it is free as soon as its process has ended, however
    that happened.
    """
    own = shard_chunks(shard, count)
    lock = filelock.FileLock(folder / f"{shard_name(shard)}.lock")
    try:
        lock.acquire(timeout=WAIT)
    except filelock.Timeout:
        raise RunError(_in_use(folder, shard)) from None
    try:
        # Its own lock first: of two processes that begin at once, at least one sees the other.
        for other in held_shards(folder):
            chunks = shard_chunks(other, count)
            if other != shard and max(own.start, chunks.start) < min(own.stop, chunks.stop):
                raise RunError(_in_use(folder, other))
        yield
    finally:
        lock.release()


def known_shards(folder) -> list[tuple[int, int]]:
    """Shards that a process has worked on, or does."""
    found = (_LOCK.fullmatch(path.name) for path in folder.glob("*.lock"))
    return sorted((int(name[1]), int(name[2])) for name in found if name)


def held_shards(folder) -> list[tuple[int, int]]:
    """Shards that a process holds now."""
    return [shard for shard in known_shards(folder) if _is_held(folder, shard)]


def _is_held(folder, shard):
    lock = filelock.FileLock(folder / f"{shard_name(shard)}.lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return True
    except OSError:  # somebody else's run, on a disk that may only be read: nothing can be said
        return False
    lock.release()
    return False


def _in_use(folder, shard) -> str:
    last = last_start(folder, shard)
    who = f"process {last.get('pid')} on {last.get('host')}" if last else "a process"
    return f"{folder.parent}: {who} works on shard {shard[0]}/{shard[1]} of this run"


def last_start(folder, shard) -> dict:
    """The entry of the process that began last to work on a shard; empty if none is known."""
    starts = [entry for entry in read_journal(folder, shard) if entry.get("event") == "start"]
    return starts[-1] if starts else {}


class Journal:
    """What happened in a shard, a line of JSON for each event. Only the holder of the shard writes.

    It tells people and `status` how a run went; no result depends on it, so a line that was cut
    by a crash is of no importance.
    """

    def __init__(self, folder, shard):
        self._path = folder / f"{shard_name(shard)}.jsonl"

    def write(self, event, **facts):
        """Adds an event, with time, process and host."""
        entry = {"time": round(time.time(), 3), "event": event, **facts}
        entry |= {"pid": os.getpid(), "host": socket.gethostname()}
        with open(self._path, "ab+") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    file.write(b"\n")  # after a line that was cut
            file.write(json.dumps(entry).encode() + b"\n")


def read_journal(folder, shard):
    """Events of a shard, oldest first; lines that cannot be read are left out."""
    try:
        lines = (folder / f"{shard_name(shard)}.jsonl").read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and isinstance(entry.get("time"), int | float):
            yield entry


def stored_parts(folder, shard):
    """What the journal of a shard says of the parts that were stored, oldest first."""
    for entry in read_journal(folder, shard):
        if entry.get("event") == "part" and type(entry.get("chunk")) is int:
            yield entry


def measured_seconds(runs):
    """A function (chunk, samples) that gives the seconds of each sample, None where not known."""
    known = {}
    for run in runs:
        for shard in known_shards(run.shards_folder):
            for entry in stored_parts(run.shards_folder, shard):
                known[entry["chunk"]] = entry.get("seconds")

    def seconds(number, count):
        values = known.get(number)
        if not isinstance(values, list) or len(values) != count:
            return [None] * count
        return [float(v) if isinstance(v, int | float) else None for v in values]

    return seconds
