"""A look at a few samples before a run: are they in the units and the order that they should be?"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from fwi_refine.errors import InputError, SampleError
from fwi_refine.survey import Survey

SEARCHED = 200  # records among which that of a prediction is looked for

log = logging.getLogger(__name__)


def look_at_inputs(inputs: Any, survey: Survey, force: bool, source: str = "known") -> None:
    """Looks at a few samples of opened inputs (io/inputs.py); source: as `recognise` takes it.

    Raises
    ------
    InputError
        If they seem to be something else, unless `force` is true, which makes a warning of it.
    """
    from fwi_refine.routing.recognise import looked_at

    pairs = [pair for pair in inputs.pairs if pair.record is not None]
    chosen = [pairs[k] for k in looked_at(len(pairs))] if pairs else []
    maps, records, read = [], [], []
    for pair in chosen:
        with suppress(SampleError):
            v, d = inputs.predictions.read(pair.index), inputs.records.read(pair.record)
            maps.append(v)
            records.append(d)
            read.append(pair.id)
    _tell_of_equal(read, maps, records)
    for _, candidate, _ in inputs.candidates[1:]:
        look_at(candidate, survey, force)
    named = [(pair.id, pair.record) for pair in pairs[:SEARCHED]]
    look(maps, records, survey, force, lambda: _each(named, inputs.records), source)


def _tell_of_equal(ids: list[str], maps: list[np.ndarray], records: list[np.ndarray]) -> None:
    """Warns where predictions that differ have one record, which only one of them can be of."""
    for k, name in enumerate(ids):
        for j in range(k):
            if np.array_equal(records[j], records[k]) and not np.array_equal(maps[j], maps[k]):
                log.warning("the records of %s and %s are equal, their predictions are not: was a "
                            "record stored twice?", ids[j], name)  # fmt: skip
                return


def look_at(source: Any, survey: Survey, force: bool, records: bool = False) -> None:
    """Looks at a few maps of an opened source, or a few records. Raises InputError."""
    from fwi_refine.routing.recognise import looked_at

    count = len(source.ids) if records else source.count
    found = []
    for k in looked_at(count):
        with suppress(SampleError):
            found.append(source.read(k))
    look(*(([], found) if records else (found, [])), survey, force)


def look(
    maps: list[np.ndarray],
    records: list[np.ndarray],
    survey: Survey,
    force: bool,
    others: Callable[[], Iterable[tuple[str, np.ndarray]]] = lambda: (),
    source: str = "known",
) -> None:
    """As `look_at_inputs`, at maps and records that were read."""
    from fwi_refine.routing.recognise import recognise
    from fwi_refine.routing.recognise_form import describe

    maps = [as_map(v, survey) for v in maps]
    findings = recognise(maps, records, survey, others, source=source)
    if findings and force:
        log.warning("%s", describe(findings))
    elif findings:
        raise InputError(
            f"{describe(findings)}\nGive the option that fits, or --force to go on as it is."
        )
    elif source == "known" and maps and records:
        from fwi_refine.routing.recognise_source import warning

        if text := warning(maps, records, survey):
            log.warning("%s", text)


def as_map(v: np.ndarray, survey: Survey) -> np.ndarray:
    """A map (1, nz, nx) as (nz, nx); others as they are."""
    return v.reshape(survey.shape) if v.shape == (1, *survey.shape) else v


def _each(named: list[tuple[str, int]], records: Any) -> Iterator[tuple[str, np.ndarray]]:
    for name, k in named:
        with suppress(SampleError):
            yield name, records.read(k)
