"""refine --run-dir, status, verify and merge as a user runs them."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from fwi_refine.cli import run

QUICK = ["--method", "lbfgs", "--max-evaluations", "4", "--chunk-size", "2"]


def tree(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def refine_in(made):
    def call(folder, *more):
        arguments = [made.starts_file, made.seismic, "--run-dir", folder, *QUICK, *more]
        return run([str(a) for a in arguments])

    return call


def test_a_run_directory_gives_what_a_run_without_one_gives(
    made, baseline, refine_in, tmp_path, capsys
):
    assert refine_in(tmp_path / "run", "--out", tmp_path / "o.npy") == 0
    assert np.load(tmp_path / "o.npy").tobytes() == baseline.maps.tobytes()
    for row, expected in zip(rows_of(tmp_path / "o.csv"), baseline.report, strict=True):
        assert float(row.pop("seconds")) > 0
        assert row == {name: value for name, value in expected.items() if name != "seconds"}
    before = tree(tmp_path / "run" / "parts")
    capsys.readouterr()
    assert refine_in(tmp_path / "run", "--jobs", "2") == 0
    assert "2 of 2 parts are there" in capsys.readouterr().err
    assert tree(tmp_path / "run" / "parts") == before

    assert run(["status", str(tmp_path / "run")]) == 0
    text = capsys.readouterr().out
    assert "3 of 3 done, in 2 of 2 parts" in text
    assert "refined 3" in text
    assert f"not running, last process {os.getpid()}" in text
    assert run(["status", str(tmp_path / "run"), "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert (state["samples"], state["done"], state["seconds_left"]) == (3, 3, None)
    assert "3 stopped early" in (tmp_path / "run" / "shards" / "1-of-1.log").read_text()

    assert run(["merge", str(tmp_path / "run"), "--out", str(tmp_path / "m.npy")]) == 0
    assert (tmp_path / "m.npy").read_bytes() == (tmp_path / "o.npy").read_bytes()
    assert (tmp_path / "m.csv").read_bytes() == (tmp_path / "o.csv").read_bytes()
    assert run(["merge", str(tmp_path / "run"), "--out", str(tmp_path / "m.npy")]) == 2


@pytest.mark.parametrize(
    ("order", "jobs"), [([2, 0], 1), pytest.param([2, 0, 1], 2, marks=pytest.mark.process)]
)
def test_other_chunks_order_and_jobs_give_the_same_bits(made, baseline, tmp_path, order, jobs):
    np.save(tmp_path / "p.npy", made.starts[order])
    (tmp_path / "ids").write_text("\n".join(made.ids[k] for k in order))
    arguments = [str(tmp_path / "p.npy"), made.seismic, "--ids", str(tmp_path / "ids"), *QUICK]
    arguments[-1] = "3"
    out = ["--run-dir", str(tmp_path / "run"), "--out", str(tmp_path / "o.npy")]
    assert run([*arguments, *out, "--jobs", str(jobs), "--threads", "1"]) == 0
    assert np.load(tmp_path / "o.npy").tobytes() == baseline.maps[order].tobytes()


def test_verify_names_what_is_damaged(refine_in, tmp_path, capsys):
    once = "--max-evaluations", "1"
    assert refine_in(tmp_path / "run", *once) == 0
    before = tree(tmp_path)
    capsys.readouterr()
    assert run(["verify", str(tmp_path / "run")]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2 of 2 parts are there and sound, 0 damaged" in captured.err
    path, *_ = sorted((tmp_path / "run" / "parts").iterdir())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    assert run(["verify", str(tmp_path / "run")]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{path}: damaged")
    assert len(captured.out.splitlines()) == 1
    assert refine_in(tmp_path / "run", *once) == 0
    captured = capsys.readouterr()
    assert f"{path}: damaged" in captured.err
    assert "1 of 2 parts are there" in captured.err
    assert tree(tmp_path / "run" / "parts") == {
        p: content for p, content in before.items() if p.parent.name == "parts"
    }


def test_shards_of_a_run_and_a_sample_that_fails(made, baseline, tmp_path, capsys):
    starts = made.starts.copy()
    starts[1, 3, 4] = np.nan
    np.save(tmp_path / "p.npy", starts)
    folder = tmp_path / "run"
    arguments = [str(tmp_path / "p.npy"), made.seismic, "--run-dir", str(folder), *QUICK]
    arguments[-1] = "1"
    for shard, code in (("2/3", 3), ("1/3", 0)):
        assert run([*arguments, "--shard", shard]) == code
    assert run(["merge", str(folder), "--out", str(tmp_path / "o.npy")]) == 1
    assert "1 of 3 parts are missing, the first that of sample number 3" in capsys.readouterr().err
    assert not (tmp_path / "o.npy").exists()
    assert run([*arguments, "--shard", "3/3"]) == 0
    capsys.readouterr()
    assert run([*arguments, "--shard", "2/3"]) == 3  # it stays failed, and is not tried again
    assert "1 of 1 parts are there" in capsys.readouterr().err
    assert run(["merge", str(folder), "--out", str(tmp_path / "o.npy")]) == 3
    maps = np.load(tmp_path / "o.npy")
    np.testing.assert_array_equal(maps[1], starts[1])
    for k in (0, 2):
        assert maps[k].tobytes() == baseline.maps[k].tobytes()
    rows = rows_of(tmp_path / "o.csv")
    assert [row["status"] for row in rows] == ["refined", "failed", "refined"]
    assert "1 of 4900 values not finite" in rows[1]["reason"]


@pytest.mark.usefixtures("known_speed")
def test_a_dry_run_looks_and_leaves_everything(refine_in, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fwi_refine.cli.options.resources.cores", lambda: 4)
    once = "--max-evaluations", "1"
    assert refine_in(tmp_path / "run", *once, "--dry-run") == 0
    assert "0 of 2 parts are there" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []
    assert refine_in(tmp_path / "run", *once, "--shard", "2/2") == 0
    before = tree(tmp_path)
    capsys.readouterr()
    assert refine_in(tmp_path / "run", *once, "--dry-run") == 0
    captured = capsys.readouterr()
    assert "1 of 2 parts are there" in captured.err
    assert "1 job, " in captured.err
    assert sum(int(row["samples"]) for row in csv.DictReader(captured.out.splitlines())) == 2
    assert tree(tmp_path) == before
    # the cores of samples that are finished, or of another shard, serve the rest
    for more, said in (
        (("--jobs", "4"), "2 jobs, 2 threads each"),
        (("--jobs", "4", "--shard", "1/2"), "2 jobs, 2 threads each"),
        (("--jobs", "4", "--shard", "2/2"), "1 job, 4 threads each"),
    ):
        assert refine_in(tmp_path / "run", *once, "--dry-run", *more) == 0
        assert said in capsys.readouterr().err
    assert refine_in(tmp_path / "run", *once, "--dry-run", "--limit", "1") == 2
    assert "samples.count: 3 in the run, 1 now" in capsys.readouterr().err


@pytest.mark.usefixtures("known_speed")
def test_a_dry_run_refuses_what_a_run_refuses(made, refine_in, tmp_path, capsys):
    """A folder with other things, a shard without parts, the kept samples of another run."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    for arguments, words in (
        ((tmp_path / "other",), "holds other things than a run"),
        ((tmp_path / "new", "--shard", "1/3"), "no parts: the run has only 2"),
    ):
        said = []
        for more in (("--dry-run",), ()):
            assert refine_in(*arguments, *more) == 2
            said.append(capsys.readouterr().err.splitlines()[-1])
        assert said[0] == said[1]
        assert words in said[0]
    line = [made.starts_file, made.seismic, "--out", tmp_path / "o.npy", "--method", "lbfgs"]
    line = [str(word) for word in line]
    hidden = tmp_path / ".o.npy.run"
    assert run([*line[:2], "--run-dir", str(hidden), *line[4:], "--max-evaluations", "1"]) == 0
    before = tree(hidden)
    for more in (("--dry-run",), ()):
        assert run([*line, *more]) == 2
        assert "finished samples of an earlier run to the same output" in capsys.readouterr().err
    assert run([*line, "--dry-run", "--overwrite"]) == 0
    assert tree(hidden) == before


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--max-evaluations", "3"], "settings.max_evaluations: 4 in the run, 3 now"),
        (["--method", "gauss-newton"], "settings.method: 'lbfgs' in the run, 'gauss-newton' now"),
        (["--time-budget", "5"], "settings.time_budget: not set in the run, 5.0 now"),
        (["--chunk-size", "1"], "samples.chunk_size: 2 in the run, 1 now"),
        (["--limit", "2"], "samples.count: 3 in the run, 2 now"),
        (["--candidate", "{starts}"], "inputs.candidates"),
        (["--priors", "{priors}"], "priors.style_a.length: 3.478158 in the run, 3.5 now"),
    ],
)
def test_another_run_in_the_same_directory(
    made, refine_in, tmp_path, tmp_path_factory, capsys, more, words
):
    run_dir = tmp_path_factory.getbasetemp() / "to-differ-from"
    assert refine_in(run_dir, "--shard", "2/2") == 0  # the first time; later it is there
    (tmp_path / "priors.toml").write_text("[style_a]\nlength = 3.5\n")
    before = tree(run_dir)
    names = {"starts": made.starts_file, "priors": tmp_path / "priors.toml"}
    capsys.readouterr()
    assert refine_in(run_dir, *(str(m).format(**names) for m in more)) == 2
    assert words in capsys.readouterr().err
    assert tree(run_dir) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["p.npy", "s"], "Missing option '--out' (or '--run-dir')"),
        (["p.npy", "s", "--run-dir", "r", "--report", "r.csv"], "--report r.csv: needs --out"),
        (
            ["p.npy", "s", "--run-dir", "r", "--out", "o.npy", "--shard", "1/2"],
            "fwi-refine merge r --out o.npy",
        ),
        (["merge", "r", "--out", "o.csv"], "expected a name that ends in .npy"),
        (["merge", "--out", "o.npy"], "Missing argument 'RUN...'"),
        (["merge", "r", "--out", "o.npy"], "r: not a run directory (there is no such directory)"),
        (["status", "r"], "r: not a run directory"),
        (["verify", "."], "not a run directory (holds no run.toml)"),
    ],
)
def test_usage_errors(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    assert words in capsys.readouterr().err
    assert os.listdir(tmp_path) == []
