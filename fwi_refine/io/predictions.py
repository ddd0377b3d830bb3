"""Predicted velocity maps, read one at a time: .npy, HDF5, a directory of `<id>.npy`, or CSV.

Every class here has: `count`; `ids`, list of str or None; `shape`, the shape of the whole, which
the output takes over; `path`; `where(k)`, file and place of map k, for messages; `read(k)`, the
raw map, raising SampleError; `salvage(k)`, what can be read of it, or None; `files()`, the files
that they are read from. Nothing that is returned is checked: see validate.check_prediction.
"""

from pathlib import Path

import numpy as np

from fwi_refine.errors import InputError, SampleError
from fwi_refine.io.hdf5 import SIGNATURE, Hdf5Array
from fwi_refine.io.npy import NpyArray
from fwi_refine.survey import OPENFWI


def open_predictions(path, survey=OPENFWI):
    """The maps at `path`, whichever form they have. Raises InputError if it is none."""
    from fwi_refine.io.submission_csv import SubmissionPredictions

    path = Path(path)
    if path.is_dir():
        return DirectoryPredictions(path, survey)
    if not path.is_file():
        raise InputError(f"predictions {path}: no such file or directory")
    with open(path, "rb") as file:
        start = file.read(len(SIGNATURE))
    if start == SIGNATURE:
        array = Hdf5Array(path, ("velocity",))
        return ArrayPredictions(array, array.ids(), survey)
    if start.startswith(b"\x93NUMPY"):
        try:
            array = NpyArray(path)
        except SampleError as error:
            raise InputError(f"predictions {error}") from error
        if array.truncated:
            raise InputError(f"predictions {path}: {array.truncation()}")
        return ArrayPredictions(array, None, survey)
    if path.suffix.lower() == ".csv":
        return SubmissionPredictions(path, survey)
    torch_file = path.suffix.lower() in (".pt", ".pth")
    hint = "; of a torch tensor: np.save('maps.npy', tensor.cpu().numpy())" if torch_file else ""
    raise InputError(
        f"predictions {path}: neither .npy, nor HDF5, nor a submission .csv, nor a directory of "
        f"<id>.npy{hint}"
    )


class _Predictions:
    def salvage(self, k) -> np.ndarray | None:
        try:
            return self.read(k)
        except SampleError:
            return None

    def files(self) -> list[Path]:
        return [self.path]


def read_start(predictions, k, survey=OPENFWI) -> np.ndarray:
    """(nz, nx) float32: map k as it stands in the file, NaN where it has no usable shape."""
    values = predictions.salvage(k)
    if values is not None and values.dtype.kind in "fiu" and values.size == np.prod(survey.shape):
        with np.errstate(over="ignore"):
            return values.reshape(survey.shape).astype(np.float32)
    return np.full(survey.shape, np.nan, np.float32)


class ArrayPredictions(_Predictions):
    """One array (N, nz, nx) or (N, 1, nz, nx) of a float type, from .npy or HDF5."""

    def __init__(self, array, ids, survey):
        nz, nx = survey.shape
        self.path, self.ids, self.shape, self.count = array.path, ids, array.shape, len(array)
        self._array = array
        if array.shape[1:] not in ((nz, nx), (1, nz, nx)):
            raise InputError(
                f"predictions {array.path}: found shape {array.shape}, expected (N, {nz}, {nx}) "
                f"or (N, 1, {nz}, {nx})"
            )
        if array.dtype.kind != "f":
            raise InputError(
                f"predictions {array.path}: found type {array.dtype}, expected a float type"
            )
        if not self.count:
            raise InputError(f"predictions {array.path}: holds no maps")

    def where(self, k) -> str:
        return f"{self.path}[{k}]"

    def read(self, k) -> np.ndarray:
        return self._array.row(k)


class DirectoryPredictions(_Predictions):
    """One file for each map: `<id>.npy` of (nz, nx) or (1, nz, nx), in sorted order."""

    def __init__(self, path, survey):
        self.path = Path(path)
        names = sorted(entry.name for entry in self.path.iterdir())
        self.ids = [
            name.removesuffix(".npy")
            for name in names
            if name.endswith(".npy") and not name.startswith(".")
        ]
        self.count = len(self.ids)
        self.shape = (self.count, *survey.shape)
        if not self.count:
            raise InputError(f"predictions {path}: found no .npy files, expected <id>.npy")

    def where(self, k) -> str:
        return str(self.path / f"{self.ids[k]}.npy")

    def read(self, k) -> np.ndarray:
        return NpyArray(self.where(k)).read()

    def files(self) -> list[Path]:
        return [Path(self.where(k)) for k in range(self.count)]
