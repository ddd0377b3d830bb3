"""The thresholds of the routing's tests, fitted to maps whose family is known."""

from dataclasses import replace

import numpy as np

from fwi_refine.priors import Priors, Routing
from fwi_refine.routing.classify import measure_map
from fwi_refine.routing.families import Family


def fit_routing(predictions: dict[Family, np.ndarray], priors: Priors) -> tuple[Routing, dict]:
    """Thresholds refitted to predictions whose family is known.

    predictions: family -> (n, nz, nx) m/s. See `fit_thresholds`.
    """
    measured = {
        family: [measure_map(prediction, priors) for prediction in maps]
        for family, maps in predictions.items()
    }
    return fit_thresholds(measured, priors.routing)


def fit_thresholds(measured: dict[Family, list], routing: Routing) -> tuple[Routing, dict]:
    """Thresholds refitted to measured numbers: family -> those of its maps (see `measure_map`).

    Each threshold is fitted on the samples that reach its test, if both sides are present, and
    kept otherwise; that of the symmetry is a property of the records and is always kept. Returns
    the thresholds, and for each one that was fitted the number of samples on its wrong side.
    """

    def numbers(key, *families):
        return np.array([m[key] for family in families for m in measured.get(family, [])])

    style_a, style_b = Family.STYLE_A, Family.STYLE_B
    two, layered = Family.TWO_VELOCITY, Family.LAYERED
    sides = {
        "style_a_log_energy": ((style_a,), (style_b, two, layered)),
        "style_b_cells": ((style_b,), (two, layered)),
        "two_velocity_cells": ((layered,), (two,)),
    }
    fitted, wrong = {}, {}
    for key, (low, high) in sides.items():
        below, above = numbers(key, *low), numbers(key, *high)
        if below.size and above.size:
            fitted[key], wrong[key] = separate(below, above)
    return replace(routing, **fitted), wrong


def separate(below: np.ndarray, above: np.ndarray) -> tuple[float, int]:
    """The threshold between two sets of numbers, and how many lie on its wrong side.

    Half way between the largest of `below` and the smallest of `above`. Where the sets overlap,
    half way between the two neighbours that leave the fewest on the wrong side, and of several
    such pairs the one furthest apart.
    """
    values = np.unique(np.concatenate([below, above]))
    middles = np.concatenate([values[:1] - 1.0, (values[1:] + values[:-1]) / 2, values[-1:] + 1.0])
    gaps = np.concatenate([[0.0], np.diff(values), [0.0]])
    wrong = [int((below >= t).sum() + (above <= t).sum()) for t in middles]
    best = min(range(len(middles)), key=lambda i: (wrong[i], -gaps[i]))
    return float(middles[best]), wrong[best]
