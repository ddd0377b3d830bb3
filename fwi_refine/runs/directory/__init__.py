"""Runs that can be stopped, killed and continued, and shared between machines.

A run directory holds

    run.toml                              what the run is: samples, settings, inputs; never changed
    parts/part-000012-0123456789abcdef.h5 results of chunk 12 and the digest of that file
    parts/piece-000099-0123456789abcdef.h5 of sample 99, as long as its chunk is not finished
    shards/3-of-8.lock, .jsonl, .log      of each shard: who works on it, what happened, messages
    shards/3-of-8.running/99.json         how far sample 99 is, as long as it is refined

A part is written under another name, fsynced and renamed, and never changed after that. So done
means that a part stands under its final name and has the digest that its name gives; nothing
else is believed, and nothing finished can be lost with the process that made it.
"""

from fwi_refine.runs.directory.check import RunState, check_parts, read_state
from fwi_refine.runs.directory.config import describe, differences
from fwi_refine.runs.directory.contents import Contents
from fwi_refine.runs.directory.merge import merge
from fwi_refine.runs.directory.run_directory import RunDirectory, check_place, shard_chunks
from fwi_refine.runs.directory.shards import claimed, log_file, running_files
from fwi_refine.runs.directory.work import Work, carry_out

__all__ = [
    "Contents",
    "RunDirectory",
    "RunState",
    "Work",
    "carry_out",
    "check_parts",
    "check_place",
    "claimed",
    "describe",
    "differences",
    "log_file",
    "merge",
    "read_state",
    "running_files",
    "shard_chunks",
]
