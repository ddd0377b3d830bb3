"""The commands as a user runs them: options, outputs, exit codes, interruption."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from fwi_refine.analysis.metrics import mean_absolute_error
from fwi_refine.cli import COMMANDS, options, run
from fwi_refine.cli.plan import _rounds, describe_duration
from fwi_refine.inversion.families import METHODS
from fwi_refine.io import inputs
from fwi_refine.io.report import COLUMNS
from fwi_refine.routing import Family
from fwi_refine.version import __version__


def rows_of(text):
    return list(csv.DictReader(text.splitlines()))


def tree(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


# Help and usage


def test_help_imports_neither_torch_nor_h5py():
    code = f"""
import sys
from fwi_refine.cli import run
pictures = [["plot", name] for name in ("panels", "samples", "contact", "convergence")]
for command in ([], *([name] for name in {COMMANDS!r}), *pictures):
    assert run([*command, "--help"]) == 0
heavy = ("torch", "h5py", "scipy", "joblib", "matplotlib", "jinja2")
print("loaded:", [name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: []"
    for name in COMMANDS:
        assert f"Usage: fwi-refine {name}" in done.stdout


def test_version(capsys):
    assert run(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def test_listed_names_are_those_of_the_modules():
    assert list(options.FAMILIES) == [*map(str, Family), "general"]
    from fwi_refine.cli.commands.refine import command

    method = next(p for p in command.params if p.name == "method")
    assert list(method.type.choices) == list(METHODS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["refnie"], "No such command 'refnie'"),
        (["p.npy", "seismic"], "Missing option '--out'"),
        (["refine", "p.npy", "--out", "x.npy"], "Missing argument 'RECORDS'"),
        (["p.npy", "s", "--out", "x.h5"], "expected a name that ends in .npy"),
        (
            ["p.npy", "s", "--out", "x.npy", "--device", "cuda:99"],
            "value for '--device': cuda:99: ",
        ),
        (["p.npy", "s", "--out", "x.npy", "--device", "tpu"], "expected auto, cpu, cuda"),
        (["p.npy", "s", "--out", "x.npy", "--shard", "0/4"], "expected I/N with 1 <= I <= N"),
        (["p.npy", "s", "--out", "x.npy", "--family", "flat"], "is not one of 'auto'"),
        (["p.npy", "s", "--out", "x.npy", "--limit", "0"], "is not in the range x>=1"),
        (["p.npy", "s", "--out", "x.npy", "--method", "newton"], "is not one of 'auto'"),
    ],
)
def test_usage_errors(arguments, words, capsys):
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_completion_of_the_default_command():
    environment = os.environ | {
        "_FWI_REFINE_COMPLETE": "bash_complete",
        "COMP_WORDS": "fwi-refine p.npy seismic --max-ev",
        "COMP_CWORD": "3",
    }
    code = "from fwi_refine.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "plain,--max-evaluations"


# The main job


def test_the_output_is_like_the_predictions(made, baseline):
    assert baseline.maps.dtype == np.float32
    assert baseline.maps.shape == made.starts.shape
    assert [row["id"] for row in baseline.report] == list(made.ids)
    assert list(baseline.report[0]) == list(COLUMNS)
    for row in baseline.report:
        assert row["status"] == "refined"
        assert row["family"] in options.FAMILIES
        assert "symmetry_rms=" in row["evidence"]
        assert float(row["misfit_after"]) < float(row["misfit_before"])
        assert 0 < int(row["evaluations"]) < 10
        assert float(row["seconds"]) > 0
        assert 1000 < float(row["vmin"]) < 3000
        assert row["start"] == made.starts_file
        assert row["mae_before"] == ""


@pytest.mark.process
def test_processes_give_the_same_bits_and_the_truth_gives_errors(made, baseline, refine, tmp_path):
    (tmp_path / "shards").mkdir()
    for name, rows in (("1", slice(0, 1)), ("2", slice(1, 3))):
        np.save(tmp_path / "shards" / f"seis{name}.npy", made.records[rows])
        np.save(tmp_path / "shards" / f"vel{name}.npy", made.truth[rows, None])
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["velocity"] = made.starts[:, None].astype(np.float64)
    result = refine(tmp_path / "p.h5", tmp_path / "shards", tmp_path / "o.npy", "--jobs", "2")
    assert result.code == 0
    assert result.maps.shape == (3, 1, 70, 70)
    assert result.maps.tobytes() == baseline.maps.tobytes()
    assert [row["id"] for row in result.report] == ["seis1_0", "seis2_0", "seis2_1"]
    for k, row in enumerate(result.report):
        before = mean_absolute_error(made.starts[k], made.truth[k])
        assert float(row["mae_before"]) == pytest.approx(before, rel=1e-4)
        after = mean_absolute_error(result.maps[k], made.truth[k])
        assert float(row["mae_after"]) == pytest.approx(after, rel=1e-4)


def test_the_report_does_not_replace_the_predictions(made, tmp_path, capsys):
    predictions = tmp_path / "p.csv"
    predictions.write_text("oid_ypos\n")
    command = [str(predictions), str(made.seismic), "--out", str(tmp_path / "p.npy"), "--overwrite"]
    assert run(command) == 2
    assert predictions.read_text() == "oid_ypos\n"
    capsys.readouterr()


@pytest.mark.slow
def test_each_sample_starts_from_the_candidate_that_fits_best(made, refine, tmp_path):
    other = made.starts.copy()
    other[0] = made.truth[0] + 1
    other[1] = 2500
    other[2, 5, 5] = np.nan
    np.save(tmp_path / "other.npy", other)
    result = refine(
        made.starts_file, made.seismic, tmp_path / "o.npy", "--candidate", tmp_path / "other.npy"
    )
    starts = [Path(row["start"]).name for row in result.report]
    assert starts == ["other.npy", "starts.npy", "starts.npy"]
    assert result.code == 0
    assert "other.npy[2]): found 1 of 4900 values not finite" in result.report[2]["flags"]


def test_limit_shard_family_and_ids(made, baseline, refine, tmp_path):
    (tmp_path / "ids").write_text("b2\nc3\na1\n")
    np.save(tmp_path / "p.npy", made.starts[[1, 2, 0]])
    more = ("--ids", tmp_path / "ids", "--shard", "2/2", "--limit", "1", "--family", "layered")
    result = refine(tmp_path / "p.npy", made.seismic, tmp_path / "o.npy", *more)
    assert result.maps.shape == (1, 70, 70)
    assert [(row["id"], row["family"]) for row in result.report] == [("c3", "layered")]
    assert "chosen by the user" in result.report[0]["evidence"]
    k = made.ids.index("c3")
    if baseline.report[k]["family"] == "layered":
        assert result.maps[0].tobytes() == baseline.maps[k].tobytes()


def test_shards_are_the_whole():
    for n in (1, 2, 3, 7, 11):
        parts = [inputs.select([*range(7)], None, (i, n)) for i in range(1, n + 1)]
        assert [k for part in parts for k in part] == [*range(7)]
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert inputs.select([*range(7)], 2, (2, 2)) == [3, 4]


def test_a_time_budget_ends_a_sample(made, tmp_path, capsys):
    np.save(tmp_path / "p.npy", made.starts[:1])
    arguments = [str(tmp_path / "p.npy"), f"{made.seismic}/a1.npy", "--method", "lbfgs"]
    assert run([*arguments, "--time-budget", "0.1", "--out", str(tmp_path / "o.npy")]) == 0
    with open(tmp_path / "o.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert int(row["iterations"]) <= 2
    assert "native" in capsys.readouterr().err or os.environ.get("FWI_REFINE_KERNEL")


def test_outputs_that_exist_are_kept(made, tmp_path, capsys):
    out, report = tmp_path / "o.npy", tmp_path / "o.csv"
    arguments = [made.starts_file, made.seismic, "--out", str(out), "--max-evaluations", "1"]
    for path in (out, report):
        path.write_text("mine")
        assert run(arguments) == 2
        assert f"{path} exists already" in capsys.readouterr().err
        assert tree(tmp_path) == {path: b"mine"}
        path.unlink()
    out.write_text("mine")
    assert run([*arguments, "--limit", "1", "--overwrite", "--report", str(report)]) == 0
    assert np.load(out).shape == (1, 70, 70)


@pytest.mark.usefixtures("known_speed")
def test_a_dry_run_says_each_problem_once_and_refuses_what_a_run_does(made, tmp_path, capsys):
    starts = np.concatenate([made.starts, np.full((4, 70, 70), np.nan, np.float32)])
    np.save(tmp_path / "starts.npy", starts)
    np.save(tmp_path / "records.npy", made.records[[0, 1, 2, 0, 0, 0, 0]])
    line = [str(tmp_path / "starts.npy"), str(tmp_path / "records.npy"), "--dry-run"]
    assert run(line) == 3
    captured = capsys.readouterr()
    assert captured.err.count("would fail: found") + captured.err.count(": found 4900") == 1
    assert "4 samples would fail, the first records_3: found 4900 of 4900" in captured.err
    assert "7 samples: 3 to refine, 4 that would fail" in captured.err
    (tmp_path / "o.npy").write_text("")
    assert run([*line, "--out", str(tmp_path / "o.npy")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert run([*line, "--out", str(tmp_path / "starts.npy"), "--overwrite"]) == 2
    assert "is an input as well" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(made, tmp_path, capsys, monkeypatch):
    before = tree(made.folder)
    monkeypatch.chdir(tmp_path)
    arguments = [made.starts_file, made.seismic, "--dry-run"]
    assert run([*arguments, "--max-evaluations", "10"]) == 0
    captured = capsys.readouterr()
    rows = rows_of(captured.out)
    assert sum(int(row["samples"]) for row in rows) == 3
    assert {row["family"] for row in rows} <= set(options.FAMILIES)
    assert {row["evaluations"] for row in rows} == {"10"}
    assert "3 samples: 3 to refine, 0 that would fail" in captured.err
    assert tree(made.folder) == before
    assert os.listdir(tmp_path) == []


def test_durations():
    assert [describe_duration(s) for s in (12, 90, 7200, 864000)] == [
        "12 seconds", "1.5 minutes", "2.0 hours", "10.0 days",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("samples", "jobs", "rounds"), [(5, 1, 5), (5, 2, 3), (5, 4, 2), (3, 3, 1), (6, 3, 2)]
)
def test_jobs_wait_for_the_last_round(samples, jobs, rounds):
    """Five samples of a minute on four jobs take two minutes, and not 1.25."""
    assert _rounds(samples, jobs) * 60 * samples == pytest.approx(60 * rounds)
    assert _rounds(0, jobs) == 0


@pytest.mark.usefixtures("known_speed")
def test_config_gives_defaults_and_knows_its_keys(made, tmp_path, capsys):
    config = tmp_path / "c.toml"
    config.write_text("max_evaluations = 7\nlimit = 2\nquiet = 1\n")
    arguments = [made.starts_file, made.seismic, "--out", "o.npy", "--config", str(config)]
    assert run([*arguments, "--dry-run", "--limit", "1"]) == 0
    captured = capsys.readouterr()
    (row,) = rows_of(captured.out)
    assert (row["samples"], row["evaluations"]) == ("1", "7")
    assert captured.err == ""
    for text, words in (
        ("jobz = 2", "unknown key 'jobz', expected one of: bounds, candidate, chunk-size"),
        ("jobs = 'many'", "'many' is not a valid integer"),
        ("jobs = ", "cannot be read"),
    ):
        config.write_text(text)
        assert run(arguments) == 2
        assert words in capsys.readouterr().err


@pytest.mark.usefixtures("known_speed")
def test_the_log_file_holds_what_stderr_does(made, tmp_path, capsys):
    log = tmp_path / "run.log"
    arguments = [made.starts_file, made.seismic, "--out", "o.npy", "--dry-run", "--limit", "1"]
    assert run([*arguments, "-q", "--log-file", str(log)]) == 0
    assert capsys.readouterr().err == ""
    assert "kernel: " in log.read_text()
    assert run([*arguments, "--log-file", str(tmp_path / "absent" / "x.log")]) == 2
    assert "No such file or directory" in capsys.readouterr().err


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path):
    n = 20_000  # 392 MB
    with open(tmp_path / "p.npy", "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (n, 70, 70)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + n * 4900 * 4)
    code = f"""
import resource
from fwi_refine import io
from fwi_refine.io.map_writer import MapWriter
source = io.open_predictions({str(tmp_path / "p.npy")!r})
writer = MapWriter({str(tmp_path / "o.npy")!r}, source.shape, (70, 70))
def work(maps):
    for k in maps:
        writer.write(k, io.read_start(source, k))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = work(range(100))
print(work(range(100, {n})) - before)
writer.discard()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 20_000  # kB
