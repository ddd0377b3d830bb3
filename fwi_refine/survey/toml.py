"""Surveys in files: TOML, one section for each part of a survey.

    [grid]
    rows = 60               # depth
    columns = 120
    spacing = 12.5          # m, the same in depth and position

    [time]
    dt = 0.001              # s
    steps = 1500            # simulated, and used for the misfit
    file_rows = 1501        # time rows of a record file; may be left out: as many as steps

    [wavelet]
    kind = "ricker"         # may be left out
    frequency = 10.0        # Hz, of its peak
    # or another one, by its samples, one for each step:
    # file = "wavelet.npy"  # or .csv, beside this file; see wavelet_file.py
    # samples = [0.0, 0.1]  # the same in its place
    # frequency = 10.0      # of the peak of its spectrum; may be left out

    [[sources]]             # rows and columns of the map, counted from 0, row = depth
    row = 1
    first = 4               # columns 4, 20, ... 116
    last = 116
    step = 16               # may be left out: 1

    [[sources]]             # a well
    column = 60
    rows = [20, 30, 40]

    [receivers]             # of one line alone, single brackets
    positions = [[1, 0], [1, 5], [2, 9]]

    [absorbing]
    cells = 60              # width of the absorbing band on each side

    [velocity]
    slowest = 1400.0        # m/s: what counts as physical
    fastest = 5000.0

    [water]                 # may be left out: a layer whose cells are known
    rows = 12               # from the top of the map
    velocity = 1500.0       # m/s

Positions may lie in the absorbing band: rows and columns from -cells on. A Ricker wavelet begins
1.1 periods of its peak frequency before its peak, as in the data of OpenFWI; one of samples begins
with the record.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from fwi_refine.errors import InputError
from fwi_refine.files import LARGEST_WRITTEN, read_toml
from fwi_refine.survey.geometry import MAX_NUMBER, Points, Survey
from fwi_refine.survey.stability import DISPERSION_WARNING
from fwi_refine.survey.wavelet_file import peak_frequency, read_wavelet

SECTIONS = {
    "grid": ("rows", "columns", "spacing"),
    "time": ("dt", "steps", "file_rows"),
    "wavelet": ("kind", "frequency", "file", "samples"),
    "absorbing": ("cells",),
    "velocity": ("slowest", "fastest"),
    "water": ("rows", "velocity"),
}
OPTIONAL_SECTIONS = ("water",)
OPTIONAL_KEYS = ("time.file_rows", *(f"wavelet.{key}" for key in SECTIONS["wavelet"]))
POINTS = ("sources", "receivers")
LINE_KEYS = ("row", "rows", "column", "columns", "first", "last", "step", "positions")
MIN_CELLS = 4  # of a map, in depth and position

log = logging.getLogger(__name__)


def read_survey(path: str | PathLike[str]) -> Survey:
    """Read a survey from a TOML file, whose form stands above.

    Logs a warning where the waves travel more than 2 % too slowly on its grid.

    Parameters
    ----------
    path : str or PathLike
        The file.

    Returns
    -------
    Survey
        The survey.

    Raises
    ------
    InputError
        Naming file, key, what was found and what was expected, for a file that cannot be read,
        unknown or missing keys, values of another type or that are not possible, and for a survey
        that is unstable or too coarse.
    """
    path = Path(path)
    try:
        table = read_toml(path, LARGEST_WRITTEN)  # a message names its key
    except (OSError, ValueError) as error:
        raise InputError(f"survey {path}: cannot be read ({error})") from error
    try:
        survey = _survey(table, path.parent)
    except ValueError as error:
        raise InputError(f"survey {path}: {error}") from error
    if survey.dispersion > DISPERSION_WARNING:
        log.warning("survey %s: %s", path, survey.describe_dispersion())
    return survey


def survey_table(survey: Survey) -> dict[str, dict[str, Any]]:
    """The table that `read_survey` reads, for a TOML writer.

    Parameters
    ----------
    survey : Survey
        The survey.

    Returns
    -------
    dict
        From the names of sections to their keys and values.
    """
    (rows, columns), (slowest, fastest) = survey.shape, survey.velocity_bounds
    table: dict[str, dict[str, Any]] = {
        "grid": {"rows": rows, "columns": columns, "spacing": survey.spacing},
        "time": {"dt": survey.dt, "steps": survey.n_steps, "file_rows": survey.file_rows},
        "wavelet": _wavelet_table(survey),
        "sources": _as_line(survey.sources),
        "receivers": _as_line(survey.receivers),
        "absorbing": {"cells": survey.absorbing_cells},
        "velocity": {"slowest": slowest, "fastest": fastest},
    }
    if survey.water is not None:
        table["water"] = dict(zip(("rows", "velocity"), survey.water, strict=True))
    return table


def write_survey(survey: Survey, path: str | PathLike[str]) -> None:
    """Write a file that `read_survey` reads as an equal survey.

    Parameters
    ----------
    survey : Survey
        The survey.
    path : str or PathLike
        The file.

    Raises
    ------
    OSError
        For a file that cannot be written.
    """
    Path(path).write_text(tomli_w.dumps(survey_table(survey)), encoding="utf-8")


def _wavelet_table(survey: Survey) -> dict[str, Any]:
    if survey.given_wavelet is None:
        return {"kind": "ricker", "frequency": survey.frequency}
    samples = list(survey.given_wavelet)
    return {"kind": "samples", "samples": samples, "frequency": survey.frequency}


def _wavelet(table: dict[str, Any], dt: float, folder: Path) -> dict[str, Any]:
    """The arguments of `Survey` in a section [wavelet]."""
    given = [key for key in ("file", "samples") if key in table]
    kind = table.get("kind", "samples" if given else "ricker")
    if kind not in ("ricker", "samples"):
        raise ValueError(f"wavelet.kind is {kind!r}, expected 'ricker' or 'samples'")
    if len(given) != (kind == "samples"):
        found = " and ".join(given) or "neither"
        expected = "one of file and samples" if kind == "samples" else "neither file nor samples"
        raise ValueError(f"wavelet: found {found}, expected {expected} of kind {kind!r}")
    if kind == "ricker":
        if "frequency" not in table:
            raise ValueError("wavelet.frequency is missing")
        return {"frequency": _positive(table["frequency"], "wavelet.frequency")}
    samples = table[given[0]]
    if given == ["file"]:
        if not isinstance(samples, str):
            raise ValueError(f"wavelet.file is {samples!r}, expected the name of a file")
        values = read_wavelet(folder / samples, dt)
    elif isinstance(samples, list) and all(type(x) in (int, float) for x in samples):
        values = np.asarray(samples, np.float64)
    else:
        raise ValueError("wavelet.samples: expected a list of numbers")
    if not values.any():
        raise ValueError("wavelet.samples: found zeros only")
    if "frequency" in table:
        frequency = _positive(table["frequency"], "wavelet.frequency")
    else:
        frequency = peak_frequency(values, dt)
        if not frequency:
            raise ValueError("wavelet: its spectrum is largest at 0 Hz, expected its frequency")
    return {"given_wavelet": tuple(values.tolist()), "frequency": frequency}


def _survey(table: dict[str, Any], folder: Path = Path()) -> Survey:
    """Raises ValueError, without the name of the file."""
    unknown = [name for name in table if name not in SECTIONS and name not in POINTS]
    if unknown:
        known = ", ".join([*SECTIONS, *POINTS])
        raise ValueError(f"found {unknown[0]!r}, expected only the sections {known}")
    for name, keys in SECTIONS.items():
        if name in OPTIONAL_SECTIONS and name not in table:
            continue
        _check_keys(table.get(name), name, keys, f"a section [{name}]")
    time, velocity = table["time"], table["velocity"]
    dt = _positive(time["dt"], "time.dt")
    cells = _whole_number(table["absorbing"]["cells"], "absorbing.cells", 0)
    steps = _whole_number(time["steps"], "time.steps", 1)
    rows, columns = (
        _whole_number(table["grid"][key], f"grid.{key}", MIN_CELLS) for key in ("rows", "columns")
    )
    slowest, fastest = (
        _positive(velocity[key], f"velocity.{key}") for key in ("slowest", "fastest")
    )
    water = None
    if "water" in table:
        section = table["water"]
        depth = _whole_number(section["rows"], "water.rows", 1)
        water = depth, _positive(section["velocity"], "water.velocity")
    return Survey(
        shape=(rows, columns),
        spacing=_positive(table["grid"]["spacing"], "grid.spacing"),
        dt=dt,
        n_steps=steps,
        file_rows=_whole_number(time.get("file_rows", steps), "time.file_rows", steps),
        **_wavelet(table["wavelet"], dt, folder),
        absorbing_cells=cells,
        velocity_bounds=(slowest, fastest),
        sources=_positions(table.get("sources"), "sources", -cells),
        receivers=_positions(table.get("receivers"), "receivers", -cells),
        water=water,
    )


def _positions(value: Any, name: str, least: int) -> Points:
    """The positions of one line, or of several, one after the other."""
    lines = value if isinstance(value, list) else [value]
    found: list[tuple[int, int]] = []
    for i, line in enumerate(lines):
        where = f"{name}[{i}]" if isinstance(value, list) else name
        _check_keys(line, where, LINE_KEYS, f"a section [{name}]", needed=False)
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
            (_whole_number(row, name, least), _whole_number(column, name, least))
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
    place = _whole_number(line[fixed[0]], f"{where}.{fixed[0]}", least)
    numbers = _numbers(line, where, along, least)
    return [(place, n) if fixed == ["row"] else (n, place) for n in numbers]


def _numbers(line: dict[str, Any], where: str, along: str, least: int) -> Iterable[int]:
    """The rows or columns of a line."""
    if along in line:
        if not isinstance(line[along], list):
            raise ValueError(f"{where}.{along} is {line[along]!r}, expected a list of numbers")
        return [_whole_number(n, f"{where}.{along}[{i}]", least) for i, n in enumerate(line[along])]
    first = _whole_number(line["first"], f"{where}.first", least)
    last = _whole_number(line["last"], f"{where}.last", first)
    return range(first, last + 1, _whole_number(line.get("step", 1), f"{where}.step", 1))


def _as_line(points: Points) -> dict[str, Any]:
    """The shortest description of some positions."""
    (row, column), last = points[0], points[-1]
    step = points[1][1] - column if len(points) > 1 else 1
    if step > 0 and points == tuple((row, c) for c in range(column, last[1] + 1, step)):
        return {"row": row, "first": column, "last": last[1], "step": step}
    return {"positions": [[*point] for point in points]}


def _check_keys(
    section: Any, name: str, keys: Sequence[str], expected: str, needed: bool = True
) -> None:
    """Raises ValueError for what is no section, for unknown keys and for missing ones."""
    if not isinstance(section, dict):
        found = "is missing" if section is None else f"is {section!r}"
        raise ValueError(f"{name} {found}, expected {expected}")
    for key in section:
        if key not in keys:
            raise ValueError(f"{name}: found key {key!r}, expected only {', '.join(keys)}")
    for key in keys if needed else ():
        if key not in section and f"{name}.{key}" not in OPTIONAL_KEYS:
            raise ValueError(f"{name}.{key} is missing")


def _whole_number(value: Any, name: str, least: int) -> int:
    if type(value) is not int or not least <= value <= MAX_NUMBER:
        raise ValueError(f"{name} is {value!r}, expected a whole number of at least {least}")
    return value


def _positive(value: Any, name: str) -> float:
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"{name} is {value!r}, expected a number above 0")
    return number


def _other(line: dict[str, Any]) -> str:
    return next(key for key in line if key != "positions")
