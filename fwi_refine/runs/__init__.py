"""Many samples: in chunks, on any executor, in directories that a run can be continued in.

What is named here is loaded when it is first used: a worker process begins without torch.
"""

from fwi_refine.lazy import lazy

# Where each name is.
_MODULES = {
    "Contents": "directory",
    "Outcome": "one_sample",
    "RunState": "directory",
    "RunDirectory": "directory",
    "Settings": "settings",
    "Work": "directory",
    "carry_out": "directory",
    "claimed": "directory",
    "check_parts": "directory",
    "check_place": "directory",
    "describe": "directory",
    "differences": "directory",
    "log_file": "directory",
    "read_state": "directory",
    "merge": "directory",
    "running_files": "directory",
    "shard_chunks": "directory",
}
__all__, __getattr__, __dir__ = lazy(__name__, _MODULES)
