"""The contents of a run directory so far: rows, and maps one at a time."""

import functools
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fwi_refine.errors import PartError, SampleError
from fwi_refine.io.report import Row
from fwi_refine.runs.directory.parts import VELOCITY, Part
from fwi_refine.runs.directory.run_directory import RunDirectory
from fwi_refine.runs.directory.shards import measured_seconds

log = logging.getLogger(__name__)


class Contents:
    """The finished samples of a run, in sample order; read as predictions are (io/predictions.py).

    Every part is read once to find them, and one that is damaged is left out with a warning.
    Changes nothing.

    Parameters
    ----------
    run : RunDirectory
        The run.

    Attributes
    ----------
    rows : list of Row
        What is reported of each.
    numbers : list of int
        Their indices in the run.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run, self.path = run, run.path
        self.rows: list[Row] = []
        self.numbers: list[int] = []
        self._rows: list[tuple[Path, int]] = []
        seconds = measured_seconds([run])
        parts = run.parts()
        files = [(run.samples(number), paths[0]) for number, paths in parts.items()]
        files += [
            (range(index, index + 1), paths[0])
            for index, paths in run.pieces().items()
            if run.chunk_of(index) not in parts
        ]
        for samples, path in sorted(files, key=lambda file: file[0].start):
            part = _read_part(run, path)
            if part is None:
                continue
            self.rows += [
                replace(row, seconds=seconds(index))
                for row, index in zip(part.rows, samples, strict=True)
            ]
            self.numbers += samples
            self._rows += [(path, k) for k in range(len(part.rows))]
        self.ids: list[str] | None = [row.id for row in self.rows]
        self.count = len(self.rows)
        self.shape: tuple[int, ...] = (self.count, *run.config["survey"]["shape"])
        self._part = functools.lru_cache(maxsize=2)(run.read)

    def where(self, k: int) -> str:
        """File and row of map k, for messages."""
        path, row = self._rows[k]
        return f"{path}, row {row}"

    def read(self, k: int) -> NDArray[Any]:
        """Map k, (nz, nx) float32. Raises SampleError if its part has been damaged meanwhile."""
        velocity = self.read_other(VELOCITY, k)
        assert velocity is not None  # every part has one
        return velocity

    def read_other(self, name: str, k: int) -> NDArray[Any] | None:
        """Another array of the cells of map k.

        Parameters
        ----------
        name : str
            Such as "deviation".
        k : int
            Which map.

        Returns
        -------
        ndarray of float32 or None
            None if there is no such thing.

        Raises
        ------
        SampleError
            If its part has been damaged meanwhile.
        """
        path, row = self._rows[k]
        try:
            maps = self._part(path).maps
        except PartError as error:
            raise SampleError(str(error)) from error
        return maps[name][row] if name in maps else None

    def history(self, k: int) -> tuple[tuple[int, int, float], ...]:
        """(stage, evaluations, rms misfit) on the way to map k; empty where it is not known."""
        path, row = self._rows[k]
        try:
            return tuple(self._part(path).history(row))
        except PartError:
            return ()

    def salvage(self, k: int) -> NDArray[Any] | None:
        """Map k, None where it is damaged."""
        try:
            return self.read(k)
        except SampleError:
            return None

    def files(self) -> list[Path]:
        """The files of all maps."""
        return sorted({path for path, _ in self._rows})


def _read_part(run: RunDirectory, path: Path) -> Part | None:
    try:
        return run.read(path)
    except PartError as error:
        log.warning("%s; its samples are left out", error)
        return None
