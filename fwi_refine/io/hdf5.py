"""Arrays in HDF5 files. h5py is imported only when such a file is opened."""

from pathlib import Path

from fwi_refine.errors import InputError, SampleError
from fwi_refine.io.ids import check_id

SIGNATURE = b"\x89HDF\r\n\x1a\n"


class Hdf5Array:
    """One dataset of an HDF5 file, read row by row, and the ids beside it.

    names: what the dataset may be called, best first. Raises InputError if the file cannot be
    opened or has none of them.
    """

    def __init__(self, path, names):
        import h5py

        self.path, self._names = Path(path), names
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise InputError(f"{self.path}: not a readable HDF5 file ({error})") from error
        self.datasets = [k for k, item in self._file.items() if isinstance(item, h5py.Dataset)]
        self.name = next((name for name in names if name in self.datasets), None)
        if self.name is None:
            expected = " or ".join(repr(name) for name in names)
            raise InputError(
                f"{self.path}: found the datasets {self.datasets}, expected one called {expected}"
            )
        self._dataset = self._file[self.name]
        self.shape, self.dtype = self._dataset.shape, self._dataset.dtype

    def __reduce__(self):
        return Hdf5Array, (self.path, self._names)  # another process opens the file anew

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def row(self, k):
        """Row k, in memory. Raises SampleError if its bytes cannot be read."""
        try:
            return self._dataset[k]
        except OSError as error:
            raise SampleError(f"{self.path}, {self.name}[{k}]: unreadable ({error})") from error

    def ids(self) -> list[str] | None:
        """The dataset `ids` as text, None where there is none."""
        if "ids" not in self.datasets:
            return None
        values = self._file["ids"][()]
        if values.ndim != 1:
            raise InputError(f"{self.path}: found ids of shape {values.shape}, expected one axis")
        return [check_id(v.decode() if isinstance(v, bytes) else str(v)) for v in values]
