"""What a run leaves behind: the refined maps and the report, published together."""

from pathlib import Path

from fwi_refine.io.outputs import MapWriter, claim_output
from fwi_refine.report import ReportWriter


class Results:
    """The maps and the report of a run, filled in any order.

    out, report: final names; shape: of the whole array, its first axis the samples in the order
    of `ids`; map_shape: (nz, nx). Nothing stands under a final name before `publish`. Raises
    OutputExistsError if one of them exists, unless overwrite is true.
    """

    def __init__(self, out, report, shape, map_shape, ids, overwrite=False):
        self._overwrite = overwrite
        self._claim(out, report)
        self._out, self._report = Path(out), Path(report)
        self._rows = ReportWriter(ids)
        self._maps = MapWriter(out, shape, map_shape)

    def start(self, k, velocity):
        """What map k is as long as there is no result for it."""
        self._maps.write(k, velocity)

    def add(self, k, velocity, row):
        """Result k; without a velocity its start stays."""
        if velocity is not None:
            self._maps.write(k, velocity)
        self._rows.add(k, row)

    def publish(self):
        """Gives both files their names, the maps last: where they stand, the report does too."""
        self._claim(self._out, self._report)  # another run may have finished meanwhile
        self._rows.publish(self._report)
        self._maps.publish(self._out)

    def _claim(self, out, report):
        for path in (out, report):
            claim_output(path, self._overwrite)

    def keep_partial(self) -> tuple[Path, Path] | None:
        """Publishes what there is under `.partial` names; None if no sample was finished.

        Earlier partial results are kept: a number is added to the name.
        """
        if not self._rows.finished:
            return None
        out, report = (_partial_name(path) for path in (self._out, self._report))
        number = 1
        while out.exists() or report.exists():
            number += 1
            out, report = (_partial_name(path, f"-{number}") for path in (self._out, self._report))
        self._maps.publish(out)  # its space was claimed at the start, that of the report was not
        self._rows.publish(report)
        return out, report

    def close(self):
        """Removes what was not published."""
        self._maps.discard()


def _partial_name(path, number=""):
    return path.with_name(f"{path.stem}.partial{number}{path.suffix}")
