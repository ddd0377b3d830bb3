"""Positions of sources and receivers in a survey's TOML file; for the form see toml.py."""

from collections.abc import Iterable
from typing import Any

from fwi_refine.survey.geometry import Points
from fwi_refine.survey.toml_values import check_keys, whole_number

LINE_KEYS = ("row", "rows", "column", "columns", "first", "last", "step", "positions")


def read_positions(value: Any, name: str, least: int) -> Points:
    """The positions of one line, or of several, one after the other.

    Parameters
    ----------
    value
        The section, or the list of its sections, as TOML gives it.
    name : str
        Of the section, for messages.
    least : int
        Smallest row and column: minus the cells of the absorbing band.

    Returns
    -------
    tuple of (int, int)
        Rows and columns.

    Raises
    ------
    ValueError
        Naming the key, what was found and what was expected.
    """
    lines = value if isinstance(value, list) else [value]
    found: list[tuple[int, int]] = []
    for i, line in enumerate(lines):
        where = f"{name}[{i}]" if isinstance(value, list) else name
        check_keys(line, where, LINE_KEYS, f"a section [{name}]")
        found += _of_line(line, where, least)
    if not found:
        raise ValueError(f"{name}: found no positions, expected at least one")
    return tuple(found)


def _of_line(line: dict[str, Any], where: str, least: int) -> list[tuple[int, int]]:
    """Positions of one line."""
    if "positions" in line:
        if len(line) > 1:
            raise ValueError(f"{where}: found positions and {_other(line)}, expected one of them")
        pairs = line["positions"]
        if not isinstance(pairs, list) or not all(
            isinstance(pair, list) and len(pair) == 2 for pair in pairs
        ):
            raise ValueError(f"{where}.positions is {pairs!r}, expected [[row, column], ...]")
        names = [f"{where}.positions[{i}]" for i in range(len(pairs))]
        return [
            (whole_number(row, name, least), whole_number(column, name, least))
            for (row, column), name in zip(pairs, names, strict=True)
        ]
    fixed = [key for key in ("row", "column") if key in line]
    if len(fixed) != 1:
        raise ValueError(
            f"{where}: found the keys {', '.join(line) or 'none'}, expected positions; or a row, "
            "and columns or first, last and step; or a column, and rows or first, last and step"
        )
    along = "columns" if fixed == ["row"] else "rows"
    allowed = {*fixed, along} if along in line else {*fixed, "first", "last", "step"}
    wrong = [key for key in line if key not in allowed]
    missing = [] if along in line else [key for key in ("first", "last") if key not in line]
    if wrong or missing:
        found = f"found {wrong[0]!r}" if wrong else f"{missing[0]!r} is missing"
        raise ValueError(
            f"{where}: {found}; with {fixed[0]}, expected {along}, or first, last and step"
        )
    place = whole_number(line[fixed[0]], f"{where}.{fixed[0]}", least)
    numbers = _numbers(line, where, along, least)
    return [(place, n) if fixed == ["row"] else (n, place) for n in numbers]


def _numbers(line: dict[str, Any], where: str, along: str, least: int) -> Iterable[int]:
    """The rows or columns of a line."""
    if along in line:
        if not isinstance(line[along], list):
            raise ValueError(f"{where}.{along} is {line[along]!r}, expected a list of numbers")
        return [whole_number(n, f"{where}.{along}[{i}]", least) for i, n in enumerate(line[along])]
    first = whole_number(line["first"], f"{where}.first", least)
    last = whole_number(line["last"], f"{where}.last", first)
    return range(first, last + 1, whole_number(line.get("step", 1), f"{where}.step", 1))


def as_line(points: Points) -> dict[str, Any]:
    """The shortest section that `read_positions` reads as these positions."""
    (row, column), last = points[0], points[-1]
    step = points[1][1] - column if len(points) > 1 else 1
    if step > 0 and points == tuple((row, c) for c in range(column, last[1] + 1, step)):
        return {"row": row, "first": column, "last": last[1], "step": step}
    return {"positions": [[*point] for point in points]}


def _other(line: dict[str, Any]) -> str:
    return next(key for key in line if key != "positions")
