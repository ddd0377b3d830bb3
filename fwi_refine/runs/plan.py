"""The plan of a run, and how long it would take: an estimate, without refining anything."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from fwi_refine.errors import SampleError
from fwi_refine.inversion.families import find_family
from fwi_refine.inversion.method import choose_method, choose_prior
from fwi_refine.inversion.optimisers import LevenbergMarquardt, VariationalGaussNewton
from fwi_refine.inversion.recipe import Stage
from fwi_refine.inversion.routes import classify
from fwi_refine.io.samples import Sample
from fwi_refine.routing import Family
from fwi_refine.runs.settings import Settings, kernel_name
from fwi_refine.wave import Simulator, measure_speed

log = logging.getLogger(__name__)

# A Gauss-Newton step: evaluations that it counts as, and how many it takes the time of. By many
# unknowns; with a prior that is settled, which takes more corrections; by the few of flat layers.
STEP_COUNT, STEP_TIME = 17, 45
SETTLED_COUNT, SETTLED_TIME = 30, 60
FLAT_COUNT, FLAT_TIME = 7, 10


@dataclass(frozen=True)
class FamilyPlan:
    """The samples of one family.

    Attributes
    ----------
    family : str
        Its name.
    samples : int
        How many samples it has.
    stages : int
        Stages of its recipe.
    evaluations : int
        Of each sample, at most.
    seconds : float
        Of all its samples, one after another.
    """

    family: str
    samples: int
    stages: int
    evaluations: int
    seconds: float


def count_families(samples: Iterable[Sample], settings: Settings) -> tuple[Counter[str], int]:
    """Counts samples by family, and classifies them where the settings ask for it.

    Parameters
    ----------
    samples : iterable of Sample
        As `read_samples` gives them.
    settings : Settings
        What is done to each.

    Returns
    -------
    (Counter, int)
        Samples of each family, and samples that would fail.
    """
    counts: Counter[str] = Counter()
    # (first sample, what is said of it, how many) of each kind of message
    problems: dict[str, tuple[str, str, int]] = {}
    for sample in samples:
        try:
            if sample.problem is not None:
                raise SampleError(sample.problem)
            family = settings.family
            if family == "auto":
                v, record = sample.starts[0][1], sample.record
                assert record is not None  # it has no problem
                family = classify(v, record, settings.priors, settings.survey).family
            counts[family] += 1
        except SampleError as error:
            named, _, what = str(error).rpartition("): ")  # without the sample and its place
            kind = _kind(what, place=named.rpartition(" (")[2])
            first, text, number = problems.get(kind, (sample.id, what, 0))
            problems[kind] = first, text, number + 1
    for first, what, number in problems.values():
        if number == 1:
            log.warning("%s would fail: %s", first, what)
        else:
            log.warning("%d samples would fail, the first %s: %s", number, first, what)
    return counts, sum(number for _, _, number in problems.values())


def _kind(message: str, place: str) -> str:
    """A message without what differs from sample to sample: file, numbers, what brackets hold."""
    return re.sub(r"\([^)]*\)|\d+", "#", message.replace(place, "") if place else message)


def plan_families(
    counts: Mapping[str, int], settings: Settings, seconds: float
) -> Iterator[FamilyPlan]:
    """The plan of each family: every stage with all its iterations, but those of far starts.

    Parameters
    ----------
    counts : mapping
        Samples of each family.
    settings : Settings
        What is done to each.
    seconds : float
        Of one evaluation, of which the time of all else is a multiple.
    """
    kernel = kernel_name(settings)
    for family in sorted(counts):
        method, _ = choose_method(settings.method, family, settings.survey, kernel)
        prior = choose_prior(settings.prior, settings.survey)
        every = find_family(family).recipe(method, prior).stages
        stages = [stage for stage in every if stage.data.frequency is None] or every
        shots = len(settings.survey.sources)
        steps = [
            (s.optimiser.iterations * len(s.data.survey(settings.survey).sources) / shots, s)
            for s in stages
        ]
        costs = [(n, *_cost(stage, flat=family == Family.FLAT_VEL)) for n, stage in steps]
        evaluations = round(sum(n * count for n, count, _ in costs))
        allowed = min(evaluations, settings.max_evaluations or evaluations)
        each = sum(n * time for n, _, time in costs) * allowed / evaluations * seconds
        each = min(each, settings.time_budget or each)
        yield FamilyPlan(family, counts[family], len(stages), allowed, counts[family] * each)


def _cost(stage: Stage, *, flat: bool) -> tuple[int, int]:
    """Evaluations that an iteration counts as, and how many it takes the time of."""
    if isinstance(stage.optimiser, VariationalGaussNewton):
        return SETTLED_COUNT, SETTLED_TIME
    if isinstance(stage.optimiser, LevenbergMarquardt):
        return (FLAT_COUNT, FLAT_TIME) if flat else (STEP_COUNT, STEP_TIME)
    return 1, 1


def seconds_per_evaluation(settings: Settings) -> float:
    """How long the misfit of one sample with its gradient takes here, in s."""
    simulator = Simulator(
        settings.survey,
        kernel=settings.kernel,
        threads=settings.threads,
        device=settings.device,
    )
    return measure_speed(simulator)[1]
