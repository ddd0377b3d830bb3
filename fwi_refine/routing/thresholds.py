"""The thresholds of the routing's tests, fitted to maps whose family is known."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwi_refine.priors import Priors, Routing
from fwi_refine.routing.classify import map_features
from fwi_refine.routing.criterion import Criteria


def fit_routing(
    predictions: Mapping[str, Iterable[NDArray[Any]]], priors: Priors, criteria: Criteria
) -> tuple[Routing, dict[str, int]]:
    """Thresholds refitted to predictions whose family is known.

    Parameters
    ----------
    predictions : mapping of str to ndarray, shape (n, nz, nx)
        Predicted maps of each family, in m/s.
    priors : Priors
        Priors, and the thresholds that cannot be fitted.
    criteria : mapping
        Test of each family that has one.

    Returns
    -------
    routing : Routing
        Thresholds.
    wrong : dict of int
        As for `fit_thresholds`.
    """
    measured = {
        family: [map_features(prediction, priors, criteria) for prediction in maps]
        for family, maps in predictions.items()
    }
    return fit_thresholds(measured, priors.routing, criteria)


def fit_thresholds(
    measured: Mapping[str, Sequence[Mapping[str, float]]], routing: Routing, criteria: Criteria
) -> tuple[Routing, dict[str, int]]:
    """Thresholds refitted to measured numbers.

    Each threshold is fitted on the samples that reach its test, if both sides are present, and
    kept otherwise; those of records and those that a test brings along are always kept.

    Parameters
    ----------
    measured : mapping of str to sequence of dict
        Numbers of each map of a family, as `map_features` returns them.
    routing : Routing
        Thresholds that are kept where they cannot be fitted.
    criteria : mapping
        Test of each family that has one.

    Returns
    -------
    routing : Routing
        Thresholds.
    wrong : dict of int
        For each threshold that was fitted, the number of samples on its wrong side.
    """

    fitted: dict[str, float] = {}
    wrong: dict[str, int] = {}
    rest = set(measured)  # the families that reach a test
    for name, test in criteria.items():
        rest.discard(name)
        if test.from_record or test.threshold is not None:
            continue
        own, others = (
            np.array([m[test.feature] for family in families for m in measured.get(family, [])])
            for families in ((name,), sorted(rest))
        )
        if own.size and others.size:
            below, above = (others, own) if test.above else (own, others)
            fitted[test.feature], wrong[test.feature] = best_threshold(below, above)
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
