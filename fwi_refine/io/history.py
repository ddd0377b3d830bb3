"""The history of a refinement: how the misfit fell with the number of evaluations, as CSV.

A line for the start of each sample (stage 0; where another route is tried, one more), one for each
iteration that a stage of its recipe was told of, one for the map that was handed back (the last
stage). The misfit is the rms of simulated minus measured record, or of the part of it that a stage
looks at: the wavelet's band in Gauss-Newton stages, the record without its rounding where levels
are assigned, the low-passed record at a lower frequency, the first shot for flat layers, at first
until a wave comes round the grid. A stage whose result was dropped stands there too, so the misfit
may rise.
"""

import csv
import io
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fwi_refine.io.ids import check_id
from fwi_refine.io.outputs import atomic_path
from fwi_refine.io.report import Spool, read_table

COLUMNS = ("id", "stage", "evaluations", "misfit")


@dataclass(frozen=True)
class Step:
    """One line of a history.

    Attributes
    ----------
    stage : int
        Stage of the recipe, 0 for the start.
    evaluations : int
        Misfit evaluations so far.
    misfit : float
        Rms misfit that they led to, in the record's units.
    """

    stage: int
    evaluations: int
    misfit: float


class HistoryWriter:
    """Collects histories in any order; `publish` writes them in sample order."""

    def __init__(self, count: int, folder: Path | None = None) -> None:
        self._spool = Spool(count, folder)

    def add(self, k: int, name: str, history: Iterable[tuple[int, int, float]]) -> None:
        """Takes the (stage, evaluations, misfit) of sample k, as `inversion.Refined` has them."""
        lines = io.StringIO(newline="")
        csv.writer(lines).writerows([name, *step[:2], f"{step[2]:.6g}"] for step in history)
        self._spool.add(k, lines.getvalue())

    def publish(self, path: str | os.PathLike[str]) -> None:
        """Writes the histories under their final name, whole or not at all."""
        with (
            atomic_path(path) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file).writerow(COLUMNS)
            file.writelines(text for text in self._spool if text is not None)


def read_history(path: str | os.PathLike[str]) -> dict[str, list[Step]]:
    """The steps of each sample by its id. Raises InputError with the line that is none."""
    found = defaultdict(list)
    for name, step in read_table(path, _parse, COLUMNS, "a history of refine"):
        found[name].append(step)
    return dict(found)


def _parse(cells: Mapping[str, str]) -> tuple[str, Step]:
    texts = [cells[name] or "" for name in COLUMNS]
    return check_id(texts[0]), Step(int(texts[1]), int(texts[2]), float(texts[3]))
