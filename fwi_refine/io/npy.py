"""Rows of `.npy` arrays, one at a time: memory does not grow with the length of the array.

`numpy.load` refuses a file that is shorter than its header says. Here the rows that are complete
stay readable, so that a broken copy costs the samples that are missing and no others.
"""

import os
from pathlib import Path
from tokenize import TokenError

import numpy as np

from fwi_refine.errors import SampleError


class NpyArray:
    """A `.npy` file seen as its rows along the first axis.

    Raises SampleError where the file cannot be read as an array of plain numbers. Pickled
    objects are never loaded.
    """

    def __init__(self, path):
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                self.shape, fortran, self.dtype = _read_header(file)
                self._offset = file.tell()
                size = os.fstat(file.fileno()).st_size
        except (OSError, ValueError, EOFError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SampleError(f"{self.path}: not a readable .npy file ({reason})") from error
        if min(self.shape, default=0) < 0:
            raise SampleError(f"{self.path}: its header gives the shape {self.shape}")
        if self.dtype.hasobject:
            raise SampleError(f"{self.path}: holds pickled objects, which are never loaded")
        self._order = "F" if fortran else "C"
        self._found_bytes = size - self._offset
        self._expected_bytes = int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    @property
    def truncated(self) -> bool:
        return self._found_bytes < self._expected_bytes

    def truncation(self) -> str:
        """What to say of a file that is too short."""
        return (
            f"file is truncated: found {self._found_bytes} bytes of values, expected "
            f"{self._expected_bytes}"
        )

    def read(self) -> np.ndarray:
        """The whole array, in memory. Raises SampleError if the file is truncated."""
        if self.truncated:
            raise SampleError(f"{self.path}: {self.truncation()}")
        return np.array(self._map(self.shape))

    def row(self, k) -> np.ndarray:
        """Row k, in memory. Raises SampleError if the file ends before the end of that row."""
        if not self.truncated:
            return np.array(self._map(self.shape)[k])
        row_bytes = self._expected_bytes // self.shape[0]
        complete = self._found_bytes // row_bytes if self._order == "C" else 0
        if k >= complete:
            raise SampleError(f"{self.path}, row {k}: {self.truncation()}")
        return np.array(self._map((complete, *self.shape[1:]))[k])

    def _map(self, shape):
        # Mapped anew for every read: pages that were read do not add up in resident memory.
        if 0 in shape:
            return np.empty(shape, self.dtype)
        try:
            return np.memmap(self.path, self.dtype, "r", self._offset, shape, self._order)
        except (OSError, ValueError) as error:  # it has been replaced since it was opened
            raise SampleError(f"{self.path}: cannot be mapped ({error})") from error


def _read_header(file):
    """(shape, whether in Fortran order, type). Raises ValueError where there is no plain header."""
    try:
        return _parse_header(file)
    except (SyntaxError, TokenError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError("its header cannot be understood") from error


def _parse_header(file):
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"format version {version[0]}.{version[1]} is not that of a plain array")
