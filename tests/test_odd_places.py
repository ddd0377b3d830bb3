"""Paths, folders and surroundings of unusual kinds, and what stands in them."""

import io
import os
import subprocess
import sys
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from small_survey_cases import SURVEY

from fwi_refine import InputError, simulate
from fwi_refine.cli import console, run
from fwi_refine.io.ids import LONGEST, check_id
from fwi_refine.io.outputs import open_temporary
from fwi_refine.io.report import read_report
from fwi_refine.priors import load as load_priors
from fwi_refine.runs.running import Running, seconds_left
from fwi_refine.survey import write_survey

HOW = ["--survey", "s.toml", "--family", "layered", "--method", "lbfgs", "--max-evaluations", "1"]


@pytest.fixture
def case(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    maps = np.full((3, *SURVEY.shape), 1800.0)
    maps[:, 9:] = 2600
    write_survey(SURVEY, "s.toml")
    np.save("p.npy", maps.astype("f4"))
    os.mkdir("d")
    for name, record in zip("abc", simulate(maps, survey=SURVEY), strict=True):
        np.save(f"d/{name}.npy", record)
    return tmp_path


@pytest.mark.parametrize("what", ["loop", "folder", "below a file"])
def test_a_record_that_is_no_file_fails_alone(case, what):
    """It says nothing of the machine, so it does not stop the run."""
    os.remove("d/b.npy")
    if what == "folder":
        os.mkdir("d/b.npy")
    else:
        os.symlink("b.npy" if what == "loop" else "../p.npy/b.npy", "d/b.npy")
    assert run(["p.npy", "d", *HOW, "--out", "o.npy"]) == 3
    rows = read_report("o.csv")
    assert [row.status == "failed" for row in rows] == [False, True, False]
    assert "b.npy" in rows[1].reason


@pytest.mark.parametrize("name", ["a [1] *?", "a\nb", " ", "-o", "~", "$HOME", "a;b&c", "é", "#"])
def test_folders_of_any_name_for_all_files(case, name):
    os.mkdir(name)
    where = f"./{name}"
    for path in ("p.npy", "s.toml", "d"):
        os.rename(path, f"{where}/{path}")
    how = ["--survey", f"{where}/s.toml", *HOW[2:]]
    inputs = [f"{where}/p.npy", f"{where}/d"]
    assert run([*inputs, *how, "--run-dir", f"{where}/run", "--out", f"{where}/o.npy"]) == 0
    assert run(["verify", f"{where}/run"]) == 0
    assert run(["evaluate", f"{where}/o.npy", f"{where}/p.npy", *how[:2]]) == 0
    assert {*os.listdir(name)} == {"p.npy", "s.toml", "d", "run", "o.npy", "o.csv"}


def test_names_that_begin_with_a_dash(case):
    os.rename("p.npy", "-p.npy")
    assert run(["refine", *HOW, "--out=-o.npy", "--", "-p.npy", "d"]) == 0
    assert {"-o.npy", "-o.csv"} < {*os.listdir()}


def test_nothing_is_written_to_the_present_folder(case, monkeypatch):
    os.mkdir("out")
    os.mkdir("present")
    monkeypatch.chdir("present")
    inputs = ["../p.npy", "../d", "--survey", "../s.toml", *HOW[2:]]
    assert run([*inputs, "--out", "../out/o.npy"]) == 0
    assert not os.listdir()
    assert {*os.listdir("../out")} == {"o.npy", "o.csv"}


def test_no_other_disk_needs_room(case, monkeypatch):
    """Reports and histories grow beside the output, not where temporary files of others are."""
    monkeypatch.setattr(tempfile, "tempdir", str(case / "nowhere"))
    monkeypatch.delenv("HOME", raising=False)
    assert run(["p.npy", "d", *HOW, "--out", "o.npy", "--history", "h.csv"]) == 0
    assert len(read_report("o.csv")) == 3


def test_outputs_have_the_rights_that_the_user_gives(case):
    before = os.umask(0o077)
    try:
        assert run(["p.npy", "d", *HOW, "--run-dir", "run", "--out", "o.npy"]) == 0
        os.umask(0)
        temporary, file = open_temporary(Path("x.npy"))
        file.close()
    finally:
        os.umask(before)
    written = [*Path("run").rglob("*"), Path("o.npy"), Path("o.csv")]
    assert len(written) > 5
    assert all(path.stat().st_mode & 0o077 == 0 for path in written)
    assert temporary.stat().st_mode & 0o111 == 0


def test_ids_become_names_of_files():
    assert check_id("é" * (LONGEST // 2))
    with pytest.raises(InputError, match="222 bytes: expected at most 220"):
        check_id("é" * (LONGEST // 2 + 1))
    temporary, file = open_temporary(Path(tempfile.gettempdir()) / ("a" * LONGEST + ".npy"))
    file.close()  # the longest id is a file that can be written
    temporary.unlink()


@pytest.mark.skipif(not Path("/proc/self/fdinfo").is_dir(), reason="needs a folder of Linux")
def test_a_picture_that_cannot_be_written_stops_no_work(case, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra [plot])")
    pictures = "/proc/self/fdinfo"  # a folder in which no one makes files
    assert run(["p.npy", "d", *HOW, "--limit", "1", "--out", "o.npy", "--pictures", pictures]) == 0
    assert f"{pictures}/a.png: not drawn (" in capsys.readouterr().err
    assert [row.status for row in read_report("o.csv")] == ["unchanged"]


def test_a_file_of_priors_that_holds_none(case, capsys):
    for text in ("", "# nothing\n", "[style_a]\n"):
        Path("priors.toml").write_text(text)
        with pytest.raises(ValueError, match="holds no numbers"):
            load_priors("priors.toml")
        assert run(["p.npy", "d", *HOW, "--out", "o.npy", "--priors", "priors.toml"]) == 2
        assert "priors.toml: holds no numbers" in capsys.readouterr().err


def test_a_clock_that_goes_backwards_shows_no_nonsense(monkeypatch):
    running = [Running("a", started=1e9, first=1.0, now=0.5, noise=1e-4)]
    monkeypatch.setattr(console.time, "time", lambda: 1e9 - 3600)
    view = console.View(3, 1, running, None, seconds_left(2, running, 10.0, 1e9 - 3600))
    assert console.text(view).startswith("1 of 3 samples, 0:00:20 left; a 0:00:00 reading")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device of Linux")
@pytest.mark.parametrize("line", [["completion", "bash"], ["--help"]])
def test_a_full_stdout_is_told(line):
    program = [sys.executable, "-c", "from fwi_refine.cli import main; main()", *line]
    with open("/dev/full", "w") as full:
        done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def claiming(shape, dtype="<f8"):
    """A `.npy` of a few bytes whose header claims more."""
    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + b"\0" * 64


@pytest.mark.parametrize("shape", [(10**7, 20, 25), (10**9,), (2, 10**9, 25), (-1, 20, 25)])
@pytest.mark.parametrize("reader", ["predictions", "--weights", "--fixed", "--bounds", "wavelet"])
def test_a_header_is_no_reason_to_take_memory(case, capsys, shape, reader):
    Path("x.npy").write_bytes(claiming(shape))
    with zipfile.ZipFile("x.npz", "w") as packed:
        packed.write("x.npy", "velocity.npy")
    with open("w.toml", "w") as file:
        file.write(Path("s.toml").read_text().replace('kind = "ricker"', 'file = "x.npy"'))
    line = {
        "predictions": ["x.npz", "d", *HOW],
        "--bounds": ["p.npy", "d", *HOW, "--bounds", "x.npy", "x.npy"],
        "wavelet": ["p.npy", "d", "--survey", "w.toml", *HOW[2:]],
    }.get(reader, ["p.npy", "d", *HOW, reader, "x.npy"])
    tracemalloc.start()
    try:
        assert run([*line, "--dry-run"]) == 2
        assert tracemalloc.get_traced_memory()[1] < 2e8
    finally:
        tracemalloc.stop()
    assert "x.np" in capsys.readouterr().err


def test_an_npz_that_unpacks_to_far_more_than_it_can_hold(case, capsys, monkeypatch):
    monkeypatch.setattr("fwi_refine.io.npz.LARGEST_RATIO", 100)
    np.savez_compressed("x.npz", velocity=np.zeros((9, *SURVEY.shape)))
    assert run(["x.npz", "d", *HOW, "--dry-run"]) == 2
    assert "velocity claims 36128 bytes, of" in capsys.readouterr().err


def test_doctor_is_given_a_map_that_cannot_be_simulated(case, capsys):
    np.save("fast.npy", np.full((1, *SURVEY.shape), 6400.0))
    assert run(["doctor", "d/a.npy", "fast.npy", "--survey", "s.toml"]) == 1
    said = capsys.readouterr().out
    assert "map proven by its record" in said
    assert "no, map: found velocities 6400 to 6400 m/s" in said
