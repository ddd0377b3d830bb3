"""Files as the program reads them: regular ones only, no more of them than can be meant."""

import io
import json
import os
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TextIO

from fwi_refine.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST_LINE = 2**20  # characters
LARGEST_TOML = 2**22  # bytes
DEEPEST = 20  # tables and lists within one another
LARGEST_INTEGER = 2**63  # what TOML promises, and what the arrays can hold
LARGEST_WRITTEN = 10**4000  # Python writes no longer ones, also in a message


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a file to read its bytes.

    Parameters
    ----------
    path : path-like
        A regular file, or a link to one.

    Returns
    -------
    BinaryIO
        The open file.

    Raises
    ------
    InputError
        If it is a directory, a pipe, a socket or a device: reading it could wait for ever.
    OSError
        If it cannot be opened.
    """
    # a pipe without a writer would block the opening itself
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    try:
        _refuse_irregular(path, os.fstat(number).st_mode)
        return open(number, "rb")
    except BaseException:
        os.close(number)
        raise


def check_regular(path: Path) -> None:
    """Raises InputError for what stands there and is neither a regular file nor a directory."""
    try:
        mode = os.stat(path).st_mode
    except OSError:  # it is opened later, and says then what is wrong
        return
    if not stat.S_ISDIR(mode):
        _refuse_irregular(path, mode)


def _refuse_irregular(path: str | os.PathLike[str], mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is {_kind(mode)}, expected a regular file")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def read_npy(file: BinaryIO, size: int) -> "NDArray[Any]":
    """An array in the `.npy` format.

    Parameters
    ----------
    file : BinaryIO
        At the beginning of the array; it can be wound back to there.
    size : int
        Bytes of it: more of them than its header claims, before memory is taken.

    Returns
    -------
    ndarray
        The array.

    Raises
    ------
    ValueError
        For another format, pickled objects, and a header that claims more than there is.
    OSError
        If it cannot be read.
    """
    import math

    from numpy.lib import format as npy

    begin = file.tell()
    shape, _, dtype = read_npy_header(file)
    left, claimed = size - (file.tell() - begin), math.prod(shape) * dtype.itemsize
    if claimed > left:
        raise ValueError(f"its header claims the shape {shape}, but it holds {left} bytes")
    file.seek(begin)
    return npy.read_array(file, allow_pickle=False)


def read_npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, "np.dtype[Any]"]:
    """The header of an array in the `.npy` format, of the values that stand behind it.

    Parameters
    ----------
    file : BinaryIO
        At the beginning of the array; afterwards at its first value.

    Returns
    -------
    tuple of int, bool, dtype
        Shape, whether in Fortran order, and type.

    Raises
    ------
    ValueError
        For another format, for what is no header, and for pickled objects, lengths that are none,
        and values without a byte, of which a file could claim any number.
    OSError
        If it cannot be read.
    """
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format version {version[0]}.{version[1]} is not that of a plain array")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        shape, fortran, dtype = read(file)
    except OSError:
        raise
    except Exception as error:  # it is Python's syntax, and numpy lets pass what that raises
        raise ValueError(f"its header cannot be understood ({error})") from error
    if dtype.hasobject:
        raise ValueError("holds pickled objects, which are never loaded")
    lengths = all(type(n) is int and 0 <= n < LARGEST_INTEGER for n in shape)
    if not lengths or not dtype.itemsize:
        raise ValueError(f"its header gives the shape {shape} and the type {dtype}")
    return shape, fortran, dtype


def open_text(path: str | os.PathLike[str]) -> TextIO:
    """A regular file as UTF-8 text, without the byte order mark that some programs begin it with.

    Line ends stay as they are. Raises as `open_regular` does.
    """
    return io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="")


def lines(file: IO[str], path: str | os.PathLike[str]) -> Iterator[str]:
    """The lines of a text file. Raises InputError for one that no table has, before it is read."""
    number = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE:
            raise InputError(f"{path}, line {number}: longer than {LONGEST_LINE} characters")
        yield line


def read_bytes(path: str | os.PathLike[str], limit: int) -> bytes:
    """The bytes of a regular file. Raises InputError where there are more than `limit`."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise InputError(f"{path}: found {size} bytes, expected at most {limit}")
        return file.read(limit + 1)


def read_toml(path: str | os.PathLike[str], largest: int = LARGEST_INTEGER) -> dict[str, Any]:
    """The table of a TOML file.

    Parameters
    ----------
    path : path-like
        A regular file of at most 4 MiB.
    largest : int
        What every integer is below.

    Returns
    -------
    dict
        Its table; tables and lists are at most 20 deep.

    Raises
    ------
    ValueError
        If it is no such file; InputError is one.
    OSError
        If it cannot be read.
    """
    try:
        table = tomllib.loads(read_bytes(path, LARGEST_TOML).decode("utf-8-sig"))
    except RecursionError as error:
        raise ValueError("too deeply nested") from error
    check_values(table, largest)
    return table


def read_json(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON file, within the limits of `read_toml`. Raises as that does."""
    try:
        value = json.loads(read_bytes(path, LARGEST_TOML).decode("utf-8-sig"))
    except RecursionError as error:
        raise ValueError("too deeply nested") from error
    check_values(value)
    return value


def check_values(value: object, largest: int = LARGEST_INTEGER) -> None:
    """Raises ValueError for integers that are too large and for what is nested too deeply.

    Such values have no use here, and the text of the one and a walk through the other fail.
    """
    waiting: list[tuple[object, int]] = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} deep")
        if isinstance(item, dict):
            waiting += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list):
            waiting += [(inner, depth + 1) for inner in item]
        elif isinstance(item, int) and abs(item) >= largest:
            raise ValueError(f"holds an integer of {item.bit_length()} bits, which is too large")


def is_same_file(one: Path, other: Path) -> bool:
    """Whether two paths name one file, also by way of links; either may not exist yet."""
    try:
        return one.samefile(other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)  # also for a link to itself
