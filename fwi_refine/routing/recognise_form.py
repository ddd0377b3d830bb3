"""What maps and records seem to be by their range and their shape alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from fwi_refine.io.convert import AXES, UNITS, Conversion
from fwi_refine.survey import Survey

OUTSIDE = 0.9  # fraction of a map's cells beyond the bounds, from which on the map is
SCALED = 1.1  # largest absolute value of scaled maps; a network overshoots 1


@dataclass(frozen=True)
class Finding:
    """One thing that the inputs seem to be.

    Parameters
    ----------
    text
        What was found, with numbers.
    option
        Option of the command line that undoes it; empty where none does.
    """

    text: str
    option: str = ""


def describe(findings: Sequence[Finding]) -> str:
    """The findings as a message, a line each."""
    lines = [f.text + (f": {f.option}" if f.option else "") for f in findings]
    return "\n  ".join(["the inputs are not what they are taken for:", *lines])


def recognise_maps(
    maps: Sequence[np.ndarray], survey: Survey, told: Sequence[np.ndarray] = ()
) -> tuple[Finding | None, Conversion | None]:
    """What maps are that lie outside the survey's bounds as a whole, and what makes them m/s.

    Parameters
    ----------
    maps
        (nz, nx) each; values that are not finite are not looked at.
    survey
        Its velocity bounds count, m/s.
    told
        Velocities at the sources of each map, m/s, NaN where they are not known.
    """
    low, high = survey.velocity_bounds
    values = [v[np.isfinite(v)].astype(np.float64) for v in maps if v.dtype.kind == "f"]
    values = [x for x in values if x.size]
    if not values or any(np.mean((x < low) | (x > high)) < OUTSIDE for x in values):
        return None, None
    x = np.concatenate(values)
    candidates = [name for name in UNITS if name != "m/s" and _may_be(name, x, survey)]
    found = f"velocities are {x.min():.4g} to {x.max():.4g}, expected {low:g} to {high:g} m/s"
    if not candidates:
        return Finding(f"{found}; convert them to m/s"), None
    name = min(candidates, key=lambda name: _distance(name, maps, told, survey))
    if name == "km/s":
        return Finding(f"{found}: they seem to be km/s", "--units km/s"), Conversion(units=name)
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
        places = [axes.index(axis) for axis in AXES]
        if all(is_record(tuple(s[p] for p in places), survey) for s in shapes):
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
    if name == "km/s":
        return bool(inside)
    lowest = -SCALED if name == "-1..1" else 1 - SCALED
    return bool(inside and np.percentile(x, 1) >= lowest and np.percentile(x, 99) <= SCALED)


def _distance(
    name: str, maps: Sequence[np.ndarray], told: Sequence[np.ndarray], survey: Survey
) -> float:
    """How far the velocities at the sources are from those that the records tell, m/s."""
    factor, offset = UNITS[name]
    rows, columns = np.array(survey.sources).reshape(-1, 2).T.clip(0)
    apart = [
        np.abs(factor * v[rows, columns] + offset - velocities)
        for v, velocities in zip(maps, told, strict=False)
        if v.shape == survey.shape and np.isfinite(velocities).any()
    ]
    return float(np.nanmedian(apart)) if apart else 0.0
