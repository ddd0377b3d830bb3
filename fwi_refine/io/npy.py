"""Rows of `.npy` arrays, one at a time: memory does not grow with the length of the array.

`numpy.load` refuses a file that is shorter than its header says. Here the rows that are complete
stay readable, so that a broken copy costs the samples that are missing and no others. Bytes are
read and not mapped: a disk that fails under a memory map ends the process.
"""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwi_refine.errors import SampleError
from fwi_refine.files import open_regular, read_npy_header
from fwi_refine.machine_faults import persistently

LARGEST = 2**30  # bytes of a row, or of a file of one sample

log = logging.getLogger(__name__)


class NpyArray:
    """A `.npy` file seen as its rows along the first axis.

    Parameters
    ----------
    path : path-like
        A regular file.

    Raises
    ------
    SampleError
        Where the file cannot be read as an array of plain numbers. Pickled objects are never
        loaded.
    MachineError
        Where the machine cannot read it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            header = persistently(self._read_header, str(self.path))
        except (OSError, ValueError, EOFError) as error:
            reason = str(error).removeprefix(f"{self.path}: ")
            raise SampleError(f"{self.path}: not a readable .npy file ({reason})") from error
        self.shape, self._fortran, self.dtype, self._offset, size = header
        self._found_bytes = size - self._offset
        self._expected_bytes = int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    def _read_header(self) -> tuple[tuple[int, ...], bool, np.dtype[Any], int, int]:
        with open_regular(self.path) as file:
            shape, fortran, dtype = read_npy_header(file)
            return shape, fortran, dtype, file.tell(), os.fstat(file.fileno()).st_size

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    @property
    def truncated(self) -> bool:
        """Whether the file is shorter than its header says."""
        return self._found_bytes < self._expected_bytes

    @property
    def complete_rows(self) -> int:
        """How many rows the file has all bytes of."""
        if not self.truncated:
            return len(self)
        # in Fortran order the end of every row is missing
        return 0 if self._fortran else self._found_bytes // self._row_bytes

    @property
    def _row_bytes(self) -> int:
        return self._expected_bytes // len(self) if len(self) else 0

    def truncation(self) -> str:
        """The message on a file that is too short."""
        return (
            f"file is truncated: found {self._found_bytes} bytes of values, expected "
            f"{self._expected_bytes}"
        )

    def tell_of_rest(self) -> None:
        """Warns of what stands behind the array: a second one, for instance."""
        rest = self._found_bytes - self._expected_bytes
        if rest > 0:
            log.warning("%s: %d bytes behind its array of shape %s are not read",
                        self.path, rest, self.shape)  # fmt: skip

    def read(self) -> NDArray[Any]:
        """The whole array, in memory.

        Raises
        ------
        SampleError
            If the file is truncated, or too large for one sample.
        MachineError
            If the machine cannot read it.
        """
        if self.truncated:
            raise SampleError(f"{self.path}: {self.truncation()}")
        data = self._bytes(0, self._expected_bytes)
        return np.frombuffer(data, self.dtype).reshape(self.shape, order=self._order).copy("C")

    def row(self, k: int) -> NDArray[Any]:
        """Row k, in memory.

        Raises
        ------
        SampleError
            If the file ends before the end of that row.
        MachineError
            If the machine cannot read it.
        """
        if k >= self.complete_rows:
            raise SampleError(f"{self.path}, row {k}: {self.truncation()}")
        if self._fortran and len(self) > 1:
            data = self._strided(k)
        else:
            data = self._bytes(k * self._row_bytes, self._row_bytes)
        shape = self.shape[1:]
        return np.frombuffer(data, self.dtype).reshape(shape, order=self._order).copy("C")

    @property
    def _order(self) -> Any:
        return "F" if self._fortran else "C"

    def _bytes(self, start: int, count: int) -> bytes:
        """Bytes of the values. Raises SampleError where the file has lost them meanwhile."""
        if count > LARGEST:
            raise SampleError(f"{self.path}: found {count} bytes of values, expected a sample")

        def read() -> bytes:
            with open_regular(self.path) as file:
                file.seek(self._offset + start)
                return file.read(count)

        data = persistently(read, str(self.path))
        if len(data) < count:
            raise SampleError(f"{self.path}: is shorter than when it was opened")
        return data

    def _strided(self, k: int) -> bytes:
        """The bytes of row k of an array in Fortran order: every len(self)-th value."""
        size, step = self.dtype.itemsize, len(self) * self.dtype.itemsize
        if self._row_bytes > LARGEST:
            raise SampleError(f"{self.path}: found rows of {self._row_bytes} bytes")

        def read() -> bytes:
            with open_regular(self.path) as file:
                first = self._offset + k * size
                offsets = range(first, first + len(self) * self._row_bytes, step)
                return b"".join(os.pread(file.fileno(), size, offset) for offset in offsets)

        data = persistently(read, str(self.path))
        if len(data) < self._row_bytes:
            raise SampleError(f"{self.path}: is shorter than when it was opened")
        return data
