"""Sample ids: reading a list of them, and finding the record that belongs to each prediction."""

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fwi_refine.errors import InputError


@dataclass(frozen=True)
class Pair:
    """One sample: which prediction and which record, or why there is no record for it."""

    index: int  # of the prediction
    id: str
    record: int | None  # index of the record
    problem: str | None = None


def check_id(name) -> str:
    """The id, if it can be a file name. Raises InputError if it could leave its directory."""
    if not name or name in (".", "..") or any(c in name for c in "/\\\0\n\r"):
        raise InputError(
            f"id {name!r} cannot be used: ids are file names, without '/', '\\' or line breaks"
        )
    return name


def read_ids(path) -> list[str]:
    """Ids from a text file with one a line, or from the column `id` of a CSV (a report is one).

    Raises InputError if the file cannot be read, is empty, or holds an id that is no file name.
    """
    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a list of ids ({error})") from error
    column = 0
    if rows and "id" in rows[0]:
        column = rows[0].index("id")
        rows = rows[1:]
    elif rows and len(rows[0]) > 1:
        raise InputError(f"{path}: found columns {rows[0]}, expected one called 'id'")
    ids = [row[column] if column < len(row) else "" for row in rows]
    if not ids:
        raise InputError(f"{path}: holds no ids")
    if "" in ids:
        raise InputError(
            f"{path}: sample {ids.index('') + 1} has no id; whatever made the file may have known "
            "none: give it --ids too"
        )
    return [check_id(name) for name in ids]


def read_families(path) -> dict[str, str]:
    """Family of each id, from a CSV with the columns `id` and `family`. Raises InputError."""
    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = {"id", "family"} - set(reader.fieldnames or ())
            if missing:
                raise InputError(
                    f"{path}: found columns {reader.fieldnames}, expected 'id' and 'family'"
                )
            return {row["id"]: row["family"] or "" for row in reader}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table of families ({error})") from error


def resolve_ids(own, listed, count, what) -> list[str] | None:
    """Ids of `count` samples: their own, or those listed in a file; None where there are neither.

    Raises InputError if the lists differ from one another or from the count.
    """
    for ids, source in ((own, f"the ids in {what}"), (listed, "the list of ids")):
        if ids is not None and len(ids) != count:
            raise InputError(
                f"{source} holds {len(ids)} ids, but {what} holds {count} samples; "
                f"{_first_without_partner(ids, count)}"
            )
    if own is not None and listed is not None and list(own) != list(listed):
        k = next(k for k, (a, b) in enumerate(zip(own, listed, strict=True)) if a != b)
        raise InputError(
            f"the list of ids ({len(listed)}) and {what} ({len(own)}) differ: the first that "
            f"differs is number {k + 1}, {listed[k]!r} against {own[k]!r}"
        )
    ids = own if own is not None else listed
    return None if ids is None else [check_id(name) for name in ids]


def _first_without_partner(ids, count):
    if len(ids) > count:
        return f"the first id without a sample is {ids[count]!r} (number {count + 1})"
    return f"the first sample without an id is number {len(ids) + 1}"


def pair(prediction_ids, count, records) -> list[Pair]:
    """Which record belongs to each of `count` predictions.

    By id where the predictions have ids that the records know, by position otherwise. A
    duplicate id, or one that has no record, costs that sample alone; where both sides hold ids
    that the other lacks, or where positions do not match, InputError is raised.
    """
    record_ids = records.ids
    known = {name: k for k, name in enumerate(record_ids)}
    by_id = prediction_ids is not None and (
        records.named or all(name in known for name in prediction_ids)
    )
    if by_id:
        return _pair_by_id(prediction_ids, record_ids, known, records)
    if count != len(record_ids):
        raise InputError(_count_mismatch(prediction_ids, count, record_ids, records))
    ids = prediction_ids or record_ids
    repeated = {name for name, n in Counter(ids).items() if n > 1}
    return [
        Pair(k, name, k, _duplicate(name, ids) if name in repeated else None)
        for k, name in enumerate(ids)
    ]


def _pair_by_id(ids, record_ids, known, records) -> list[Pair]:
    absent = [name for name in ids if name not in known]
    unused = set(record_ids).difference(ids) if absent else ()
    if absent and (unused or len(absent) == len(ids)):
        found = f"; a record without prediction is {min(unused)!r}" if unused else ""
        raise InputError(
            f"{len(ids)} predictions and {len(record_ids)} records in {records.path} do not have "
            f"the same ids: the first that differs is {absent[0]!r} (prediction number "
            f"{ids.index(absent[0]) + 1}), which has no record{found}"
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


def _duplicate(name, ids) -> str:
    numbers = [str(k + 1) for k, other in enumerate(ids) if other == name]
    return (
        f"duplicate id {name!r}: found it at predictions number {', '.join(numbers)}, expected it "
        "once (which of them the record belongs to is not known)"
    )


def _count_mismatch(prediction_ids, count, record_ids, records) -> str:
    text = f"found {count} predictions and {len(record_ids)} records in {records.path}; "
    if count < len(record_ids):
        return (
            text + f"the first id that differs is {record_ids[count]!r}, record number "
            f"{count + 1}, which has no prediction"
        )
    first = len(record_ids)
    name = repr(prediction_ids[first]) if prediction_ids else f"that of prediction {first + 1}"
    return text + f"the first id that differs is {name}, which has no record"
