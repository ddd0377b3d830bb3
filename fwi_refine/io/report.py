"""The report: one row for each sample, as CSV.

Rows are spooled as samples finish, in any order, and written out in sample order at the end:
memory does not grow with the number of samples.
"""

import csv
import io
import os
import tempfile
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from fwi_refine.errors import InputError
from fwi_refine.files import lines, open_text
from fwi_refine.io.ids import check_id
from fwi_refine.io.outputs import atomic_path

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """The report of one sample; None or empty where it is not known.

    Attributes
    ----------
    id, family, evidence : str
        Which sample, its family, and what decided on that.
    status : str
        "refined", "unchanged" (nothing better than the start was found), "failed" (see `reason`;
        the start was passed through) or "unfinished" (the run was stopped before it).
    misfit_before, misfit_after : float or None
        Rms of simulated minus measured record, in the record's units.
    evaluations, iterations : int or None
        What it took.
    seconds : float or None
        How long it took, s.
    vmin : float or None
        Velocity that the width of the absorbing band follows from, m/s.
    expected_error : float or None
        Mean absolute error to be expected, m/s (see inversion/uncertainty.py).
    start : str
        Which prediction it started from.
    reason, flags : str
        Why it failed or stopped, and what to be cautious of.
    mae_before, mae_after : float or None
        Mean absolute error, m/s, where the true map stands beside the records.
    exact : str
        "yes": the map is proven, its record is the measured one in every sample; "no"; "not tried":
        no map of integers, or a record in another arithmetic than the released ones.
    equal_samples : float or None
        Fraction of the samples that come before the first difference of their trace.
    noise : float or None
        Rms of the record's noise beyond the rounding of float32, in its units; None where it does
        not tell.
    missing : int or None
        Samples of the record that do not count: not recorded, or of weight 0.
    source_amplitude, source_amplitude_error : float or None
        Of the source's wavelet, where it was estimated (`--source fit`), as a factor of the
        survey's, with its standard deviation.
    source_delay, source_delay_error : float or None
        By how much it is later, ms.
    source_frequency : float or None
        Of the peak of its spectrum, Hz.
    source_shape : float or None
        Rms of what is left of it with the amplitude and delay of the survey's, over its rms.
    source_adds : float or None
        By how much `expected_error` would be less with the wavelet known, m/s.
    """

    id: str
    family: str = ""
    evidence: str = ""
    status: str = "failed"
    misfit_before: float | None = None
    misfit_after: float | None = None
    evaluations: int | None = None
    iterations: int | None = None
    seconds: float | None = None
    vmin: float | None = None
    expected_error: float | None = None
    start: str = ""
    reason: str = ""
    flags: str = ""
    mae_before: float | None = None
    mae_after: float | None = None
    exact: str = ""
    equal_samples: float | None = None
    noise: float | None = None
    missing: int | None = None
    source_amplitude: float | None = None
    source_amplitude_error: float | None = None
    source_delay: float | None = None
    source_delay_error: float | None = None
    source_frequency: float | None = None
    source_shape: float | None = None
    source_adds: float | None = None


def mean_absolute_error(v: ArrayLike, truth: ArrayLike) -> float:
    """Mean of abs(v - truth), m/s: what the columns mae_before and mae_after hold."""
    return float(np.abs(np.asarray(v, np.float64) - np.asarray(truth, np.float64)).mean())


STATUSES = ("refined", "unchanged", "failed", "unfinished")
COLUMNS = tuple(field.name for field in fields(Row))
_KINDS = typing.get_type_hints(Row)
_DIGITS = {
    "seconds": "{:.2f}",
    "vmin": "{:.3f}",
    "expected_error": "{:.4f}",
    "mae_before": "{:.4f}",
    "mae_after": "{:.4f}",
}


def format_row(row: Row) -> list[str]:
    """The cells of one line: short numbers, empty where nothing is known."""
    cells = []
    for name, value in asdict(row).items():
        if value is None:
            cells.append("")
        elif isinstance(value, float):
            cells.append(_DIGITS.get(name, "{:.6g}").format(value))
        else:
            text = value if name == "id" else " ".join(str(value).split())
            # a path in a reason may hold bytes that are no text
            cells.append(text.encode(errors="backslashreplace").decode())
    return cells


def describe_evidence(reason: str, evidence: Mapping[str, float]) -> str:
    """The test that decided on the family, and the numbers measured for it, in one line."""
    measured = {k: v for k, v in evidence.items() if not k.endswith("_threshold")}
    numbers = ", ".join(f"{name}={value:.6g}" for name, value in measured.items())
    return "; ".join(text for text in (reason, numbers) if text)


def read_report(path: str | os.PathLike[str]) -> list[Row]:
    """The rows of a report. Raises InputError with the line that is none."""
    rows = read_table(path, _parse_row, ("id", "status"), "a report of refine")
    if not rows:
        raise InputError(f"{path}: holds no samples")
    return rows


def read_table(
    path: str | os.PathLike[str],
    parse: Callable[[dict[str, str]], T],
    needed: Sequence[str],
    what: str,
) -> list[T]:
    """The lines of a CSV.

    Parameters
    ----------
    path : path-like
        UTF-8 text, with or without a byte order mark.
    parse : callable
        Makes of the cells of a line what is returned of it; may raise ValueError.
    needed : sequence of str
        Columns that there must be.
    what : str
        What the file should be, for the message.

    Raises
    ------
    InputError
        If it is no such file; the message names the line.
    """
    line = 1
    found: list[T] = []
    try:
        with open_text(path) as file:
            reader = csv.DictReader(lines(file, path))
            columns = reader.fieldnames or []
            if not set(needed) <= set(columns):
                raise ValueError(f"found columns {columns}, expected {', '.join(needed)}")
            for cells in reader:
                line = reader.line_num
                found.append(parse(cells))
            return found
    except (OSError, ValueError, OverflowError, csv.Error) as error:
        raise InputError(f"{path}, line {line}: not {what} ({error})") from error


def _parse_row(cells: Mapping[str, str]) -> Row:
    """A row from its cells as text. Raises ValueError."""
    values: dict[str, Any] = {}
    for name in COLUMNS:
        text, kind = cells.get(name) or "", _KINDS[name]
        if kind is str:
            values[name] = text
        elif text:
            values[name] = _whole_number(text) if int in typing.get_args(kind) else float(text)
    check_id(values["id"])
    if values["status"] not in STATUSES:
        raise ValueError(f"found status {values['status']!r}, expected {', '.join(STATUSES)}")
    return Row(**values)


def _whole_number(text: str) -> int:
    """A number that 64 bits hold. Raises ValueError."""
    number = int(text) if len(text) < 20 else 2**63
    if abs(number) >= 2**63:
        raise ValueError(f"found a number of {len(text)} digits")
    return number


class Spool:
    """Text of each of `count` samples, kept on disk: added in any order, read in sample order.

    It has a file without a name in `folder`, the one of the output: its disk has to have room
    anyway, and that of other temporary files may not.
    """

    def __init__(self, count: int, folder: Path | None = None) -> None:
        self._extents = np.full((count, 2), -1, np.int64)  # where it begins, and how long it is
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (lives as long as the spool)

    def add(self, k: int, text: str) -> None:
        """Keeps the text of sample k."""
        data = text.encode()
        self._extents[k] = self._file.seek(0, io.SEEK_END), len(data)
        self._file.write(data)

    @property
    def filled(self) -> int:
        """How many samples have a text."""
        return int((self._extents[:, 0] >= 0).sum())

    def __iter__(self) -> Iterator[str | None]:
        """The text of each sample, None where there is none."""
        for begin, size in self._extents.tolist():
            if begin < 0:
                yield None
            else:
                self._file.seek(begin)
                yield self._file.read(size).decode()


class ReportWriter:
    """Collects rows in any order; `publish` writes them in sample order.

    Parameters
    ----------
    ids : sequence of str
        Of all samples, in order. A sample without a row is reported as unfinished.
    folder : Path, optional
        As for `Spool`.
    """

    def __init__(self, ids: Sequence[str], folder: Path | None = None) -> None:
        self._ids = ids
        self._spool = Spool(len(ids), folder)

    def add(self, k: int, row: Row) -> None:
        """Takes the row of sample k."""
        line = io.StringIO(newline="")
        csv.writer(line).writerow(format_row(row))
        self._spool.add(k, line.getvalue())

    @property
    def finished(self) -> int:
        """How many samples have a row."""
        return self._spool.filled

    def publish(self, path: str | os.PathLike[str]) -> None:
        """Writes the report under its final name, whole or not at all."""
        with (
            atomic_path(path) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for name, line in zip(self._ids, self._spool, strict=True):
                if line is None:
                    writer.writerow(format_row(Row(id=name, status="unfinished")))
                else:
                    file.write(line)
