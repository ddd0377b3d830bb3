"""Opens what a command was given and finds which record belongs to which prediction."""

import logging
from dataclasses import dataclass

from fwi_refine.errors import InputError
from fwi_refine.io.convert import (
    AS_THEY_ARE,
    Conversion,
    ConvertedPredictions,
    ConvertedRecords,
)
from fwi_refine.io.ids import pair, read_families, read_ids, resolve_ids
from fwi_refine.io.predictions import open_predictions
from fwi_refine.io.records import open_records
from fwi_refine.io.samples import Chunk, plan_samples, read_samples
from fwi_refine.survey import OPENFWI, Survey

AUTO = "auto"  # in place of a file of families: told from the map and its record

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """Opened predictions and records, and the samples that are to be worked on."""

    predictions: object  # see io/predictions.py
    records: object  # see io/records.py
    pairs: list  # of io.Pair
    candidates: list  # (name, source, index in it of each prediction), the first is `predictions`
    survey: Survey = OPENFWI
    conversion: Conversion = AS_THEY_ARE  # of predictions, candidates and records

    def samples(self):
        """Reads one sample after another: Iterator of io.Sample."""
        return read_samples(self.pairs, self.candidates, self.records, self.survey)

    def chunks(self, numbers, size):
        """Chunks of `size` samples, those of the given numbers: Iterator of Chunk."""
        for number in numbers:
            pairs = self.pairs[number * size : (number + 1) * size]
            planned = plan_samples(pairs, self.candidates, self.records, self.survey)
            yield Chunk(number, tuple(planned))


def open_inputs(
    predictions,
    records,
    ids_file=None,
    candidates=(),
    limit=None,
    shard=None,
    survey=OPENFWI,
    conversion=AS_THEY_ARE,
):
    """Raises InputError if any of it cannot be read, or does not match."""
    source = open_converted_predictions(predictions, survey, conversion)
    ids = resolve_ids(source.ids, ids_file and read_ids(ids_file), source.count, predictions)
    opened = open_converted_records(records, survey, conversion)
    pairs = pair(ids, source.count, opened)
    starts = [(str(predictions), source, range(source.count))]
    for path in candidates:
        other = open_converted_predictions(path, survey, conversion)
        starts.append((str(path), other, indices_in(other, source, ids)))
    log.info("%d predictions in %s, %d records in %s", source.count, predictions,
             len(opened.ids), records)  # fmt: skip
    unread = len(opened.ids) - sum(pair.record is not None for pair in pairs)
    if unread > 0:
        log.info("%d records have no prediction and are not read", unread)
    return Inputs(source, opened, select(pairs, limit, shard), starts, survey, conversion)


def open_converted_predictions(path, survey=OPENFWI, conversion=AS_THEY_ARE):
    """The maps at `path`, in m/s. Raises InputError."""
    source = open_predictions(path, conversion.stored_survey(survey))
    return source if conversion == AS_THEY_ARE else ConvertedPredictions(source, conversion)


def open_converted_records(path, survey=OPENFWI, conversion=AS_THEY_ARE):
    """The records at `path`, in their own units. Raises InputError."""
    source = open_records(path, survey)
    return source if conversion == AS_THEY_ARE else ConvertedRecords(source, conversion)


def indices_in(other, maps, ids):
    """Index in `other` of each of `maps`: by id where both have ids, else by position.

    ids: of `maps`, or None. Raises InputError if the counts or the ids do not match.
    """
    counts = f"found {other.count} maps in {other.path} and {maps.count} in {maps.path}"
    if ids is not None and other.ids is not None:
        known = {name: k for k, name in enumerate(other.ids)}
        absent = next((name for name in ids if name not in known), None)
        if absent is not None:
            raise InputError(
                f"{counts}; the first id that differs is {absent!r}, which {other.path} does not "
                "hold"
            )
        return [known[name] for name in ids]
    if other.count != maps.count:
        first = min(other.count, maps.count)
        names = ids or other.ids
        name = repr(names[first]) if names and first < len(names) else f"number {first + 1}"
        raise InputError(f"{counts}, expected as many; the first that differs is {name}")
    return range(maps.count)


def select(items, limit, shard):
    """The part of a list that --shard and then --limit ask for."""
    if shard is not None:
        i, n = shard
        items = items[len(items) * (i - 1) // n : len(items) * i // n]
    return items[:limit]


def known_families(path, names, count):
    """Family of each map; by position where the maps have no ids. Raises InputError."""
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
    return list(table.values())
