"""Samples as they are refined: start, record, and the truth where it is known, all checked.

They are read in two steps, because the starts are small and the records are not: `plan_samples`
reads the starts, and `load_record` the record, in whichever process the sample is worked on.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fwi_refine.errors import SampleError
from fwi_refine.io.convert import is_outside
from fwi_refine.io.pairing import Pair
from fwi_refine.io.predictions import Predictions
from fwi_refine.io.record_sources import Records, RecordSource
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.validate import check_prediction, check_record


@dataclass(frozen=True)
class Sample:
    """One sample as it was read.

    Attributes
    ----------
    index : int
        Index in the predictions.
    id : str
        Its id.
    starts : tuple of (str, array)
        Name and map of each candidate to start from, (nz, nx) in m/s.
    record : array or None
        (shots, rows, receivers), NaN where samples are missing.
    truth : array or None
        True map, (nz, nx) in m/s.
    problem : str or None
        Why it cannot be refined.
    notes : tuple of str
        Candidates that could not be used, and why.
    source : RecordSource or None
        Of the record, as long as it is not read; see io/record_sources.py.
    """

    index: int
    id: str
    starts: tuple[tuple[str, NDArray[np.float64]], ...] = ()
    record: NDArray[np.float64] | None = None
    truth: NDArray[np.float64] | None = None
    problem: str | None = None
    notes: tuple[str, ...] = ()
    source: RecordSource | None = None


# (name, maps, index in them of each prediction)
Candidate = tuple[str, Predictions, Sequence[int]]


@dataclass(frozen=True)
class Chunk:
    """Samples that are one task; their records may still have to be read."""

    number: int
    samples: tuple[Sample, ...]


def read_samples(
    pairs: Iterable[Pair],
    predictions: Sequence[Candidate],
    records: Records,
    survey: Survey = OPENFWI,
) -> Iterator[Sample]:
    """Read and check one sample after another: `plan_samples` and `load_record` at once.

    Parameters
    ----------
    pairs, predictions, records, survey
        As for `plan_samples`.

    Yields
    ------
    Sample
        With its record, or with what is wrong with it.
    """
    for sample in plan_samples(pairs, predictions, records, survey):
        yield load_record(sample, survey)


def plan_samples(
    pairs: Iterable[Pair],
    predictions: Sequence[Candidate],
    records: Records,
    survey: Survey = OPENFWI,
) -> Iterator[Sample]:
    """Samples with their starts read and checked, and their records still to be read.

    Parameters
    ----------
    pairs : iterable of Pair
        As `pair` gives them.
    predictions : sequence of Candidate
        What they may start from.
    records : Records
        Opened records.
    survey : Survey
        What maps and records have to fit.

    Yields
    ------
    Sample
        One for each pair; one that cannot be used carries its problem.

    Raises
    ------
    MachineError
        If the machine cannot read a map.
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
            source=None if problem or pair.record is None else records.alone(pair.record),
        )


def load_record(sample: Sample, survey: Survey = OPENFWI) -> Sample:
    """The sample with its record, and with the truth where it is known; or with its problem.

    Raises MachineError if the machine cannot read them.
    """
    source = sample.source
    if source is None:
        return sample
    where = f"record of sample {sample.id} ({source.where(0)})"
    record = problem = None
    try:
        record = check_record(source.read(0), survey=survey, where=where, gaps=True)
    except SampleError as error:
        problem = _named(error, where)
    truth = _read_truth(source, 0, survey)
    return replace(sample, record=record, truth=truth, problem=problem, source=None)


def _named(error: SampleError, where: str) -> str:
    """The error's text, which begins with the sample that it is about."""
    text = str(error)
    return text if text.startswith(where) else f"{where}: {text}"


def _read_truth(records: RecordSource, k: int, survey: Survey) -> NDArray[np.float64] | None:
    try:
        values = records.truth(k)
        if values is None or is_outside(values, survey):  # in other units it tells nothing
            return None
        return check_prediction(values, survey=survey)
    except SampleError:  # the truth is only for the report
        return None
