"""`start` and `simulate` stopped or killed: finished samples stay, the same command goes on."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from process_cases import processes_in, wait_for
from small_survey_cases import SURVEY

from fwi_refine import simulate
from fwi_refine.api import simulation
from fwi_refine.cli import run
from fwi_refine.cli.commands import simulate as command
from fwi_refine.errors import InputError
from fwi_refine.priors import OPENFWI_FILE
from fwi_refine.runs import executors, starts
from fwi_refine.runs.locks import LockHeld
from fwi_refine.runs.unfinished import TABLE, goes_on, kept_maps, write_table
from fwi_refine.survey.toml import write_survey

COUNT = 5
MANY = 40  # times as many to be killed in the midst of
START = ["start", "records", "--survey", "s.toml", "--out", "o.npy"]
SIMULATE = ["simulate", "maps.npy", "--survey", "s.toml", "--out", "made"]


@pytest.fixture
def case(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_survey(SURVEY, "s.toml")
    maps = np.full((COUNT, *SURVEY.shape), 2000.0)
    maps[:, 10:] = 2500.0 + 100.0 * np.arange(COUNT)[:, None, None]
    np.save("maps.npy", maps.astype("f4"))
    (tmp_path / "records").mkdir()
    for k, record in enumerate(simulate(maps, survey=SURVEY)):
        np.save(f"records/{k}.npy", record)
    return tmp_path


@pytest.fixture
def quick(case, monkeypatch):
    """Starts that take no time, made here."""
    made = []

    def make(record, **how):
        made.append(record)
        return np.full(SURVEY.shape, 2000.0 + float(np.abs(record).sum()))

    monkeypatch.setattr(executors, "Processes", lambda *arguments: executors.Serial())
    monkeypatch.setattr(starts.initial_model, "start_from_record", make)
    return made


def test_starts_go_on_where_they_were_stopped(quick, monkeypatch, capsys):
    make = starts.initial_model.start_from_record

    def stop(record, **how):
        if len(quick) == 3:
            raise KeyboardInterrupt
        return make(record, **how)

    with monkeypatch.context() as patch:
        patch.setattr(starts.initial_model, "start_from_record", stop)
        assert run(START) == 130
    assert "3 of 5 maps are finished; to go on: fwi-refine start" in capsys.readouterr().err
    assert run([*START[:-1], "other.npy"]) == 0
    del quick[:]
    assert run(START) == 0
    assert len(quick) == 2
    np.testing.assert_array_equal(np.load("o.npy"), np.load("other.npy"))
    assert not os.path.exists(".o.npy.start")


@pytest.mark.parametrize("change", ["records", "limit", "priors"])
def test_starts_of_other_inputs_are_refused(quick, monkeypatch, capsys, change):
    with monkeypatch.context() as patch:
        patch.setattr(starts.initial_model, "start_from_record", stopping)
        assert run(START) == 130
    again = [*START]
    if change == "records":
        np.save("records/0.npy", 2 * np.load("records/0.npy"))
    elif change == "limit":
        again += ["--limit", "2"]
    else:
        text, count = re.subn("(?m)^mean = .*", "mean = 2345.0", OPENFWI_FILE.read_text())
        assert count
        Path("p.toml").write_text(text)
        again += ["--priors", "p.toml"]
    assert run(again) == 2
    assert "was another" in capsys.readouterr().err
    assert run([*again, "--overwrite"]) == 0


def stopping(record, **how):
    raise KeyboardInterrupt


def test_records_go_on_where_they_were_stopped(case, monkeypatch, capsys):
    monkeypatch.setattr(simulation, "BATCH", 2)
    assert run([*SIMULATE[:-1], "whole"]) == 0
    write = command._write

    def stop(simulator, waiting, out, advance):
        if os.path.exists("made/000001.npy"):
            raise KeyboardInterrupt
        write(simulator, waiting, out, advance)

    with monkeypatch.context() as patch:
        patch.setattr(command, "_write", stop)
        assert run(SIMULATE) == 130
    written = os.stat("made/000000.npy").st_mtime_ns
    assert run([*SIMULATE, "--precision", "float64"]) == 2
    assert "was another: settings.precision" in capsys.readouterr().err
    assert run(SIMULATE) == 0
    assert "2 of 5 records are there from before" in capsys.readouterr().err
    assert os.stat("made/000000.npy").st_mtime_ns == written
    for path in Path("whole").iterdir():
        assert Path("made", path.name).read_bytes() == path.read_bytes()
    assert sorted(os.listdir("made")) == sorted(os.listdir("whole"))
    assert run(SIMULATE) == 2  # done: those that stand are no longer its own


def test_records_that_replace_others_are_all_made_anew(case, monkeypatch):
    """No one could tell which of those that stand were replaced."""
    os.mkdir("made")
    np.save("made/000004.npy", np.zeros(3))
    with monkeypatch.context() as patch:
        patch.setattr(command, "_write", lambda *arguments: stopping(None))
        assert run([*SIMULATE, "--overwrite"]) == 130
    assert run(SIMULATE) == 2
    assert run([*SIMULATE, "--overwrite"]) == 0
    assert np.load("made/000004.npy").shape == SURVEY.record_shape


def test_what_is_kept_is_read_or_made_again(tmp_path):
    table = {"samples": {"count": 1}}
    folder = tmp_path / "kept"
    with kept_maps(folder, (2, 3), table, False) as kept:
        kept.write(0, np.arange(6.0).reshape(2, 3))
        kept.write(1, np.zeros((3, 3)))
        with pytest.raises(LockHeld), kept_maps(folder, (2, 3), table, False):
            pass
    with kept_maps(folder, (2, 3), table, False) as kept:
        assert np.array_equal(kept.read(0), np.arange(6.0).reshape(2, 3))
        assert kept.read(1) is None  # of another shape
        assert kept.read(2) is None
        (folder / "0.npy").write_bytes((folder / "0.npy").read_bytes()[:-9])
        assert kept.read(0) is None
        assert not (folder / "0.npy").exists()
    (folder / "mine.txt").write_text("")
    other = {"samples": {"count": 2}}
    words = r"other things than maps, such as mine\.txt"
    with pytest.raises(InputError, match=words), kept_maps(folder, (2, 3), other, True):
        pass


def test_tables_that_are_none_are_refused(tmp_path):
    path = tmp_path / TABLE
    assert not goes_on(path, {"a": 1}, False)
    path.write_bytes(b"\xff\x00")
    with pytest.raises(InputError, match="cannot be read"):
        goes_on(path, {"a": 1}, False)
    assert not goes_on(path, {"a": 1}, True)
    write_table(path, {"a": 1})
    assert goes_on(path, {"a": 1}, False)


@pytest.mark.process
@pytest.mark.parametrize("what", ["start", "simulate"])
def test_killed_commands_go_on(case, what):
    if what == "simulate":  # enough of them to be killed in the midst of it
        np.save("maps.npy", np.repeat(np.load("maps.npy"), MANY, axis=0))
        arguments, finished, some = SIMULATE, case / "made", 16
    else:
        arguments, finished, some = [START[0], "--limit", "2", *START[1:]], case / ".o.npy.start", 1
    program = [sys.executable, "-c", "from fwi_refine.cli import main; main()"]
    process = subprocess.Popen([*program, *arguments], stderr=subprocess.DEVNULL)

    def count():
        return len([*finished.glob("[0-9]*.npy")])

    assert wait_for(lambda: count() >= some, 120)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it had ended before it was killed"
    assert wait_for(lambda: not processes_in(case) or processes_in(case) == [os.getpid()], 20)
    left = count()
    kept = {path: path.stat().st_mtime_ns for path in finished.glob("[0-9]*.npy")}
    again = subprocess.run([*program, *arguments], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    other = [*arguments[:-1], f"other{'.npy' if what == 'start' else ''}"]
    if what == "start":
        assert run(other) == 0
        assert (case / "o.npy").read_bytes() == (case / "other.npy").read_bytes()
        assert not finished.exists()
        return
    assert f"{left} of {COUNT * MANY} records are there from before" in again.stderr
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert count() == COUNT * MANY
    assert not [*finished.glob(".*")]
    record = simulate(np.load("maps.npy")[-1], survey=SURVEY)
    np.testing.assert_array_equal(np.load(finished / f"{COUNT * MANY - 1:06d}.npy"), record)
