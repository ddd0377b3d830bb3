"""Opens what a command was given and finds which record belongs to which prediction."""

import logging
from dataclasses import dataclass

from fwi_refine import io
from fwi_refine.errors import InputError
from fwi_refine.survey import OPENFWI, Survey

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """Opened predictions and records, and the samples that are to be worked on."""

    predictions: object  # see io/predictions.py
    records: object  # see io/records.py
    pairs: list  # of io.Pair
    candidates: list  # (name, source, index in it of each prediction), the first is `predictions`
    survey: Survey = OPENFWI

    def samples(self):
        """Reads one sample after another: Iterator of io.Sample."""
        return io.read_samples(self.pairs, self.candidates, self.records, self.survey)

    def chunks(self, numbers, size):
        """Chunks of `size` samples, those of the given numbers: Iterator of batch.Chunk."""
        from fwi_refine.batch import Chunk

        for number in numbers:
            pairs = self.pairs[number * size : (number + 1) * size]
            planned = io.plan_samples(pairs, self.candidates, self.records, self.survey)
            yield Chunk(number, tuple(planned))


def open_inputs(
    predictions, records, ids_file=None, candidates=(), limit=None, shard=None, survey=OPENFWI
):
    """Raises InputError if any of it cannot be read, or does not belong together."""
    source = io.open_predictions(predictions, survey)
    ids = io.resolve_ids(source.ids, ids_file and io.read_ids(ids_file), source.count, predictions)
    opened = io.open_records(records, survey)
    pairs = io.pair(ids, source.count, opened)
    starts = [(str(predictions), source, range(source.count))]
    for path in candidates:
        other = io.open_predictions(path, survey)
        starts.append((str(path), other, places_in(other, source, ids)))
    log.info("%d predictions in %s, %d records in %s", source.count, predictions,
             len(opened.ids), records)  # fmt: skip
    unread = len(opened.ids) - sum(pair.record is not None for pair in pairs)
    if unread > 0:
        log.info("%d records have no prediction and are not read", unread)
    return Inputs(source, opened, select(pairs, limit, shard), starts, survey)


def load_survey(path) -> Survey:
    """The survey of a file, or OpenFWI's. Raises InputError."""
    from fwi_refine.survey_file import read_survey

    return OPENFWI if path is None else read_survey(path)


def load_priors(path):
    """The built-in priors, or those of a file. Raises InputError if it is none."""
    from fwi_refine.priors import load

    try:
        return load(path)
    except (OSError, ValueError) as error:
        raise InputError(f"--priors {path}: {error}") from error


def places_in(other, maps, ids):
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


def need_some(items, shard, what):
    """Raises InputError where a part of the samples holds none; what: they are called."""
    if not items:
        i, n = shard
        raise InputError(f"--shard {i}/{n}: no {what} in this part")


def select(items, limit, shard):
    """The part of a list that --shard and then --limit ask for."""
    if shard is not None:
        i, n = shard
        items = items[len(items) * (i - 1) // n : len(items) * i // n]
    return items[:limit]
