"""The history of a refinement, and reading back what refine writes."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fwi_refine.cli import run
from fwi_refine.errors import InputError
from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.families.choices import every_cell, layers_smoothed
from fwi_refine.inversion.model import Model
from fwi_refine.inversion.optimisers import LBFGS, GaussNewtonStep, LevenbergMarquardt
from fwi_refine.inversion.problem import penalty
from fwi_refine.inversion.recipe import Stage
from fwi_refine.inversion.stages import run_stage
from fwi_refine.io.history import HistoryWriter, Step, read_history
from fwi_refine.io.report import COLUMNS as REPORT_COLUMNS
from fwi_refine.io.report import Row, Spool, format_row, read_report
from fwi_refine.priors import load
from fwi_refine.survey import OPENFWI
from fwi_refine.wave import Simulator


@pytest.mark.process
def test_refine_writes_how_the_misfit_fell(made, refine, tmp_path):
    path = tmp_path / "h.csv"
    result = refine(
        made.starts_file, made.seismic, tmp_path / "o.npy", "--history", path, "--jobs", "2"
    )
    assert result.code == 0
    history = read_history(path)
    assert list(history) == list(made.ids)
    for row in result.report:
        steps = history[row["id"]]
        assert [step.stage for step in steps] == sorted(step.stage for step in steps)
        assert steps[0].stage == 0
        assert f"{steps[0].misfit:.6g}" == row["misfit_before"]
        assert f"{steps[-1].misfit:.6g}" == row["misfit_after"]
        assert steps[-1].evaluations <= int(row["evaluations"])
        evaluations = [step.evaluations for step in steps]
        assert evaluations == sorted(evaluations)
        assert len(steps) > 2  # the optimiser's iterations are there, not its ends alone
        assert min(step.misfit for step in steps[1:-1]) < steps[0].misfit


SMALL = replace(
    OPENFWI,
    shape=(16, 20),
    n_steps=200,
    absorbing_cells=20,
    velocity_bounds=(1000.0, 5000.0),
    sources=((1, 0), (1, 19)),
    receivers=tuple((1, column) for column in range(20)),
)


@pytest.mark.parametrize("how", [LevenbergMarquardt(2), LBFGS(2), GaussNewtonStep()], ids=str)
def test_the_misfit_is_without_the_prior(how):
    row, column = np.mgrid[:16, :20]
    start = torch.from_numpy(1800.0 + 40 * row + 7 * column)
    simulator = Simulator(SMALL)
    record = simulator.forward(start[None] + 25)[0].double().numpy()
    heavy = Stage(every_cell, layers_smoothed(0.1), 1e-5, how, prior_fraction=0.5)
    data, budget = Data.of_sample(record, start, simulator), Budget(40)
    found = run_stage(heavy, data, Model.of(start), load(), budget)
    evaluations, misfit = found.traces[0][-1]
    assert 1 < evaluations <= budget.evaluations
    # the parts of it outside the wavelet's band are rounding
    assert misfit == pytest.approx(math.sqrt(data.misfit(found.model, budget)), rel=1e-3)
    assert penalty(heavy, found.model, load()) > 0.1 * misfit**2


def test_refine_keeps_a_history_that_exists(made, tmp_path, capsys):
    path = tmp_path / "h.csv"
    path.write_text("mine")
    arguments = [made.starts_file, made.seismic, "--history", str(path)]
    assert run([*arguments, "--out", str(tmp_path / "o.npy")]) == 2
    assert f"{path} exists already" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert run([*arguments, "--run-dir", str(tmp_path / "run")]) == 2
    assert "needs --out" in capsys.readouterr().err


def test_a_history_reads_back_in_sample_order(tmp_path):
    writer = HistoryWriter(3)
    writer.add(2, "c", ((0, 1, 0.5), (1, 7, 0.25)))
    writer.add(0, 'a, "b"', ((0, 1, 0.125),))
    writer.publish(tmp_path / "h.csv")
    assert read_history(tmp_path / "h.csv") == {
        'a, "b"': [Step(0, 1, 0.125)],
        "c": [Step(0, 1, 0.5), Step(1, 7, 0.25)],
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,misfit\n", "line 1: not a history of refine (found columns ['id', 'misfit']"),
        ("id,stage,evaluations,misfit\na,0,1,0.5\na,1,x,0.5\n", "line 3"),
        ("id,stage,evaluations,misfit\na,0,1\n", "line 2"),
        ("id,stage,evaluations,misfit\n../a,0,1,2\n", "ids are file names"),
        ("\xff", "not a history"),
        (None, "No such file"),
    ],
)
def test_what_is_no_history(tmp_path, text, words):
    path = tmp_path / "h.csv"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as caught:
        read_history(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def write_report(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([REPORT_COLUMNS, *map(format_row, rows)])


def test_a_report_reads_back(tmp_path):
    rows = [
        Row("a", "layered", 'because, "so"', "refined", 0.5, 0.25, 3, 2, 0.5, 1500.0, 1.5, "p.npy"),
        Row("b", status="failed", reason="<b>bad</b>", mae_before=3.25),
        Row("c", status="unfinished"),
    ]
    write_report(tmp_path / "r.csv", rows)
    assert read_report(tmp_path / "r.csv") == rows


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,family\na,b\n", "line 1: not a report of refine (found columns ['id', 'family']"),
        ("id,status\n", "holds no samples"),
        ("id,status\na,refined\nb,gone\n", "line 3: not a report of refine (found status 'gone'"),
        ("id,status,evaluations\na,refined,1.5\n", "line 2"),
        ("id,status\n/etc/passwd,refined\n", "ids are file names"),
    ],
)
def test_what_is_no_report(tmp_path, text, words):
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        read_report(tmp_path / "r.csv")
    assert words in str(caught.value)


def test_a_spool_gives_texts_in_sample_order():
    spool = Spool(4)
    random = np.random.default_rng(0)
    for k in random.permutation([0, 1, 3]):
        spool.add(k, f"{k}\n" * k)
    assert list(spool) == ["", "1\n", None, "3\n3\n3\n"]
    assert spool.filled == 3
