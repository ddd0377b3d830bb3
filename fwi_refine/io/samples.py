"""Samples as they are refined: start, record, and the truth where it is known, all checked.

They are read in two steps, because the starts are small and the records are not: `plan_samples`
reads the starts, and `load_record` the record, in whichever process the sample is worked on.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fwi_refine.errors import SampleError
from fwi_refine.survey import OPENFWI
from fwi_refine.survey.validate import check_prediction, check_record


@dataclass(frozen=True)
class Sample:
    """One sample as it was read. `problem` says why it cannot be refined."""

    index: int  # in the predictions
    id: str
    starts: tuple[tuple[str, np.ndarray], ...] = ()  # (name, (nz, nx) m/s) of each candidate
    record: np.ndarray | None = None  # (shots, rows, receivers)
    truth: np.ndarray | None = None  # (nz, nx) m/s
    problem: str | None = None
    notes: tuple[str, ...] = ()  # candidates that could not be used, and why
    source: object | None = None  # of the record, as long as it is not read; see io/records.py


@dataclass(frozen=True)
class Chunk:
    """Samples that are one task; their records may still have to be read."""

    number: int
    samples: tuple[Sample, ...]


def read_samples(pairs, predictions, records, survey=OPENFWI) -> Iterator[Sample]:
    """Reads and checks one sample after another: both steps at once."""
    for sample in plan_samples(pairs, predictions, records, survey):
        yield load_record(sample, survey)


def plan_samples(pairs, predictions, records, survey=OPENFWI) -> Iterator[Sample]:
    """Samples with their starts read and checked, and their records still to be read.

    pairs: as io.pair gives them; predictions: [(name, source, index of each sample in it)], the
    candidates to start from. A sample that cannot be used carries its problem.
    """
    for pair in pairs:
        starts, problems = [], []
        for name, source, indices in predictions:
            k = indices[pair.index]
            where = f"prediction of sample {pair.id} ({source.where(k)})"
            try:
                v = check_prediction(source.read(k), survey=survey, where=where)
                starts.append((name, v))
            except SampleError as error:
                problems.append(_named(error, where))
        problem = pair.problem or (problems[0] if not starts else None)
        yield Sample(
            pair.index,
            pair.id,
            tuple(starts),
            problem=problem,
            notes=tuple(problems),
            source=records.alone(pair.record) if problem is None else None,
        )


def load_record(sample, survey=OPENFWI) -> Sample:
    """The sample with its record, and with the truth where it is known; or with its problem."""
    source = sample.source
    if source is None:
        return sample
    where = f"record of sample {sample.id} ({source.where(0)})"
    record = problem = None
    try:
        record = check_record(source.read(0), survey=survey, where=where)
    except SampleError as error:
        problem = _named(error, where)
    truth = _read_truth(source, 0, survey)
    return replace(sample, record=record, truth=truth, problem=problem, source=None)


def _named(error, where) -> str:
    """The error's text, which begins with the sample that it is about."""
    text = str(error)
    return text if text.startswith(where) else f"{where}: {text}"


def _read_truth(records, k, survey):
    try:
        values = records.truth(k)
        return None if values is None else check_prediction(values, survey=survey)
    except SampleError:  # the truth is only for the report
        return None
