"""Share and score of a subset of the test set, solved from the scores of three submissions.

A leaderboard gives one number for all families. Three submissions tell the error of one group of
samples and its share of the scored ones: the maps as they are, and twice with the values of that
group alone shifted by a known amount, up or down at random.

Let q be the share of the subset in the scored values, m its mean absolute error, m_rest that of all
others, e = prediction - truth, and s = +1 or -1 a random sign for each value. The scores are::

    S0   = q m + (1 - q) m_rest
    S(a) = q mean|e + s a| + (1 - q) m_rest

Where a is at least as large as every `|e|` of the subset, the sign of e + s a is that of s, and
`|e + s a| = a + s e` exactly. With two such shifts a1 < a2, and eps the subset's mean of s e::

    S(a2) - S(a1) = q (a2 - a1)                 gives the share
    S(a1) - S0    = q (a1 + eps - m)            gives m - eps = a1 - (S(a1) - S0) / q
    S(a1)         = q (a1 + eps) + (1 - q) m_rest    gives m_rest

What this rests on:

1. `|e| <= a1` in the subset. It holds if the true velocities are within known bounds and a1 is the
   largest distance of a predicted value from the farther bound (`least_shift`). For an error
   beyond a1, the mean over the signs of `|e + s a1|` is `|e|` instead of a1. With the excess
   `x = mean(max(|e| - a1, 0))`, q comes out too small by the fraction x / (a2 - a1), and m by x
   and a fraction of a1 that is as small.
2. eps = 0. Three scores cannot tell four unknowns (q, m, m_rest, eps) apart. With random signs,
   drawn without looking at the errors, eps has mean 0 and a standard deviation of rms(e) / sqrt(n)
   for n scored values, which is at most sqrt(m a1 / n), since `e^2 <= |e| a1`. If all values were
   shifted to one side instead, eps would be the mean error, the bias, of the subset, and no
   larger number of samples would make it smaller.
3. The scores are rounded: each is known to half of its last decimal. `solve` gives the interval of
   each result for all scores that round to the published ones; for m it is near to +- 2 half
   decimals divided by q. To it come three standard deviations of eps, at most, where n is known.

What is measured belongs to the samples that were shifted. If a classifier picked them, those that
it put in wrongly count, and those that it left out do not.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwi_refine.errors import InputError

ROUNDOFF = 1e-9
SIGN_DEVIATIONS = 3  # of the random signs, that a range holds


@dataclass(frozen=True)
class Interval:
    """A number with its range.

    Attributes
    ----------
    value : float
        The number.
    low, high : float
        The smallest and largest that agree with the rounded scores and, where the number of
        values is known, with the random signs.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SubsetEstimates:
    """The solution of three scores.

    Attributes
    ----------
    share : Interval
        Of the subset in the scored values.
    error : Interval
        The subset's mean absolute error, m/s.
    contribution : Interval
        Share times error, the part of the unchanged score that is the subset's, m/s.
    rest : Interval or None
        Mean absolute error of all other samples, m/s; None if there may be none.
    sign_error : float
        Largest standard deviation of `error` from the random signs, m/s.
    """

    share: Interval
    error: Interval
    contribution: Interval
    rest: Interval | None
    sign_error: float


def solve(
    scores: Sequence[float],
    amounts: Sequence[float],
    *,
    rounding: float = 0.0,
    values: float | None = None,
) -> SubsetEstimates:
    """Share and errors from three scores, see above.

    Parameters
    ----------
    scores : sequence of float
        Of the maps unchanged, shifted by the first and by the second of the amounts, m/s.
    amounts : sequence of float
        0 < a1 < a2, m/s, for instance from `least_shift`.
    rounding : float
        Half of the last decimal of the scores, m/s.
    values : int, optional
        How many values are scored in all; None leaves `sign_error` nan, and out of the ranges.

    Returns
    -------
    SubsetEstimates

    Raises
    ------
    InputError
        For scores that no subset can give.
    """
    near, far = amounts
    if not 0 < near < far:
        raise InputError(f"shifts {near} and {far}: expected 0 < first < second")
    if not np.isfinite(scores).all() or min(scores) < 0:
        raise InputError(f"scores {scores}: expected three numbers, none negative")
    if scores[2] - scores[1] <= 2 * rounding:
        raise InputError(
            f"scores {scores}: the second shift raises the score by {scores[2] - scores[1]:.6g} "
            "over the first, no more than rounding may: the subset is not among the scored "
            "samples, or the scores are not in the order unchanged, first, second shift"
        )
    corners = [
        _solve([s + side * rounding for s, side in zip(scores, sides, strict=True)], amounts)
        for sides in product((-1, 1), repeat=3)
    ]
    share, error, contribution, others = (
        Interval(value, *(pick(c[i] for c in corners) for pick in (min, max)))
        for i, value in enumerate(_solve(scores, amounts))
    )
    rest = others if share.high < 1 - ROUNDOFF else None
    count = share.value * values if values else math.inf
    sign_error = math.sqrt(max(error.value, 0.0) * near / count)
    # How far below zero the signs may push the results, at three standard deviations: for the
    # subset that is the minimum of m - 3 sqrt(m a1 / n) over m.
    below = 9 / 4 * near / count + ROUNDOFF
    rest_below = 3 * sign_error * share.value / max(1 - share.value, ROUNDOFF) + ROUNDOFF
    if share.low > 1 + ROUNDOFF or error.high < -below or (rest and rest.high < -rest_below):
        raise InputError(
            f"scores {scores} with shifts {near} and {far} would mean a share of "
            f"{share.value:.6g}, an error of {error.value:.6g} m/s in the subset and of "
            f"{rest.value if rest else math.nan:.6g} m/s outside: expected the scores in the order "
            "unchanged, first, second shift"
        )
    if not values:
        return SubsetEstimates(share, error, contribution, rest, math.nan)
    # eps moves `error` by itself, and what is left of the scores by its share of them
    margin = SIGN_DEVIATIONS * math.sqrt(max(error.high, 0.0) * near / count)
    moved = share.value * margin
    return SubsetEstimates(
        share,
        _widened(error, margin),
        _widened(contribution, moved),
        rest and _widened(rest, moved / (1 - share.value)),
        sign_error,
    )


def _widened(estimate: Interval, margin: float) -> Interval:
    return Interval(estimate.value, estimate.low - margin, estimate.high + margin)


def _solve(scores: Sequence[float], amounts: Sequence[float]) -> tuple[float, float, float, float]:
    """(share, error, contribution, error of the rest) where the scores are exact."""
    unchanged, first, second = scores
    near, far = amounts
    share = (second - first) / (far - near)
    contribution = share * near - (first - unchanged)
    rest = (first - share * near) / (1 - share) if share < 1 else float("nan")
    return share, contribution / share, contribution, rest


def least_shift(low: float, high: float, bounds: tuple[float, float]) -> float:
    """A bound of all errors.

    Parameters
    ----------
    low, high : float
        Smallest and largest predicted velocity, m/s.
    bounds : tuple of float
        Slowest and fastest true velocity, m/s.

    Returns
    -------
    float
        m/s.
    """
    return max(high - bounds[0], bounds[1] - low)


class Shifted:
    """Predictions of which some maps are shifted by +- amount, each value at random.

    The signs depend on the seed and the map's place alone, so that a map reads the same again,
    and both shifted submissions have the same. Has what submission.write_submission asks for.

    Parameters
    ----------
    predictions : Predictions
        The maps.
    chosen : iterable of int
        Those that are shifted.
    amount : float
        By how much, m/s.
    seed : int
        Of the signs.
    """

    def __init__(self, predictions: Any, chosen: Iterable[int], amount: float, seed: int) -> None:
        self._predictions, self._chosen = predictions, frozenset(chosen)
        self._amount, self._seed = amount, seed
        self.path, self.count, self.ids = predictions.path, predictions.count, predictions.ids

    def where(self, k: int) -> str:
        """File and row of map k, for messages."""
        return self._predictions.where(k)

    def read(self, k: int) -> NDArray[Any]:
        """Map k, shifted if it was chosen, m/s. Raises SampleError."""
        v = self._predictions.read(k)
        if k not in self._chosen:
            return v
        signs = np.random.default_rng([self._seed, k]).integers(0, 2, v.shape) * 2 - 1
        return v.astype(np.float64) + signs * self._amount
