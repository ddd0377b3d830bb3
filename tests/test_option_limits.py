"""Options and outputs that no one means: refused before anything is written."""

import os

import numpy as np
import pytest
from run_cases import write_inputs

from fwi_refine.cli import run
from fwi_refine.cli.commands.probe import _half_decimal
from fwi_refine.wave.threads import MAX_THREADS, number_of_threads

HUGE = "9" * 23


@pytest.fixture
def case(tmp_path, monkeypatch, unchecked):
    monkeypatch.chdir(write_inputs(tmp_path, ["a", "b"]))
    return tmp_path


REFINE = ["starts.npy", "seismic", "--ids", "ids.txt", "--method", "lbfgs"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--max-evaluations", HUGE], "a number of 23 digits"),
        (["--chunk-size", HUGE], "a number of 23 digits"),
        (["--threads", "100000"], "1<=x<=4096"),
        (["--jobs", "99999999999"], "--jobs 99999999999: expected at most"),
        (["--samples", "99999999999"], "0<=x<=10000"),
        (["--per-job", "99999999"], "1<=x<=256"),
        (["--history", "o.csv"], "o.csv: two outputs with one name"),
        (["--history", "o.csv", "--dry-run"], "o.csv: two outputs with one name"),
        (["--record-log", "nan"], "not a number"),
        (["--record-log", "inf"], "expected a number other than 0"),
    ],
)
def test_numbers_without_use(case, capsys, more, words):
    before = sorted(case.rglob("*"))
    assert run([*REFINE, "--out", "o.npy", *more]) == 2
    assert words in capsys.readouterr().err
    assert sorted(case.rglob("*")) == before


def test_threads_have_a_limit():
    assert number_of_threads(MAX_THREADS) == MAX_THREADS
    with pytest.raises(ValueError, match="1 to 4096"):
        number_of_threads(MAX_THREADS + 1)


@pytest.mark.parametrize("name", ["starts.npy", "seismic", "o.npy"])
def test_links_to_themselves(case, capsys, name):
    if name != "o.npy":
        os.rename(name, "away")
    os.symlink(name, name)
    assert run([*REFINE, "--out", "o.npy"]) == 2
    assert name in capsys.readouterr().err
    assert os.path.islink(name)


@pytest.mark.parametrize("name", ["o.npy", "o.csv"])
def test_the_log_is_no_output(case, capsys, name):
    assert run([*REFINE, "--out", "o.npy", "--overwrite", "--log-file", name]) == 2
    assert "log" in capsys.readouterr().err or name == "o.npy"
    assert not (case / ".o.npy.run").exists()


def test_no_output_becomes_an_input_of_the_next_run(case, capsys):
    assert run([*REFINE, "--out", "seismic/o.npy"]) == 2
    assert "would be read as one" in capsys.readouterr().err
    assert sorted(os.listdir("seismic")) == ["a.npy", "b.npy"]


def test_a_kept_run_whose_table_is_damaged(case, capsys, monkeypatch):
    hidden = case / ".o.npy.run"
    (hidden / "parts").mkdir(parents=True)
    (hidden / "run.toml").write_text("format = ")
    quick = [*REFINE, "--max-evaluations", "1", "--family", "layered", "--out", "o.npy"]
    assert run(quick) == 2
    assert "begin anew with --overwrite" in capsys.readouterr().err
    assert hidden.exists()
    assert run([*quick, "--overwrite"]) == 0
    assert np.load("o.npy").shape == (2, 70, 70)
    assert not hidden.exists()


@pytest.mark.parametrize("command", ["submit", "probe", "plot", "report"])
def test_maps_in_other_units_go_nowhere(case, capsys, command):
    np.save("km.npy", np.load("starts.npy") / 1000)
    (case / "families.csv").write_text("id,family\na,layered\nb,style-b\n")
    out = {"plot": "o.png", "report": "o.html", "probe": "folder"}.get(command, "o.csv")
    arguments = {
        "submit": ["submit", "km.npy", "--ids", "ids.txt"],
        "probe": ["probe", "write", "km.npy", "--ids", "ids.txt", "--families", "families.csv",
                  "--family", "layered"],
        "plot": ["plot", "samples", "km.npy"],
        "report": ["report", "km.npy"],
    }[command]  # fmt: skip
    assert run([*arguments, "--out", out]) == 2
    assert "--units km/s" in capsys.readouterr().err
    assert not (case / out).exists()


def test_a_submission_of_maps_in_other_units(case):
    np.save("km.npy", np.load("starts.npy").astype("f8") / 1000)
    for name, more in (("starts.npy", []), ("km.npy", ["--units", "km/s"])):
        out = f"{name}.csv"
        assert (
            run(["submit", name, "--ids", "ids.txt", "--decimals", "2", "--out", out, *more]) == 0
        )
    assert (case / "km.npy.csv").read_bytes() == (case / "starts.npy.csv").read_bytes()


@pytest.mark.usefixtures("known_speed")
def test_a_dry_run_of_a_shard_counts_finished_samples(case, capsys):
    quick = [*REFINE, "--max-evaluations", "1", "--family", "layered", "--run-dir", "run"]
    assert run([*quick, "--chunk-size", "2", "--shard", "1/1"]) == 0
    capsys.readouterr()
    assert run([*quick, "--chunk-size", "2", "--shard", "2/2", "--dry-run"]) == 0
    assert "1 of 1 parts are there" in capsys.readouterr().err
    assert run([*quick, "--chunk-size", "2", "--shard", "1/2", "--dry-run"]) == 2
    assert "no parts: the run has only 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        "blend starts.npy starts.npy --median --out b.npy --seed -1",
        "blend starts.npy starts.npy --median --out b.npy --rounds 999999999",
        "probe solve probe nan 1 2",
        "probe solve probe 1 2 1e999",
        "probe solve probe 1 2 0e999999999",
        "probe write starts.npy --families f.csv --family a --out probe --bounds nan 4500",
        "probe write starts.npy --families f.csv --family a --out probe --shifts 1 inf",
        "status starts.npy",
    ],
)
def test_numbers_and_files_without_use(case, capsys, command):
    before = sorted(case.rglob("*"))
    if command.startswith("probe solve"):
        (case / "probe").mkdir()
        plan = '{"family": "a", "shifts": [1, 2], "samples": 3, "share_of_maps": 0.5}'
        (case / "probe" / "probe.json").write_text(plan)
        before = sorted(case.rglob("*"))
    assert run(command.split()) == 2
    assert capsys.readouterr().err
    assert sorted(case.rglob("*")) == before


@pytest.mark.parametrize(
    "command",
    [
        ["refine", "a\0b", "seismic", "--out", "o.npy"],
        ["refine", "starts.npy", "seismic", "--out", "o\0.npy"],
        ["evaluate", "starts.npy", "a\0b"],
        ["fit-priors", "a\0b", "--out", "p.toml"],
        ["status", "a\0b"],
        ["info", "a\0b"],
    ],
)
def test_a_name_that_no_file_can_have(case, capsys, command):
    assert run(command) == 2
    assert "no name of a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        "fit-priors seismic --out p.npz --denoiser p.npz",
        "fit-priors seismic --out ./p.npz --denoiser p.npz",
    ],
)
def test_two_outputs_with_one_name(case, capsys, command):
    assert run(command.split()) == 2
    assert "two outputs with one name" in capsys.readouterr().err


@pytest.mark.parametrize("score", ["7.6", " 7.6 ", "7.6\n"])
def test_blanks_around_a_score_are_no_decimals(score):
    assert _half_decimal(score) == 0.05
