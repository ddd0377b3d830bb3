"""Sample ids: which can be used, and lists of them in files."""

import csv
import os
import re
from collections.abc import Sequence

from fwi_refine.errors import InputError
from fwi_refine.files import lines, open_text

# separators of folders, control characters but the tab, breaks of lines, bytes that are no text
_UNFIT = re.compile(r"[/\\\0-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
LONGEST = 220  # bytes of an id: a name has 255, and suffixes and temporary names come to 27


def check_id(name: str) -> str:
    """The id, if it can be a file name and a cell of a table.

    Raises InputError if it could leave its directory, breaks lines or steers a terminal, is no
    text, or is too long.
    """
    if name in ("", ".", "..") or _UNFIT.search(name):
        raise InputError(
            f"id {name!r} cannot be used: ids are file names, without '/', '\\', line breaks, "
            "control characters or bytes that are no text"
        )
    if len(name.encode()) > LONGEST:
        raise InputError(
            f"id {name[:20]!r}... of {len(name.encode())} bytes: expected at most {LONGEST}, as "
            "files are called after it"
        )
    return name


def read_ids(path: str | os.PathLike[str]) -> list[str]:
    """Ids from a text file with one a line, or from the column `id` of a CSV (a report is one).

    White space within and around an id belongs to it; lines of nothing else are left out.

    Parameters
    ----------
    path : path-like
        UTF-8 text, with or without a byte order mark.

    Returns
    -------
    list of str
        The ids, in their order.

    Raises
    ------
    InputError
        If the file cannot be read, is empty, or holds an id that is no file name.
    """
    try:
        with open_text(path) as file:
            rows = [row for row in csv.reader(lines(file, path)) if any(c.strip() for c in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        hint = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise InputError(f"{path}: cannot be read as a list of ids ({error}){hint}") from error
    column, header = 0, [cell.strip() for cell in rows[0]] if rows else []
    names = [name.lower() for name in header]
    if "id" in names:
        column = names.index("id")
        rows = rows[1:]
    elif len(header) > 1:
        raise InputError(f"{path}: found columns {header}, expected one called 'id'")
    else:
        _refuse_separator([row[0] for row in rows], path)
    ids = [row[column] if column < len(row) else "" for row in rows]
    if not ids:
        raise InputError(f"{path}: holds no ids")
    empty = next((k for k, name in enumerate(ids) if not name.strip()), None)
    if empty is not None:
        raise InputError(
            f"{path}: sample {empty + 1} has no id; whatever made the file may have known "
            "none: give it --ids too"
        )
    return [check_id(name) for name in ids]


def _refuse_separator(lines: Sequence[str], path: str | os.PathLike[str]) -> None:
    """Raises InputError for a table whose columns something other than a comma separates."""
    for mark, name in ((";", "';'"), ("\t", "a tab")):
        counts = {line.count(mark) for line in lines}
        if len(counts) == 1 and 0 not in counts:
            raise InputError(
                f"{path}: every line holds {name}, such as {lines[0]!r}; expected an id a line, or "
                "a table with commas and a column 'id'"
            )


def read_families(path: str | os.PathLike[str]) -> dict[str, str]:
    """Family of each id, from a CSV with the columns `id` and `family`.

    Raises InputError if it is no such file, or has an id twice.
    """
    found: dict[str, str] = {}
    try:
        with open_text(path) as file:
            reader = csv.DictReader(lines(file, path))
            found_names = [*(reader.fieldnames or ())]
            reader.fieldnames = [name.strip().lower() for name in found_names]
            missing = {"id", "family"} - set(reader.fieldnames)
            if missing:
                _refuse_separator([",".join(found_names)], path)
                raise InputError(f"{path}: found columns {found_names}, expected 'id' and 'family'")
            for row in reader:
                if row["id"] in found:
                    raise InputError(f"{path}: duplicate id {row['id']!r}, expected it once")
                found[row["id"]] = row["family"] or ""
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table of families ({error})") from error
    return found


def resolve_ids(
    own: Sequence[str] | None, listed: Sequence[str] | None, count: int, what: object
) -> list[str] | None:
    """Ids of some samples: their own, or those listed in a file; None where there are neither.

    Parameters
    ----------
    own, listed : sequence of str or None
        Ids that stand with the samples, and those of a list.
    count : int
        How many samples there are.
    what : object
        What they stand in, for messages.

    Raises
    ------
    InputError
        If the lists differ from one another or from the count.
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


def _first_without_partner(ids: Sequence[str], count: int) -> str:
    if len(ids) > count:
        text = f"the first id without a sample is {ids[count]!r} (number {count + 1})"
        if len(ids) == count + 1:
            text += f"; if the first line, {ids[0]!r}, is a heading, call it 'id'"
        return text
    return f"the first sample without an id is number {len(ids) + 1}"
