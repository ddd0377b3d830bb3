"""Sources of records, which read one at a time: a directory of `<id>.npy`, shards, HDF5 or .npz.

Every class here but the first is a `Records`. Nothing that is returned is checked: see
survey/validate.py.
"""

import copy
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from fwi_refine.errors import InputError, SampleError
from fwi_refine.io import npz
from fwi_refine.io.hdf5 import MAX_MISSING, Hdf5Array
from fwi_refine.io.ids import check_id
from fwi_refine.io.npy import NpyArray
from fwi_refine.io.order import Order

SHARD_NAME = re.compile(r"^(seis|data)[\d_]*\.npy$")
TRUTH_NAMES = {"seis": "vel", "data": "model"}


class RecordSource(Protocol):
    """A record that can be sent to the process that refines its sample."""

    def where(self, k: int) -> str:
        """File and row of record k, for messages."""

    def read(self, k: int) -> NDArray[Any]:
        """The raw record k. Raises SampleError, or MachineError."""

    def truth(self, k: int) -> NDArray[Any] | None:
        """The raw true map of record k, None where none stands beside the records."""


class Records(RecordSource, Protocol):
    """Records that are read one at a time.

    Attributes
    ----------
    path : Path
        Where they stand.
    ids : list of str
        Their ids.
    named : bool
        Whether the ids are names given by the user, and not made up from position.
    order : Order or None
        That of their files, where there are several.
    """

    path: Path
    ids: list[str]
    named: bool
    order: Order | None

    def alone(self, k: int) -> "Records":
        """A source that holds record k only, and can be sent to another process."""

    def files(self, ks: Sequence[int]) -> list[Path]:
        """The files that these records and their true maps are read from."""


def open_array(path: Path) -> NpyArray:
    """An array of one record or of many. Raises InputError or MachineError."""
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
    if missing > MAX_MISSING or 0 in array.shape[1:]:
        raise InputError(
            f"records {path}: claims the shape {array.shape}, but {array.truncation()}"
        )
    return array


class DirectoryRecords:
    """One file for each record: `<id>.npy`, in the order that is given."""

    named = True

    def __init__(self, path: Path, names: Iterable[str], order: Order | None = None) -> None:
        self.path = Path(path)
        self._names = [*names]  # a single file may have another suffix
        self.ids = [check_id(name.removesuffix(".npy")) for name in self._names]
        self.order = order

    def where(self, k: int) -> str:
        """The file of record k, for messages."""
        return str(self.path / self._names[k])

    def read(self, k: int) -> NDArray[Any]:
        """The raw record k. Raises SampleError, or MachineError."""
        return NpyArray(self.where(k)).read()

    def truth(self, k: int) -> None:
        """None: no true map stands beside such records."""

    def alone(self, k: int) -> Records:
        """A source that holds record k only."""
        return DirectoryRecords(self.path, [self._names[k]])

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

    def alone(self, k: int) -> Records:
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
    for path in truth_paths(shard.path):
        if path.is_file():
            try:
                array = NpyArray(path)
            except SampleError:
                return None
            return array if len(array) == len(shard) and len(array.shape) in (3, 4) else None
    return None


def truth_paths(shard: Path) -> list[Path]:
    """Where the true maps of a shard of records may stand, the first that exists counts."""
    if not SHARD_NAME.match(shard.name):
        return []
    name = TRUTH_NAMES[shard.name[:4]] + shard.name[4:]
    return [folder / name for folder in (shard.parent, shard.parent.parent / "model")]


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

    def alone(self, k: int) -> Records:
        """A source that holds record k only."""
        one = copy.copy(self)
        one.ids, one._rows = [self.ids[k]], [self._rows[k]]
        return one

    def files(self, ks: Sequence[int]) -> list[Path]:
        """The file, where any record of it is meant."""
        return [self.path] if ks else []
