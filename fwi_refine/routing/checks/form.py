"""Findings on maps and records by their range and their shape alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations

import numpy as np

from fwi_refine.io.convert import AXES, OUTSIDE, UNITS, Conversion, is_outside
from fwi_refine.survey import Survey

VELOCITY_UNITS = ("km/s", "ft/s")  # of UNITS
SLOWNESS_UNITS = {"s/m": 1.0, "s/km": 1000.0}  # factor of 1 / x that gives m/s
MAX_OF_SCALED = 1.1  # largest absolute value of scaled maps; a network overshoots 1


@dataclass(frozen=True)
class Finding:
    """One thing that the inputs seem to be.

    Parameters
    ----------
    text
        What was found, with numbers.
    option
        Option of the command line that undoes it; empty where none does.
    of_source
        Whether it is none where the wavelet is estimated with the map.
    """

    text: str
    option: str = ""
    of_source: bool = False


def describe(findings: Sequence[Finding]) -> str:
    """The findings as a message, a line each."""
    lines = [f.text + (f": {f.option}" if f.option else "") for f in findings]
    if any(f.of_source for f in findings):
        lines.append("or, with --source fit, the wavelet is estimated with each map")
    return "\n  ".join(["the inputs are not what they are taken for:", *lines])


def recognise_maps(
    maps: Sequence[np.ndarray], survey: Survey, at_sources: Sequence[np.ndarray] = ()
) -> tuple[Finding | None, Conversion | None]:
    """The unit of maps outside the survey's bounds as a whole, and the option that makes them m/s.

    Parameters
    ----------
    maps
        (nz, nx) each; values that are not finite are not looked at.
    survey
        Its velocity bounds count, m/s.
    at_sources
        Velocities at the sources of each map, m/s, NaN where they are not known.
    """
    low, high = survey.velocity_bounds
    values = [v[np.isfinite(v)].astype(np.float64) for v in maps if v.dtype.kind == "f"]
    values = [x for x in values if x.size]
    outside = [x for x in values if is_outside(x, survey)]
    if not outside:
        return None, None
    x = np.concatenate(outside)
    candidates = [name for name in UNITS if name != "m/s" and _may_be(name, x, survey)]
    found = f"velocities are {x.min():.4g} to {x.max():.4g}, expected {low:g} to {high:g} m/s"
    if len(outside) < len(values):
        # a map that is too fast may be a bad one, too, and is flagged
        if {*candidates} <= {"ft/s"}:
            return None, None
        text = f"{found}, in {len(outside)} of the {len(values)} maps that were looked at"
        return Finding(f"{text}: they seem to have several units; convert them to m/s"), None
    if slowness := _slowness(x, candidates, maps, at_sources, survey):
        return Finding(f"{found}: they seem to be slowness, {slowness}; convert them to m/s"), None
    if not candidates:
        return Finding(f"{found}; convert them to m/s"), None
    name = min(candidates, key=lambda name: _distance(name, maps, at_sources, survey))
    if name in VELOCITY_UNITS:
        text = f"{found}: they seem to be {name}"
        return Finding(text, f"--units {name}"), Conversion(units=name)
    text = f"{found}: they seem to be scaled to {name}, as OpenFWI's loaders do"
    return Finding(text, f"--units {name}"), Conversion(units=name)


def recognise_axes(
    shapes: Sequence[tuple[int, ...]], survey: Survey
) -> tuple[Finding | None, Conversion]:
    """The order of the axes of records that have the shape of none, but with other axes would."""
    asked = Conversion()
    if not shapes or any(len(s) != 3 or is_record(s, survey) for s in shapes):
        return None, asked
    for axes in map("".join, permutations(AXES)):
        indices = [axes.index(axis) for axis in AXES]
        if all(is_record(tuple(s[p] for p in indices), survey) for s in shapes):
            text = f"records have the shape {tuple(shapes[0])}, expected {survey.file_shape}"
            option = f"--record-axes {axes}"
            return Finding(f"{text}: their axes seem exchanged", option), replace(
                asked, record_axes=axes
            )
    return None, asked


def is_record(shape: tuple[int, ...], survey: Survey) -> bool:
    """Whether an array of this shape may be a record of the survey."""
    shots, n_steps, receivers = survey.record_shape
    return len(shape) == 3 and (shape[0], shape[2]) == (shots, receivers) and shape[1] >= n_steps


def _may_be(name: str, x: np.ndarray, survey: Survey) -> bool:
    """Whether values of these units would be within the bounds."""
    factor, offset = UNITS[name]
    low, high = survey.velocity_bounds
    inside = np.mean((factor * x + offset >= low) & (factor * x + offset <= high)) >= OUTSIDE
    if name in VELOCITY_UNITS:
        return bool(inside)
    lowest = -MAX_OF_SCALED if name == "-1..1" else 1 - MAX_OF_SCALED
    return bool(inside and np.percentile(x, 1) >= lowest and np.percentile(x, 99) <= MAX_OF_SCALED)


def _slowness(
    x: np.ndarray,
    candidates: Sequence[str],
    maps: Sequence[np.ndarray],
    at_sources: Sequence[np.ndarray],
    survey: Survey,
) -> str:
    """The unit of slowness that values have, empty where they have another one more likely."""
    for name, factor in SLOWNESS_UNITS.items():
        if not (x > 0).all() or is_outside(factor / x, survey):
            continue
        apart = _apart(partial(np.divide, factor), maps, at_sources, survey)
        others = [_distance(name, maps, at_sources, survey) for name in candidates]
        # scaled maps have a range of some size: what is all but constant is none
        if np.ptp(x) < 0.01 or (apart is not None and apart < min(others, default=np.inf)):
            return name
    return ""


def _distance(
    name: str, maps: Sequence[np.ndarray], at_sources: Sequence[np.ndarray], survey: Survey
) -> float:
    """How far the velocities at the sources are from those that the records tell, m/s."""
    factor, offset = UNITS[name]
    return _apart(lambda v: factor * v + offset, maps, at_sources, survey) or 0.0


def _apart(
    convert: Callable[[np.ndarray], np.ndarray],
    maps: Sequence[np.ndarray],
    at_sources: Sequence[np.ndarray],
    survey: Survey,
) -> float | None:
    """As `_distance`, of maps converted so; None where the records tell nothing."""
    rows, columns = np.array(survey.sources).reshape(-1, 2).T.clip(0)
    apart = [
        np.abs(convert(v[rows, columns].astype(np.float64)) - velocities)
        for v, velocities in zip(maps, at_sources, strict=False)
        if v.shape == survey.shape and np.isfinite(velocities).any()
    ]
    return float(np.nanmedian(apart)) if apart else None
