"""Whole numbers that users give, and the most that makes sense of them."""

import operator
import os
from typing import Any

from fwi_refine.errors import InputError

# OpenMP ends the process where the system cannot make as many as it is told
MAX_THREADS = 4096
MAX_SAMPLES = 10_000  # from the posterior of a map
MAX_AT_A_TIME = 256  # samples in a process
FEW_JOBS = 64  # that any machine may be told
JOBS_PER_CORE = 4


def cores() -> int:
    """Processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        return os.cpu_count() or 1


def whole_number(value: Any, name: str, least: int, most: int | None = None) -> int:
    """A whole number that was given.

    Parameters
    ----------
    value : int
        Of Python's or numpy's types.
    name : str
        For a message.
    least, most : int
        What it lies within; most None: no upper limit.

    Returns
    -------
    int
        The number.

    Raises
    ------
    InputError
        For anything else.
    """
    expected = f"at least {least}" if most is None else f"{least} to {most}"
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(f"{name} {value!r}: expected a whole number, {expected}") from None
    if isinstance(value, bool) or number < least or (most is not None and number > most):
        found = value if number.bit_length() < 100 else f"a number of {number.bit_length()} bits"
        raise InputError(f"{name} {found}: expected a whole number, {expected}")
    return number


def check_jobs(jobs: Any, name: str, least: int = 1) -> int:
    """Check a number of processes.

    Parameters
    ----------
    jobs, name, least
        As for `whole_number`.

    Returns
    -------
    int
        At most `JOBS_PER_CORE` for each core, or `FEW_JOBS`.

    Raises
    ------
    InputError
        As `whole_number` does, and for more processes than the cores can serve.
    """
    most = max(FEW_JOBS, JOBS_PER_CORE * cores())
    number = whole_number(jobs, name, least)
    if number > most:
        raise InputError(
            f"{name} {number if number < 2**53 else 'of so many digits'}: expected at most {most} "
            f"processes for {cores()} cores; each takes memory of its own"
        )
    return number
