"""Samples as they are refined: start, record, and the truth where it is known, all checked."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fwi_refine.errors import SampleError
from fwi_refine.survey import OPENFWI
from fwi_refine.validate import check_prediction, check_record


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


def read_samples(pairs, predictions, records, survey=OPENFWI) -> Iterator[Sample]:
    """Reads and checks one sample after another.

    pairs: as io.pair gives them; predictions: [(name, source, index of each sample in it)], the
    candidates to start from. A sample that cannot be used carries its problem.
    """
    for pair in pairs:
        starts, problems = [], []
        for name, source, places in predictions:
            k = places[pair.index]
            where = f"prediction of sample {pair.id} ({source.where(k)})"
            try:
                v = check_prediction(source.read(k), survey=survey, where=where)
                starts.append((name, v))
            except SampleError as error:
                problems.append(_named(error, where))
        record = truth = None
        problem = pair.problem or (problems[0] if not starts else None)
        if problem is None:
            where = f"record of sample {pair.id} ({records.where(pair.record)})"
            try:
                record = check_record(records.read(pair.record), survey=survey, where=where)
            except SampleError as error:
                problem = _named(error, where)
            truth = _read_truth(records, pair.record, survey)
        notes = tuple(problems)
        yield Sample(pair.index, pair.id, tuple(starts), record, truth, problem, notes)


def _named(error, where) -> str:
    """The error's text, which begins with the sample that it is about."""
    text = str(error)
    return text if text.startswith(where) else f"{where}: {text}"


def _read_truth(records, k, survey):
    values = records.truth(k)
    if values is None:
        return None
    try:
        return check_prediction(values, survey=survey)
    except SampleError:  # the truth is only for the report
        return None
