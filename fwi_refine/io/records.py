"""Records, read one at a time: a directory of `<id>.npy`, shards, one array, or HDF5.

Every class here has: `ids`, list of str; `named`, whether the ids are names given by the user
(and not made up from position); `path`; `where(k)`, the file and place of record k, for messages;
`read(k)`, the raw array, raising SampleError; `truth(k)`, the raw true map where it stands beside
the records, else None; `alone(k)`, a source that holds record k only and can be sent to another
process; `files(ks)`, the files that those records and their true maps are read from. Nothing that
is returned is checked: see survey/validate.py.
"""

import copy
import re
from pathlib import Path

import numpy as np

from fwi_refine.errors import InputError, SampleError
from fwi_refine.io.hdf5 import SIGNATURE, Hdf5Array
from fwi_refine.io.npy import NpyArray
from fwi_refine.survey import OPENFWI

_SHARD = re.compile(r"^(seis|data)[\d_]*\.npy$")
_TRUTH = {"seis": "vel", "data": "model"}
HDF5_NAMES = ("records", "seismic", "seis", "data")


def open_records(path, survey=OPENFWI):
    """The records at `path`, whichever form they have. Raises InputError if it is none.

    So does a file of one array that holds maps of the survey: the arguments were swapped.
    """
    path = Path(path)
    if path.is_dir():
        return _open_directory(path)
    if not path.is_file():
        raise InputError(f"records {path}: no such file or directory")
    with open(path, "rb") as file:
        start = file.read(len(SIGNATURE))
    if start == SIGNATURE:
        return Hdf5Records(path)
    array = _open_array(path)
    if _holds_maps(array.shape, survey):
        raise InputError(
            f"records {path}: found shape {array.shape}, that of maps; the predictions come first, "
            "then the records"
        )
    if len(array.shape) == 3:
        return DirectoryRecords(path.parent, [path.name])
    return ShardRecords(path, [path])


def _open_directory(path):
    names = sorted(entry.name for entry in path.iterdir() if _is_npy(entry.name))
    if not names and (path / "data").is_dir():  # a family's folder: data/ and model/ side by side
        return _open_directory(path / "data")
    if not names:
        raise InputError(f"records {path}: found no .npy files, expected <id>.npy or seis*.npy")
    shards = [path / name for name in names if _SHARD.match(name)]
    if any(_is_shard(shard) for shard in shards):
        return ShardRecords(path, shards)
    return DirectoryRecords(path, names)


def _holds_maps(shape, survey) -> bool:
    is_map = shape[-2:] == survey.shape and (len(shape) == 3 or shape[1] == 1)
    return is_map and shape[-3:] != survey.file_shape  # a survey may have records like maps


def _is_npy(name) -> bool:
    return name.endswith(".npy") and not name.startswith(".")  # "._a.npy": left by some copies


def _is_shard(path) -> bool:
    try:
        return len(NpyArray(path).shape) == 4
    except SampleError:
        return False


def _open_array(path):
    try:
        array = NpyArray(path)
    except SampleError as error:
        raise InputError(f"records {error}") from error
    if len(array.shape) not in (3, 4):
        raise InputError(
            f"records {path}: found shape {array.shape}, expected (samples, shots, time rows, "
            "receivers)"
        )
    return array


class DirectoryRecords:
    """One file for each record: `<id>.npy`, in sorted order."""

    named = True

    def __init__(self, path, names):
        self.path = Path(path)
        self.ids = [name.removesuffix(".npy") for name in names]

    def where(self, k) -> str:
        return str(self.path / f"{self.ids[k]}.npy")

    def read(self, k) -> np.ndarray:
        return NpyArray(self.where(k)).read()

    def truth(self, k):
        return None

    def alone(self, k):
        return DirectoryRecords(self.path, [f"{self.ids[k]}.npy"])

    def files(self, ks) -> list[Path]:
        return [Path(self.where(k)) for k in ks]


class ShardRecords:
    """Files of many records each, in sorted order; `vel*` or `model*` beside them is the truth.

    The truth of seis2_1_0.npy is vel2_1_0.npy; that of data1.npy is model1.npy, in the same
    folder or, as the OpenFWI sets have it, in `model/` beside `data/`.
    """

    named = False

    def __init__(self, path, shards):
        self.path = Path(path)
        self._places = []  # (shard, row) of each record
        self.ids = []
        self._shards, self._truths = [], []
        for shard in shards:
            array = _open_array(shard)
            if len(array.shape) != 4:
                raise InputError(
                    f"records {shard}: found shape {array.shape}, expected (samples, shots, time "
                    "rows, receivers) as the other shards have"
                )
            self._places += [(len(self._shards), row) for row in range(len(array))]
            self.ids += [f"{shard.stem}_{row}" for row in range(len(array))]
            self._shards.append(array)
            self._truths.append(_find_truth(array))

    def where(self, k) -> str:
        shard, row = self._places[k]
        return f"{self._shards[shard].path}, row {row}"

    def read(self, k) -> np.ndarray:
        shard, row = self._places[k]
        return self._shards[shard].row(row)

    def truth(self, k):
        shard, row = self._places[k]
        array = self._truths[shard]
        if array is None:
            return None
        try:
            return array.row(row)
        except SampleError:  # the truth is only for the report
            return None

    def alone(self, k):
        shard, row = self._places[k]
        one = copy.copy(self)
        one.ids, one._places = [self.ids[k]], [(0, row)]
        one._shards, one._truths = [self._shards[shard]], [self._truths[shard]]
        return one

    def files(self, ks) -> list[Path]:
        shards = sorted({self._places[k][0] for k in ks})
        arrays = [a for s in shards for a in (self._shards[s], self._truths[s]) if a is not None]
        return [array.path for array in arrays]


def _find_truth(shard):
    """The array of true maps that belongs to a shard, None where there is none that fits."""
    prefix = shard.path.name[:4]
    if prefix not in _TRUTH:
        return None
    name = _TRUTH[prefix] + shard.path.name[4:]
    for folder in (shard.path.parent, shard.path.parent.parent / "model"):
        if (folder / name).is_file():
            try:
                array = NpyArray(folder / name)
            except SampleError:
                return None
            return array if len(array) == len(shard) and len(array.shape) in (3, 4) else None
    return None


class Hdf5Records:
    """Dataset `records` (or `seismic`, `seis`, `data`) of an HDF5 file, with `ids` if it has any.

    A dataset `velocity` of the same length is the truth.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._array = Hdf5Array(path, HDF5_NAMES)
        if len(self._array.shape) != 4:
            raise InputError(
                f"records {path}: found shape {self._array.shape}, expected (samples, shots, time "
                "rows, receivers)"
            )
        ids = self._array.ids()
        self.named = ids is not None
        self.ids = ids or [f"{self.path.stem}_{k}" for k in range(len(self._array))]
        self._rows = range(len(self._array))
        self._truth = None
        if "velocity" in self._array.datasets:
            truth = Hdf5Array(path, ("velocity",))
            self._truth = truth if len(truth) == len(self._array) else None

    def where(self, k) -> str:
        return f"{self.path}, {self._array.name}[{self._rows[k]}]"

    def read(self, k) -> np.ndarray:
        return self._array.row(self._rows[k])

    def truth(self, k):
        return None if self._truth is None else self._truth.row(self._rows[k])

    def alone(self, k):
        one = copy.copy(self)
        one.ids, one._rows = [self.ids[k]], [self._rows[k]]
        return one

    def files(self, ks) -> list[Path]:
        return [self.path] if ks else []
