"""Messages on stderr, and in a log file where one is asked for.

A message that cannot be written stops no work: a terminal may be closed, a pipe broken, a disk full
long before a run is done.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from fwi_refine.cli import console
from fwi_refine.errors import InputError


class Forgiving:
    """A text stream of which no write fails."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failed = False

    def write(self, text: str) -> int:
        """Writes what can be written."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):  # ValueError: it is closed
            self.failed = True
            return len(text)

    def flush(self) -> None:
        """Flushes what can be flushed."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self.failed = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def forgiving_stderr() -> Iterator[None]:
    """Within it no write to stderr fails, whoever makes it: progress bars, warnings, messages."""
    before = sys.stderr
    with contextlib.ExitStack() as stack:
        stream = before or stack.enter_context(open(os.devnull, "w"))
        sys.stderr = Forgiving(stream)
        try:
            yield
        finally:
            sys.stderr = before


def open_standard_streams() -> None:
    """Gives standard streams that are closed a place: else the next file that is opened, a result
    maybe, would be written to as if it were one of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # the lowest number that is free; worker processes get it too, or theirs would be closed
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (as long as the program)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be no text


def close_standard_streams() -> None:
    """Drops what cannot be written, so that the end of the program does not fail of it."""
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)


class _Stderr(logging.Handler):
    """Writes to stderr as it is at the moment: above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError, ValueError):
            console.write(self.format(record))


class _File(logging.FileHandler):
    """A log file; what it cannot take, such as on a full disk, is lost."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


def set_up(verbose: int, quiet: int, log_file: Path | None) -> None:
    """verbose, quiet: how often -v and -q were given. Raises InputError if the file cannot be made,
    and for a pipe, which may have no reader."""
    if log_file and log_file.is_fifo():
        raise InputError(f"--log-file {log_file}: is a pipe, expected a regular file")
    level = logging.DEBUG if verbose else (logging.ERROR if quiet else logging.INFO)
    root = logging.getLogger()
    tear_down()
    stderr = _Stderr(level)
    stderr.setFormatter(logging.Formatter("%(message)s"))
    root.addHandler(stderr)
    if log_file:
        try:
            add_file(log_file, logging.DEBUG if verbose else logging.INFO)
        except OSError as error:
            message = f"--log-file {log_file}: cannot be written ({error.strerror})"
            raise InputError(message) from error
    root.setLevel(logging.WARNING)
    logging.getLogger("fwi_refine").setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.captureWarnings(True)


def add_file(path: Path, level: int = logging.INFO) -> None:
    """Messages go to this file too, after what it holds. Raises OSError if it cannot be made."""
    file = _File(path, encoding="utf-8", errors="backslashreplace")
    file.setLevel(level)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(file)


def tear_down() -> None:
    """Takes this program's handlers away again."""
    logging.captureWarnings(False)
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _Stderr | logging.FileHandler):
            root.removeHandler(handler)
            with contextlib.suppress(OSError):
                handler.close()
