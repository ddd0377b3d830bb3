"""The notebooks of the documentation run, and results show themselves in one."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fwi_refine import analysis
from fwi_refine.api import Refinement
from fwi_refine.io.report import Row
from fwi_refine.survey import OPENFWI

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
SURVEY = replace(OPENFWI, shape=(20, 25), sources=((1, 2),), receivers=((1, 3),))
HARMFUL = "<script>alert(1)</script>"


@pytest.fixture
def result():
    maps = np.linspace(1500, 4500, 2 * 20 * 25).reshape(2, 20, 25)
    rows = (
        Row("a", "layered", "", "refined", 4.1e-2, 3.2e-5, 40, 3, 12.5, flags=HARMFUL),
        Row("b", status="failed", reason="no record"),
    )
    return Refinement(maps, np.full(maps.shape, np.nan, "f4"), rows, survey=SURVEY, start=maps + 1)


def test_a_result_shows_itself(result):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra [plot])")
    shown = result._repr_html_()
    assert "2 samples: 1 failed, 1 refined" in shown
    assert "<td>0.041</td><td>3.2e-05</td>" in shown
    assert shown.count("data:image/png;base64,") == 1
    assert HARMFUL not in shown
    assert "&lt;script&gt;" in shown


def test_without_matplotlib_there_is_the_table(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "fwi_refine.analysis.plots", None)
    monkeypatch.delattr(analysis, "plots", raising=False)
    shown = result._repr_html_()
    assert "<td>layered</td>" in shown
    assert "<img" not in shown


def test_long_tables_are_cut(result):
    many = replace(
        result,
        reports=result.reports * 15,
        velocity=np.repeat(result.velocity, 15, 0),
        deviation=np.repeat(result.deviation, 15, 0),
        start=None,
    )
    shown = many._repr_html_()
    assert shown.count("<tr>") == 21
    assert "and 10 more" in shown


def test_notebooks_are_stored_without_results():
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (extra [test])")
    assert len(NOTEBOOKS) == 2
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebooks_run(path):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (extra [test])")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (extra [test])")
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(notebook, timeout=1800, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("image/png" in str(output) for output in outputs)  # it shows a picture
