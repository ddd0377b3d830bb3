"""The thresholds of the routing's tests, fitted to maps whose family is known."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwi_refine.priors import Priors, Routing
from fwi_refine.routing.classify import map_features
from fwi_refine.routing.families import Family


def fit_routing(
    predictions: Mapping[Family, Iterable[NDArray[Any]]], priors: Priors
) -> tuple[Routing, dict[str, int]]:
    """Thresholds refitted to predictions whose family is known.

    Parameters
    ----------
    predictions : mapping of Family to ndarray, shape (n, nz, nx)
        Predicted maps in m/s.
    priors : Priors
        Priors, and the thresholds that cannot be fitted.

    Returns
    -------
    routing : Routing
        Thresholds.
    wrong : dict of int
        As for `fit_thresholds`.
    """
    measured = {
        family: [map_features(prediction, priors) for prediction in maps]
        for family, maps in predictions.items()
    }
    return fit_thresholds(measured, priors.routing)


def fit_thresholds(
    measured: Mapping[Family, Sequence[Mapping[str, float]]], routing: Routing
) -> tuple[Routing, dict[str, int]]:
    """Thresholds refitted to measured numbers.

    Each threshold is fitted on the samples that reach its test, if both sides are present, and
    kept otherwise; that of the symmetry is a property of the records and is always kept.

    Parameters
    ----------
    measured : mapping of Family to sequence of dict
        Numbers of each map, as `map_features` returns them.
    routing : Routing
        Thresholds that are kept where they cannot be fitted.

    Returns
    -------
    routing : Routing
        Thresholds.
    wrong : dict of int
        For each threshold that was fitted, the number of samples on its wrong side.
    """

    def numbers(key: str, *families: Family) -> NDArray[np.float64]:
        return np.array([m[key] for family in families for m in measured.get(family, [])])

    style_a, style_b = Family.STYLE_A, Family.STYLE_B
    two, layered = Family.TWO_VELOCITY, Family.LAYERED
    sides = {
        "style_a_log_energy": ((style_a,), (style_b, two, layered)),
        "style_b_cells": ((style_b,), (two, layered)),
        "two_velocity_cells": ((layered,), (two,)),
    }
    fitted: dict[str, float] = {}
    wrong: dict[str, int] = {}
    for key, (low, high) in sides.items():
        below, above = numbers(key, *low), numbers(key, *high)
        if below.size and above.size:
            fitted[key], wrong[key] = best_threshold(below, above)
    return replace(routing, **fitted), wrong


def best_threshold(below: NDArray[Any], above: NDArray[Any]) -> tuple[float, int]:
    """Threshold between two sets of numbers.

    Half way between the largest of `below` and the smallest of `above`. Where the sets overlap,
    half way between the two neighbours that leave the fewest on the wrong side, and of several
    such pairs the one furthest apart.

    Parameters
    ----------
    below, above : ndarray, one-dimensional
        Numbers that should lie below and above the threshold.

    Returns
    -------
    threshold : float
    wrong : int
        Numbers on the wrong side.
    """
    values = np.unique(np.concatenate([below, above]))
    middles = np.concatenate([values[:1] - 1.0, (values[1:] + values[:-1]) / 2, values[-1:] + 1.0])
    gaps = np.concatenate([[0.0], np.diff(values), [0.0]])
    wrong = [int((below >= t).sum() + (above <= t).sum()) for t in middles]
    best = min(range(len(middles)), key=lambda i: (wrong[i], -gaps[i]))
    return float(middles[best]), wrong[best]
