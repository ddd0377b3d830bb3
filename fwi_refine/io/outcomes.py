"""What became of the samples of a run, counted: the last line of a run, the first of its page."""

from collections import Counter
from collections.abc import Iterable, Mapping

from fwi_refine.io.report import Row

# Statuses and flags of a report, and how they are called where samples are counted. Proven maps
# come first, as no flag concerns them; then what is the most important.
PROVEN = "proven"
OUTCOMES = {
    PROVEN: "proven by their records",
    "failed": "failed",
    "stopped early": "stopped early",
    "poor fit": "fit poorly",
    "unchanged": "passed through unchanged",
    "unfinished": "not finished",
    "refined": "refined",
}


def outcome_of(row: Row) -> str:
    """The first of `OUTCOMES` that a sample is: it counts once."""
    found = {row.status, *row.flags.split("; ")}
    if row.exact == "yes":
        found.add(PROVEN)
    return next((kind for kind in OUTCOMES if kind in found), row.status)


def count_outcomes(rows: Iterable[Row]) -> Counter[str]:
    """How many samples are which of `OUTCOMES`."""
    return Counter(map(outcome_of, rows))


def describe_outcomes(counts: Mapping[str, int]) -> str:
    """How many samples came to what; the numbers add up to all of them."""
    known = ((counts.get(kind, 0), name) for kind, name in OUTCOMES.items())
    return ", ".join(f"{n} {name}" for n, name in known if n)
