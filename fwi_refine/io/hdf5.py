"""Arrays in HDF5 files. h5py is imported only when such a file is opened."""

import contextlib
from pathlib import Path

from fwi_refine.errors import InputError, SampleError
from fwi_refine.io.ids import check_id

SIGNATURE = b"\x89HDF\r\n\x1a\n"
LARGEST_ROW = 2**30  # bytes; a file of a few bytes may claim to hold any number of zeros

# What h5py raises for a file that is damaged, or was made to do damage.
ERRORS = (
    OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, OverflowError,
    MemoryError,
)  # fmt: skip


class Hdf5Array:
    """One dataset of an HDF5 file, read row by row, and the ids beside it.

    names: what the dataset may be called, best first. Raises InputError if the file cannot be
    opened or has none of them. What is read stands in the file itself: a dataset that is a link or
    a view of another file is not seen, because that may be any file.
    """

    def __init__(self, path, names):
        import h5py

        self.path, self._names = Path(path), names
        with self._guarded(InputError, "not a readable HDF5 file"):
            self._file = h5py.File(self.path, "r")
            self.datasets = self._own_datasets(h5py)
        self.name = next((name for name in names if name in self.datasets), None)
        if self.name is None:
            expected = " or ".join(repr(name) for name in names)
            raise InputError(
                f"{self.path}: found the datasets {self.datasets}, expected one called {expected}"
            )
        with self._guarded(InputError, f"{self.name} cannot be read"):
            self._dataset = self._file[self.name]
            self.shape, self.dtype = self._dataset.shape or (), self._dataset.dtype
        if self.dtype.hasobject:
            raise InputError(f"{self.path}: found the type {self.dtype} in {self.name}")
        row_bytes = self.dtype.itemsize
        for n in self.shape[1:]:
            row_bytes *= n
        if row_bytes > LARGEST_ROW:
            raise InputError(f"{self.path}: found rows of {row_bytes} bytes in {self.name}")

    def _own_datasets(self, h5py):
        """Names of the datasets that are stored in this file."""
        found = []
        for name in self._file:
            if not isinstance(self._file.get(name, getlink=True), h5py.HardLink):
                continue
            item = self._file[name]
            if isinstance(item, h5py.Dataset) and not item.is_virtual and not item.external:
                found.append(name)
        return found

    @contextlib.contextmanager
    def _guarded(self, kind, what):
        try:
            yield
        except ERRORS as error:
            if isinstance(error, InputError):
                raise
            raise kind(f"{self.path}: {what} ({error})") from error

    def __reduce__(self):
        return Hdf5Array, (self.path, self._names)  # another process opens the file anew

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def row(self, k):
        """Row k, in memory. Raises SampleError if its bytes cannot be read."""
        with self._guarded(SampleError, f"{self.name}[{k}] is unreadable"):
            return self._dataset[k]

    def ids(self) -> list[str] | None:
        """The dataset `ids` as text, None where there is none."""
        if "ids" not in self.datasets:
            return None
        with self._guarded(InputError, "its ids cannot be read"):
            dataset = self._file["ids"]
            if len(dataset.shape or ()) != 1 or len(dataset) != len(self):
                raise InputError(
                    f"{self.path}: found ids of shape {dataset.shape} and {len(self)} rows"
                )
            values = dataset[()]
            return [check_id(v.decode() if isinstance(v, bytes) else str(v)) for v in values]
