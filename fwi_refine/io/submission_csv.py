"""The competition's CSV as a source of maps: one line for each row of each map.

Header `oid_ypos,x_1,x_3,...,x_69`; key `<id>_y_<row>`; the values are map[row, 1::2]. The file
is read once and spooled to an unnamed temporary file, because its lines may stand in any order.
"""

import contextlib
import functools
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fwi_refine.errors import InputError, MachineError, SampleError
from fwi_refine.files import lines, open_text
from fwi_refine.io.ids import check_id
from fwi_refine.survey import OPENFWI, Survey

KEY = "oid_ypos"
log = logging.getLogger(__name__)

# The lines of one map mostly follow one another.
_checked = functools.lru_cache(maxsize=8)(check_id)


def header(nx: int) -> list[str]:
    """Column names of a submission for maps of `nx` columns."""
    return [KEY, *(f"x_{column}" for column in range(1, nx, 2))]


def split_key(key: str, nz: int) -> tuple[str, int]:
    """(id, row) of a line's key. Raises ValueError with what was found and expected."""
    name, mark, row = key.rpartition("_y_")
    if not mark or not (row.isascii() and row.isdigit() and len(row) < 10) or int(row) >= nz:
        raise ValueError(f"found key {key!r}, expected <id>_y_<row> with row 0..{nz - 1}")
    return _checked(name), int(row)


@contextlib.contextmanager
def _room_for(path: Path) -> Iterator[None]:
    """What the disk of temporary files lacks as a MachineError that says so."""
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"predictions {path}: no room to sort their lines among temporary files "
            f"({error.strerror}); name a folder with room in TMPDIR"
        ) from error


class SubmissionPredictions:
    """Maps of a submission CSV; even columns are interpolated from their neighbours.

    Column 0 has no left neighbour and takes the value of column 1. A line that is missing, or
    stands twice, or holds no numbers, costs its map alone.

    Parameters
    ----------
    path : path-like
        The CSV.
    survey : Survey
        Gives the shape of a map.

    Raises
    ------
    InputError
        For another header, and for a file that cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], survey: Survey = OPENFWI) -> None:
        self.path = Path(path)
        self._nz, self._nx = survey.shape
        self._columns = np.arange(1, self._nx, 2)
        self._row_bytes = 8 * self._columns.size
        self._problems: dict[int, str] = {}  # index -> what is wrong with the map
        self._seen: list[int] = []  # one bit for each row of each map
        self.ids: list[str] | None = []
        self._ids = self.ids
        with _room_for(self.path):
            self._spool = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the maps)
        try:
            self._read_lines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"predictions {path}: cannot be read ({error})") from error
        if not self._ids:
            raise InputError(f"predictions {path}: holds no maps")
        self.count = len(self._ids)
        self.shape: tuple[int, ...] = (self.count, *survey.shape)
        log.info(
            "%s: a submission holds odd columns only; even ones are interpolated from their "
            "neighbours, column 0 is taken from column 1",
            path,
        )

    def _read_lines(self) -> None:
        index: dict[str, int] = {}
        expected = header(self._nx)
        with open_text(self.path) as file:
            text = lines(file, f"predictions {self.path}")
            found = next(text, "").strip().split(",")
            if found != expected:
                raise InputError(
                    f"predictions {self.path}: found the header {','.join(found)[:60]!r}, expected "
                    f"'{KEY},x_1,x_3,...,{expected[-1]}'"
                )
            for number, line in enumerate(text, start=2):
                if not line.strip():
                    continue
                key, *values = line.rstrip().split(",")  # white space before an id belongs to it
                try:
                    name, row = split_key(key, self._nz)
                except ValueError as error:
                    raise InputError(f"predictions {self.path}, line {number}: {error}") from error
                k = index.setdefault(name, len(index))
                if k == len(self._ids):
                    self._ids.append(name)
                    self._seen.append(0)
                self._take_line(k, row, values, number)
        with _room_for(self.path):
            self._spool.flush()

    def _take_line(self, k: int, row: int, values: list[str], number: int) -> None:
        if self._seen[k] >> row & 1:
            self._problem(k, f"line {number}: row {row} stands twice, expected once")
            return
        try:
            numbers = np.array(values, dtype=np.float64)
            if numbers.size != self._columns.size:
                raise ValueError(f"found {numbers.size} values, expected {self._columns.size}")
        except ValueError as error:
            self._problem(k, f"line {number}: {error}")
            numbers = np.full(self._columns.size, np.nan)
        self._seen[k] |= 1 << row
        with _room_for(self.path):
            self._spool.seek((k * self._nz + row) * self._row_bytes)
            self._spool.write(numbers.tobytes())

    def _problem(self, k: int, text: str) -> None:
        self._problems.setdefault(k, text)

    def files(self) -> list[Path]:
        """The file."""
        return [self.path]

    def where(self, k: int) -> str:
        """File and id of map k, for messages."""
        return f"{self.path}, id {self._ids[k]}"

    def read(self, k: int) -> NDArray[np.float64]:
        """Map k, (nz, nx) float64. Raises SampleError if lines of it are missing or wrong."""
        missing = [row for row in range(self._nz) if not self._seen[k] >> row & 1]
        if missing:
            self._problem(
                k,
                f"found {self._nz - len(missing)} of {self._nz} rows, row {missing[0]} is missing",
            )
        if k in self._problems:
            raise SampleError(f"{self.where(k)}: {self._problems[k]}")
        return self.salvage(k)

    def salvage(self, k: int) -> NDArray[np.float64]:
        """Map k as far as it could be read, NaN in the rows that could not."""
        self._spool.seek(k * self._nz * self._row_bytes)
        odd = np.full((self._nz, self._columns.size), np.nan)
        stored = np.frombuffer(self._spool.read(self._nz * self._row_bytes))
        odd.flat[: stored.size] = stored
        odd[[row for row in range(self._nz) if not self._seen[k] >> row & 1]] = np.nan
        columns = np.arange(self._nx)
        return np.stack([np.interp(columns, self._columns, row) for row in odd])
