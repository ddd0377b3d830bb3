"""Line search to a point that satisfies the strong Wolfe conditions.

Nocedal & Wright, Numerical Optimization, 2nd edition (2006), algorithms 3.5 and 3.6 in one loop:
`low` is the lowest point so far with a sufficient decrease, `high` the other end of the interval
that holds a minimum, None until there is one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from fwi_refine.optimise.result import Point, rounding_of

INSIDE = 0.1  # a new trial keeps this fraction of the interval away from both its ends
SHRINK = 0.25  # fraction of the interval kept after a value that is not finite
EXPAND = (1.1, 10.0)  # bounds of the growth of a step that was too short


@dataclass(frozen=True, eq=False)
class Search:
    """Outcome of a line search.

    `point` is the one to go on from: the accepted one; else the lowest that was seen; else, if
    none was lower, the start itself.
    """

    point: Point
    reason: str  # "wolfe", "lower", "not-descent", "no-decrease" or "below-rounding"


@dataclass(frozen=True, eq=False)
class Trial:
    step: float
    slope: float
    point: Point

    @property
    def value(self) -> float:
        return self.point.value


def strong_wolfe(
    evaluate: Callable[[torch.Tensor], Point],
    start: Point,
    direction: torch.Tensor,
    step: float,
    *,
    decrease: float = 1e-4,
    curvature: float = 0.9,
    max_evaluations: int = 20,
) -> Search:
    """Search x = start.x + step * direction for a point that satisfies the strong Wolfe conditions.

    Parameters
    ----------
    evaluate : callable
        Gives the point at x (n,).
    start : Point
        Where the search begins.
    direction : Tensor, shape (n,)
        Its slope at the start is negative.
    step : float
        First trial, > 0.
    decrease, curvature : float
        Of the conditions in the notes.
    max_evaluations : int
        At most.

    Returns
    -------
    Search
        The point to go on from, and how the search ended.

    Raises
    ------
    ValueError
        Unless 0 < decrease < curvature < 1, without which there may be no such point.

    Notes
    -----
    The conditions are [1]_ ::

        value <= start.value + decrease * step * slope    and    |slope there| <= curvature |slope|

    The first holds up to the rounding of the value (as in [2]_), so that a search close to a
    minimum ends by the slope, which is still exact there. Values that are not finite count as +inf
    and shorten the step.

    References
    ----------
    .. [1] J. Nocedal and S. J. Wright, "Numerical Optimization", 2nd edition, Springer, 2006.
    .. [2] W. W. Hager and H. Zhang, "A new conjugate gradient method with guaranteed descent and an
       efficient line search", SIAM Journal on Optimization 16, 170-192, 2005.
    """
    if not 0.0 < decrease < curvature < 1.0:
        raise ValueError(f"expected 0 < decrease ({decrease}) < curvature ({curvature}) < 1")
    slope = float(torch.dot(start.gradient, direction))
    if not slope < 0.0:  # also when it is NaN
        return Search(start, "not-descent")
    rounding = rounding_of(start.value)
    measurable = -slope * step > rounding

    low, high = Trial(0.0, slope, start), None
    lowest = start
    for _ in range(max_evaluations):
        x = start.x + step * direction
        if torch.equal(x, low.point.x):
            break
        point = evaluate(x)
        trial = Trial(step, float(torch.dot(point.gradient, direction)), point)
        if point.value < lowest.value:
            lowest = point

        limit = start.value + decrease * step * slope + rounding
        if trial.value <= limit and abs(trial.slope) <= -curvature * slope:
            return Search(point, "wolfe")
        previous = low
        if trial.value > min(limit, low.value + rounding):
            high = trial
        else:
            towards_high = 1.0 if high is None else high.step - low.step
            if trial.slope * towards_high >= 0.0:
                high = low
            low = trial

        step = between(low, high) if high is not None else beyond(previous, low)
        if trial.value > limit and -slope * step <= rounding:
            break  # values rise where only rounding could be seen: they say nothing any more
    if lowest is not start:
        return Search(lowest, "lower")
    return Search(start, "no-decrease" if measurable else "below-rounding")


def between(low: Trial, high: Trial) -> float:
    """Step inside the interval, which may run in either direction."""
    width = high.step - low.step
    if width == 0.0 or not high.point.finite:
        return low.step + SHRINK * width
    fraction = (minimum(low, high) - low.step) / width
    if math.isnan(fraction):
        fraction = 0.5
    return low.step + min(max(fraction, INSIDE), 1.0 - INSIDE) * width


def beyond(previous: Trial, low: Trial) -> float:
    """Longer step, after one that still goes downhill."""
    shortest, longest = (factor * low.step for factor in EXPAND)
    step = minimum(previous, low)
    return min(max(step, shortest), longest) if step > low.step else longest


def minimum(a: Trial, b: Trial) -> float:
    """Minimum of the cubic through values and slopes of a and b (N&W eq. 3.59); NaN if none.

    Where the values differ by rounding alone, it is where a straight line through the slopes is 0.
    """
    width, bend = b.step - a.step, b.slope - a.slope
    if abs(a.value - b.value) <= rounding_of(a.value):
        return b.step - width * b.slope / bend if width * bend > 0.0 else math.nan
    d1 = a.slope + b.slope + 3.0 * (a.value - b.value) / width
    squared = d1 * d1 - a.slope * b.slope
    if not squared >= 0.0:
        return math.nan
    d2 = math.copysign(math.sqrt(squared), width)
    denominator = bend + 2.0 * d2
    if denominator == 0.0:
        return math.nan
    return b.step - width * (b.slope + d2 - d1) / denominator
