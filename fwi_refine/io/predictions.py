"""Predicted velocity maps, read one at a time: .npy, .npz, HDF5, `<id>.npy` in a directory, CSV.

Every class here is a `Predictions`. Nothing that is returned is checked: see
survey/validate.py.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fwi_refine.errors import InputError, SampleError
from fwi_refine.files import open_regular
from fwi_refine.io import npz
from fwi_refine.io.hdf5 import SIGNATURE, Hdf5Array
from fwi_refine.io.ids import check_id
from fwi_refine.io.npy import NpyArray
from fwi_refine.io.order import Order, in_order
from fwi_refine.survey import OPENFWI, Survey


@runtime_checkable
class Predictions(Protocol):
    """Maps that are read one at a time.

    Attributes
    ----------
    path : Path
        Where they stand.
    count : int
        How many there are.
    ids : list of str or None
        Their ids, where they have any.
    shape : tuple of int
        Shape of the whole, which the output takes over.
    """

    path: Path
    count: int
    ids: list[str] | None
    shape: tuple[int, ...]

    def where(self, k: int) -> str:
        """File and row of map k, for messages."""

    def read(self, k: int) -> NDArray[Any]:
        """The raw map k. Raises SampleError, or MachineError."""

    def salvage(self, k: int) -> NDArray[Any] | None:
        """Map k as far as it can be read, None where it cannot."""

    def files(self) -> list[Path]:
        """The files that the maps are read from."""


class MapRows(Protocol):
    """An array that is read row by row: NpyArray, NpzArray or Hdf5Array."""

    path: Path
    shape: tuple[int, ...]
    dtype: Any

    def __len__(self) -> int: ...

    def row(self, k: int) -> NDArray[Any]:
        """Row k, in memory. Raises SampleError, or MachineError."""


def open_predictions(path: str | os.PathLike[str], survey: Survey = OPENFWI) -> Predictions:
    """The maps at `path`, whichever form they have.

    Parameters
    ----------
    path : path-like
        A `.npy`, `.npz`, HDF5 or submission `.csv` file, or a directory of `<id>.npy`.
    survey : Survey
        Gives the shape of a map.

    Raises
    ------
    InputError
        If it is none of these.
    MachineError
        If the machine cannot read it.
    """
    from fwi_refine.io.submission_csv import SubmissionPredictions

    path = Path(path)
    if path.is_dir():
        return DirectoryPredictions(path, survey)
    if not path.exists():
        raise InputError(f"predictions {path}: no such file or directory")
    with open_regular(path) as file:
        start = file.read(len(SIGNATURE))
    if start == SIGNATURE:
        array = Hdf5Array(path, ("velocity",))
        return ArrayPredictions(array, array.ids(), survey)
    torch_file = path.suffix.lower() in (".pt", ".pth")  # a ZIP file too
    if start.startswith(npz.SIGNATURE) and not torch_file:
        packed = npz.NpzArray(path, ("velocity", "predictions", "maps"))
        return ArrayPredictions(packed, packed.ids(), survey)
    if start.startswith(b"\x93NUMPY"):
        try:
            rows = NpyArray(path)
        except SampleError as error:
            raise InputError(f"predictions {error}") from error
        if rows.truncated:
            raise InputError(f"predictions {path}: {rows.truncation()}")
        return ArrayPredictions(rows, None, survey)
    if path.suffix.lower() == ".csv":
        return SubmissionPredictions(path, survey)
    hint = "; of a torch tensor: np.save('maps.npy', tensor.cpu().numpy())" if torch_file else ""
    raise InputError(
        f"predictions {path}: neither .npy, nor .npz, nor HDF5, nor a submission .csv, nor a "
        f"directory of <id>.npy{hint}"
    )


def read_start(predictions: Predictions, k: int, survey: Survey = OPENFWI) -> NDArray[np.float32]:
    """Map k as it stands in its file.

    Parameters
    ----------
    predictions : Predictions
        Opened ones.
    k : int
        Which.
    survey : Survey
        Its shape counts.

    Returns
    -------
    ndarray of float32, shape (nz, nx)
        m/s; NaN where it has no usable shape.
    """
    values = predictions.salvage(k)
    if values is not None and values.dtype.kind in "fiu" and values.size == np.prod(survey.shape):
        with np.errstate(over="ignore"):
            return values.reshape(survey.shape).astype(np.float32)
    return np.full(survey.shape, np.nan, np.float32)


class ArrayPredictions:
    """One array (N, nz, nx) or (N, 1, nz, nx) of a float type, from .npy, .npz or HDF5."""

    def __init__(self, array: MapRows, ids: Sequence[str] | None, survey: Survey) -> None:
        nz, nx = survey.shape
        self.path, self.shape, self.count = array.path, array.shape, len(array)
        self.ids = None if ids is None else [*ids]
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

    def where(self, k: int) -> str:
        """File and row of map k, for messages."""
        return f"{self.path}[{k}]"

    def read(self, k: int) -> NDArray[Any]:
        """The raw map k. Raises SampleError, or MachineError."""
        return self._array.row(k)

    def salvage(self, k: int) -> NDArray[Any] | None:
        """Map k, None where it is damaged."""
        return _salvage(self, k)

    def files(self) -> list[Path]:
        """The file."""
        return [self.path]


class DirectoryPredictions:
    """One file for each map: `<id>.npy` of (nz, nx) or (1, nz, nx), in the order of io/order.py."""

    def __init__(self, path: str | os.PathLike[str], survey: Survey) -> None:
        self.path = Path(path)
        names = [
            check_id(entry.name.removesuffix(".npy"))
            for entry in self.path.iterdir()
            if entry.name.endswith(".npy") and not entry.name.startswith(".")
        ]
        self.order: Order = in_order(names).logged(path)
        self.ids: list[str] | None = self.order.names
        self.count = len(names)
        self.shape: tuple[int, ...] = (self.count, *survey.shape)
        if not self.count:
            raise InputError(f"predictions {path}: found no .npy files, expected <id>.npy")

    def where(self, k: int) -> str:
        """The file of map k, for messages."""
        return str(self.path / f"{self.order.names[k]}.npy")

    def read(self, k: int) -> NDArray[Any]:
        """The raw map k. Raises SampleError, or MachineError."""
        return NpyArray(self.where(k)).read()

    def salvage(self, k: int) -> NDArray[Any] | None:
        """Map k, None where it is damaged."""
        return _salvage(self, k)

    def files(self) -> list[Path]:
        """The files of all maps."""
        return [Path(self.where(k)) for k in range(self.count)]


def _salvage(predictions: Predictions, k: int) -> NDArray[Any] | None:
    try:
        return predictions.read(k)
    except SampleError:
        return None
