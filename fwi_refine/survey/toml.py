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
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from fwi_refine.errors import InputError
from fwi_refine.files import LARGEST_WRITTEN, read_toml
from fwi_refine.survey.geometry import Survey
from fwi_refine.survey.stability import DISPERSION_WARNING, describe_dispersion
from fwi_refine.survey.toml_positions import as_line, read_positions
from fwi_refine.survey.toml_values import check_keys, positive, whole_number
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
        grid = survey.velocity_bounds, survey.frequency, survey.spacing, survey.dt
        log.warning("survey %s: %s", path, describe_dispersion(*grid))
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
        "sources": as_line(survey.sources),
        "receivers": as_line(survey.receivers),
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
        return {"frequency": positive(table["frequency"], "wavelet.frequency")}
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
        frequency = positive(table["frequency"], "wavelet.frequency")
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
        needed = [key for key in keys if f"{name}.{key}" not in OPTIONAL_KEYS]
        check_keys(table.get(name), name, keys, f"a section [{name}]", needed)
    time, velocity = table["time"], table["velocity"]
    dt = positive(time["dt"], "time.dt")
    cells = whole_number(table["absorbing"]["cells"], "absorbing.cells", 0)
    steps = whole_number(time["steps"], "time.steps", 1)
    rows, columns = (
        whole_number(table["grid"][key], f"grid.{key}", MIN_CELLS) for key in ("rows", "columns")
    )
    slowest, fastest = (
        positive(velocity[key], f"velocity.{key}") for key in ("slowest", "fastest")
    )
    water = None
    if "water" in table:
        section = table["water"]
        depth = whole_number(section["rows"], "water.rows", 1)
        water = depth, positive(section["velocity"], "water.velocity")
    return Survey(
        shape=(rows, columns),
        spacing=positive(table["grid"]["spacing"], "grid.spacing"),
        dt=dt,
        n_steps=steps,
        file_rows=whole_number(time.get("file_rows", steps), "time.file_rows", steps),
        **_wavelet(table["wavelet"], dt, folder),
        absorbing_cells=cells,
        velocity_bounds=(slowest, fastest),
        sources=read_positions(table.get("sources"), "sources", -cells),
        receivers=read_positions(table.get("receivers"), "receivers", -cells),
        water=water,
    )
