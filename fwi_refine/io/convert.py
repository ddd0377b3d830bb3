"""Inputs in other units, scales or orders than the program takes, converted as they are read.

Training loaders hand out velocities in km/s or scaled to -1..1, and records normalised, or as
logarithms, or with their axes exchanged. A `Conversion` says which of it was done to the inputs;
sources wrapped in it give maps in m/s and records in the units of the released data.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fwi_refine.io.order import Order
from fwi_refine.survey import OPENFWI, Survey

# m/s = factor * value + offset. Scaled maps are those of OpenFWI's loaders, 1500 to 4500 m/s.
UNITS = {
    "m/s": (1.0, 0.0),
    "km/s": (1000.0, 0.0),
    "ft/s": (0.3048, 0.0),
    "-1..1": (1500.0, 3000.0),
    "0..1": (3000.0, 1500.0),
}
OUTSIDE = 0.9  # fraction of a map's cells beyond the bounds, from which on the map is
AXES = "str"  # of a record: shots, time rows, receivers


@dataclass(frozen=True)
class Conversion:
    """The conversion of inputs to maps in m/s and records as they were simulated.

    A record x is read as d = scale * unlog(unrange(x)).

    Parameters
    ----------
    units
        Of the maps, a key of `UNITS`.
    transpose
        Whether the maps are stored as (nx, nz).
    record_axes
        Order of a record's axes in its file: s shots, t time rows, r receivers.
    record_range
        (low, high), where records were scaled so that `low` became -1 and `high` became 1: in the
        record's units before any logarithm.
    record_log
        k, where records were stored as sign(d) ln(1 + k abs(d)).
    record_scale
        Factor that gives the record its own units.
    """

    units: str = "m/s"
    transpose: bool = False
    record_axes: str = AXES
    record_range: tuple[float, float] | None = None
    record_log: float | None = None
    record_scale: float = 1.0

    def velocity(self, values: np.ndarray) -> np.ndarray:
        """Maps (..., nz, nx) in m/s of maps as they are stored; the array itself if they agree."""
        factor, offset = UNITS[self.units]
        if self.transpose and values.ndim >= 2:
            values = np.swapaxes(values, -1, -2)
        if self.units == "m/s" or values.dtype.kind != "f":
            return values
        return factor * values.astype(np.float64) + offset

    def record(self, values: np.ndarray) -> np.ndarray:
        """Record (shots, rows, receivers) of one as it is stored; the array itself if they
        agree."""
        if self.record_axes != AXES and values.ndim == 3:
            values = values.transpose([self.record_axes.index(axis) for axis in AXES])
        if self._keeps_values or values.dtype.kind != "f":
            return values
        d = values.astype(np.float64)
        if self.record_range is not None:
            low, high = (forward_log(x, self.record_log) for x in self.record_range)
            d = low + (d + 1) / 2 * (high - low)
        if self.record_log is not None:
            with np.errstate(over="ignore"):  # what was no logarithm is refused as not finite
                d = np.sign(d) * np.expm1(np.abs(d)) / self.record_log
        return (self.record_scale * d).astype(np.float32 if values.itemsize < 8 else np.float64)

    @property
    def _keeps_values(self) -> bool:
        return self.record_range is None and self.record_log is None and self.record_scale == 1.0

    def stored_survey(self, survey: Survey) -> Survey:
        """A survey with the shape that maps have in their files."""
        nz, nx = survey.shape
        if not self.transpose or nz == nx:
            return survey
        return replace(survey, shape=(nx, nz), sources=(), receivers=())

    def differences(self) -> dict[str, Any]:
        """The differences from inputs as they are taken, by name; lists instead of tuples."""
        given = asdict(self)
        named = {name: given[name] for name in given if given[name] != asdict(AS_THEY_ARE)[name]}
        return {k: [*v] if isinstance(v, tuple) else v for k, v in named.items()}


def is_outside(values: np.ndarray, survey: Survey) -> bool:
    """Whether a map as a whole lies outside the velocity bounds, so that it is not one in m/s."""
    if values.dtype.kind not in "fiu":
        return False
    low, high = survey.velocity_bounds
    x = values[np.isfinite(values)]
    return x.size > 0 and bool(np.mean((x < low) | (x > high)) >= OUTSIDE)


def true_velocity(values: np.ndarray, conversion: "Conversion", survey: Survey) -> np.ndarray:
    """A true map in m/s.

    Parameters
    ----------
    values : ndarray, shape (nz, nx)
        As it is stored.
    conversion : Conversion
        That of the predictions.
    survey : Survey
        Its velocity bounds decide.

    Returns
    -------
    ndarray, shape (nz, nx)
        Converted where that alone lies within the bounds, else as it is.
    """
    if not is_outside(values, survey):
        return values
    converted = replace(conversion, transpose=False).velocity(values)
    return values if is_outside(converted, survey) else converted


def forward_log(d: Any, k: float | None) -> Any:
    """sign(d) ln(1 + k abs(d)), as OpenFWI's loaders store a record; d itself without k."""
    return d if k is None else np.sign(d) * np.log1p(k * np.abs(d))


def conversion_of(table: dict[str, Any]) -> Conversion:
    """The conversion that `Conversion.differences` was written of."""
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    return Conversion(**given)


AS_THEY_ARE = Conversion()


class ConvertedPredictions:
    """Predictions of io/predictions.py, converted as they are read."""

    def __init__(self, source: Any, conversion: Conversion):
        self._source, self._conversion = source, conversion
        self.path, self.ids, self.count = source.path, source.ids, source.count
        self.order: Order | None = getattr(source, "order", None)
        shape = tuple(source.shape)
        self.shape = (*shape[:-2], *shape[:-3:-1]) if conversion.transpose else shape

    def where(self, k: int) -> str:
        """File and row of map k, for messages."""
        return self._source.where(k)

    def read(self, k: int) -> np.ndarray:
        """Map k, converted. Raises as the source does."""
        return self._conversion.velocity(self._source.read(k))

    def salvage(self, k: int) -> np.ndarray | None:
        """Map k as far as it can be read, converted; None where it cannot."""
        values = self._source.salvage(k)
        return None if values is None else self._conversion.velocity(values)

    def files(self) -> list[Path]:
        """The files of the source."""
        return self._source.files()


class TrueMaps(ConvertedPredictions):
    """True maps, each converted where it has the units of the predictions; see `true_velocity`."""

    def __init__(self, source: Any, conversion: Conversion, survey: Survey = OPENFWI):
        super().__init__(source, replace(conversion, transpose=False))
        self._survey = survey

    def read(self, k: int) -> np.ndarray:
        """True map k in m/s; see `true_velocity`. Raises as the source does."""
        return true_velocity(self._source.read(k), self._conversion, self._survey)

    def salvage(self, k: int) -> np.ndarray | None:
        """The same as far as it can be read; None where it cannot."""
        values = self._source.salvage(k)
        return None if values is None else true_velocity(values, self._conversion, self._survey)


class ConvertedRecords:
    """Records of io/record_sources.py, converted as they are read.

    True maps beside them stay, unless they lie outside the survey's velocity bounds and their
    conversion within them.
    """

    def __init__(self, source: Any, conversion: Conversion, survey: Survey = OPENFWI):
        self._source, self._conversion, self._survey = source, conversion, survey
        self.path, self.ids, self.named = source.path, source.ids, source.named
        self.order: Order | None = source.order

    def where(self, k: int) -> str:
        """File and row of record k, for messages."""
        return self._source.where(k)

    def read(self, k: int) -> np.ndarray:
        """Record k, converted. Raises as the source does."""
        return self._conversion.record(self._source.read(k))

    def truth(self, k: int) -> np.ndarray | None:
        """True map of record k in m/s, None where there is none; see `true_velocity`."""
        values = self._source.truth(k)
        return None if values is None else true_velocity(values, self._conversion, self._survey)

    def alone(self, k: int) -> "ConvertedRecords":
        """A source that holds record k only."""
        return ConvertedRecords(self._source.alone(k), self._conversion, self._survey)

    def files(self, ks: Sequence[int]) -> list[Path]:
        """The files of some records and of their true maps."""
        return self._source.files(ks)
