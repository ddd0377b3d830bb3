"""Output files: written under a temporary name, fsynced, renamed. A final name means done."""

import contextlib
import errno
import os
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from fwi_refine.errors import InputError, OutputExistsError


def claim_output(path, overwrite, what="output", inputs=()) -> Path:
    """The path, if it can be written: tried, as hours of work may come before it is.

    Raises OutputExistsError, or InputError without a folder, where nothing can be written to it,
    and for one of the inputs, which would be lost; None among these counts for nothing.
    """
    path = Path(path)
    if path.resolve() in {Path(other).resolve() for other in inputs if other is not None}:
        raise InputError(f"{what} {path}: is an input as well; choose another name")
    if path.is_dir():
        raise InputError(f"{what} {path}: is a directory, expected a file name")
    if path.exists() and not overwrite:
        raise OutputExistsError(
            f"{what} {path} exists already: choose another name, or pass --overwrite"
        )
    if not path.parent.is_dir():
        raise InputError(f"{what} {path}: there is no directory {path.parent}")
    trial = temporary_name(path).with_suffix(".trial")  # the file itself may be open already
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise InputError(f"{what} {path}: cannot be written ({error.strerror})") from error
    return path


def partial_mark(paths) -> str:
    """What marks the names of unfinished results, `.partial`: with a number, if earlier ones of
    these paths are still there."""
    mark, number = ".partial", 1
    while any(marked(path, mark).exists() for path in paths):
        number += 1
        mark = f".partial-{number}"
    return mark


def marked(path, mark) -> Path:
    """The path with the mark before its suffix."""
    return path.with_name(f"{path.stem}{mark}{path.suffix}")


def temporary_name(path) -> Path:
    """Where a file is written first: beside its final name, so that renaming is atomic."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def is_temporary(name, of) -> bool:
    """Whether a file is named as one that is written, by any process, before it is called `of`."""
    return fnmatch(name, f".{of}.*.tmp")


def publish(temporary, path):
    """Gives a finished temporary file its final name; both the bytes and the name are durable."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    with contextlib.suppress(OSError):  # not every file system can fsync a directory
        directory = os.open(Path(path).parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


@contextlib.contextmanager
def atomic_path(path):
    """A temporary path to write to; on success it is renamed to `path`, else it is removed."""
    path = Path(path)
    temporary = temporary_name(path)
    try:
        yield temporary
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _claim_space(file, size):
    """Makes the file `size` bytes long, on the disk too where the file system can do that."""
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except AttributeError:  # not on every platform
        file.truncate(size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        file.truncate(size)


class MapWriter:
    """A `.npy` array of maps, float32, filled one map at a time and in any order.

    The space is claimed when it is made: a disk that is too full says so before hours of work.
    Maps are written to the file directly, not through a memory map, because a memory map that
    cannot be stored kills the process.
    """

    def __init__(self, path, shape, map_shape):
        self._temporary = temporary_name(Path(path))
        self._map_shape = tuple(map_shape)
        self._map_bytes = 4 * int(np.prod(map_shape))
        self._file = open(self._temporary, "wb+")  # noqa: SIM115 (closed by publish and discard)
        try:
            header = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
            np.lib.format.write_array_header_1_0(self._file, header)
            self._file.flush()
            self._offset = self._file.tell()
            size = self._offset + 4 * int(np.prod(shape))
            _claim_space(self._file, size)
        except OSError:
            self.discard()
            raise

    def write(self, k, values):
        """Map k. Values are rounded to float32."""
        with np.errstate(over="ignore"):
            values = np.asarray(values).astype("<f4").reshape(self._map_shape)
        data = memoryview(values.tobytes())
        position = self._offset + k * self._map_bytes
        while data:
            written = os.pwrite(self._file.fileno(), data, position)
            data, position = data[written:], position + written

    def publish(self, path):
        """Gives the array its final name."""
        self._file.close()
        publish(self._temporary, path)

    def discard(self):
        """Removes what was written; does nothing after `publish`."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)
