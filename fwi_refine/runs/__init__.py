"""Many samples: in chunks, on any executor, in directories that a run can be continued in.

What is named here is loaded when it is first used: a worker process begins without torch.
"""

import importlib
from typing import Any

# Where each name is.
_MODULES = {
    "Contents": "directory",
    "Outcome": "batch",
    "RunState": "directory",
    "RunDirectory": "directory",
    "Settings": "batch",
    "Work": "directory",
    "carry_out": "directory",
    "claimed": "directory",
    "check_parts": "directory",
    "check_place": "directory",
    "describe": "directory",
    "differences": "directory",
    "log_file": "directory",
    "look": "directory",
    "merge": "directory",
    "running_files": "directory",
    "shard_chunks": "directory",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
