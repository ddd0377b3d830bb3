"""A part: the results of one chunk in one small HDF5 file that is never changed.

Its name gives the digest of its bytes, of the run and of the chunk. So a flipped byte, a cut file
and a part of another run or chunk are noticed before anything in it is used. The same results give
the same bytes. A piece is the same for one sample of a chunk that is not finished.
"""

import hashlib
import io
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fwi_refine.errors import DamagedPartError, PartError
from fwi_refine.files import open_regular
from fwi_refine.io.hdf5 import ERRORS as HDF5_ERRORS
from fwi_refine.io.ids import check_id
from fwi_refine.io.outputs import open_temporary, publish
from fwi_refine.io.report import Row
from fwi_refine.machine_faults import persistently

VELOCITY, DEVIATION, SAMPLES = "velocity", "deviation", "samples"  # names of maps
MEASURED = ("seconds",)  # columns that differ from run to run: they stand in the journal
COLUMNS = {name: kind for name, kind in typing.get_type_hints(Row).items() if name not in MEASURED}
STATUSES = ("refined", "unchanged", "failed")
PART, PIECE = "part", "piece"  # of a chunk, of a sample

_NAME = re.compile(r"(part|piece)-(\d{6,18})-([0-9a-f]{16})\.h5")
_RUN = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")  # hash of a run's table
_TEMPORARY = re.compile(r"\.(part|piece)-(\d{6,18})[-.].*\.tmp")

History = tuple[tuple[int, int, float], ...]


@dataclass(frozen=True)
class Part:
    """Results of one chunk, or of a sample of it.

    Attributes
    ----------
    rows : list of Row
        What is reported of each sample, without what was measured.
    maps : dict
        (n, nz, nx) float32. "velocity": m/s, where a sample failed its start; "deviation", if the
        run keeps it: the expected rms error, m/s, NaN where it is not known. "samples", if the run
        keeps some: (n, K, nz, nx) float32, m/s, alike.
    histories : list of tuples
        (stage, evaluations, misfit) of each sample, see io/history.py.
    """

    rows: list[Row]
    maps: dict[str, NDArray[np.float32]]
    histories: Sequence[History] = ()

    def one(self, name: str, k: int) -> NDArray[np.float32] | None:
        """The array of sample k under a name, None where there is none."""
        return self.maps[name][k] if name in self.maps else None

    def history(self, k: int) -> History:
        """The history of sample k, empty where none is stored."""
        return self.histories[k] if self.histories else ()


def joined(parts: Sequence[Part]) -> Part:
    """The parts, one after another, as one."""
    maps = {name: np.concatenate([part.maps[name] for part in parts]) for name in parts[0].maps}
    histories = [part.history(k) for part in parts for k in range(len(part.rows))]
    return Part([*chain.from_iterable(part.rows for part in parts)], maps, histories)


def one_of(part: Part, k: int) -> Part:
    """Sample k of a part."""
    maps = {name: values[k : k + 1] for name, values in part.maps.items()}
    return Part(part.rows[k : k + 1], maps, [part.history(k)])


def stored_number(name: str, kind: str = PART) -> int | None:
    """The chunk or sample that a file name stands for; None if it is not of that kind."""
    found = _NAME.fullmatch(name)
    return int(found[2]) if found and found[1] == kind else None


def temporary_number(name: str) -> tuple[str, int] | None:
    """Kind and number of what was being written under a temporary name; None if it is none."""
    found = _TEMPORARY.fullmatch(name)
    return (found[1], int(found[2])) if found else None


def write_part(folder: Path, number: int, part: Part, run: str, kind: str = PART) -> Path:
    """Stores a part; it stands under its final name whole or not at all.

    Parameters
    ----------
    folder : Path
        Where it is stored.
    number : int
        Of its chunk; of a piece, the place of its sample in the run.
    part : Part
        The results.
    run : str
        Hash of the run's table.
    kind : str
        PART or PIECE.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OSError
        If it cannot be stored.
    """
    data = _encode(part, run)
    path = Path(folder) / f"{kind}-{number:06d}-{_digest(data, number, run, kind)}.h5"
    try:
        temporary, file = open_temporary(path)
        try:
            with file:
                file.write(data)
                file.flush()
                publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, f"cannot be stored: {error.strerror}", str(path)) from error
    return path


def read_part(path: Path, run: str) -> Part:
    """Reads a part, or a piece.

    Parameters
    ----------
    path : Path
        The file.
    run : str
        Hash of the run's table.

    Raises
    ------
    DamagedPartError
        If its bytes do not have the digest that its name gives.
    PartError
        If it is whole, but belongs to another run, or does not hold results.
    MachineError
        If the machine cannot read it, which says nothing of what it holds.
    """
    path = Path(path)
    found = _NAME.fullmatch(path.name)
    if found is None:
        raise PartError(f"{path}: not the name of a part")

    def read() -> bytes:
        with open_regular(path) as file:
            return file.read()

    data = persistently(read, str(path))
    kind, number = found[1], int(found[2])
    if _digest(data, number, run, kind) != found[3]:
        # HDF5 itself may crash on damaged bytes, which are therefore only searched
        owners = {text.decode() for text in _RUN.findall(data)}
        if any(_digest(data, number, owner, kind) == found[3] for owner in owners):
            raise PartError(f"{path}: is a sound part of another run, and not of this one")
        raise DamagedPartError(
            f"{path}: damaged, or of another run: its bytes do not match its name"
        )
    try:
        return _decode(data)
    except HDF5_ERRORS as error:
        raise PartError(f"{path}: does not hold the results of a chunk ({error})") from error


def _digest(data: bytes, number: int, run: str, kind: str = PART) -> str:
    what = "" if kind == PART else f"{kind} "
    digest = hashlib.sha256(f"{run} {what}{number}\n".encode())
    digest.update(data)
    return digest.hexdigest()[:16]


def _encode(part: Part, run: str) -> bytes:
    """The bytes of the file. HDF5 writes to memory: a full disk must not meet it half way."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["run"] = run
        file["report"] = _table(part.rows)
        for name, values in part.maps.items():
            file[f"maps/{name}"] = values.astype("<f4")
        steps = [(k, *step) for k, history in enumerate(part.histories) for step in history]
        file["history"] = np.array(steps, "<f8").reshape(-1, 4)
    return buffer.getvalue()


def _table(rows: Sequence[Row]) -> NDArray[Any]:
    """The rows as a table of fixed-length text and of numbers, NaN where one is not known."""
    columns: list[list[Any]] = []
    types: list[tuple[str, Any]] = []
    for name, kind in COLUMNS.items():
        values = [getattr(row, name) for row in rows]
        if kind is str:
            # a path in a reason may hold bytes that are no text
            values = [value.encode(errors="backslashreplace") for value in values]
            types.append((name, h5py.string_dtype("utf-8", max(1, *map(len, values)))))
        else:
            values = [np.nan if value is None else value for value in values]
            types.append((name, "<f8"))
        columns.append(values)
    return np.array(list(zip(*columns, strict=True)), dtype=types)


def _decode(data: bytes) -> Part:
    with h5py.File(io.BytesIO(data), "r") as file:
        table = _plain_values(file["report"], {"S", "f"})
        maps = {name: _plain_values(values, {"f"}) for name, values in file["maps"].items()}
        steps = _plain_values(file["history"], {"f"}) if "history" in file else []
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
    return Part(rows, maps, _histories(steps, len(rows)))


def _histories(steps: Any, count: int) -> list[History]:
    """The history of each sample, from lines (sample, stage, evaluations, misfit)."""
    found: list[list[tuple[int, int, float]]] = [[] for _ in range(count)]
    for k, stage, evaluations, misfit in steps:
        if not 0 <= k < count:
            raise ValueError(f"found a history of sample {k}, expected {count} samples")
        found[int(k)].append((int(stage), int(evaluations), float(misfit)))
    return [tuple(history) for history in found]


def _plain_values(dataset: Any, kinds: set[str]) -> Any:
    """A dataset, in memory. Types that hold pointers are not even read: only a file that was made
    to do damage has them."""
    types = [dtype for dtype, *_ in (dataset.dtype.fields or {"": (dataset.dtype,)}).values()]
    if not {dtype.kind for dtype in types} <= kinds:
        raise TypeError(f"found the type {dataset.dtype}")
    return dataset[()]


def _plain(value: Any, kind: Any) -> Any:
    """A cell as the report has it: text, a number, or None where it is not known."""
    if kind is str:
        return value.decode()
    if np.isnan(value):
        return None
    return int(value) if int in typing.get_args(kind) else float(value)
