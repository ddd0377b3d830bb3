"""Arrays in `.npz` files, as numpy.savez writes them: read whole, as such a file is compressed."""

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from fwi_refine.errors import InputError, SampleError
from fwi_refine.files import open_regular, read_npy
from fwi_refine.io.ids import check_id
from fwi_refine.machine_faults import is_machine_fault, machine_error

SIGNATURE = b"PK\x03\x04"
LARGEST = 2**31  # bytes of an array, which stays in memory
LARGEST_RATIO = 1100  # of bytes to packed ones: deflate reaches 1032
SUFFIX = ".npy"  # of its members


class NpzArray:
    """One array of a `.npz` file, and the ids beside it.

    Parameters
    ----------
    path : path-like
        A regular file.
    names : sequence of str
        What the array may be called, best first; a single array may have any name.

    Raises
    ------
    InputError
        If the file cannot be read, has none of them, or an array that is too large.
    MachineError
        If the machine cannot read it.
    """

    def __init__(self, path: str | os.PathLike[str], names: Sequence[str]) -> None:
        self.path, self._names = Path(path), names
        self.datasets = [name for name in self._members() if name.isprintable()]
        others = [name for name in self.datasets if name != "ids"]
        name = next((name for name in names if name in self.datasets), None)
        name = others[0] if name is None and len(others) == 1 else name
        if name is None:
            expected = " or ".join(repr(name) for name in names)
            raise InputError(
                f"{self.path}: found the arrays {self.datasets}, expected one called {expected}"
            )
        self.name = name
        self._values: NDArray[Any] | None = self._load(name)
        self.shape, self.dtype = self._values.shape, self._values.dtype
        if 0 in self.shape[1:]:
            raise InputError(f"{self.path}: found rows of 0 bytes in {self.name}")

    def _members(self) -> dict[str, tuple[int, int]]:
        """Bytes of each array by its name, and those that they are packed in."""

        def read(file: zipfile.ZipFile) -> dict[str, tuple[int, int]]:
            found = [entry for entry in file.infolist() if entry.filename.endswith(SUFFIX)]
            sizes = {
                entry.filename.removesuffix(SUFFIX): (entry.file_size, entry.compress_size)
                for entry in found
            }
            if len(sizes) < len(found):
                raise ValueError("holds two arrays of one name")
            return sizes

        return self._guarded(read)

    def _load(self, name: str) -> NDArray[Any]:
        size, packed = self._members()[name]
        if size > LARGEST_RATIO * packed:
            raise InputError(f"{self.path}: {name} claims {size} bytes, of {packed} packed ones")
        if size > LARGEST:
            raise InputError(
                f"{self.path}: {name} has {size} bytes, which would all be in memory; save it as "
                ".npy"
            )

        def read(file: zipfile.ZipFile) -> NDArray[Any]:
            with file.open(name + SUFFIX) as member:
                return read_npy(cast(BinaryIO, member), size)

        return self._guarded(read)

    def _guarded(self, read: Any) -> Any:
        try:
            with open_regular(self.path) as opened, zipfile.ZipFile(opened) as file:
                return read(file)
        except (OSError, ValueError, EOFError, SyntaxError, KeyError, NotImplementedError,
                RuntimeError, OverflowError, zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
            if is_machine_fault(error):
                raise machine_error(error, str(self.path)) from error
            raise InputError(f"{self.path}: not a readable .npz file ({error})") from error

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_values": None}  # another process reads them anew

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def row(self, k: int) -> NDArray[Any]:
        """Row k. Raises SampleError where the file has changed."""
        if self._values is None:
            self._values = self._load(self.name)
        if self._values.shape != self.shape:
            raise SampleError(f"{self.path}: has changed since it was opened")
        return np.array(self._values[k])

    def ids(self) -> list[str] | None:
        """The array `ids` as text, None where there is none. Raises InputError."""
        if "ids" not in self.datasets:
            return None
        values = self._load("ids")
        if values.shape != (len(self),) or values.dtype.kind not in "USiu":
            raise InputError(
                f"{self.path}: found ids of shape {values.shape} and type {values.dtype}, "
                f"expected {len(self)} texts"
            )
        texts = (v.decode() if isinstance(v, bytes) else str(v) for v in values)
        try:
            return [check_id(text) for text in texts]
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: its ids are no text ({error})") from error
