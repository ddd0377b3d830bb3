"""A run without a run directory goes on too; locks, shards that start at once, messages."""

import errno
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time

import h5py
import numpy as np
import pytest
from helpers import others_slow
from run_cases import expected_maps, merged, prepare, refine_all, trivial, write_inputs

from fwi_refine import io
from fwi_refine.cli import logs
from fwi_refine.cli import run as run_command
from fwi_refine.cli.commands import refine
from fwi_refine.errors import InputError, RunError
from fwi_refine.io.outputs import open_temporary
from fwi_refine.runs import executors, locks, one_sample
from fwi_refine.runs.directory import RunDirectory, claimed, read_state
from fwi_refine.runs.directory.shards import Journal, read_journal

NAMES = ["a", "b", "c", "d", "e"]


@pytest.fixture
def case(tmp_path, monkeypatch, unchecked):
    """Inputs in the current folder, and a program whose samples take no time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(executors, "Processes", lambda *arguments: executors.Serial())
    monkeypatch.setattr(one_sample, "refine_one", trivial)
    return write_inputs(tmp_path, NAMES)


COMMAND = ["starts.npy", "seismic", "--ids", "ids.txt", "--method", "lbfgs", "--out", "o.npy"]


def test_a_kill_between_two_outputs_leaves_names_that_are_the_commands_own(case, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(self, path):
        raise Killed

    history = ["--history", "h.csv"]
    with monkeypatch.context() as patch:
        patch.setattr(io.MapWriter, "publish", killed)
        patch.setattr(refine, "_keep_partial", lambda results: None)
        with pytest.raises(Killed):
            run_command([*COMMAND, *history])
    assert (case / "o.csv").exists()
    assert not (case / "o.npy").exists()
    assert run_command([*COMMAND, *history]) == 0
    np.testing.assert_array_equal(np.load("o.npy"), expected_maps(case))
    assert not (case / ".o.npy.run").exists()
    assert run_command([*COMMAND, *history]) == 2


def test_a_kill_while_the_finished_samples_are_removed(case, monkeypatch, capsys):
    """The outputs are complete; nothing is refined again, and nothing is in the way."""

    class Killed(BaseException):
        pass

    def killed(path, *more, **others):
        if os.path.basename(path) != "parts":
            raise Killed
        os.remove(next(os.scandir(path)))

    with monkeypatch.context() as patch:
        patch.setattr("fwi_refine.cli.run_directory.shutil.rmtree", killed)
        with pytest.raises(Killed):
            run_command(COMMAND)
    assert (case / "o.npy").exists()
    assert (case / ".o.npy.run" / "run.toml").exists()
    monkeypatch.setattr(one_sample, "refine_one", stop_at("a", AssertionError("refined again")))
    assert run_command(COMMAND) == 2
    assert "o.npy exists already" in capsys.readouterr().err
    monkeypatch.setattr(one_sample, "refine_one", trivial)
    assert run_command([*COMMAND, "--overwrite"]) == 0
    np.testing.assert_array_equal(np.load("o.npy"), expected_maps(case))
    assert not (case / ".o.npy.run").exists()


def test_results_are_not_replaced_by_those_of_samples_that_all_failed(case, monkeypatch, capsys):
    assert run_command(COMMAND) == 0
    before = {name: (case / name).read_bytes() for name in ("o.npy", "o.csv")}
    maps = np.load("starts.npy")
    np.save("starts.npy", np.full_like(maps, np.nan))
    assert run_command([*COMMAND, "--overwrite"]) == 3
    assert "earlier results stay as they are" in capsys.readouterr().err
    assert {name: (case / name).read_bytes() for name in before} == before
    assert np.isnan(np.load("o.partial.npy")).all()
    maps[1:] = np.nan
    np.save("starts.npy", maps)
    assert run_command([*COMMAND, "--overwrite"]) == 3
    assert (case / "o.npy").read_bytes() != before["o.npy"]


def test_merging_samples_that_all_failed_replaces_nothing(case, capsys):
    assert run_command(COMMAND) == 0
    before = {name: (case / name).read_bytes() for name in ("o.npy", "o.csv")}
    np.save("starts.npy", np.full_like(np.load("starts.npy"), np.nan))
    in_run = [*COMMAND, "--overwrite", "--run-dir", "run"]
    assert run_command(in_run) == 3
    assert run_command(["merge", "run", "--out", "o.npy", "--overwrite"]) == 3
    error = capsys.readouterr().err
    assert error.count("earlier results stay as they are") == 2
    assert "o.partial-2.npy, report in o.partial-2.csv" in error
    assert {name: (case / name).read_bytes() for name in before} == before
    assert np.isnan(np.load("o.partial.npy")).all()
    assert run_command(["merge", "run", "--out", "new.npy"]) == 3
    assert np.isnan(np.load("new.npy")).all()


def test_starts_are_not_replaced_where_none_could_be_made(case, capsys):
    """Nor by zeros, which a record that fails has for a map."""
    np.save("record.npy", np.full((1, 5, 1000, 70), np.nan, "f4"))
    command = ["start", "record.npy", "--out", "starts.npy", "--overwrite", "--force"]
    before = (case / "starts.npy").read_bytes()
    assert run_command(command) == 3
    assert "the earlier ones stay in starts.npy" in capsys.readouterr().err
    assert (case / "starts.npy").read_bytes() == before
    assert not [*case.glob(".starts.npy*")]


def stop_at(name, error):
    def refine(sample, settings, watch=None):
        if sample.id == name:
            raise error
        return trivial(sample, settings)

    return refine


def stopped(monkeypatch, name="d", error=None):
    """The command, stopped by a full disk of its machine at one sample; its exit code."""
    with monkeypatch.context() as patch:
        error = error or OSError(errno.ENOSPC, "No space left on device")
        patch.setattr(one_sample, "refine_one", stop_at(name, error))
        return run_command(COMMAND)


def test_the_same_command_goes_on(case, monkeypatch, capsys):
    assert stopped(monkeypatch) == 1
    error = capsys.readouterr().err
    assert "3 of 5 samples are finished and kept in .o.npy.run" in error
    assert f"to go on: fwi-refine {' '.join(COMMAND)}" in error
    calls = []

    def count(sample, settings, watch=None):
        calls.append(sample.id)
        return trivial(sample, settings)

    monkeypatch.setattr(one_sample, "refine_one", count)
    assert run_command([*COMMAND, "--history", "h.csv"]) == 0
    assert calls == ["d", "e"]
    np.testing.assert_array_equal(np.load("o.npy"), expected_maps(case))
    text = (case / "o.csv").read_text()
    assert text.count(",0.12,") == 5  # seconds, also of those finished before
    assert not (case / ".o.npy.run").exists()
    assert [path.name for path in case.iterdir() if path.name.startswith(".")] == []


def test_another_run_to_the_same_output_is_not_mixed_with_the_first(case, monkeypatch, capsys):
    assert stopped(monkeypatch) == 1
    capsys.readouterr()
    other = [*COMMAND, "--max-evaluations", "3"]
    assert run_command(other) == 2
    error = capsys.readouterr().err
    assert "holds 3 finished samples of an earlier run" in error
    assert "settings.max_evaluations: not set in the run, 3 now" in error
    assert read_state(RunDirectory(case / ".o.npy.run")).done == 3
    assert run_command([*other, "--overwrite"]) == 0
    assert not (case / ".o.npy.run").exists()


@pytest.mark.parametrize(("ignored", "code"), [(False, 129), (True, 0)])
def test_the_end_of_the_terminal_keeps_what_is_finished(case, monkeypatch, ignored, code):
    """As SIGTERM does; under nohup, which has it ignored, the work goes on."""

    def hang_up(sample, settings, watch=None):
        if sample.id == "c":
            os.kill(os.getpid(), signal.SIGHUP)
        return trivial(sample, settings)

    monkeypatch.setattr(one_sample, "refine_one", hang_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        assert run_command(COMMAND) == code
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (case / "o.npy").exists() == ignored
    if not ignored:
        assert read_state(RunDirectory(case / ".o.npy.run")).done == 2


# What is written is none of what is read


@pytest.mark.parametrize(
    "arguments",
    [
        ["refine", "starts.npy", "seismic", "--out", "starts.npy"],
        ["refine", "starts.npy", "seismic", "--out", "o.npy", "--report", "ids.txt",
         "--ids", "ids.txt"],
        ["refine", "starts.npy", "seismic", "--out", "seismic/a.npy"],
        ["refine", "starts.npy", "seismic", "--out", "hard.npy"],
        ["refine", "starts.npy", "seismic", "--out", "soft.npy"],
        ["refine", "starts.npy", "seismic", "--out", "o.npy", "--log-file", "starts.npy"],
        ["refine", "starts.npy", "seismic", "--out", "o.npy", "--log-file", "o.npy"],
        ["refine", "starts.npy", "seismic", "--run-dir", "seismic"],
        ["refine", "starts.npy", "seismic", "--ids", "o.csv", "--out", "o.npy"],
        ["start", "record.npy", "--out", "record.npy"],
        ["start", "seismic", "--out", "seismic/b.npy"],
        ["submit", "starts.npy", "--ids", "o.csv", "--out", "o.csv"],
        ["submit", "starts.npy", "--ids", "ids.txt", "--like", "o.csv", "--out", "o.csv"],
        ["simulate", "seismic", "--out", "seismic"],
        ["blend", "starts.npy", "record.npy", "--median", "--out", "starts.npy"],
        ["blend", "starts.npy", "starts.npy", "--weights", "w.json", "--out", "w.npy"],
        ["blend", "starts.npy", "starts.npy", "--truth", "record.npy", "--out", "record.npy"],
        ["merge", "run", "--out", "run/parts/x.npy"],
        ["report", "o.csv", "--out", "o.csv"],
        ["plot", "convergence", "o.csv", "--out", "o.csv"],
        ["fit-priors", "seismic", "--priors", "o.csv", "--out", "o.csv"],
        ["probe", "write", "starts.npy", "--families", "o.csv", "--family", "layered",
         "--out", "o.csv"],
    ],
)  # fmt: skip
def test_no_output_is_an_input(case, arguments, capsys):
    refine_all(case, prepare(case, case / "run"))
    os.link("starts.npy", "hard.npy")
    os.symlink("seismic/a.npy", "soft.npy")
    (case / "o.csv").write_text("id,family\n" + "".join(f"{n},layered\n" for n in NAMES))
    (case / "w.json").write_text("{}")
    (case / "run" / "parts" / "x.npy").write_text("x")
    if arguments[-1] == "hard.npy":
        arguments = ["refine", "hard.npy", "seismic", "--out", "starts.npy"]
    if arguments[-1] == "soft.npy":
        arguments = ["refine", "starts.npy", "soft.npy", "--out", "seismic/a.npy"]
    before = tree(case)
    assert run_command([*arguments, "--overwrite"]) == 2
    error = capsys.readouterr().err
    assert "an input" in error or "two outputs" in error, error
    assert tree(case) == before


def tree(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Temporary files


def test_temporary_names_are_new_random_and_follow_no_link(tmp_path):
    names = set()
    for _ in range(20):
        path, file = open_temporary(tmp_path / "o.npy")
        assert stat.S_ISREG(os.lstat(path).st_mode)
        names.add(path.name)
        file.close()
    assert len(names) == 20
    assert not any(str(os.getpid()) == name.split(".")[-2] for name in names)


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path):
    script = (
        "import sys, time; from pathlib import Path\n"
        "from fwi_refine.io.outputs import open_temporary\n"
        "kept = open_temporary(Path(sys.argv[1])); print(kept[0], flush=True); time.sleep(600)"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path / "o.npy")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        left = process.stdout.readline().strip()
        io.claim_output(tmp_path / "o.npy", overwrite=False)
        assert os.path.exists(left)
        process.send_signal(signal.SIGKILL)
        process.wait()
    (tmp_path / ".other.npy.0123456789abcdef.tmp").write_text("not ours")
    io.claim_output(tmp_path / "o.npy", overwrite=False)
    assert os.listdir(tmp_path) == [".other.npy.0123456789abcdef.tmp"]


# Locks


@pytest.fixture
def no_locks(monkeypatch):
    """A disk without locks, as NFS without its lock daemon."""

    def fail(number, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)


def test_a_run_directory_on_a_disk_without_locks_is_refused(case, no_locks):
    with pytest.raises(RunError, match=r"making\.lock: this disk has no locks.*local disk"):
        prepare(case, case / "run")


def test_a_run_to_an_output_needs_no_locks(case, no_locks, capsys):
    assert run_command(COMMAND) == 0
    assert "has no locks" in capsys.readouterr().err
    assert not (case / ".o.npy.run").exists()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a compiler")
def test_inputs_need_no_locks(tmp_path):
    """HDF5 locks what it reads, unless it is told not to."""
    (tmp_path / "no.c").write_text(
        "#include <errno.h>\nint flock(int f, int o) { errno = ENOLCK; return -1; }\n"
    )
    library = str(tmp_path / "no.so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, tmp_path / "no.c"], check=True)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["velocity"] = np.full((1, 70, 70), 2000.0)
    script = (
        "import sys; from fwi_refine.io import open_predictions\n"
        "print(open_predictions(sys.argv[1]).read(0)[0, 0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "m.h5")],
        env=os.environ | {"LD_PRELOAD": library},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "2000.0\n", done.stderr


def test_a_lock_that_is_only_looked_at_refuses_no_shard(case):
    """Eight shards that start at once look at the locks of one another for a moment each."""
    run = prepare(case, case / "run", chunk_size=1)
    folder = run.shards_folder
    refine_all(case, run)  # leaves the lock of the whole behind
    problems, ending = [], threading.Event()

    def look_on():
        while not ending.is_set():
            number = locks.take(folder / "1-of-1.lock")
            time.sleep(0.02)
            if number is not None:
                os.close(number)
            time.sleep(0.02)

    watcher = threading.Thread(target=look_on)
    watcher.start()

    def start(i):
        try:
            for _ in range(5):
                with claimed(folder, (i, 5), run.chunk_count):
                    pass
        except RunError as error:
            problems.append(error)

    threads = [threading.Thread(target=start, args=[i]) for i in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ending.set()
    watcher.join()
    assert problems == []


# Messages that cannot be written


class Broken:
    encoding = "utf-8"

    def write(self, text):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    flush = fileno = lambda self: self.write("")

    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [Broken(), None])
def test_a_closed_stderr_stops_nothing(case, monkeypatch, stream):
    (case / "ids.txt").write_text("\n".join(["a", "bad", "c", "d", "e"]))
    (case / "seismic" / "b.npy").rename(case / "seismic" / "bad.npy")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        assert run_command(COMMAND) == 3
        assert sys.stderr is stream
    assert np.load("o.npy").shape == (5, 70, 70)


@pytest.mark.parametrize(
    "redirection",
    others_slow(["<&- >&- 2>&-", "2>&-", ">&- 2>&-", "2>&1 | head -1"], pytest.mark.process),
)
def test_standard_streams_that_are_closed(tmp_path, redirection):
    """A file that got the number of a closed stream would be written to by every message."""
    write_inputs(tmp_path, NAMES)
    script = (
        "from run_cases import trivial; from fwi_refine.runs import executors, one_sample\n"
        "from fwi_refine.routing.checks import inputs; inputs.check_pairs = lambda *a, **k: None\n"
        "one_sample.refine_one = trivial; executors.Processes = lambda *a: executors.Serial()\n"
        "from fwi_refine.cli import main; main()"
    )
    (tmp_path / "program.py").write_text(script)
    command = f"{sys.executable} program.py {' '.join(COMMAND)} -v {redirection}; exit 0"
    environment = os.environ | {"PYTHONPATH": f"{os.path.dirname(__file__)}:{os.getcwd()}"}
    subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, timeout=300, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "o.npy"), expected_maps(tmp_path))
    assert b"samples" not in (tmp_path / "o.npy").read_bytes()


def test_a_log_on_a_full_disk_stops_nothing(case, capsys):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    logs.set_up(0, 0, None)
    try:
        logs.add_file("/dev/full")
        import logging

        logging.getLogger("fwi_refine").warning("a message")
    finally:
        logs.tear_down()
    assert "Traceback" not in capsys.readouterr().err


def test_a_journal_that_cannot_be_written_stops_nothing(case, monkeypatch):
    run = prepare(case, case / "run")
    (run.shards_folder / "1-of-1.jsonl").mkdir()
    refine_all(case, run)
    np.testing.assert_array_equal(merged(run, case)[0], expected_maps(case))


# Numbers without sense


@pytest.mark.parametrize(
    ("command", "name", "content"),
    [
        (["--survey"], "s.toml", "a = 0x" + "f" * 6000),
        (["--survey"], "s.toml", "a = " + "[" * 3000 + "]" * 3000),
        (["--survey"], "s.toml", ".".join("a" * 3000) + " = 1"),
        (["--priors"], "p.toml", "[style_a]\nlength = 0x" + "f" * 6000),
        (["--priors"], "p.toml", "[style_a]\nlength." + ".".join("a" * 3000) + " = 1"),
        (["--config"], "c.toml", "jobs = 0x" + "f" * 6000),
        (["--config"], "c.toml", "jobs = " + "[" * 3000 + "]" * 3000),
    ],
)
def test_numbers_of_toml_without_measure(case, capsys, command, name, content):
    (case / name).write_text(content)
    assert run_command([*COMMAND, *command, name]) == 2
    error = capsys.readouterr().err
    assert name in error
    assert "Traceback" not in error
    assert len(error) < 2000


@pytest.mark.parametrize("text", ["1" + "0" * 5000, "1e999", "[" * 100_000, "{}"])
def test_numbers_of_json_without_measure(case, capsys, text):
    (case / "plan.json").write_text(
        '{"shifts": [1, 2], "family": "x", "share_of_maps": 1, "samples": ' + text + "}"
    )
    (case / "w.json").write_text('{"families": {"all": {"weights": [' + text + ", 1]}}}")
    for command in (
        ["probe", "solve", "plan.json", "1", "2", "3"],
        ["blend", "starts.npy", "starts.npy", "--weights", "w.json", "--out", "o.npy"],
    ):
        assert run_command(command) == 2
        assert ".json" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["9" * 5000, "9" * 30, "1e999"])
def test_numbers_of_a_report_without_measure(case, value):
    from fwi_refine.io.report import read_report

    (case / "r.csv").write_text(f"id,status,evaluations\na,refined,{value}\n")
    with pytest.raises(InputError, match="line 2"):
        read_report(case / "r.csv")


def test_a_line_without_an_end_is_not_read_to_it(case):
    with open("long.csv", "wb") as file:
        file.truncate(2**30)
    for read in (io.read_ids, io.read_families, io.open_predictions):
        with pytest.raises(InputError, match="longer than"):
            read(case / "long.csv")


@pytest.mark.parametrize("time", ["NaN", "1e999", "1" + "0" * 400])
def test_times_of_a_journal_without_measure(case, time):
    run = prepare(case, case / "run")
    refine_all(case, run)
    path = run.shards_folder / "1-of-1.jsonl"
    line = f'{{"event": "sample", "place": 0, "seconds": {time}, "time": {time}}}\n'
    path.write_text(path.read_text() + line)
    assert all(isinstance(entry["time"], float) for entry in read_journal(path.parent, (1, 1)))
    assert read_state(run).done == 5
    merged(run, case)


@pytest.mark.parametrize("value", ["nan", "-nan", "NaN"])
def test_a_time_budget_that_is_no_number_is_refused(case, capsys, value):
    assert run_command([*COMMAND, "--time-budget", value]) == 2
    assert "time-budget" in capsys.readouterr().err
    assert not (case / ".o.npy.run").exists()


def test_a_journal_of_no_shard(case):
    run = prepare(case, case / "run")
    for name in ("0-of-0.lock", "3-of-2.lock", f"1-of-{'9' * 30}.lock"):
        (run.shards_folder / name).write_text("")
    Journal(run.shards_folder, (1, 1)).write("start")
    refine_all(case, run)
    assert read_state(run).done == 5


def test_a_finished_run_on_a_read_only_disk_is_finished(case, monkeypatch, capsys):
    """Nothing is written there; one that is not finished says what cannot be written."""
    in_run = [*COMMAND[:-2], "--run-dir", "run"]
    assert run_command(in_run) == 0
    before = tree(case / "run")
    access = os.access

    def read_only(path, mode):
        return access(path, mode) and not (mode == os.W_OK and "run" in os.fspath(path))

    monkeypatch.setattr(os, "access", read_only)
    assert run_command([*in_run, "--out", "o.npy"]) == 0
    assert "is finished, and cannot be written to" in capsys.readouterr().err
    np.testing.assert_array_equal(np.load("o.npy"), expected_maps(case))
    assert tree(case / "run") == before
    os.remove(case / "run" / "parts" / os.listdir(case / "run" / "parts")[0])
    assert run_command(in_run) == 0
    assert tree(case / "run") != before
