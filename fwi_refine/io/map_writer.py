"""Maps as `.npy` and `.npz`, filled one map at a time and in any order."""

import contextlib
import errno
import os
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from fwi_refine.errors import InputError
from fwi_refine.io import npz
from fwi_refine.io.outputs import atomic_path, named_errors, open_temporary, publish

SUFFIXES = (".npy", ".npz")
DTYPES = ("float32", "float16")
NEVER = (1980, 1, 1, 0, 0, 0)  # the date of what is in a ZIP file: the same maps, the same bytes


def check_map_name(path: Path | None, what: str = "output") -> None:
    """Raises InputError for an output of maps whose name does not say how they are stored."""
    if path is not None and path.suffix not in SUFFIXES:
        raise InputError(f"{what} {path}: expected a name that ends in .npy or .npz")


class MapWriter:
    """An array of maps, filled one map at a time and in any order.

    The space is claimed when it is made: a disk that is too full says so before hours of work.
    Maps are written to the file directly, not through a memory map, because a memory map that
    cannot be stored kills the process.

    Parameters
    ----------
    path : path-like
        Beside which it is written, and whose suffix says how: `.npz` with the ids, else `.npy`.
    shape : sequence of int
        Of the whole array.
    map_shape : sequence of int
        Of one map, (nz, nx).
    dtype : str
        One of `DTYPES`.
    ids : sequence of str, optional
        Of all samples, for `.npz`; may be filled until `publish`.
    name : str
        Of the array in `.npz`.

    Raises
    ------
    InputError
        For a `.npz` that would be too large to be read.
    OSError
        If there is no room for it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        shape: Sequence[int],
        map_shape: Sequence[int],
        dtype: str = "float32",
        ids: Sequence[str] | None = None,
        name: str = "velocity",
    ) -> None:
        self._map_shape, self._ids, self._name = tuple(map_shape), ids, name
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._map_bytes = self._dtype.itemsize * int(np.prod(map_shape))
        size = self._dtype.itemsize * int(np.prod(shape))
        if Path(path).suffix == ".npz" and size > npz.LARGEST:
            raise InputError(f"{path}: {size} bytes of maps would not be read again; write .npy")
        self._path = Path(path)
        self._temporary, self._file = open_temporary(self._path)
        try:
            with named_errors(path):
                header = {"descr": self._dtype.str, "fortran_order": False, "shape": tuple(shape)}
                np.lib.format.write_array_header_1_0(self._file, header)
                self._file.flush()
                self._offset = self._file.tell()
                claim_space(self._file, self._offset + size)
        except OSError:
            self.discard()
            raise

    def write(self, k: int, values: ArrayLike) -> None:
        """Map k, in m/s. Values are rounded to the type."""
        with np.errstate(over="ignore"):
            array = np.asarray(values).astype(self._dtype).reshape(self._map_shape)
        with named_errors(self._path):
            write_at(self._file, array.tobytes(), self._offset + k * self._map_bytes)

    def publish(self, path: Path) -> None:
        """Gives the array its final name."""
        if path.suffix == ".npz":
            with atomic_path(path) as temporary:
                self._pack(temporary)
            self._temporary.unlink()
        else:
            publish(self._temporary, path)
        self._file.close()

    def _pack(self, path: Path) -> None:
        with zipfile.ZipFile(path, "w") as packed:
            with open(self._temporary, "rb") as maps, _member(packed, self._name) as file:
                shutil.copyfileobj(maps, file, 2**20)
            if self._ids is not None:
                with _member(packed, "ids") as file:
                    np.lib.format.write_array(file, np.array([*self._ids], str))

    def discard(self) -> None:
        """Removes what was written; does nothing after `publish`."""
        with contextlib.suppress(OSError):  # a full disk does not take what is buffered
            self._file.close()
        self._temporary.unlink(missing_ok=True)


def _member(packed: zipfile.ZipFile, name: str) -> BinaryIO:
    info = zipfile.ZipInfo(name + npz.SUFFIX, NEVER)
    info.compress_type = zipfile.ZIP_DEFLATED
    return packed.open(info, "w", force_zip64=True)  # type: ignore[return-value]


def claim_space(file: BinaryIO, size: int) -> None:
    """Makes the file `size` bytes long, on the disk too where the file system can do that."""
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except AttributeError:  # not on every platform
        file.truncate(size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        file.truncate(size)


def write_at(file: BinaryIO, data: bytes, position: int) -> None:
    """Write all of the bytes at a position of a file.

    Parameters
    ----------
    file : binary file
        An open one.
    data : bytes
        What is written.
    position : int
        In bytes from the beginning.

    Raises
    ------
    OSError
        As the system has it, such as for a full disk.
    """
    left = memoryview(data)
    while left:
        written = os.pwrite(file.fileno(), left, position)
        left, position = left[written:], position + written
