"""Records, read one at a time: a directory of `<id>.npy`, shards, one array, .npz or HDF5.

Every class here is a `Records`. Nothing that is returned is checked: see survey/validate.py.
"""

import copy
import logging
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from fwi_refine.errors import InputError, SampleError
from fwi_refine.files import open_regular
from fwi_refine.io import npz
from fwi_refine.io.hdf5 import MOST_MISSING, SIGNATURE, Hdf5Array
from fwi_refine.io.ids import check_id
from fwi_refine.io.npy import NpyArray
from fwi_refine.io.order import Order, in_order
from fwi_refine.survey import OPENFWI, Survey

_SHARD = re.compile(r"^(seis|data)[\d_]*\.npy$")
_TRUTH = {"seis": "vel", "data": "model"}
HDF5_NAMES = ("records", "seismic", "seis", "data")


log = logging.getLogger(__name__)


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


def open_records(path: str | os.PathLike[str], survey: Survey = OPENFWI) -> Records:
    """The records at `path`, whichever form they have.

    Parameters
    ----------
    path : path-like
        A directory of `<id>.npy` or of shards, the top folder of a training set with a folder for
        each family, one array, `.npz`, or HDF5.
    survey : Survey
        Tells records from maps.

    Raises
    ------
    InputError
        If it is none of these, or one array of maps: the arguments were swapped.
    MachineError
        If the machine cannot read it.
    """
    path = Path(path)
    if path.is_dir():
        return _open_directory(path)
    if not path.exists():
        raise InputError(f"records {path}: no such file or directory")
    with open_regular(path) as file:
        start = file.read(len(SIGNATURE))
    if start == SIGNATURE:
        return Hdf5Records(path, Hdf5Array(path, HDF5_NAMES))
    if start.startswith(npz.SIGNATURE):
        return Hdf5Records(path, npz.NpzArray(path, HDF5_NAMES))
    array = _open_array(path)
    if _holds_maps(array.shape, survey):
        raise InputError(
            f"records {path}: found shape {array.shape}, that of maps; the predictions come first, "
            "then the records"
        )
    if len(array.shape) == 3:
        return DirectoryRecords(path.parent, [path.name])
    return ShardRecords(path, Order([path.name]), [path])


def _open_directory(path: Path) -> Records:
    order = in_order(entry.name for entry in path.iterdir() if _is_npy(entry.name))
    names = order.names
    if not names and (path / "data").is_dir():  # a family's folder: data/ and model/ side by side
        return _open_directory(path / "data")
    if not names and (families := _family_shards(path)):
        return ShardRecords(path, *families)
    if not names:
        raise InputError(f"records {path}: found no .npy files, expected <id>.npy or seis*.npy")
    shards = [name for name in names if _SHARD.match(name)]
    if any(_is_shard(path / name) for name in shards):
        _tell_of_others(path, names, shards)
        order = _order_of_shards(shards).told(path)
        return ShardRecords(path, order, [path / name for name in order.names])
    return DirectoryRecords(path, names, order.told(path))


def _family_shards(path: Path) -> tuple[Order, list[Path], list[str]] | None:
    """The shards below the top folder of a training set, by family, with what their ids begin with;
    None where there are none."""
    files: list[Path] = []
    starts: list[str] = []
    for family in in_order(e.name for e in path.iterdir() if e.is_dir()).names:
        folder = path / family / "data" if (path / family / "data").is_dir() else path / family
        names = (entry.name for entry in folder.iterdir() if _SHARD.match(entry.name))
        shards = [folder / name for name in in_order(names).told(folder).names]
        files += shards
        starts += [f"{family}_"] * len(shards)
    return (Order([str(f.relative_to(path)) for f in files]), files, starts) if files else None


def _order_of_shards(names: Sequence[str]) -> Order:
    """The order of shards; in doubt where they are of both kinds, seis*.npy and data*.npy."""
    order = in_order(names)
    if len({name[:4] for name in names}) > 1:
        return Order(
            order.names, "found seis*.npy beside data*.npy, and nothing decides on the order"
        )
    return order


def _tell_of_others(path: Path, names: Sequence[str], shards: Sequence[str]) -> None:
    """Warns of arrays in a folder of shards that are neither shards nor true maps."""
    known = ("seis", "data", *_TRUTH.values())
    others = [name for name in names if name not in shards and not name.startswith(known)]
    if others:
        log.warning("%s: %d files beside the shards are not read, the first of them %s",
                    path, len(others), others[0])  # fmt: skip


def _holds_maps(shape: tuple[int, ...], survey: Survey) -> bool:
    is_map = shape[-2:] == survey.shape and (len(shape) == 3 or shape[1] == 1)
    return is_map and shape[-3:] != survey.file_shape  # a survey may have records like maps


def _is_npy(name: str) -> bool:
    return name.endswith(".npy") and not name.startswith(".")  # "._a.npy": left by some copies


def _is_shard(path: Path) -> bool:
    try:
        return len(NpyArray(path).shape) == 4
    except SampleError:
        return False


def _open_array(path: Path) -> NpyArray:
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
            array = _open_array(shard)
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
    if not _SHARD.match(shard.name):
        return []
    name = _TRUTH[shard.name[:4]] + shard.name[4:]
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
