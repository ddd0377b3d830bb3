"""The evaluations of one sample: how many it may cost, and has cost so far."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction

from fwi_refine.wave import asking

Cost = int | Fraction


@dataclass(frozen=True)
class Progress:
    """How far a sample is.

    Attributes
    ----------
    stage
        Such as "layered, stage 3 of 8".
    step
        Iterations of it so far.
    misfit
        Rms after the last of them, or of the stage before; in the unit of the record.
    """

    stage: str
    step: int
    misfit: float


class OutOfTime(Exception):
    """The time of a sample is used up."""


class Budget:
    """The evaluations of one sample. The only value of an inversion that changes.

    An evaluation is a simulation of misfit and gradient. A misfit alone counts as one, a product
    with the Gauss-Newton matrix as two, a Jacobian as `BandMisfit.hessian_cost` says, and each as
    its fraction where some of the shots are used. Whoever simulates charges for it here.

    Parameters
    ----------
    limit
        Most evaluations, None for any number.
    should_stop
        Asked after every iteration; True ends the inversion with the best map so far.
    out_of_time
        The same, asked also where time passes within an iteration, see `interruptible`.
    watch
        Told the `Progress` at the start of every stage and after every iteration. Nothing depends
        on what it does.

    Attributes
    ----------
    evaluations : Fraction
        Charged so far.
    iterations : int
        Of all optimisers so far.
    """

    def __init__(
        self,
        limit: int | None = None,
        should_stop: Callable[[], bool] | None = None,
        out_of_time: Callable[[], bool] | None = None,
        watch: Callable[[Progress], object] | None = None,
    ) -> None:
        self.limit: float | Fraction = math.inf if limit is None else limit
        self._should_stop = should_stop or (lambda: False)
        self._out_of_time = out_of_time
        self.evaluations = Fraction(0)
        self.iterations = 0
        self._kept: Cost = 0
        self._watch = watch or (lambda step: None)
        self._step = Progress("", 0, math.nan)

    def should_stop(self) -> bool:
        """Whether the inversion is to end."""
        return self._should_stop() or (self._out_of_time is not None and self._out_of_time())

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within it, a simulation or a Jacobian raises OutOfTime as soon as there is no more time;
        whoever enters it catches that, and goes on with the best that there was."""
        if self._out_of_time is None:
            yield
            return
        with asking(self._end_in_time):
            yield

    def _end_in_time(self) -> None:
        if self._out_of_time is not None and self._out_of_time():
            raise OutOfTime

    def enter(self, stage: str, misfit: float | None = None) -> None:
        """Tells the watcher of a stage that begins; misfit: rms, where it is known anew."""
        self._step = Progress(stage, 0, self._step.misfit if misfit is None else misfit)
        self._watch(self._step)

    def report(self, misfit: float) -> None:
        """Tells the watcher of an iteration of the present stage that left a misfit, rms."""
        self._step = replace(self._step, step=self._step.step + 1, misfit=misfit)
        self._watch(self._step)

    @property
    def left(self) -> float | Fraction:
        """Evaluations that may still be spent, without those that are kept."""
        return self.limit - self._kept - self.evaluations

    def affords(self, cost: Cost) -> bool:
        """Whether so many evaluations are left."""
        return self.left >= cost

    def charge(self, cost: Cost) -> None:
        """Counts evaluations that were made."""
        self.evaluations += cost

    @contextmanager
    def keeping(self, cost: Cost) -> Iterator[None]:
        """Within it, so many evaluations are kept for what comes after."""
        self._kept += cost
        try:
            yield
        finally:
            self._kept -= cost

    @contextmanager
    def at_most(self, cost: Cost) -> Iterator[None]:
        """Within it, at most so many more evaluations may be spent."""
        limit, self.limit = self.limit, min(self.limit, self.evaluations + cost + self._kept)
        try:
            yield
        finally:
            self.limit = limit

    def limit_in(self, unit: Cost) -> int | None:
        """Evaluations that are left, in units of so many each; None for any number."""
        return None if math.isinf(self.left) else int(self.left / unit)
