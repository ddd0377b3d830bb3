"""What a run leaves behind: the refined maps and the report, published at once."""

from pathlib import Path

import numpy as np

from fwi_refine.errors import InputError
from fwi_refine.io.history import HistoryWriter
from fwi_refine.io.outputs import MapWriter, claim_output, marked, partial_mark
from fwi_refine.io.report import ReportWriter


class Results:
    """The maps and the report of a run, filled in any order.

    out, report: final names; shape: of the whole array, its first axis the samples in the order
    of `ids`; map_shape: (nz, nx). deviation: a third file, of the expected errors, NaN where they
    are not known; history: a fourth, see history.py. Nothing stands under a final name before
    `publish`. Raises OutputExistsError if one of them exists, unless overwrite is true, InputError
    if two are the same.
    """

    def __init__(
        self, out, report, shape, map_shape, ids, overwrite=False, deviation=None, history=None
    ):
        self._overwrite = overwrite
        self._out, self._report = Path(out), Path(report)
        self._deviation, self._history = deviation and Path(deviation), history and Path(history)
        if len({path.resolve() for path in self._files()}) < len(self._files()):
            names = ", ".join(str(path) for path in self._files())
            raise InputError(f"{names}: two outputs with one name; give each its own")
        self._claim()
        self._rows = ReportWriter(ids)
        self._maps = MapWriter(out, shape, map_shape)
        self._deviations = deviation and MapWriter(deviation, shape, map_shape)
        self._histories = history and HistoryWriter(len(ids))
        self._unknown = np.full(map_shape, np.nan, np.float32)

    def start(self, k, velocity):
        """What map k is as long as there is no result for it."""
        self._maps.write(k, velocity)
        if self._deviations:
            self._deviations.write(k, self._unknown)

    def add(self, k, velocity, row, deviation=None, history=()):
        """Result k; without a velocity its start stays."""
        if velocity is not None:
            self._maps.write(k, velocity)
        if self._deviations and deviation is not None:
            self._deviations.write(k, deviation)
        if self._histories:
            self._histories.add(k, row.id, history)
        self._rows.add(k, row)

    def publish(self):
        """Gives all files their names, the maps last: where they stand, the others do too."""
        self._claim()  # another run may have finished meanwhile
        self._rows.publish(self._report)
        if self._deviations:
            self._deviations.publish(self._deviation)
        if self._histories:
            self._histories.publish(self._history)
        self._maps.publish(self._out)

    def _claim(self):
        for path in self._files():
            claim_output(path, self._overwrite)

    def _files(self) -> list[Path]:
        return [*filter(None, (self._out, self._report, self._deviation, self._history))]

    def keep_partial(self) -> tuple[Path, Path] | None:
        """Publishes what there is under `.partial` names; None if no sample was finished.

        Earlier partial results are kept: a number is added to the name.
        """
        if not self._rows.finished:
            return None
        mark = partial_mark(self._files())
        out, report = marked(self._out, mark), marked(self._report, mark)
        self._maps.publish(out)  # its space was claimed at the start, that of the report was not
        self._rows.publish(report)
        if self._deviations:
            self._deviations.publish(marked(self._deviation, mark))
        if self._histories:
            self._histories.publish(marked(self._history, mark))
        return out, report

    def close(self):
        """Removes what was not published."""
        self._maps.discard()
        if self._deviations:
            self._deviations.discard()
