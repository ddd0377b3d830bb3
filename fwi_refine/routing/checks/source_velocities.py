"""Findings on maps within the velocity bounds, by the velocities that records tell at sources.

The first row of a record tells the velocity at each source (objective/source_cells.py), whatever
the map is. Maps of feet a second, of impedance or of slowness differ from it by a power law,
v = a u^b, that a poor start does not follow: that of constant maps has b = 0.
"""

from collections.abc import Sequence

import numpy as np

from fwi_refine.io.convert import UNITS
from fwi_refine.routing.checks.form import Finding
from fwi_refine.survey import Survey

MIN_SOURCES = 4  # sources that tell their velocity
MIN_LOG_SPREAD = 0.05  # of the logarithms of these velocities, from which on a power can be fitted
MAX_LOG_RESIDUAL = 0.03  # residual of the logarithms
MIN_LOG_DEVIATION = 0.2  # deviation of the mean logarithm that is no error of a start
POWERS = (0.75, 1.6)  # of impedance with Gardner's density it is 1.25

# Factors to m/s of units that numbers within the bounds may have, beside those of UNITS.
ODD_UNITS = {"km/h": 3.6, "miles an hour": 2.236936}


def recognise_source_velocities(
    maps: Sequence[np.ndarray], at_sources: Sequence[np.ndarray], survey: Survey
) -> Finding | None:
    """Findings on maps whose values at the sources contradict the records.

    Parameters
    ----------
    maps : sequence of ndarray, (nz, nx)
        What is taken for m/s.
    at_sources : sequence of ndarray, (shots,)
        Velocities at the sources of each, m/s, NaN where they are not known.
    survey : Survey
        Its sources count.

    Returns
    -------
    Finding or None
        None where the records tell too little, or nothing speaks against the maps.
    """
    rows, columns = np.array(survey.sources).reshape(-1, 2).T.clip(0)
    pairs = [
        (v[rows, columns].astype(np.float64), velocities)
        for v, velocities in zip(maps, at_sources, strict=False)
        if v.shape == survey.shape and v.dtype.kind == "f"
    ]
    if not pairs:
        return None
    v, u = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    known = np.isfinite(u) & np.isfinite(v) & (v > 0)
    v, u = np.log(v[known]), np.log(u[known])
    if v.size < MIN_SOURCES or abs(np.mean(v - u)) < MIN_LOG_DEVIATION:
        return None
    ratio = float(np.exp(np.median(v - u)))
    found = f"velocities at the sources are {ratio:.3g} times those that the records tell"
    close = np.std(v - u) < MAX_LOG_RESIDUAL and not _are_constant(maps)
    if close and (name := _unit(ratio)) is not None:
        return _finding(found, name)
    if np.std(u) < MIN_LOG_SPREAD:
        return None
    power, offset = np.polyfit(u, v, 1)
    if np.std(v - power * u - offset) > MAX_LOG_RESIDUAL:
        return None
    if -POWERS[1] < power < -POWERS[0]:
        return Finding(f"{found}, and fall where these rise: maps seem to be slowness")
    if POWERS[0] < power < POWERS[1]:
        return Finding(
            f"{found}: maps seem to be another quantity, such as impedance, or records scaled"
        )
    return None


def _unit(ratio: float) -> str | None:
    factors = {
        name: 1 / factor for name, (factor, offset) in UNITS.items() if not offset
    } | ODD_UNITS
    near = (name for name, factor in factors.items() if abs(ratio / factor - 1) < MAX_LOG_RESIDUAL)
    return next(near, None)


def _finding(found: str, unit: str) -> Finding:
    text = f"{found}: maps seem to be in {unit}"
    return Finding(text, f"--units {unit}") if unit in UNITS else Finding(f"{text}; convert them")


def _are_constant(maps: Sequence[np.ndarray]) -> bool:
    """Whether each map has one velocity: a start that tells nothing."""
    return all(float(np.ptp(v)) < MIN_LOG_DEVIATION * abs(float(np.mean(v))) for v in maps)
