"""The report: one row for each sample, as CSV.

Rows are spooled as samples finish, in any order, and written out in sample order at the end:
memory does not grow with the number of samples.
"""

import csv
import io
import tempfile
from dataclasses import asdict, dataclass, fields

import numpy as np

from fwi_refine.io.outputs import atomic_path


@dataclass(frozen=True)
class Row:
    """What is reported of one sample. Velocities in m/s, misfits rms in the record's units.

    status: "refined", "unchanged" (nothing better than the start was found), "failed" (see
    reason; the start was passed through) or "unfinished" (the run was stopped before it).
    expected_error: mean absolute error to be expected, in m/s (see posterior.py). start: which
    prediction it started from. mae_*: mean absolute error in m/s, where the true
    map stands beside the records.
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


COLUMNS = tuple(field.name for field in fields(Row))
_DIGITS = {
    "seconds": "{:.2f}",
    "vmin": "{:.3f}",
    "expected_error": "{:.4f}",
    "mae_before": "{:.4f}",
    "mae_after": "{:.4f}",
}


def format_row(row) -> list[str]:
    """The cells of one line: short numbers, empty where nothing is known."""
    cells = []
    for name, value in asdict(row).items():
        if value is None:
            cells.append("")
        elif isinstance(value, float):
            cells.append(_DIGITS.get(name, "{:.6g}").format(value))
        else:
            cells.append(" ".join(str(value).split()))
    return cells


def describe_evidence(reason, evidence) -> str:
    """What decided on the family, and the numbers that were measured for it, in one line."""
    measured = {k: v for k, v in evidence.items() if not k.endswith("_threshold")}
    numbers = ", ".join(f"{name}={value:.6g}" for name, value in measured.items())
    return "; ".join(text for text in (reason, numbers) if text)


class ReportWriter:
    """Collects rows in any order; `publish` writes them in sample order.

    ids: of all samples, in order. A sample without a row is reported as unfinished.
    """

    def __init__(self, ids):
        self._ids = ids
        self._places = np.full(len(ids), -1, np.int64)
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the writer)

    def add(self, k, row):
        line = io.StringIO(newline="")
        csv.writer(line).writerow(format_row(row))
        place = self._spool.seek(0, io.SEEK_END)
        self._spool.write(line.getvalue().encode())
        self._places[k] = place

    @property
    def finished(self) -> int:
        return int((self._places >= 0).sum())

    def publish(self, path):
        """Writes the report under its final name, whole or not at all."""
        with (
            atomic_path(path) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for name, place in zip(self._ids, self._places, strict=True):
                if place < 0:
                    writer.writerow(format_row(Row(id=name, status="unfinished")))
                else:
                    self._spool.seek(int(place))
                    file.write(self._spool.readline().decode())
