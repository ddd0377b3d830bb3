"""What a run directory holds so far, to be looked at: rows, and maps one at a time."""

import functools
import logging
from dataclasses import replace

import numpy as np

from fwi_refine.errors import PartError, SampleError
from fwi_refine.runs.directory.parts import VELOCITY
from fwi_refine.runs.directory.run_directory import RunDirectory
from fwi_refine.runs.directory.shards import measured_seconds

log = logging.getLogger(__name__)


class Contents:
    """The finished samples of a run, in sample order; read as predictions are (io/predictions.py).

    rows: report.Row of each; numbers: their positions in the run. Every part is read once to find
    them, and one that is damaged is left out with a warning. Changes nothing.
    """

    def __init__(self, run: RunDirectory):
        self.run, self.path = run, run.path
        self.rows, self.numbers, self._places = [], [], []
        seconds = measured_seconds([run])
        for number, paths in sorted(run.parts().items()):
            part = _read_part(run, paths[0])
            if part is None:
                continue
            times = seconds(number, len(part.rows))
            self.rows += [replace(r, seconds=s) for r, s in zip(part.rows, times, strict=True)]
            self.numbers += run.samples(number)
            self._places += [(paths[0], k) for k in range(len(part.rows))]
        self.ids = [row.id for row in self.rows]
        self.count = len(self.rows)
        self._part = functools.lru_cache(maxsize=2)(run.read)

    def where(self, k) -> str:
        path, row = self._places[k]
        return f"{path}, row {row}"

    def read(self, k) -> np.ndarray:
        """Map k, (nz, nx) float32. Raises SampleError if its part has been damaged meanwhile."""
        return self.read_other(VELOCITY, k)

    def read_other(self, name, k) -> np.ndarray | None:
        """What else is stored of the cells of map k, None if there is no such thing."""
        path, row = self._places[k]
        try:
            maps = self._part(path).maps
        except PartError as error:
            raise SampleError(str(error)) from error
        return maps[name][row] if name in maps else None

    def salvage(self, k) -> np.ndarray | None:
        try:
            return self.read(k)
        except SampleError:
            return None


def _read_part(run, path):
    try:
        return run.read(path)
    except PartError as error:
        log.warning("%s; its samples are left out", error)
        return None
