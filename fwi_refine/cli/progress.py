"""The progress bar, and the summary at the end."""

import logging
from collections import Counter
from math import exp, log
from typing import TYPE_CHECKING

import click

from fwi_refine.cli import OK, SAMPLES_FAILED

if TYPE_CHECKING:
    from fwi_refine.io.report import Row

# What may have become of a sample: statuses and flags of a report, and how the summary calls them.
# Proven maps come first, as no flag concerns them; then what is the most important.
PROVEN = "proven"
OUTCOMES = {
    PROVEN: "proven by their records",
    "failed": "failed",
    "stopped early": "stopped early",
    "poor fit": "fit poorly",
    "unchanged": "passed through unchanged",
    "refined": "refined",
}
LISTED = 10  # failed samples that the summary names; all are in the report

logger = logging.getLogger(__name__)


def is_wanted() -> bool:
    """Whether the user of the present command did not ask it to be quiet."""
    return not click.get_current_context().params.get("quiet")


class Progress:
    """Counts finished samples. The bar goes to stderr, and only if that is a terminal.

    Parameters
    ----------
    total : int
        How many samples there are.
    visible : bool
        Whether a bar is wanted.
    """

    def __init__(self, total: int, visible: bool) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, unit="sample", disable=None if visible else True)
        self._families: Counter[str] = Counter()
        self._status: Counter[str] = Counter()
        self._log_reduction = 0.0  # sum over samples of ln(misfit before / after)
        self._failed: list[Row] = []
        # Each sample counts once, as the first of OUTCOMES that it is.
        self._outcomes: Counter[str] = Counter()

    def found(self, row: "Row") -> None:
        """Counts a sample that was finished by an earlier process."""
        self._count(row)
        if not self._bar.disable:
            self._bar.initial += 1  # it says nothing about the rate
            self._bar.update()

    def add(self, row: "Row") -> None:
        """Counts a sample that was finished just now."""
        if row.status == "failed":
            logger.warning("%s failed: %s", row.id, row.reason)
        else:
            logger.debug(
                "%s %s as %s: misfit %.3g -> %.3g rms, %d evaluations, %.1f s",
                row.id, row.status, row.family, row.misfit_before, row.misfit_after,
                row.evaluations, row.seconds,
            )  # fmt: skip
        self._count(row)
        self._bar.set_postfix_str(self._describe(), refresh=False)
        self._bar.update()

    def _count(self, row: "Row") -> None:
        self._status[row.status] += 1
        if row.status != "failed":
            self._families[row.family] += 1
        elif len(self._failed) < LISTED:
            self._failed.append(row)
        found = {row.status, *row.flags.split("; ")}
        if row.exact == "yes":
            found.add(PROVEN)
        self._outcomes[next((kind for kind in OUTCOMES if kind in found), row.status)] += 1
        if row.status != "failed" and row.misfit_before and row.misfit_after:
            self._log_reduction += log(row.misfit_before / row.misfit_after)

    def _describe(self) -> str:
        families = ", ".join(f"{name} {n}" for name, n in sorted(self._families.items()))
        if not families:
            return ""
        mean = exp(self._log_reduction / sum(self._families.values()))
        return f"misfit {mean:.3g} times smaller, {families}"

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()

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
        counts = ((self._outcomes[kind], name) for kind, name in OUTCOMES.items())
        return ", ".join(f"{n} {name}" for n, name in counts if n)
