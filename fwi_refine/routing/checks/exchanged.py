"""Single records of other samples or of another form, among any number that are as they should be.

The first row of a record tells the velocity at each source (objective/source_cells.py), without a
simulation. Predictions that contradict the velocities of their own records, and agree with those
of each other's, are simulated; the rest costs nothing but the reading of its record.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fwi_refine.routing.checks.form import Finding
from fwi_refine.routing.checks.regression import MAX_MISFIT_RATIO, Fit

CONTRADICTS = 0.002  # least relative deviation at the sources of a record that may be another's
NEARER = 0.3  # deviation from the record that a prediction may belong to, over its own
LOOKED_AT = 20  # records at most of which the scale is looked at
SIMULATED = 20  # predictions at most, those that deviate most
OUTLIER, TIMES = 0.1, 5.0  # deviation without a partner that is told of: at least, over the median
FEWEST = 8  # samples among which one is an outlier
TURNED = 0.5  # deviation from -1 of a told velocity over the predicted one: the other sign
SCALE_OFF = 0.1  # of the scale of a record of another form; 0.02 at most in real and made maps
MANY = 0.1  # fraction of such records from which on a run is refused

# gives the residual of the regression of record j on prediction i; None where it is not to be had
FitOf = Callable[[int, int], Fit | None]
# gives how many times too large the first rows of record k are, whatever its map is; None: not told
ScaleOf = Callable[[int], float | None]


@dataclass(frozen=True)
class Misplaced:
    """What single records are.

    Attributes
    ----------
    finding
        That some seem exchanged, or many of another form; or None.
    warning
        On other single records, empty where there are none.
    """

    finding: Finding | None = None
    warning: str = ""


def exchanged(
    ids: Sequence[str],
    predicted: NDArray[np.float64],
    told: NDArray[np.float64],
    fit_of: FitOf,
    scale_of: ScaleOf | None,
) -> Misplaced:
    """Records that seem to belong to each other's predictions, or to be of another form.

    Parameters
    ----------
    ids : sequence of str
        N samples.
    predicted, told : ndarray (N, shots)
        Velocities at the sources, m/s: of the maps, and as the first rows of the records tell
        them; NaN where they are not known, negative where the record has the other sign. A factor
        of all of the latter does not count.
    fit_of, scale_of : callable
        Asked for a few samples; the former simulates. Without the latter, scale and sign of a
        record are no finding.

    Returns
    -------
    Misplaced
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = told / predicted
    known = np.isfinite(ratio) & (ratio > 0)
    if not known.any():
        return Misplaced()
    turned = (np.abs(ratio + 1) < TURNED).any(1) & ~known.any(1)
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
    reverse = np.flatnonzero(turned).tolist()
    if scale_of is not None and (changed := _changed(ids, reverse, suspects, scale_of)):
        text, fraction = changed
        if fraction > MANY:
            return Misplaced(Finding(f"{text}; give them as they were recorded", of_source=True))
        return Misplaced(warning=text)
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


def exchanged_maps(
    apart: NDArray[np.float64], read: Callable[[int], tuple[np.ndarray, np.ndarray]], what: str
) -> Finding | None:
    """The finding that two maps beside others of the same samples took each other's place.

    Parameters
    ----------
    apart : ndarray (N,)
        Rms difference of both maps of each sample; NaN where it is not known.
    read : callable
        Gives both maps of a sample.
    what : str
        What the second ones are called.
    """
    order = [int(k) for k in np.argsort(-np.nan_to_num(apart)) if apart[k] > 0][:SIMULATED]
    maps = {k: read(k) for k in order}
    for k in order:
        for j in order:
            across = (_rms(maps[a][0] - maps[b][1]) for a, b in ((k, j), (j, k)))
            if k < j and max(across) < NEARER * min(apart[k], apart[j]):
                text = f"{what} number {k + 1} and {j + 1} seem to be exchanged: each is far nearer"
                return Finding(f"{text} to the other's map; put them right, or give ids")
    return None


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


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


def _changed(
    ids: Sequence[str], turned: Sequence[int], suspects: Sequence[int], scale_of: ScaleOf
) -> tuple[str, float] | None:
    """A text on records of another sign or scale, and the fraction of all that they are."""
    if turned:
        text = f"seem of the other sign than the rest, for instance that of {ids[turned[0]]}"
        found = len(turned)
    else:
        looked_at = suspects[:LOOKED_AT]
        scales = {k: scale for k in looked_at if (scale := scale_of(k)) is not None}
        off = {k: scale for k, scale in scales.items() if abs(scale - 1) > SCALE_OFF}
        if not off:
            return None
        first, scale = next(iter(off.items()))
        text = f"begin other than the survey's wavelet, for instance that of {ids[first]} with "
        text += f"{scale:.3g} times its size"
        found = round(len(off) / len(looked_at) * len(suspects))
    return f"the records of {found} of {len(ids)} samples {text}", found / len(ids)


def _belongs(k: int, j: int, fit_of: FitOf) -> bool:
    """Whether prediction k fits record j far better than its own, and than prediction j does."""
    across, own, other = fit_of(k, j), fit_of(k, k), fit_of(j, j)
    if across is None or own is None or other is None:
        return False
    return across.residual < MAX_MISFIT_RATIO * min(own.residual, other.residual)


def _finding(ids: Sequence[str], moved: dict[int, int]) -> Finding:
    (k, j), *_ = moved.items()
    if moved.get(j) == k:
        text = f"the records of {ids[k]} and {ids[j]} seem to be exchanged: each fits the other's"
    else:
        text = f"the record of {ids[j]} seems to be that of {ids[k]}: it fits that"
    more = len(moved) - (2 if moved.get(j) == k else 1)
    others = f"; so do {more} others" if more else ""
    return Finding(f"{text} prediction far better{others}; put them right, or give ids with --ids")
