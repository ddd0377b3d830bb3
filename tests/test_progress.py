"""What is shown of a run as it goes on: files of running samples, lines, the time that is left."""

import io
import json
import os
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from small_survey_cases import SURVEY

from fwi_refine import runs
from fwi_refine.cli import console, run
from fwi_refine.cli.progress import RunProgress
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.io.report import Row
from fwi_refine.runs.one_sample import refine_one
from fwi_refine.runs.running import (
    Running,
    _reported,
    read_running,
    refine_and_report,
    running_folder,
    seconds_left,
)
from fwi_refine.wave import Simulator

NOW = 1_000_000.0


@pytest.fixture
def states(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW)
    stage = "levels of cells, round 2 of at most 8"
    return [
        Running("3d2953a3fb", NOW - 83.4, "layered, stage 3 of 8", 2, 4.1e-2, 3.3e-3, 1e-4),
        Running("a-name-that-is-longer-than-columns", NOW - 7300, stage, 12, 0.11, 9e-5, 1e-4),
        Running("new", NOW - 1),
    ]


def draw(view, width):
    file = io.StringIO()
    Console(file=file, width=width).print(console.table(view, width))
    return file.getvalue()


def test_the_steps_of_a_sample_are_told_and_change_nothing():
    steps, start = [], np.full(SURVEY.shape, 2000.0)
    start[12:] = 2500
    record = Simulator(SURVEY).forward(torch.tensor(np.roll(start, 1, 0)[None])).numpy()[0]
    sample = {"method": "lbfgs", "family": "layered", "max_evaluations": 6, "survey": SURVEY}
    told = refine_sample(start, record, **sample, watch=steps.append)
    quiet = refine_sample(start, record, **sample)
    assert told.velocity.tobytes() == quiet.velocity.tobytes()
    assert steps[0].stage == "layered, start"
    assert steps[0].misfit == told.misfit_before
    assert steps[1].stage == "layered, stage 1 of 3"
    assert [step.step for step in steps[1:4]] == [0, 1, 2]
    assert steps[-1].misfit < steps[0].misfit


def test_a_running_sample_has_a_file_until_it_is_done(tmp_path, monkeypatch):
    with running_folder(tmp_path / "1-of-1.running") as folder:
        with _reported(folder / "4.json", Running("s4", NOW, noise=1e-4)) as watch:
            assert read_running(folder) == [Running("s4", NOW, noise=1e-4)]
            monkeypatch.setattr("fwi_refine.runs.running.INTERVAL", 0.0)
            watch(SimpleNamespace(stage="layered, stage 1 of 8", step=0, misfit=0.5))
            watch(SimpleNamespace(stage="layered, stage 1 of 8", step=1, misfit=0.25))
            expected = Running("s4", NOW, "layered, stage 1 of 8", 1, 0.5, 0.25, 1e-4)
            assert read_running(folder) == [expected]
        assert read_running(folder) == []
        (folder / "9.json").write_text("left by a process that was killed")
    assert not folder.exists()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"id": 3}', "\x00", "[" * 3000])
def test_files_that_cannot_be_read_are_left_out(tmp_path, text):
    good = {"id": "a", "started": 1, "stage": "s", "step": 2, "first": 1, "now": None, "noise": 3}
    (tmp_path / "1.json").write_text(json.dumps(good))
    (tmp_path / "2.json").write_text(text)
    (tmp_path / "3.json").write_text(json.dumps(good | {"started": "soon"}))
    assert read_running(tmp_path) == [Running("a", 1.0, "s", 2, 1.0, None, 3.0)]


def test_a_folder_that_cannot_be_written_stops_nothing(made, tmp_path):
    from fwi_refine.priors import load
    from fwi_refine.runs.settings import Settings

    sample = SimpleNamespace(index=0, id="bad", problem="no record", source=None)
    outcome = refine_and_report(
        sample, Settings(load()), str(tmp_path / "not" / "there"), refine_one
    )
    assert outcome.row.reason == "no record"


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_lines_fit_any_width_and_keep_their_numbers(states, width):
    text = draw(console.View(40, 3, states, 1 / 300, 5400, "misfit 80 times smaller"), width)
    lines = text.splitlines()
    assert all(len(line) <= width for line in lines)
    assert "0:01:23" in lines[0]
    assert "4.1e-02 -> 3.3e-03 -> 1.0e-04" in lines[0]
    assert "2:01:40" in lines[1]
    assert "? -> ? -> ?" in lines[2]
    assert "3 of 40 samples" in text
    assert len(lines) == 4
    if width == 60:  # what is said of the whole leaves out what does not fit
        assert lines[3].endswith(" 3 of 40 samples, 12 an hour, 1:30:00 left")
    if width == 80:
        assert "layered, stage 3/8, step 2" in lines[0]
        assert lines[3].endswith(", 1:30:00 left, misfit 80 times smaller")
    if width >= 100:
        assert "misfit 4.1e-02" in lines[0]
        assert "layered, stage 3 of 8, step 2" in lines[0]
        assert "12 an hour, 1:30:00 left" in text


def test_a_plain_line_says_the_same(states):
    text = console.text(console.View(40, 3, states[:1], 1 / 300, 5400))
    assert text == (
        "3 of 40 samples, 12 an hour, 1:30:00 left; 3d2953a3fb 0:01:23 layered, stage 3 of 8, "
        "step 2, misfit 4.1e-02 -> 3.3e-03 -> 1.0e-04"
    )
    many = console.View(40, 0, states[:1] * 20)
    assert console.text(many).endswith("and 8 more")
    assert "and 8 more" in draw(many, 100)


def test_plain_lines_come_where_there_is_no_terminal(states):
    said, enough = [], threading.Event()

    def say(line):
        said.append(line)
        enough.set()

    with console.shown(lambda: console.View(4, 1, states), say, every=0.01):
        assert enough.wait(10)
    assert said[0].startswith("1 of 4 samples; 3d2953a3fb 0:01:23")


def test_the_time_left_is_learnt_from_finished_samples(states):
    assert seconds_left(10, states, None, NOW) is None
    assert seconds_left(10, [], 100.0, NOW) is None
    # of ten samples of 100 s, three run at a time and have had 83.4, 7300 and 1 s; one that runs
    # for long takes half of the mean more
    assert seconds_left(10, states, 100.0, NOW) == pytest.approx((1000 - 101) / 3)


def test_the_time_left_of_a_run_elsewhere_runs_down(states, monkeypatch):
    """While a sample runs, too, and not only when one is finished."""
    known = {"parts": 0, "chunks": 1, "status": {}, "families": {}, "shards": []}
    run = runs.RunState(12, 2, **known, rate=0.03, running=states, mean_seconds=100.0)
    before = run.seconds_left
    monkeypatch.setattr(time, "time", lambda: NOW + 6)
    assert run.seconds_left == pytest.approx(before - 6 / 3)  # the newest of three has time to go
    assert replace(run, running=[]).seconds_left == pytest.approx(10 / 0.03)
    assert replace(run, running=[], rate=None).seconds_left is None


def test_a_view_counts_what_was_found_and_what_is_new(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW)
    progress = RunProgress(8, visible=True)
    progress.found(Row("a", "layered", "", "refined", 1.0, 0.1, seconds=50.0))
    with running_folder(tmp_path / "r") as folder, _reported(folder / "1.json", Running("b", NOW)):
        view = progress.view(folder)
    assert (view.done, view.seconds_left, view.rate) == (1, 350.0, 1 / 50)
    monkeypatch.setattr(time, "time", lambda: NOW + 30)
    progress.add(Row("b", "layered", "", "refined", 1.0, 0.1, evaluations=9, seconds=30.0))
    view = progress.view(folder)  # none runs at the moment: by the clock
    assert (view.done, view.seconds_left, view.rate) == (2, 180.0, 1 / 30)
    assert view.outcome == "misfit 10 times smaller"


def test_status_shows_the_running_samples_of_another_process(made, tmp_path, capsys):
    folder = tmp_path / "run"
    line = [made.starts_file, made.seismic, "--run-dir", folder, "--method", "lbfgs"]
    assert run([*map(str, line), "--max-evaluations", "2", "--limit", "2"]) == 0
    directory = runs.RunDirectory(folder)
    assert not list((folder / "shards").glob("*.running"))
    (path, *_) = directory.parts()[0]
    path.unlink()
    files = runs.running_files(directory.shards_folder, (1, 1))
    state = Running("a1", time.time() - 60, "layered, stage 3 of 8", 2, 4.1e-2, 3.3e-3, 1e-4)
    claimed = runs.claimed(directory.shards_folder, (1, 1), 1)
    with claimed, running_folder(files), _reported(files / "0.json", state):
        capsys.readouterr()
        assert run(["status", str(folder)]) == 0
        assert "running   a1 0:01:0" in (out := capsys.readouterr().out)
        assert "layered, stage 3 of 8, step 2, misfit 4.1e-02 -> 3.3e-03 -> 1.0e-04" in out
        assert run(["status", str(folder), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["running"][0]["first"] == 4.1e-2
    assert run(["status", str(folder)]) == 0
    assert "running   a1" not in capsys.readouterr().out


def test_status_watches_until_the_run_is_done(made, tmp_path, capsys):
    folder = tmp_path / "run"
    line = [made.starts_file, made.seismic, "--run-dir", folder, "--method", "lbfgs"]
    assert run([*map(str, line), "--max-evaluations", "2", "--limit", "1"]) == 0
    directory = runs.RunDirectory(folder)
    (path, *_) = directory.parts()[0]
    hidden = tmp_path / path.name
    path.rename(hidden)
    threading.Timer(0.5, lambda: os.rename(hidden, path)).start()
    capsys.readouterr()
    assert run(["status", str(folder), "--watch"]) == 0
    captured = capsys.readouterr()
    assert "0 of 1 samples, nobody works on it" in captured.err
    assert "1 of 1 done" in captured.out
    assert run(["status", str(folder), "--watch", "--json"]) == 2


def test_a_long_line_above_what_moves_is_not_wrapped(monkeypatch):
    """A command that is told when a run is stopped can be copied as it stands."""
    file = io.StringIO()
    screen = Console(file=file, width=40, force_terminal=True, highlight=False, markup=False)
    monkeypatch.setattr(console, "console", lambda: screen)
    line = "to go on: fwi-refine predictions.npy seismic --out refined.npy [b]"
    with console.shown(lambda: console.View(4, 1), print):
        console.write(line)
    assert line in file.getvalue()


def test_bars_are_silent_where_there_is_no_terminal(capsys):
    assert [*console.tracked(range(3), "maps")] == [0, 1, 2]
    captured = capsys.readouterr()
    assert captured.err + captured.out == ""
