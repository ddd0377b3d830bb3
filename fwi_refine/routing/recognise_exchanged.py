"""Single records that stand at the place of others, among any number that stand where they belong.

The first row of a record tells the velocity at each source (objective/source_cells.py), without a
simulation. Predictions that contradict the velocities of their own records, and agree with those
of each other's, are simulated; the rest costs nothing but the reading of its record.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fwi_refine.routing.recognise_form import Finding
from fwi_refine.routing.recognise_regression import BETTER, Fit

CONTRADICTS = 0.002  # least relative deviation at the sources of a record that may be another's
NEARER = 0.3  # deviation from the record that a prediction may belong to, over its own
SIMULATED = 20  # predictions at most, those that deviate most
OUTLIER, TIMES = 0.1, 5.0  # deviation without a partner that is told of: at least, over the median
FEWEST = 8  # samples among which one is an outlier

# gives the residual of the regression of record j on prediction i; None where it is not to be had
FitOf = Callable[[int, int], Fit | None]


@dataclass(frozen=True)
class Misplaced:
    """What single records are.

    Attributes
    ----------
    finding
        That some seem exchanged, or None.
    warning
        On records without a partner, empty where there are none.
    """

    finding: Finding | None = None
    warning: str = ""


def exchanged(
    ids: Sequence[str], predicted: NDArray[np.float64], told: NDArray[np.float64], fit_of: FitOf
) -> Misplaced:
    """Records that seem to belong to each other's predictions.

    Parameters
    ----------
    ids : sequence of str
        N samples.
    predicted, told : ndarray (N, shots)
        Velocities at the sources, m/s: of the maps, and as the first rows of the records tell
        them; NaN where they are not known. A factor of all of the latter does not count.
    fit_of : callable
        Simulates; asked for a few samples.

    Returns
    -------
    Misplaced
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = told / predicted
    known = np.isfinite(ratio) & (ratio > 0)
    if not known.any():
        return Misplaced()
    told = np.where(known, told / np.median(ratio[known]), np.nan)
    own = np.array([_apart(v, u) for v, u in zip(predicted, told, strict=True)])
    order = np.argsort(-np.nan_to_num(own))
    suspects = [int(k) for k in order if own[k] > CONTRADICTS]
    partner = {k: _partner(predicted[k], told, own[k], suspects) for k in suspects}
    closed = [k for k in suspects if partner.get(partner[k], -1) >= 0][:SIMULATED]
    fit = cache(fit_of)
    moved = {k: partner[k] for k in closed if _belongs(k, partner[k], fit)}
    if len({*moved.values()}) == len(moved) >= 2:
        return Misplaced(_finding(ids, moved))
    median = float(np.median(own[np.isfinite(own)]))
    far = [k for k in suspects if own[k] > max(OUTLIER, TIMES * median)]
    if len(ids) < FEWEST or not far or len(far) > len(ids) // 4:
        return Misplaced()
    first = far[0]
    return Misplaced(
        warning=f"the velocities at the sources of {len(far)} of {len(ids)} predictions are not "
        f"those that their records tell, for instance {ids[first]}, by {own[first]:.0%}: the "
        "predictions are poor there, or the records are those of other samples"
    )


def _apart(v: NDArray[np.float64], u: NDArray[np.float64]) -> float:
    """Relative rms deviation at the sources that are known; NaN where none is."""
    deviation = (u - v) / v
    known = np.isfinite(deviation)
    return float(np.sqrt(np.mean(deviation[known] ** 2))) if known.any() else np.nan


def _partner(
    v: NDArray[np.float64], told: NDArray[np.float64], own: float, suspects: Sequence[int]
) -> int:
    """The suspect whose record agrees with a prediction, -1 where none does by far."""
    apart = np.array([_apart(v, told[k]) for k in suspects])
    best = int(np.nanargmin(apart))
    return suspects[best] if apart[best] < NEARER * own else -1


def _belongs(k: int, j: int, fit_of: FitOf) -> bool:
    """Whether prediction k fits record j far better than its own, and than prediction j does."""
    across, own, other = fit_of(k, j), fit_of(k, k), fit_of(j, j)
    if across is None or own is None or other is None:
        return False
    return across.residual < BETTER * min(own.residual, other.residual)


def _finding(ids: Sequence[str], moved: dict[int, int]) -> Finding:
    (k, j), *_ = moved.items()
    if moved.get(j) == k:
        text = f"the records of {ids[k]} and {ids[j]} seem to be exchanged: each fits the other's"
    else:
        text = f"the record of {ids[j]} seems to be that of {ids[k]}: it fits that"
    more = len(moved) - (2 if moved.get(j) == k else 1)
    others = f"; so do {more} others" if more else ""
    return Finding(f"{text} prediction far better{others}; put them right, or give ids with --ids")
