"""What --dry-run prints: which families there are, what would be done, and how long it takes."""

import csv
import logging
import sys
from collections import Counter

from fwi_refine.cli import OK, SAMPLES_FAILED
from fwi_refine.errors import SampleError

log = logging.getLogger(__name__)

# A Gauss-Newton step: evaluations that it counts as, and how many it takes the time of; by many
# unknowns, and by the few of flat layers.
STEP_COUNT, STEP_TIME = 17, 45
FLAT_COUNT, FLAT_TIME = 7, 10


def print_plan(inputs, settings, jobs) -> int:
    """Reads and classifies every sample; CSV on stdout, a summary on stderr. Writes no file.

    An estimate: every stage with all its iterations, in multiples of a measured gradient.
    """
    from fwi_refine.batch import kernel_name
    from fwi_refine.methods import choose_method
    from fwi_refine.recipes import METHODS
    from fwi_refine.routing import Family, classify

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
    seconds, kernel = _seconds_per_evaluation(settings), kernel_name(settings)
    total = 0.0
    writer = csv.writer(sys.stdout)
    writer.writerow(["family", "samples", "stages", "evaluations", "seconds"])
    for family in sorted(counts):
        method, _ = choose_method(settings.method, family, settings.survey, kernel)
        stages = METHODS[method][family].stages
        shots = len(settings.survey.sources)
        steps = [
            (s.method, s.max_iterations * len(s.part_of(settings.survey).sources) / shots)
            for s in stages
        ]
        newton = sum(n for how, n in steps if how == "levenberg-marquardt")
        other = sum(n for _, n in steps) - newton
        flat = family == Family.FLAT_VEL
        count, time = (FLAT_COUNT, FLAT_TIME) if flat else (STEP_COUNT, STEP_TIME)
        evaluations = round(other + count * newton)
        allowed = min(evaluations, settings.max_evaluations or evaluations)
        each = (other + time * newton) * allowed / evaluations * seconds
        each = min(each, settings.time_budget or each)
        needed = counts[family] * each
        total += needed
        writer.writerow([family, counts[family], len(stages), allowed, f"{needed:.0f}"])
    log.info(
        "%d samples to refine, %d that would fail; at %.2f s an evaluation and %d jobs "
        "about %s, where each fits on its first route. Nothing was written.",
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

    simulator = Simulator(settings.survey, threads=settings.threads, device=settings.device)
    return speed(simulator)[1].value
