"""A part: the results of one chunk in one small HDF5 file that is never changed.

Its name gives the digest of its bytes, of the run and of the chunk, so a flipped byte, a cut file,
a part of another run and a part under the name of another are all noticed before anything in it is
read. The same results give the same bytes.
"""

import hashlib
import io
import os
import re
import typing
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from fwi_refine.errors import PartError
from fwi_refine.io.hdf5 import ERRORS as HDF5_ERRORS
from fwi_refine.io.ids import check_id
from fwi_refine.io.outputs import publish
from fwi_refine.io.report import Row

VELOCITY, DEVIATION = "velocity", "deviation"  # names of maps
MEASURED = ("seconds",)  # columns that differ from run to run: they stand in the journal
COLUMNS = {name: kind for name, kind in typing.get_type_hints(Row).items() if name not in MEASURED}
STATUSES = ("refined", "unchanged", "failed")

_NAME = re.compile(r"part-(\d{6,})-([0-9a-f]{16})\.h5")
_TEMPORARY = re.compile(r"\.part-(\d{6,})\.\d+\.tmp")


@dataclass(frozen=True)
class Part:
    """Results of one chunk.

    rows: what is reported of each sample, without what was measured. maps, (n, nz, nx) float32:
    "velocity", m/s, where a sample failed its start; "deviation", if the run keeps it, the
    expected rms error, m/s, NaN where it is not known.
    """

    rows: list[Row]
    maps: dict[str, np.ndarray]


def part_number(name) -> int | None:
    """The chunk that a file name stands for; None if it is not that of a part."""
    found = _NAME.fullmatch(name)
    return found and int(found[1])


def temporary_number(name) -> int | None:
    """The chunk that was being written under a temporary name; None if it is none."""
    found = _TEMPORARY.fullmatch(name)
    return found and int(found[1])


def write_part(folder, number, part, run) -> Path:
    """Stores a part; it stands under its final name whole or not at all.

    run: hash of the run's table. Raises OSError if it cannot be stored.
    """
    data = _encode(part)
    path = Path(folder) / f"part-{number:06d}-{_digest(data, number, run)}.h5"
    temporary = path.with_name(f".part-{number:06d}.{os.getpid()}.tmp")
    try:
        try:
            temporary.write_bytes(data)
            publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, f"cannot be stored: {error.strerror}", str(path)) from error
    return path


def read_part(path, run) -> Part:
    """Reads a part. Raises PartError if it is not exactly what was written for this run."""
    path = Path(path)
    found = _NAME.fullmatch(path.name)
    if found is None:
        raise PartError(f"{path}: not the name of a part")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PartError(f"{path}: cannot be read ({error.strerror})") from error
    if _digest(data, int(found[1]), run) != found[2]:
        raise PartError(f"{path}: damaged, or of another run: its bytes do not match its name")
    try:
        return _decode(data)
    except HDF5_ERRORS as error:
        raise PartError(f"{path}: does not hold the results of a chunk ({error})") from error


def _digest(data, number, run) -> str:
    digest = hashlib.sha256(f"{run} {number}\n".encode())
    digest.update(data)
    return digest.hexdigest()[:16]


def _encode(part) -> bytes:
    """The bytes of the file. HDF5 writes to memory: a full disk must not meet it half way."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["report"] = _table(part.rows)
        for name, values in part.maps.items():
            file[f"maps/{name}"] = values.astype("<f4")
    return buffer.getvalue()


def _table(rows):
    """The rows as a table of fixed-length text and of numbers, NaN where one is not known."""
    columns, types = [], []
    for name, kind in COLUMNS.items():
        values = [getattr(row, name) for row in rows]
        if kind is str:
            values = [value.encode() for value in values]
            types.append((name, h5py.string_dtype("utf-8", max(1, *map(len, values)))))
        else:
            values = [np.nan if value is None else value for value in values]
            types.append((name, "<f8"))
        columns.append(values)
    return np.array(list(zip(*columns, strict=True)), dtype=types)


def _decode(data) -> Part:
    with h5py.File(io.BytesIO(data), "r") as file:
        table = _plain_values(file["report"], {"S", "f"})
        maps = {name: _plain_values(values, {"f"}) for name, values in file["maps"].items()}
    sizes = {len(values) for values in (table, *maps.values())}
    if len(sizes) != 1 or VELOCITY not in maps:
        raise ValueError(f"found tables of the lengths {sorted(sizes)}, maps {sorted(maps)}")
    rows = []
    for cells in table:
        row = Row(**{name: _plain(cells[name], kind) for name, kind in COLUMNS.items()})
        check_id(row.id)
        if row.status not in STATUSES:
            raise ValueError(f"found the status {row.status!r}, expected {', '.join(STATUSES)}")
        rows.append(row)
    return Part(rows, maps)


def _plain_values(dataset, kinds):
    """A dataset, in memory. Types that hold pointers are not even read: only a file that was made
    to do damage has them."""
    types = [dtype for dtype, *_ in (dataset.dtype.fields or {"": (dataset.dtype,)}).values()]
    if not {dtype.kind for dtype in types} <= kinds:
        raise TypeError(f"found the type {dataset.dtype}")
    return dataset[()]


def _plain(value, kind):
    """A cell as the report has it: text, a number, or None where it is not known."""
    if kind is str:
        return value.decode()
    if np.isnan(value):
        return None
    return int(value) if int in typing.get_args(kind) else float(value)
