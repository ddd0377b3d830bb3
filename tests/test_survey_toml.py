"""Surveys in TOML files: what is written is read, and every mistake is named."""

import contextlib
import copy
import logging
import tomllib

import pytest
import tomli_w
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fwi_refine.errors import InputError
from fwi_refine.survey import OPENFWI, Survey, toml
from fwi_refine.survey.toml import read_survey, survey_table, write_survey

TABLE = {
    "grid": {"rows": 30, "columns": 50, "spacing": 12.5},
    "time": {"dt": 0.001, "steps": 700, "file_rows": 701},
    "wavelet": {"kind": "ricker", "frequency": 10.0},
    "sources": [{"row": 1, "first": 4, "last": 40, "step": 18}, {"column": 45, "rows": [20, 5]}],
    "receivers": {"positions": [[1, 0], [-3, 52]]},
    "absorbing": {"cells": 40},
    "velocity": {"slowest": 1400.0, "fastest": 5000},
    "water": {"rows": 3, "velocity": 1500},
}
SURVEY = Survey(
    shape=(30, 50),
    spacing=12.5,
    n_steps=700,
    file_rows=701,
    frequency=10.0,
    absorbing_cells=40,
    sources=((1, 4), (1, 22), (1, 40), (20, 45), (5, 45)),
    receivers=((1, 0), (-3, 52)),
    velocity_bounds=(1400.0, 5000.0),
    water=(3, 1500.0),
)


def read(folder, table):
    path = folder / "survey.toml"
    path.write_text(table if isinstance(table, str) else tomli_w.dumps(table))
    return read_survey(path)


def changed(key, value):
    """TABLE with one value of a path such as grid.rows or sources.0.step in place, or without."""
    table = copy.deepcopy(TABLE)
    *path, last = (int(part) if part.isdigit() else part for part in key.split("."))
    inner = table
    for part in path:
        inner = inner[part]
    if value is None:
        inner.pop(last, None)  # of two ways to say the wavelet one is there
    else:
        inner[last] = value
    return table


def test_a_file_is_read_as_its_survey(tmp_path):
    assert read(tmp_path, TABLE) == SURVEY


def test_the_example_of_the_documentation(tmp_path):
    text = "\n".join(line[4:] for line in toml.__doc__.splitlines() if line.startswith("    "))
    survey = read(tmp_path, text)
    assert survey.shape == (60, 120)
    assert survey.sources[:2] == ((1, 4), (1, 20))
    assert survey.sources[-4:] == ((1, 116), (20, 60), (30, 60), (40, 60))
    assert survey.receivers == ((1, 0), (1, 5), (2, 9))


def test_what_may_be_left_out(tmp_path):
    for key in ("time.file_rows", "wavelet.kind", "sources.0.step"):
        survey = read(tmp_path, changed(key, None))
        assert survey.file_rows == (700 if key == "time.file_rows" else 701)
        assert len(survey.sources) == (39 if key == "sources.0.step" else 5)
    assert read(tmp_path, changed("water", None)).water is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"row": 2, "columns": [7, 3]}, ((2, 7), (2, 3))),
        ({"row": 2, "first": 3, "last": 8, "step": 2}, ((2, 3), (2, 5), (2, 7))),
        ({"column": 2, "rows": [7]}, ((7, 2),)),
        ({"column": -1, "first": 3, "last": 4}, ((3, -1), (4, -1))),
        ({"positions": [[29, 49]]}, ((29, 49),)),
        ([{"positions": [[1, 1]]}, {"positions": [[1, 1]]}], ((1, 1), (1, 1))),
    ],
)
def test_forms_of_positions(tmp_path, line, expected):
    assert read(tmp_path, changed("receivers", line)).receivers == expected


@pytest.mark.parametrize("survey", [OPENFWI, SURVEY])
def test_what_is_written_is_read_again(tmp_path, survey):
    write_survey(survey, tmp_path / "s.toml")
    assert read_survey(tmp_path / "s.toml") == survey


def test_a_row_is_written_as_one():
    assert survey_table(OPENFWI)["receivers"] == {"row": 1, "first": 0, "last": 69, "step": 1}
    assert "positions" in survey_table(OPENFWI)["sources"]


points = st.lists(st.tuples(st.integers(-9, 20), st.integers(-9, 30)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(12, 40),
    columns=st.integers(22, 50),
    scale=st.floats(1e-3, 1e3),
    steps=st.integers(1, 3000),
    more=st.integers(0, 10),
    sources=points,
    receivers=points,
    cells=st.integers(20, 60),
)
def test_any_survey_is_read_as_it_was_written(
    tmp_path_factory, rows, columns, scale, steps, more, sources, receivers, cells
):
    survey = Survey(
        shape=(rows, columns),
        spacing=10 * scale,
        dt=1e-3 * scale,
        n_steps=steps,
        file_rows=steps + more,
        frequency=15 / scale,
        absorbing_cells=cells,
        sources=tuple(sources),
        receivers=tuple(receivers),
        velocity_bounds=(1000.0, 4500.0),
    )
    path = tmp_path_factory.mktemp("s") / "s.toml"
    write_survey(survey, path)
    assert read_survey(path) == survey


WRONG = [
    ("grid", None, "grid is missing, expected a section [grid]"),
    ("grid", 3, "grid is 3, expected a section [grid]"),
    ("grids", {}, "found 'grids', expected only the sections grid, time, wavelet, absorbing"),
    ("grid.rows", None, "grid.rows is missing"),
    ("grid.depth", 3, "grid: found key 'depth', expected only rows, columns, spacing"),
    ("grid.rows", 3, "grid.rows is 3, expected a whole number of at least 4"),
    ("grid.rows", 30.0, "grid.rows is 30.0, expected a whole number"),
    ("grid.rows", True, "grid.rows is True, expected a whole number"),
    ("grid.columns", "50", "grid.columns is '50', expected a whole number"),
    ("grid.columns", 10**9, "grid.columns is 1000000000, expected a whole number"),
    ("grid.spacing", "10 m", "grid.spacing is '10 m', expected a number above 0"),
    ("grid.spacing", 0, "grid.spacing is 0, expected a number above 0"),
    ("grid.spacing", 10**400, "expected a number above 0"),
    ("time.dt", float("nan"), "time.dt is nan, expected a number above 0"),
    ("time.dt", True, "time.dt is True, expected a number above 0"),
    ("time.dt", 0.002, "velocity bound 5000.0 m/s is unstable"),
    ("time.steps", 0, "time.steps is 0, expected a whole number of at least 1"),
    ("time.file_rows", 699, "time.file_rows is 699, expected a whole number of at least 700"),
    ("wavelet.kind", "gauss", "wavelet.kind is 'gauss', expected 'ricker'"),
    ("wavelet.frequency", -10, "wavelet.frequency is -10, expected a number above 0"),
    ("wavelet.frequency", 25.0, "the grid is too coarse"),
    ("sources", None, "sources is missing, expected a section [sources]"),
    ("sources", 3, "sources is 3, expected a section [sources]"),
    ("sources", [], "sources: found no positions, expected at least one"),
    ("sources", [3], "sources[0] is 3"),
    ("sources.1.row", 3, "sources[1]: found the keys column, rows, row, expected positions; or"),
    ("sources.0.row", None, "sources[0]: found the keys first, last, step, expected positions"),
    ("sources.0.rows", [3], "sources[0]: found 'rows'; with row, expected columns, or first, last"),
    ("sources.0.columns", [3], "sources[0]: found 'first'; with row"),
    ("sources.0.last", None, "sources[0]: 'last' is missing; with row"),
    ("sources.0.last", 3, "sources[0].last is 3, expected a whole number of at least 4"),
    ("sources.0.step", 0, "sources[0].step is 0, expected a whole number of at least 1"),
    ("sources.0.depth", 1, "sources[0]: found key 'depth', expected only row"),
    ("sources.1.rows", 3, "sources[1].rows is 3, expected a list of numbers"),
    ("sources.1.rows", [3, 4.5], "sources[1].rows[1] is 4.5, expected a whole number"),
    ("sources.1.column", 95, "source at row 20, column 95 lies outside the padded grid"),
    ("receivers.positions", [], "receivers: found no positions"),
    ("receivers.positions", [[1, 2, 3]], "receivers.positions is [[1, 2, 3]], expected [[row"),
    ("receivers.positions", [[1, 2], [1, "b"]], "receivers.positions[1] is 'b'"),
    (
        "receivers.positions",
        [[1, -41]],
        "receivers.positions[0] is -41, expected a whole number of",
    ),
    ("receivers.row", 1, "receivers: found positions and row, expected one of them"),
    ("absorbing.cells", -1, "absorbing.cells is -1, expected a whole number of at least 0"),
    ("absorbing.cells", 5, "dt 0.001 s and 5 absorbing cells the scheme is stable up to 4814 m/s"),
    ("velocity.slowest", 6000, "velocity bounds are 6000.0 and 5000.0 m/s"),
    ("velocity.fastest", 8000, "velocity bound 8000.0 m/s is unstable"),
    ("velocity.fastest", 7600, "stable up to 7284 m/s. Expected dt of at most"),
]


@pytest.mark.parametrize(("key", "value", "expected"), WRONG, ids=[f"{k}={v}" for k, v, _ in WRONG])
def test_every_mistake_is_named(tmp_path, key, value, expected):
    with pytest.raises(InputError) as error:
        read(tmp_path, changed(key, value))
    assert str(error.value).startswith(f"survey {tmp_path / 'survey.toml'}: ")
    assert expected in str(error.value)


@pytest.mark.parametrize("text", ["grid = [", "\0", "a = 1\na = 2", "[" * 5000, "x = '\ud800'"])
def test_what_is_no_toml(tmp_path, text):
    (tmp_path / "s.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match="cannot be read"):
        read_survey(tmp_path / "s.toml")


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_what_is_no_file(tmp_path, name):
    with pytest.raises(InputError, match="cannot be read"):
        read_survey(tmp_path / name)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2000) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=5,
)
paths = st.sampled_from(
    [f"{a}.{b}" for a, keys in toml.SECTIONS.items() for b in keys]
    + ["sources", "receivers", "grid", "sources.0.row", "sources.1.rows", "receivers.positions"]
)


@settings(max_examples=200, deadline=None)
@given(key=paths, value=values)
@example(key="wavelet.frequency", value=1.9e-281)
@example(key="wavelet.frequency", value=3.5e307)
@example(key="velocity.slowest", value=3.6e-189)
@example(key="velocity.slowest", value=5e-324)
def test_whatever_stands_there_is_read_or_refused(key, value):
    """No other error than ValueError, which the reader turns into one that names the file."""
    table = changed(key, value)
    with contextlib.suppress(ValueError):
        survey = toml._survey(table)
        assert survey == toml._survey(copy.deepcopy(table))
        assert 0 not in survey.file_shape
        assert hash(survey)


def test_dispersion_is_warned_of(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        read(tmp_path, TABLE)
        assert not caplog.records
        read(tmp_path, changed("velocity.slowest", 780.0))
    assert "at 780 m/s" in caplog.text
    assert "2.2% wrong" in caplog.text


def test_openfwi_as_a_file_brings_no_warning(tmp_path, caplog):
    write_survey(OPENFWI, tmp_path / "s.toml")
    with caplog.at_level(logging.WARNING):
        assert read_survey(tmp_path / "s.toml") == OPENFWI
    assert not caplog.records
    tomllib.loads((tmp_path / "s.toml").read_text())
