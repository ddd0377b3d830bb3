"""Arrays in HDF5 files. h5py is imported only when such a file is opened."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fwi_refine.errors import FwiRefineError, InputError, MachineError, SampleError
from fwi_refine.files import open_regular
from fwi_refine.io.ids import check_id
from fwi_refine.machine_faults import is_machine_fault, persistently

SIGNATURE = b"\x89HDF\r\n\x1a\n"
LARGEST_ROW = 2**30  # bytes; a file of a few bytes may claim to hold any number of zeros
# Rows that a file may claim without holding them: a copy that broke off has some.
MAX_MISSING = 100_000
LARGEST_RATIO = 1100  # of bytes to compressed bytes: deflate reaches 1032

# What h5py raises for a file that is damaged, or was made to do damage.
ERRORS = (
    OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, OverflowError,
)  # fmt: skip


class Hdf5Array:
    """One dataset of an HDF5 file, read row by row, and the ids beside it.

    What is read stands in the file itself: a dataset that is a link or a view of another file is
    not seen, because that may be any file. No lock is taken: the file is only read.

    Parameters
    ----------
    path : path-like
        A regular file.
    names : sequence of str
        What the dataset may be called, best first.

    Raises
    ------
    InputError
        If the file cannot be opened, has none of them, or claims far more than it holds.
    MachineError
        If the machine cannot read it.
    """

    def __init__(self, path: str | os.PathLike[str], names: Sequence[str]) -> None:
        self.path, self._names = Path(path), names
        self._opened: Any = None
        with self._guarded(InputError, "not a readable HDF5 file"):
            self.datasets = self._own_datasets()
        name = next((name for name in names if name in self.datasets), None)
        if name is None:
            expected = " or ".join(repr(name) for name in names)
            raise InputError(
                f"{self.path}: found the datasets {self.datasets}, expected one called {expected}"
            )
        self.name = name
        with self._guarded(InputError, f"{self.name} cannot be read"):
            dataset = self._file[self.name]
            self.shape, self.dtype = tuple(dataset.shape or ()), dataset.dtype
            stored = dataset.id.get_storage_size()
        if self.dtype.hasobject:
            raise InputError(f"{self.path}: found the type {self.dtype} in {self.name}")
        row_bytes = self.dtype.itemsize
        for n in self.shape[1:]:
            row_bytes *= n
        if row_bytes > LARGEST_ROW or 0 in self.shape[1:]:
            raise InputError(f"{self.path}: found rows of {row_bytes} bytes in {self.name}")
        if len(self) > MAX_MISSING and len(self) * row_bytes > LARGEST_RATIO * stored:
            raise InputError(
                f"{self.path}: {self.name} claims {len(self)} rows, but only {stored} bytes of it "
                "are stored"
            )

    @property
    def _file(self) -> Any:
        """The open file; another process opens it anew."""
        if self._opened is None:
            import h5py

            open_regular(self.path).close()
            self._opened = h5py.File(self.path, "r", locking=False)
        return self._opened

    def _own_datasets(self) -> list[str]:
        """Names of the datasets that are stored in this file."""
        file = persistently(lambda: self._file, str(self.path))
        import h5py

        found = []
        for name in file:
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                continue
            item = file[name]
            if isinstance(item, h5py.Dataset) and not item.is_virtual and not item.external:
                found.append(name)
        return found

    @contextlib.contextmanager
    def _guarded(self, kind: type[FwiRefineError], what: str) -> Iterator[None]:
        """A fault of the file as an error of this kind; the machine's as its own."""
        try:
            yield
        except (*ERRORS, MemoryError) as error:
            if isinstance(error, InputError):
                raise
            if is_machine_fault(error):
                raise MachineError(f"{self.path}: cannot be read ({error})") from error
            raise kind(f"{self.path}: {what} ({error})") from error

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def row(self, k: int) -> NDArray[Any]:
        """Row k, in memory.

        Raises
        ------
        SampleError
            If its bytes are damaged.
        MachineError
            If the machine cannot read them.
        """

        def read() -> Any:
            try:
                return self._file[self.name][k]
            except BaseException:
                self._opened = None  # a handle may be stale
                raise

        with self._guarded(SampleError, f"{self.name}[{k}] is unreadable"):
            return persistently(read, str(self.path))

    def ids(self) -> list[str] | None:
        """The dataset `ids` as text, None where there is none. Raises InputError."""
        if "ids" not in self.datasets:
            return None
        with self._guarded(InputError, "its ids cannot be read"):
            dataset = self._file["ids"]
            if len(dataset.shape or ()) != 1 or len(dataset) != len(self):
                raise InputError(
                    f"{self.path}: found ids of shape {dataset.shape} and {len(self)} rows"
                )
            if dataset.dtype.itemsize * len(dataset) > LARGEST_ROW:
                raise InputError(f"{self.path}: its ids are too long")
            values = dataset[()]
            return [check_id(v.decode() if isinstance(v, bytes) else str(v)) for v in values]
