"""What --dry-run prints: which families there are, what would be done, and how long it takes."""

import csv
import logging
import sys
from collections import Counter

from fwi_refine.cli import OK, SAMPLES_FAILED
from fwi_refine.errors import SampleError

log = logging.getLogger(__name__)

# A Gauss-Newton step takes as long as this many evaluations of misfit and gradient.
STEP = 50


def print_plan(inputs, settings, jobs) -> int:
    """Reads and classifies every sample; CSV on stdout, a summary on stderr. Writes no file.

    The time is an upper bound: a measured gradient times the evaluations that are allowed.
    """
    from fwi_refine.classify import Family, classify
    from fwi_refine.refine import METHODS

    counts, failed = Counter(), 0
    for sample in inputs.samples():
        try:
            if sample.problem is not None:
                raise SampleError(sample.problem)
            family = Family(settings.family) if settings.family != "auto" else None
            if family is None:
                v = sample.starts[0][1]
                family = classify(v, sample.record, settings.priors, settings.survey).family
            counts[family] += 1
        except SampleError as error:
            failed += 1
            log.warning("%s would fail: %s", sample.id, error)
    seconds = _seconds_per_evaluation(settings)
    total = 0.0
    writer = csv.writer(sys.stdout)
    writer.writerow(["family", "samples", "stages", "evaluations_at_most", "seconds_at_most"])
    for family in sorted(counts):
        stages = METHODS[settings.method][family].stages
        evaluations = sum(
            stage.max_iterations * (STEP if stage.method == "levenberg-marquardt" else 1)
            for stage in stages
        )
        evaluations = min(evaluations, settings.max_evaluations or evaluations)
        each = min(evaluations * seconds, settings.time_budget or float("inf"))
        needed = counts[family] * each
        total += needed
        writer.writerow([family, counts[family], len(stages), evaluations, f"{needed:.0f}"])
    log.info(
        "%d samples to refine, %d that would fail; at %.2f s an evaluation and %d jobs at most "
        "%s. Nothing was written.",
        sum(counts.values()),
        failed,
        seconds,
        jobs,
        describe_duration(total / jobs),
    )
    return SAMPLES_FAILED if failed else OK


def describe_duration(seconds) -> str:
    """Seconds in the largest unit that leaves a number above one."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def _seconds_per_evaluation(settings) -> float:
    from fwi_refine.doctor import speed
    from fwi_refine.wave import Simulator

    return speed(Simulator(settings.survey, threads=settings.threads))[1].value
