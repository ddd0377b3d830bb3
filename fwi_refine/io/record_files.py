"""The kinds of `Records`: a directory of files, shards, and one array with names beside it."""

import copy
import os
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fwi_refine.errors import InputError, SampleError
from fwi_refine.io import npz
from fwi_refine.io.hdf5 import MOST_MISSING, Hdf5Array
from fwi_refine.io.ids import check_id
from fwi_refine.io.npy import NpyArray
from fwi_refine.io.order import Order

if TYPE_CHECKING:
    from fwi_refine.io.records import Records


TRUTH_NAMES = {"seis": "vel", "data": "model"}  # of arrays of true maps, by those of records


def open_array(path: Path) -> NpyArray:
    """A file of several records, or of one. Raises InputError for what is neither."""
    try:
        array = NpyArray(path)
    except SampleError as error:
        raise InputError(f"records {error}") from error
    if len(array.shape) not in (3, 4):
        raise InputError(
            f"records {path}: found shape {array.shape}, expected (samples, shots, time rows, "
            "receivers)"
        )
    missing = len(array) - array.complete_rows
    if missing > MOST_MISSING or 0 in array.shape[1:]:
        raise InputError(
            f"records {path}: claims the shape {array.shape}, but {array.truncation()}"
        )
    return array


class DirectoryRecords:
    """One file for each record: `<id>.npy`, in the order that is given."""

    named = True

    def __init__(self, path: Path, names: Iterable[str], order: Order | None = None) -> None:
        self.path = Path(path)
        self.ids = [check_id(name.removesuffix(".npy")) for name in names]
        self.order = order

    def where(self, k: int) -> str:
        """The file of record k, for messages."""
        return str(self.path / f"{self.ids[k]}.npy")

    def read(self, k: int) -> NDArray[Any]:
        """The raw record k. Raises SampleError, or MachineError."""
        return NpyArray(self.where(k)).read()

    def truth(self, k: int) -> None:
        """None: no true map stands beside such records."""

    def alone(self, k: int) -> "Records":
        """A source that holds record k only."""
        return DirectoryRecords(self.path, [f"{self.ids[k]}.npy"])

    def files(self, ks: Sequence[int]) -> list[Path]:
        """The files of these records."""
        return [Path(self.where(k)) for k in ks]


class ShardRecords:
    """Files of many records each; `vel*` or `model*` beside them is the truth.

    The truth of seis2_1_0.npy is vel2_1_0.npy; that of data1.npy is model1.npy, in the same
    folder or, as the OpenFWI sets have it, in `model/` beside `data/`.

    Parameters
    ----------
    path : Path
        What the user named.
    order : Order
        Of the shards.
    shards : sequence of Path
        Their files.
    starts : sequence of str, optional
        What the ids of each begin with.
    """

    named = False

    def __init__(
        self, path: Path, order: Order, shards: Sequence[Path], starts: Sequence[str] = ()
    ) -> None:
        self.path = Path(path)
        self.order: Order | None = order
        self.ids: list[str] = []
        self._shards: list[NpyArray] = []
        self._truths: list[NpyArray | None] = []
        for shard, start in zip(shards, starts or [""] * len(shards), strict=True):
            check_id(start + shard.name)
            array = open_array(shard)
            if len(array.shape) != 4:
                raise InputError(
                    f"records {shard}: found shape {array.shape}, expected (samples, shots, time "
                    "rows, receivers) as the other shards have"
                )
            self.ids += [f"{start}{shard.stem}_{row}" for row in range(len(array))]
            self._shards.append(array)
            self._truths.append(_find_truth(array))
        self._ends = [*accumulate(len(array) for array in self._shards)]
        self._only: int | None = None  # the record that this is the source of

    def _position(self, k: int) -> tuple[int, int]:
        """(shard, row) of record k."""
        if self._only is not None:
            return 0, self._only
        shard = bisect_right(self._ends, k)
        return shard, k - (self._ends[shard - 1] if shard else 0)

    def where(self, k: int) -> str:
        """File and row of record k, for messages."""
        shard, row = self._position(k)
        return f"{self._shards[shard].path}, row {row}"

    def read(self, k: int) -> NDArray[Any]:
        """The raw record k. Raises SampleError, or MachineError."""
        shard, row = self._position(k)
        return self._shards[shard].row(row)

    def truth(self, k: int) -> NDArray[Any] | None:
        """The raw true map of record k, None where there is none."""
        shard, row = self._position(k)
        array = self._truths[shard]
        if array is None:
            return None
        try:
            return array.row(row)
        except SampleError:  # the truth is only for the report
            return None

    def alone(self, k: int) -> "Records":
        """A source that holds record k only."""
        shard, row = self._position(k)
        one = copy.copy(self)
        one.ids, one._only = [self.ids[k]], row
        one._shards, one._truths = [self._shards[shard]], [self._truths[shard]]
        one.order, one._ends = None, []
        return one

    def files(self, ks: Sequence[int]) -> list[Path]:
        """The files of these records and of their true maps."""
        shards = sorted({self._position(k)[0] for k in ks})
        arrays = [a for s in shards for a in (self._shards[s], self._truths[s]) if a is not None]
        return [array.path for array in arrays]


def _find_truth(shard: NpyArray) -> NpyArray | None:
    """The array of true maps that belongs to a shard, None where there is none that fits."""
    prefix = shard.path.name[:4]
    if prefix not in TRUTH_NAMES:
        return None
    name = TRUTH_NAMES[prefix] + shard.path.name[4:]
    for folder in (shard.path.parent, shard.path.parent.parent / "model"):
        if (folder / name).is_file():
            try:
                array = NpyArray(folder / name)
            except SampleError:
                return None
            return array if len(array) == len(shard) and len(array.shape) in (3, 4) else None
    return None


class Hdf5Records:
    """`records` (or `seismic`, `seis`, `data`) of an HDF5 or .npz file, with `ids` if it has any.

    A dataset or array `velocity` of the same length is the truth.
    """

    def __init__(self, path: str | os.PathLike[str], array: Hdf5Array | npz.NpzArray) -> None:
        self.path = Path(path)
        self.order: Order | None = None
        self._array = array
        if len(self._array.shape) != 4:
            raise InputError(
                f"records {path}: found shape {self._array.shape}, expected (samples, shots, time "
                "rows, receivers)"
            )
        ids = self._array.ids()
        self.named = ids is not None
        self.ids = ids or [f"{self.path.stem}_{k}" for k in range(len(self._array))]
        self._rows: Sequence[int] = range(len(self._array))
        self._truth: Hdf5Array | npz.NpzArray | None = None
        if "velocity" in array.datasets:
            truth = type(array)(path, ("velocity",))
            self._truth = truth if len(truth) == len(self._array) else None

    def where(self, k: int) -> str:
        """File and row of record k, for messages."""
        return f"{self.path}, {self._array.name}[{self._rows[k]}]"

    def read(self, k: int) -> NDArray[Any]:
        """The raw record k. Raises SampleError, or MachineError."""
        return self._array.row(self._rows[k])

    def truth(self, k: int) -> NDArray[Any] | None:
        """The raw true map of record k, None where there is none."""
        return None if self._truth is None else self._truth.row(self._rows[k])

    def alone(self, k: int) -> "Records":
        """A source that holds record k only."""
        one = copy.copy(self)
        one.ids, one._rows = [self.ids[k]], [self._rows[k]]
        return one

    def files(self, ks: Sequence[int]) -> list[Path]:
        """The file, where any record of it is meant."""
        return [self.path] if ks else []
