"""The competition's CSV as a source of maps: one line for each row of each map.

Header `oid_ypos,x_1,x_3,...,x_69`; key `<id>_y_<row>`; the values are map[row, 1::2]. The file
is read once and spooled to an unnamed temporary file, because its lines may stand in any order.
"""

import functools
import logging
import tempfile
from pathlib import Path

import numpy as np

from fwi_refine.errors import InputError, SampleError
from fwi_refine.io.ids import check_id
from fwi_refine.survey import OPENFWI

KEY = "oid_ypos"
log = logging.getLogger(__name__)

# The lines of one map mostly follow one another.
_checked = functools.lru_cache(maxsize=8)(check_id)


def header(nx) -> list[str]:
    """Column names of a submission for maps of `nx` columns."""
    return [KEY, *(f"x_{column}" for column in range(1, nx, 2))]


def split_key(key, nz) -> tuple[str, int]:
    """(id, row) of a line's key. Raises ValueError with what was found and expected."""
    name, mark, row = key.rpartition("_y_")
    if not mark or not (row.isascii() and row.isdigit()) or int(row) >= nz:
        raise ValueError(f"found key {key!r}, expected <id>_y_<row> with row 0..{nz - 1}")
    return _checked(name), int(row)


class SubmissionPredictions:
    """Maps of a submission CSV; even columns are interpolated from their neighbours.

    Column 0 has no left neighbour and takes the value of column 1. A line that is missing, or
    stands twice, or holds no numbers, costs its map alone. Raises InputError for another header.
    """

    def __init__(self, path, survey=OPENFWI):
        self.path = Path(path)
        self._nz, self._nx = survey.shape
        self._columns = np.arange(1, self._nx, 2)
        self._row_bytes = 8 * self._columns.size
        self._problems = {}  # index -> what is wrong with the map
        self._seen = []  # one bit for each row of each map
        self.ids = []
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the maps)
        try:
            self._read_lines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"predictions {path}: cannot be read ({error})") from error
        if not self.ids:
            raise InputError(f"predictions {path}: holds no maps")
        self.count = len(self.ids)
        self.shape = (self.count, *survey.shape)
        log.info(
            "%s: a submission holds odd columns only; even ones are interpolated from their "
            "neighbours, column 0 is taken from column 1",
            path,
        )

    def _read_lines(self):
        index = {}
        expected = header(self._nx)
        with open(self.path, encoding="utf-8") as file:
            found = file.readline().strip().split(",")
            if found != expected:
                raise InputError(
                    f"predictions {self.path}: found the header {','.join(found)[:60]!r}, expected "
                    f"'{KEY},x_1,x_3,...,{expected[-1]}'"
                )
            for number, line in enumerate(file, start=2):
                if not line.strip():
                    continue
                key, *values = line.strip().split(",")
                try:
                    name, row = split_key(key, self._nz)
                except ValueError as error:
                    raise InputError(f"predictions {self.path}, line {number}: {error}") from error
                k = index.setdefault(name, len(index))
                if k == len(self.ids):
                    self.ids.append(name)
                    self._seen.append(0)
                self._take_line(k, row, values, number)

    def _take_line(self, k, row, values, number):
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
        self._spool.seek((k * self._nz + row) * self._row_bytes)
        self._spool.write(numbers.tobytes())

    def _problem(self, k, text):
        self._problems.setdefault(k, text)

    def files(self) -> list[Path]:
        return [self.path]

    def where(self, k) -> str:
        return f"{self.path}, id {self.ids[k]}"

    def read(self, k) -> np.ndarray:
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

    def salvage(self, k) -> np.ndarray:
        """Map k as far as it could be read, NaN in the rows that could not."""
        self._spool.seek(k * self._nz * self._row_bytes)
        odd = np.full((self._nz, self._columns.size), np.nan)
        stored = np.frombuffer(self._spool.read(self._nz * self._row_bytes))
        odd.flat[: stored.size] = stored
        odd[[row for row in range(self._nz) if not self._seen[k] >> row & 1]] = np.nan
        columns = np.arange(self._nx)
        return np.stack([np.interp(columns, self._columns, row) for row in odd])
