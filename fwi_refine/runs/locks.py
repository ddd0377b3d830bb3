"""Locks of the operating system: free as soon as their process has ended, however that happened."""

import contextlib
import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from fwi_refine.errors import RunError

CHECK = 0.05  # s between two looks at a lock that another process holds
# What a disk without locks answers.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}

log = logging.getLogger(__name__)


class NoLocks(RunError):
    """The disk has no locks."""


class LockHeld(RunError):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(path: Path, wait: float = 0.0, needed: bool = True) -> Iterator[None]:
    """Holds the lock of a file, which is made where it is missing.

    Parameters
    ----------
    path : Path
        The file.
    wait : float
        How long another process may still hold it, s.
    needed : bool
        Whether it is an error that the disk has no locks; else that is warned of.

    Raises
    ------
    LockHeld
        If another process holds it.
    NoLocks
        If the disk has none.
    OSError
        If the file cannot be opened.
    """
    deadline = time.monotonic() + wait
    number = None
    try:
        while (number := take(path)) is None:
            if time.monotonic() >= deadline:
                raise LockHeld(f"{path}: another process holds it")
            time.sleep(CHECK)
    except NoLocks as error:
        if needed:
            raise
        log.warning("%s; nothing keeps a second process with the same output away", error)
    try:
        yield
    finally:
        if number is not None:
            os.close(number)


def take(path: Path, create: bool = True) -> int | None:
    """Takes the lock of a file.

    Parameters
    ----------
    path : Path
        The file.
    create : bool
        Whether the file is made where it is missing.

    Returns
    -------
    int or None
        The descriptor that holds it until it is closed, None where another process has it.

    Raises
    ------
    NoLocks
        If the disk has none; the message names the remedy.
    OSError
        If the file cannot be opened.
    """
    number = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o666)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        return None
    except OSError as error:
        os.close(number)
        if error.errno not in _NO_LOCKS:
            raise
        raise NoLocks(
            f"{path}: this disk has no locks ({error.strerror}); a run directory needs them: put "
            "it on a local disk, or mount this one with locks"
        ) from error
    return number
