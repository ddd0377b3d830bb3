"""Errors of the machine, told from those of what was read or computed.

A disk that fails, a mount that has gone, too many open files, too little memory: such an error says
nothing of the file that was read, so it must not become the result of a sample.
"""

import errno
import os
import re
import socket
import time
from collections.abc import Callable
from typing import TypeVar

from fwi_refine.errors import MachineError

# Errors that may have passed by the next moment, and the waits before another try, in s.
PASSING = {
    errno.EIO, errno.ESTALE, errno.ENOENT, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.EINTR,
    errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENODEV,
}  # fmt: skip
WAITS = (0.1, 0.5, 1.5)
# Errors that tell of a path and not of the machine: links in a circle, a name that cannot be.
OF_THE_PATH = {errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ENXIO}

T = TypeVar("T")

_HDF5_ERRNO = re.compile(r"errno = (\d+)")


def error_number(error: BaseException) -> int | None:
    """The errno of a system error, None where it is none.

    HDF5 gives it in its text alone; its other errors are about what a file holds.
    """
    if not isinstance(error, OSError):
        return None
    found = _HDF5_ERRNO.search(str(error))
    return error.errno or (int(found[1]) if found and int(found[1]) else None)


def is_machine_fault(error: BaseException) -> bool:
    """Whether an error is one of the machine, and says nothing of what was read or computed.

    Parameters
    ----------
    error : BaseException
        What was raised.

    Returns
    -------
    bool
        True for errors of the system, other than those of a path that leads nowhere, and for too
        little memory, which torch reports in words.
    """
    if isinstance(error, MemoryError | MachineError):
        return True
    if isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error):
        return True
    number = error_number(error)
    return number is not None and number not in OF_THE_PATH


def machine_error(error: BaseException, what: str) -> MachineError:
    """The MachineError that tells of `error`, where it happened and on which machine."""
    if isinstance(error, MachineError):
        return error
    if isinstance(error, OSError):
        number = error_number(error)
        reason = os.strerror(number) if number else str(error)
        named = error.filename and str(error.filename) != what
        place = f" {error.filename!s}:" if named else ""
        return MachineError(f"{what}:{place} {reason} (on {socket.gethostname()})")
    return MachineError(
        f"{what}: too little memory (on {socket.gethostname()}); use fewer --jobs, or a larger "
        "machine"
    )


def persistently(read: Callable[[], T], what: str) -> T:
    """The result of `read`, tried again while the machine fails in a way that may pass.

    Parameters
    ----------
    read : Callable
        Without arguments; may be called several times.
    what : str
        What is read, for the message.

    Returns
    -------
    object
        The result of `read`.

    Raises
    ------
    MachineError
        If the machine still fails after about two seconds, or in a way that does not pass.
    """
    for wait in (*WAITS, None):
        try:
            return read()
        except (OSError, MemoryError) as error:
            if not is_machine_fault(error):
                raise
            if wait is None or error_number(error) not in PASSING:
                raise machine_error(error, what) from error
            time.sleep(wait)
    raise AssertionError("unreachable")
