"""The samples that are being refined now: a small file for each, which its process keeps.

Whoever shows a run reads these files: the process that began it, and `status --watch` on another
machine. They tell people how far a sample is; no result depends on them, so one that cannot be
written, or that a killed process left, is of no importance.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fwi_refine.files import read_bytes

INTERVAL = 0.5  # s, least time between two writes of one file
LARGEST = 4096  # bytes
OVERDUE = 0.5  # of the mean time: a sample that runs longer is given as much again
SUFFIX = ".json"


@dataclass(frozen=True)
class Running:
    """A sample that is being refined.

    Attributes
    ----------
    id : str
        Its id.
    started : float
        When, as time.time() has it.
    stage : str
        Such as "layered, stage 3 of 8"; empty before the first.
    step : int
        Iterations of the stage so far.
    first, now, noise : float
        Rms misfit of the start, of the present map, and at which a record counts as explained;
        None where unknown.
    """

    id: str
    started: float
    stage: str = ""
    step: int = 0
    first: float | None = None
    now: float | None = None
    noise: float | None = None


def refine_and_report(sample: Any, settings: Any, folder: str, refine: Callable[..., Any]) -> Any:
    """Refine a sample, with a file that says how far it is.

    Parameters
    ----------
    sample, settings
        As `refine` takes them.
    folder : str
        Of the files of running samples.
    refine : callable
        refine(sample, settings, watch), such as `refine_one`.

    Returns
    -------
    Outcome
        What `refine` returns.
    """
    from fwi_refine.inversion.run_recipe import FIT_RMS

    state = Running(sample.id, time.time(), noise=FIT_RMS * settings.survey.unit)
    with _reported(Path(folder) / f"{sample.index}{SUFFIX}", state) as watch:
        return refine(sample, settings, watch)


@contextlib.contextmanager
def _reported(path: Path, state: Running) -> Iterator[Any]:
    """Gives a function that is told each `Progress`, and writes it where the last is old enough."""
    first: float | None = None
    written = time.monotonic()
    _write(path, state)

    def watch(step: Any) -> None:
        nonlocal first, written
        if first is None:
            first = step.misfit
        if time.monotonic() - written >= INTERVAL or step.step == 0:
            written = time.monotonic()
            _write(path, Running(state.id, state.started, step.stage, step.step, first,
                                 step.misfit, state.noise))  # fmt: skip

    try:
        yield watch
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _write(path: Path, state: Running) -> None:
    """Writes a file; a reader finds the old or the new one. What fails is left."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        temporary.write_text(json.dumps(asdict(state)))
        os.replace(temporary, path)


def read_running(folder: Path) -> list[Running]:
    """The samples of a folder, the one that began first at the head; empty where there is none."""
    found = []
    with contextlib.suppress(OSError):
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            state = _read(path)
            if state is not None:
                found.append(state)
    return sorted(found, key=lambda state: state.started)


def _read(path: Path) -> Running | None:
    """The content of a file; None where it has gone or cannot be understood."""
    try:
        table = json.loads(read_bytes(path, LARGEST))
        if not (isinstance(table["id"], str) and isinstance(table["stage"], str)):
            return None
        misfits = (table[name] for name in ("first", "now", "noise"))
        return Running(
            table["id"],
            float(table["started"]),
            table["stage"],
            int(table["step"]),
            *(None if value is None else float(value) for value in misfits),
        )
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def seconds_left(
    left: int, running: Sequence[Running], mean_seconds: float | None, now: float
) -> float | None:
    """How long the rest of a run takes, by what its finished samples took.

    Parameters
    ----------
    left : int
        Samples that are not finished, with the running ones.
    running : sequence of Running
        Those that are refined now; it goes on with as many at a time.
    mean_seconds : float or None
        That a finished sample took.
    now : float
        As time.time() has it.

    Returns
    -------
    float or None
        Seconds; None where nothing is finished, or nothing runs.
    """
    if mean_seconds is None or not running:
        return None
    most = OVERDUE * mean_seconds
    had = sum(min(max(0.0, now - state.started), most) for state in running)
    return max(0.0, left * mean_seconds - had) / len(running)


@contextlib.contextmanager
def running_folder(folder: Path) -> Iterator[Path]:
    """An empty folder for these files, as long as their samples are worked on."""
    _remove(folder)
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Removes the files of such a folder, and itself."""
    with contextlib.suppress(OSError):
        for path in [*folder.glob(f"*{SUFFIX}"), *folder.glob("*.tmp")]:
            path.unlink(missing_ok=True)
        folder.rmdir()
