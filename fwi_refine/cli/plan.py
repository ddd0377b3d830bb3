"""The output of --dry-run: families, recipes, and how long a run takes."""

import csv
import logging
import sys
from typing import TYPE_CHECKING

from fwi_refine.cli import OK, SAMPLES_FAILED

if TYPE_CHECKING:
    from fwi_refine.io.inputs import Inputs
    from fwi_refine.runs.settings import Settings

log = logging.getLogger(__name__)


def print_plan(inputs: "Inputs", settings: "Settings", jobs: int) -> int:
    """Reads and classifies every sample; CSV on stdout, a summary on stderr. Writes no file.

    An estimate: every stage with all its iterations, in multiples of a measured gradient.

    Parameters
    ----------
    inputs : Inputs
        The samples.
    settings : Settings
        What is done to each.
    jobs : int
        How many are worked on at a time.

    Returns
    -------
    int
        The exit code.
    """
    from fwi_refine.runs.plan import count_families, plan_families, seconds_per_evaluation

    counts, failed = count_families(inputs.samples(), settings)
    seconds = seconds_per_evaluation(settings)
    total = 0.0
    writer = csv.writer(sys.stdout)
    writer.writerow(["family", "samples", "stages", "evaluations", "seconds"])
    for plan in plan_families(counts, settings, seconds):
        total += plan.seconds
        writer.writerow(
            [plan.family, plan.samples, plan.stages, plan.evaluations, f"{plan.seconds:.0f}"]
        )
    log.info(
        "%d samples: %d to refine, %d that would fail; at %.2f s for one of a sample's "
        "evaluations, longer for those of Jacobians, and %d %s about %s, where each fits on its "
        "first route. Nothing was written.",
        sum(counts.values()) + failed,
        sum(counts.values()),
        failed,
        seconds,
        jobs,
        "job" if jobs == 1 else "jobs",
        describe_duration(_rounds(sum(counts.values()), jobs) * total),
    )
    return SAMPLES_FAILED if failed else OK


def _rounds(samples: int, jobs: int) -> float:
    """The factor of the time of all samples, one after another; a job waits for the last round of
    the others."""
    return -(-samples // jobs) / samples if samples else 0.0


def describe_duration(seconds: float) -> str:
    """Seconds in the largest unit that leaves a number above one."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
