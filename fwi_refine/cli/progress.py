"""How far a run is, and the summary at its end."""

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterator
from math import exp, log
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fwi_refine.cli import OK, SAMPLES_FAILED, console
from fwi_refine.io.outcomes import describe_outcomes, outcome_of

if TYPE_CHECKING:
    from fwi_refine.io.report import Row

LISTED = 10  # failed samples that the summary names, and finished ones that have a line each

logger = logging.getLogger(__name__)


def is_wanted() -> bool:
    """Whether the user of the present command did not ask it to be quiet."""
    return not click.get_current_context().params.get("quiet")


class RunProgress:
    """Counts finished samples, and shows them with the running ones on stderr.

    Parameters
    ----------
    total : int
        How many samples there are.
    visible : bool
        Whether anything is to be shown.
    """

    def __init__(self, total: int, visible: bool) -> None:
        self.total, self.visible = total, visible
        self._done = 0
        self._began, self._added = time.time(), 0
        self._seconds: list[float] = []  # that finished samples took
        self._families: Counter[str] = Counter()
        self._status: Counter[str] = Counter()
        self._log_reduction = 0.0  # sum over samples of ln(misfit before / after)
        self._failed: list[Row] = []
        self._outcomes: Counter[str] = Counter()  # see io/outcomes.py

    def found(self, row: "Row") -> None:
        """Counts a sample that was finished by an earlier process."""
        self._count(row)

    def add(self, row: "Row") -> None:
        """Counts a sample that was finished just now."""
        level = logging.INFO if self._added < LISTED else logging.DEBUG
        if row.status == "failed":
            logger.warning("%s failed: %s", row.id, row.reason)
        elif row.status == "unchanged":
            logger.log(level, "%s unchanged as %s, %.1f s: %s",
                       row.id, row.family, row.seconds, row.reason)  # fmt: skip
        else:
            logger.log(
                level,
                "%s %s as %s: misfit %.3g -> %.3g rms, %.1f s",
                row.id, row.status, row.family, row.misfit_before, row.misfit_after, row.seconds,
            )  # fmt: skip
        self._added += 1
        self._count(row)

    def _count(self, row: "Row") -> None:
        self._done += 1
        if row.seconds:
            self._seconds.append(row.seconds)
        self._status[row.status] += 1
        if row.status != "failed":
            self._families[row.family] += 1
        elif len(self._failed) < LISTED:
            self._failed.append(row)
        self._outcomes[outcome_of(row)] += 1
        if row.status != "failed" and row.misfit_before and row.misfit_after:
            self._log_reduction += log(row.misfit_before / row.misfit_after)

    def _describe(self) -> str:
        families = ", ".join(f"{name} {n}" for name, n in sorted(self._families.items()))
        return f"{self._reduction()}, {families}" if families else ""

    def _reduction(self) -> str:
        """By how much the misfit fell, as a geometric mean."""
        count = sum(self._families.values())
        if not count:
            return ""
        factor = exp(self._log_reduction / count)
        times = f"{factor:.3g}" if factor < 1000 else f"{factor:.0f}"
        return "misfit as before" if times == "1" else f"misfit {times} times smaller"

    @contextlib.contextmanager
    def shown(self, folder: Path) -> Iterator[None]:
        """Shows how far the run is; folder: of its running samples, see runs/running.py."""
        if not self.visible:
            yield
            return
        with console.shown(lambda: self.view(folder), logger.info):
            yield

    def view(self, folder: Path) -> console.View:
        """How far the run is, by its counts and the files of its running samples."""
        from fwi_refine.runs.running import read_running, seconds_left

        running, now = read_running(folder), time.time()
        mean = sum(self._seconds) / len(self._seconds) if self._seconds else None
        left = self.total - self._done
        rest = seconds_left(left, running, mean, now)
        rate = self._added / (now - self._began) if self._added and now > self._began else None
        if rest is None and rate:
            rest = left / rate
        elif running and mean:
            rate = len(running) / mean
        return console.View(self.total, self._done, running, rate, rest, self._reduction())

    @property
    def all_failed(self) -> bool:
        """Whether there are results, and none is one."""
        return 0 < self._status["failed"] == self._status.total()

    def summary(self) -> int:
        """Logs how the run went, what matters most first; returns its exit code."""
        failed = self._status["failed"]
        if failed:
            names = ", ".join(row.id for row in self._failed)
            more = ", ..." if failed > LISTED else ""
            logger.error("failed, their start was passed through: %s%s", names, more)
        hidden = failed or self._outcomes["stopped early"] or self._outcomes["poor fit"]
        level = logging.WARNING if hidden else logging.INFO
        logger.log(level, "%s", "; ".join(filter(None, (self.outcome(), self._describe()))))
        return SAMPLES_FAILED if failed else OK

    def outcome(self) -> str:
        """How many samples came to what; the numbers add up to all of them."""
        return describe_outcomes(self._outcomes)
