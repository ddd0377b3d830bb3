"""Opens what a command was given and finds which record belongs to which prediction."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fwi_refine.errors import InputError
from fwi_refine.io.convert import (
    AS_THEY_ARE,
    Conversion,
    ConvertedPredictions,
    ConvertedRecords,
    TrueMaps,
)
from fwi_refine.io.ids import read_families, read_ids, resolve_ids
from fwi_refine.io.order import check_listed
from fwi_refine.io.pairing import Pair, pair
from fwi_refine.io.predictions import Predictions, open_predictions
from fwi_refine.io.record_sources import Records
from fwi_refine.io.records import open_records
from fwi_refine.io.samples import Candidate, Chunk, Sample, plan_samples, read_samples
from fwi_refine.survey import OPENFWI, Survey

AUTO = "auto"  # in place of a file of families: told from the map and its record

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """Opened predictions and records, and the samples that are to be worked on.

    Attributes
    ----------
    predictions : Predictions
        The maps that are refined.
    records : Records
        Their records.
    pairs : list of Pair
        Which record belongs to which map, of the samples that are to be worked on.
    candidates : list of Candidate
        What samples may start from; the first is `predictions`.
    survey : Survey
        What maps and records have to fit.
    """

    predictions: Predictions
    records: Records
    pairs: list[Pair]
    candidates: list[Candidate]
    survey: Survey = OPENFWI
    conversion: Conversion = AS_THEY_ARE  # of predictions, candidates and records

    def samples(self) -> Iterator[Sample]:
        """Reads one sample after another."""
        return read_samples(self.pairs, self.candidates, self.records, self.survey)

    def tasks(self, indices: Iterable[Sequence[int]]) -> Iterator[Chunk]:
        """A chunk for each list of indices in `pairs`, numbered from 0."""
        for number, chosen in enumerate(indices):
            pairs = [self.pairs[index] for index in chosen]
            planned = plan_samples(pairs, self.candidates, self.records, self.survey)
            yield Chunk(number, tuple(planned))


def open_inputs(
    predictions: str | os.PathLike[str],
    records: str | os.PathLike[str],
    ids_file: str | os.PathLike[str] | None = None,
    candidates: Iterable[Path] = (),
    limit: int | None = None,
    shard: tuple[int, int] | None = None,
    survey: Survey = OPENFWI,
    conversion: Conversion = AS_THEY_ARE,
) -> Inputs:
    """Opens predictions and records and finds which belong to each other.

    Parameters
    ----------
    predictions, records : path-like
        In any form of io/predictions.py and io/records.py.
    ids_file : path-like, optional
        Ids of the predictions, see `read_ids`.
    candidates : iterable of Path
        Other predictions of the same samples.
    limit : int, optional
        Only the first samples.
    shard : (int, int), optional
        Only part i of n, counted from 1.
    survey : Survey
        What maps and records have to fit.
    conversion : Conversion
        How predictions, candidates and records are stored.

    Raises
    ------
    InputError
        If any of it cannot be read, or does not match.
    MachineError
        If the machine cannot read it.
    """
    source = open_converted_predictions(predictions, survey, conversion)
    listed = None if ids_file is None else read_ids(ids_file)
    ids = resolve_ids(source.ids, listed, source.count, predictions)
    opened = open_converted_records(records, survey, conversion)
    pairs = pair(ids, source.count, opened, getattr(source, "order", None))
    starts: list[Candidate] = [(str(predictions), source, range(source.count))]
    for path in candidates:
        other = open_converted_predictions(path, survey, conversion)
        starts.append((str(path), other, indices_in(other, source, ids)))
    log.info("%d predictions in %s, %d records in %s", source.count, predictions,
             len(opened.ids), records)  # fmt: skip
    unread = len(opened.ids) - sum(pair.record is not None for pair in pairs)
    if unread > 0:
        log.info("%d records have no prediction and are not read", unread)
    return Inputs(source, opened, [*select(pairs, limit, shard)], starts, survey, conversion)


def open_converted_predictions(
    path: str | os.PathLike[str], survey: Survey = OPENFWI, conversion: Conversion = AS_THEY_ARE
) -> Predictions:
    """Predicted maps, in m/s as they are read.

    Parameters
    ----------
    path : str or PathLike
        Where they are.
    survey : Survey
        Theirs.
    conversion : Conversion
        From what is stored.

    Returns
    -------
    Predictions

    Raises
    ------
    InputError
        For what cannot be opened, or is none.
    """
    source = open_predictions(path, conversion.stored_survey(survey))
    return source if conversion == AS_THEY_ARE else ConvertedPredictions(source, conversion)


def open_true_maps(
    path: str | os.PathLike[str], survey: Survey = OPENFWI, conversion: Conversion = AS_THEY_ARE
) -> Predictions:
    """True maps, in m/s as they are read, also where they have the units of the predictions.

    Parameters
    ----------
    path, survey
        As for `open_converted_predictions`.
    conversion : Conversion
        That of the predictions.

    Returns
    -------
    Predictions
        See `convert.true_velocity`.

    Raises
    ------
    InputError
        As `open_converted_predictions` does.
    """
    source = open_predictions(path, survey)
    return source if conversion == AS_THEY_ARE else TrueMaps(source, conversion, survey)


def open_converted_records(
    path: str | os.PathLike[str], survey: Survey = OPENFWI, conversion: Conversion = AS_THEY_ARE
) -> Records:
    """Records, in their own units as they are read.

    Parameters
    ----------
    path, survey, conversion
        As for `open_converted_predictions`.

    Returns
    -------
    Records
        An opened source.

    Raises
    ------
    InputError
        As `open_converted_predictions` does.
    """
    source = open_records(path, survey)
    return source if conversion == AS_THEY_ARE else ConvertedRecords(source, conversion, survey)


def indices_in(
    other: Predictions,
    maps: Predictions,
    ids: Sequence[str] | None,
    other_ids: Sequence[str] | None = None,
) -> Sequence[int]:
    """Index in `other` of each of `maps`: by id where both have ids, else by position.

    Parameters
    ----------
    other, maps : Predictions
        Maps of the same samples.
    ids : sequence of str or None
        Of `maps`.
    other_ids : sequence of str, optional
        Of `other`, where it has none of its own.

    Raises
    ------
    InputError
        If the counts or the ids do not match, or the order of files is in doubt.
    """
    other_ids = resolve_ids(other.ids, other_ids, other.count, other.path)
    counts = f"found {other.count} maps in {other.path} and {maps.count} in {maps.path}"
    if ids is not None and other_ids is not None:
        known = {name: k for k, name in enumerate(other_ids)}
        absent = next((name for name in ids if name not in known), None)
        if absent is not None:
            raise InputError(
                f"{counts}; the first id that differs is {absent!r}, which {other.path} does not "
                "hold"
            )
        return [known[name] for name in ids]
    if other.count != maps.count:
        first = min(other.count, maps.count)
        names = ids or other_ids
        name = repr(names[first]) if names and first < len(names) else f"number {first + 1}"
        raise InputError(f"{counts}, expected as many; the first that differs is {name}")
    for source in (other, maps):
        if (order := getattr(source, "order", None)) is not None:
            order.decided(str(source.path))
    return range(maps.count)


def select(items: Sequence[T], limit: int | None, shard: tuple[int, int] | None) -> Sequence[T]:
    """The part of a list that --shard and then --limit ask for.

    Parameters
    ----------
    items : sequence
        All of it.
    limit : int or None
        How many at most, from the first on.
    shard : (int, int) or None
        (i, n) for part i of n, i from 1.

    Returns
    -------
    sequence
        Of the type of `items`.
    """
    if shard is not None:
        i, n = shard
        items = items[len(items) * (i - 1) // n : len(items) * i // n]
    return items[:limit]


def known_families(
    path: str | os.PathLike[str], names: Sequence[str] | None, count: int
) -> list[str]:
    """Family of each map: by id, by position where the maps have no ids.

    Parameters
    ----------
    path : path-like
        See `read_families`.
    names : sequence of str or None
        Ids of the maps.
    count : int
        How many maps there are.

    Raises
    ------
    InputError
        If a family is missing, or only position decides and that of the table is in doubt.
    """
    table = read_families(path)
    if names is not None:
        absent = [name for name in names if name not in table]
        if absent:
            raise InputError(f"--families {path}: has no family for {absent[0]!r}")
        return [table[name] for name in names]
    if len(table) != count:
        raise InputError(
            f"--families {path}: found {len(table)} families for {count} maps without ids; give "
            "their ids with --ids"
        )
    check_listed([*table], f"--families {path}")
    return list(table.values())
