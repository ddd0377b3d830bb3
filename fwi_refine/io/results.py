"""The results of a run: the refined maps and the report, published at once."""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from fwi_refine.errors import InputError
from fwi_refine.files import is_same_file
from fwi_refine.io.history import HistoryWriter
from fwi_refine.io.map_writer import MapWriter
from fwi_refine.io.outputs import claim_output, marked, partial_mark, samples_path
from fwi_refine.io.posterior import SamplesWriter
from fwi_refine.io.report import ReportWriter, Row

log = logging.getLogger(__name__)


class Results:
    """The maps and the report of a run, filled in any order.

    Nothing stands under a final name before `publish`.

    Parameters
    ----------
    out, report : path-like
        Final names of the maps (`.npy` or `.npz`) and the report (`.csv`).
    shape : sequence of int
        Of the whole array; its first axis the samples in the order of `ids`.
    map_shape : sequence of int
        (nz, nx).
    ids : sequence of str
        Of all samples.
    overwrite : bool
        Whether files of these names may be replaced.
    deviation, history : path-like, optional
        Files of the expected errors, NaN where they are not known, and of the histories.
    samples : int
        Maps from the posterior of each sample; where there are some, they are written beside `out`.
    dtype : str
        Of maps and expected errors, "float32" or "float16".

    Raises
    ------
    OutputExistsError
        If one of them exists and may not be replaced.
    InputError
        If two are the same.
    OSError
        If there is no room for the maps.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        report: str | os.PathLike[str],
        shape: Sequence[int],
        map_shape: Sequence[int],
        ids: Sequence[str],
        overwrite: bool = False,
        deviation: str | os.PathLike[str] | None = None,
        history: str | os.PathLike[str] | None = None,
        samples: int = 0,
        dtype: str = "float32",
    ) -> None:
        self._overwrite = overwrite
        self._out, self._report = Path(out), Path(report)
        self._deviation = Path(deviation) if deviation else None
        self._history = Path(history) if history else None
        self._drawn = samples_path(self._out) if samples else None
        self._count = len(ids)
        files = self._files()
        if any(is_same_file(a, b) for k, a in enumerate(files) for b in files[:k]):
            names = ", ".join(str(path) for path in files)
            raise InputError(f"{names}: two outputs with one name; give each its own")
        self._claim()
        self._rows = ReportWriter(ids, self._report.parent)
        self._maps = MapWriter(out, shape, map_shape, dtype, ids)
        self._deviations: MapWriter | None = None
        self._samples: SamplesWriter | None = None
        self._with_posterior = 0  # samples with maps from the posterior
        try:
            if deviation:
                self._deviations = MapWriter(deviation, shape, map_shape, dtype, ids, "deviation")
            if self._drawn:
                self._samples = SamplesWriter(self._drawn, ids, (samples, *map_shape))
        except OSError:  # no room for all of them
            self.close()
            raise
        self._histories = HistoryWriter(len(ids), Path(history).parent) if history else None
        self._unknown = np.full(map_shape, np.nan, np.float32)

    def start(self, k: int, velocity: ArrayLike) -> None:
        """Map k in m/s, as long as there is no result for it."""
        self._maps.write(k, velocity)
        if self._deviations:
            self._deviations.write(k, self._unknown)

    def add(
        self,
        k: int,
        velocity: ArrayLike | None,
        row: Row,
        deviation: ArrayLike | None = None,
        history: Iterable[tuple[int, int, float]] = (),
        samples: ArrayLike | None = None,
    ) -> None:
        """Takes result k.

        Parameters
        ----------
        k : int
            Index of the sample.
        velocity, deviation : array or None
            Map and expected errors, (nz, nx) in m/s; without a map the start stays.
        row : Row
            What is reported.
        history : iterable of (int, int, float)
            See io/history.py.
        samples : array or None
            Maps from the posterior, (K, nz, nx) in m/s.
        """
        if velocity is not None:
            self._maps.write(k, velocity)
        if self._deviations and deviation is not None:
            self._deviations.write(k, deviation)
        if self._samples and samples is not None:
            self._samples.write(k, samples)
            self._with_posterior += int(not np.isnan(samples).all())
        if self._histories:
            self._histories.add(k, row.id, history)
        self._rows.add(k, row)

    def publish(self) -> None:
        """Gives all files their names, the maps last: where they stand, the others do too."""
        self._claim()  # another run may have finished meanwhile
        self._publish_others("")
        self._maps.publish(self._out)
        if self._drawn and self._with_posterior < self._count:
            log.warning(
                "%s: %d of %d samples have no posterior, their maps are NaN",
                self._drawn, self._count - self._with_posterior, self._count,
            )  # fmt: skip

    def _publish_others(self, mark: str) -> None:
        self._rows.publish(marked(self._report, mark))
        if self._deviations and self._deviation:
            self._deviations.publish(marked(self._deviation, mark))
        if self._samples and self._drawn:
            self._samples.publish(marked(self._drawn, mark))
        if self._histories and self._history:
            self._histories.publish(marked(self._history, mark))

    def _claim(self) -> None:
        for path in self._files():
            claim_output(path, self._overwrite)

    def _files(self) -> list[Path]:
        files = self._out, self._report, self._deviation, self._history, self._drawn
        return [*filter(None, files)]

    def keep_partial(self) -> tuple[Path, Path] | None:
        """Publishes what there is under `.partial` names; None if no sample was finished.

        Earlier partial results are kept: a number is added to the name.
        """
        if not self._rows.finished:
            return None
        mark = partial_mark(self._files())
        out = marked(self._out, mark)
        self._maps.publish(out)  # its space was claimed at the start, that of the others was not
        self._publish_others(mark)
        return out, marked(self._report, mark)

    def close(self) -> None:
        """Removes what was not published."""
        self._maps.discard()
        if self._deviations:
            self._deviations.discard()
        if self._samples:
            self._samples.discard()
