"""Checked values of a survey's TOML file: messages name the key, what was found and expected."""

import math
from collections.abc import Collection, Sequence
from typing import Any

from fwi_refine.survey.geometry import MAX_NUMBER


def check_keys(
    section: Any, name: str, keys: Sequence[str], expected: str, needed: Collection[str] = ()
) -> None:
    """Raises ValueError for what is no section, for unknown keys and for missing ones."""
    if not isinstance(section, dict):
        found = "is missing" if section is None else f"is {section!r}"
        raise ValueError(f"{name} {found}, expected {expected}")
    for key in section:
        if key not in keys:
            raise ValueError(f"{name}: found key {key!r}, expected only {', '.join(keys)}")
    for key in needed:
        if key not in section:
            raise ValueError(f"{name}.{key} is missing")


def whole_number(value: Any, name: str, least: int) -> int:
    """A whole number of at least `least`. Raises ValueError for another value."""
    if type(value) is not int or not least <= value <= MAX_NUMBER:
        raise ValueError(f"{name} is {value!r}, expected a whole number of at least {least}")
    return value


def positive(value: Any, name: str) -> float:
    """A finite number above 0. Raises ValueError for another value."""
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"{name} is {value!r}, expected a number above 0")
    return number
