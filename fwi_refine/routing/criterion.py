"""How a family is told: a number of a sample, and the threshold that it lies on one side of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from fwi_refine.priors import Priors, Routing

Measure = Callable[[NDArray[Any], NDArray[Any] | None, Priors], float]


@dataclass(frozen=True)
class Criterion:
    """The routing test of a family.

    Attributes
    ----------
    feature : str
        Name of the number, in evidence and reports; also that of the threshold in `Routing`.
    measure : callable
        Number of a sample, from its map (nz, nx) in m/s, its record (shots, n_steps, receivers),
        which is None where `from_record` is False, and the priors.
    reason : str
        Format of what is said of number and threshold, in this order.
    from_record : bool
        Whether the record is looked at. Such a number is no property of predictions: its threshold
        is never refitted to them.
    above : bool
        Whether samples of the family lie above the threshold; otherwise below.
    threshold : float, optional
        Default that of the priors.
    positive : callable, optional
        From a number, or the threshold, and the number of cells of the map, the quantity whose
        ratio tells how near a sample is to the threshold; not negative. Default: itself.
    """

    feature: str
    measure: Measure
    reason: str
    from_record: bool = False
    above: bool = False
    threshold: float | None = None
    positive: Callable[[float, int], float] | None = None

    def threshold_in(self, routing: Routing) -> float:
        """The threshold: its own, or that of the priors."""
        own = self.threshold
        return float(getattr(routing, self.feature)) if own is None else own

    def holds(self, number: float, routing: Routing) -> bool:
        """Whether a sample with this number belongs to the family."""
        threshold = self.threshold_in(routing)
        return number > threshold if self.above else number < threshold

    def closeness(self, number: float, routing: Routing, cells: int) -> float:
        """How near a number is to the threshold, from 0 to 1: 1 on it."""
        quantities = [number, self.threshold_in(routing)]
        if self.positive:
            quantities = [self.positive(x, cells) for x in quantities]
        larger = max(quantities)
        return float(min(quantities) / larger) if larger > 0 else 1.0

    def describe(self, number: float, routing: Routing) -> str:
        """Number and threshold in words."""
        return self.reason.format(number, self.threshold_in(routing))


Criteria = Mapping[str, Criterion]  # by family, in the order in which they are asked
