"""A check of a few samples before a run: are maps in m/s, and records as simulated?

Every command and every function that takes maps or records comes through here: with maps alone,
records alone, maps and their records, or maps and other maps of the same samples.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from fwi_refine.errors import InputError, SampleError
from fwi_refine.routing.checks.form import Finding, describe
from fwi_refine.routing.checks.other_maps import recognise_order, recognise_other_maps
from fwi_refine.routing.checks.recognise import Others, checked_positions, more_positions, recognise
from fwi_refine.routing.checks.source import warning as source_warning
from fwi_refine.survey import Survey

MAX_SAMPLES_SEARCHED = 200  # samples among which the partner of another is looked for
NEIGHBOURS_SEARCHED = 5  # samples before and after it that are among them
ADVICE = "Give the option that fits, or --force to go on as it is."
ADVICE_FOR_ARRAYS = (
    "(options are those of the command line; convert the arrays, or pass force=True)"
)

Read = Callable[[int], Any]  # gives the map or record of a sample; SampleError where it is bad

log = logging.getLogger(__name__)


def check_samples(
    maps: Sequence[np.ndarray],
    records: Sequence[np.ndarray],
    survey: Survey,
    force: bool = False,
    others: Others = lambda: (),
    advice: str = ADVICE,
    source: str = "known",
    more: Sequence[tuple[np.ndarray, np.ndarray]] = (),
) -> None:
    """Checks maps and the record of each; either may be empty.

    Parameters
    ----------
    maps, records, survey, others, source, more
        As for `recognise`; maps may be (1, nz, nx).
    force : bool
        Whether to go on, with a warning.
    advice : str
        What stands below the findings.

    Raises
    ------
    InputError
        If they seem to be something else, unless `force` is true.
    """
    maps = [as_map(v, survey) for v in maps]
    with np.errstate(over="ignore", invalid="ignore"):  # records may be of any scale
        rest = [(as_map(v, survey), d) for v, d in more]
        findings = recognise(maps, records, survey, others, source=source, more=rest)
    report_findings(findings, force, advice)
    known = not findings and source == "known" and maps and records
    if known and (text := source_warning(maps, records, survey)):
        log.warning("%s", text)


def check_some(
    count: int,
    read: Read,
    survey: Survey,
    force: bool = False,
    records: bool = False,
    advice: str = ADVICE,
) -> None:
    """Checks a few of `count` maps, or records, alone. Raises as `check_samples` does."""
    found = [values for _, values in _some(checked_positions(count), lambda k: _numbers(read(k)))]
    check_samples(*(([], found) if records else (found, [])), survey, force, advice=advice)


def check_pairs(
    ids: Sequence[str],
    map_of: Read,
    record_of: Read,
    survey: Survey,
    force: bool = False,
    advice: str = ADVICE,
    source: str = "known",
) -> None:
    """Checks a few maps with their records.

    Parameters
    ----------
    ids : sequence of str
        Of the samples that have a record.
    map_of, record_of : callable
        Give map and record of a sample by its number.
    survey, force, advice, source
        As for `check_samples`.

    Raises
    ------
    InputError
        As `check_samples` does; also where maps belong to the records of other samples.
    """

    def pair(k: int) -> tuple[np.ndarray, np.ndarray]:
        return _numbers(map_of(k)), _numbers(record_of(k))

    few = _some(checked_positions(len(ids)), pair)
    more = _some(more_positions(len(ids)), pair)
    maps, records = ([pair[i] for _, pair in few] for i in (0, 1))
    _warn_of_equal([ids[k] for k, _ in few], maps, records)

    def others() -> Any:
        for k in partners_searched(len(ids), [k for k, _ in (*few, *more)]):
            with suppress(SampleError):
                yield ids[k], _numbers(record_of(k)), lambda k=k: as_map(map_of(k), survey)

    check_samples(
        maps, records, survey, force, others, advice, source, [values for _, values in more]
    )


def check_both(
    count: int,
    one: Read,
    other: Read,
    words: tuple[str, str],
    survey: Survey,
    force: bool = False,
) -> None:
    """Checks a few maps with other maps of the same samples.

    Parameters
    ----------
    count : int
        Of samples.
    one, other : callable
        Give both maps of a sample by its number.
    words : (str, str)
        What they are called.
    survey, force
        As for `check_samples`.

    Raises
    ------
    InputError
        Where one of them seems turned, scaled or in another order, unless `force` is true.
    """

    def pair(k: int) -> tuple[np.ndarray, np.ndarray]:
        return as_map(_numbers(one(k)), survey), as_map(_numbers(other(k)), survey)

    few, more = _some(checked_positions(count), pair), _some(more_positions(count), pair)

    def others() -> Any:
        for k in partners_searched(count, [k for k, _ in (*few, *more)]):
            with suppress(SampleError):
                yield as_map(_numbers(other(k)), survey), lambda k=k: pair(k)[0]

    findings = recognise_other_maps([pair for _, pair in few], words)
    every = [pair for _, pair in (*few, *more)]
    report_findings(findings or recognise_order(every, words, others), force)


def report_findings(findings: Sequence[Finding], force: bool = False, advice: str = ADVICE) -> None:
    """Raises InputError with findings, if there are any; warns of them if `force` is true."""
    if findings and force:
        log.warning("%s", describe(findings))
    elif findings:
        raise InputError(f"{describe(findings)}\n{advice}")


def as_map(v: np.ndarray, survey: Survey) -> np.ndarray:
    """A map (1, nz, nx) as (nz, nx); others as they are."""
    v = np.asarray(v)
    return v.reshape(survey.shape) if v.shape == (1, *survey.shape) else v


def _numbers(values: Any) -> np.ndarray:
    """An array of real numbers. Raises SampleError for another: its sample fails by itself."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise SampleError(f"found type {array.dtype}, expected a float type")
    return array


def _some(numbers: Sequence[int], read: Read) -> list[tuple[int, Any]]:
    """(number, values) of those that can be read."""
    found = []
    for k in numbers:
        with suppress(SampleError):
            found.append((k, read(k)))
    return found


def partners_searched(count: int, of: Sequence[int]) -> list[int]:
    """Samples among which the partners of some are looked for: their neighbours, those as far from
    the other end, and as many of all as `MAX_SAMPLES_SEARCHED` allows, the first ones first."""
    near = {k + step for k in of for step in range(-NEIGHBOURS_SEARCHED, NEIGHBOURS_SEARCHED + 1)}
    near |= {count - 1 - k + step for k in of for step in (-1, 0, 1)}
    chosen = dict.fromkeys(k for k in sorted(near) if 0 <= k < count)
    chosen |= dict.fromkeys(range(min(count, MAX_SAMPLES_SEARCHED)))
    return [*chosen][:MAX_SAMPLES_SEARCHED]


def _warn_of_equal(ids: list[str], maps: list[np.ndarray], records: list[np.ndarray]) -> None:
    """Warns where predictions that differ have one record, which only one of them can be of."""
    for k, name in enumerate(ids):
        for j in range(k):
            if np.array_equal(records[j], records[k]) and not np.array_equal(maps[j], maps[k]):
                log.warning("the records of %s and %s are equal, their predictions are not: was a "
                            "record stored twice?", ids[j], name)  # fmt: skip
                return
