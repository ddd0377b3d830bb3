"""The record that belongs to each prediction."""

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass

from fwi_refine.errors import InputError
from fwi_refine.io.order import Order
from fwi_refine.io.record_sources import Records


@dataclass(frozen=True)
class Pair:
    """One sample: which prediction and which record, or why there is no record for it.

    Attributes
    ----------
    index : int
        Index of the prediction.
    id : str
        Id of the sample.
    record : int or None
        Index of the record.
    problem : str or None
        Why the sample cannot be used.
    """

    index: int
    id: str
    record: int | None
    problem: str | None = None


def pair(
    prediction_ids: Sequence[str] | None,
    count: int,
    records: Records,
    order: Order | None = None,
) -> list[Pair]:
    """Which record belongs to each prediction.

    By id where the predictions have ids that the records know, by position otherwise. A
    duplicate id, or one that has no record, costs that sample alone.

    Parameters
    ----------
    prediction_ids : sequence of str or None
        Their ids, where they have any.
    count : int
        How many predictions there are.
    records : Records
        Opened records, see io/record_sources.py.
    order : Order or None
        That of the predictions, where it is one of files.

    Raises
    ------
    InputError
        Where both sides hold ids that the other lacks, where positions do not match, and where
        position alone has to decide but the order of files is in doubt.
    """
    record_ids = records.ids
    known = {name: k for k, name in enumerate(record_ids)}
    if prediction_ids is not None and (
        records.named or all(name in known for name in prediction_ids)
    ):
        return _pair_by_id(prediction_ids, record_ids, known, records)
    if count != len(record_ids):
        raise InputError(_count_mismatch(prediction_ids, count, record_ids, records))
    for one, what in ((records.order, f"records {records.path}"), (order, "predictions")):
        if one is not None:
            one.decided(what)
    ids = prediction_ids or record_ids
    repeated = {name for name, n in Counter(ids).items() if n > 1}
    return [
        Pair(k, name, k, _duplicate(name, ids) if name in repeated else None)
        for k, name in enumerate(ids)
    ]


def _pair_by_id(
    ids: Sequence[str], record_ids: Sequence[str], known: dict[str, int], records: Records
) -> list[Pair]:
    absent = [name for name in ids if name not in known]
    unused = set(record_ids).difference(ids) if absent else ()
    if absent and (unused or len(absent) == len(ids)):
        found = f"; a record without prediction is {min(unused)!r}" if unused else ""
        raise InputError(
            f"{len(ids)} predictions and {len(record_ids)} records in {records.path} do not have "
            f"the same ids: the first that differs is {absent[0]!r} (prediction number "
            f"{ids.index(absent[0]) + 1}), which has no record{found}{_meant(absent[0], known)}"
        )
    repeated = {name for name, n in Counter(ids).items() if n > 1}
    doubled = {name for name, n in Counter(record_ids).items() if n > 1}
    pairs = []
    for k, name in enumerate(ids):
        problem = None
        if name in repeated:
            problem = _duplicate(name, ids)
        elif name in doubled:
            problem = (
                f"{records.path}: found {record_ids.count(name)} records with the id {name!r}, "
                "expected one"
            )
        elif name not in known:
            problem = f"{records.path}: found no record with the id {name!r}, expected one"
        pairs.append(Pair(k, name, None if problem else known[name], problem))
    return pairs


def _meant(name: str, known: Container[str]) -> str:
    """A hint at an id that another spelling is meant for; empty where there is none."""
    plain = name.strip().strip("'\"").removesuffix(".npy")
    for other in (plain, plain.lower(), plain.upper()):
        if other != name and other in known:
            return f"; is {other!r} meant by {name!r}?"
    return ""


def _duplicate(name: str, ids: Sequence[str]) -> str:
    numbers = [str(k + 1) for k, other in enumerate(ids) if other == name]
    return (
        f"duplicate id {name!r}: found it at predictions number {', '.join(numbers)}, expected it "
        "once (which of them the record belongs to is not known)"
    )


def _count_mismatch(
    prediction_ids: Sequence[str] | None,
    count: int,
    record_ids: Sequence[str],
    records: Records,
) -> str:
    text = f"found {count} predictions and {len(record_ids)} records in {records.path}; "
    if count < len(record_ids):
        return (
            text + f"the first id that differs is {record_ids[count]!r}, record number "
            f"{count + 1}, which has no prediction"
        )
    first = len(record_ids)
    name = repr(prediction_ids[first]) if prediction_ids else f"that of prediction {first + 1}"
    return text + f"the first id that differs is {name}, which has no record"
