"""Records at a path, whichever form they have; see record_sources.py."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from fwi_refine.errors import InputError, SampleError
from fwi_refine.files import open_regular
from fwi_refine.io import npz
from fwi_refine.io.hdf5 import SIGNATURE, Hdf5Array
from fwi_refine.io.npy import NpyArray
from fwi_refine.io.order import Order, in_order
from fwi_refine.io.record_sources import (
    SHARD_NAME,
    TRUTH_NAMES,
    DirectoryRecords,
    Hdf5Records,
    Records,
    ShardRecords,
    open_array,
)
from fwi_refine.survey import OPENFWI, Survey

HDF5_NAMES = ("records", "seismic", "seis", "data")

log = logging.getLogger(__name__)


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
    array = open_array(path)
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
    shards = [name for name in names if SHARD_NAME.match(name)]
    if any(_is_shard(path / name) for name in shards):
        _warn_of_others(path, names, shards)
        order = _order_of_shards(shards).logged(path)
        return ShardRecords(path, order, [path / name for name in order.names])
    return DirectoryRecords(path, names, order.logged(path))


def _family_shards(path: Path) -> tuple[Order, list[Path], list[str]] | None:
    """The shards below the top folder of a training set, by family, with what their ids begin with;
    None where there are none."""
    files: list[Path] = []
    starts: list[str] = []
    for family in in_order(e.name for e in path.iterdir() if e.is_dir()).names:
        folder = path / family / "data" if (path / family / "data").is_dir() else path / family
        names = (entry.name for entry in folder.iterdir() if SHARD_NAME.match(entry.name))
        shards = [folder / name for name in in_order(names).logged(folder).names]
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


def _warn_of_others(path: Path, names: Sequence[str], shards: Sequence[str]) -> None:
    """Warns of arrays in a folder of shards that are neither shards nor true maps."""
    known = ("seis", "data", *TRUTH_NAMES.values())
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
