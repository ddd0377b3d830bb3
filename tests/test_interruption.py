"""SIGINT, SIGTERM, a dead worker: what is finished is kept, and no process is left."""

import contextlib
import csv
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fwi_refine.runs.directory import RunDirectory, check_parts, look


def read_until(terminal, words, seconds):
    """What the program writes on the terminal until it has written `words`."""
    text, deadline = "", time.monotonic() + seconds
    while words not in text:
        ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"{words!r} did not come within {seconds} s: {text}"
        text += os.read(terminal, 4096).decode(errors="replace")
    return text


def processes_in(folder):
    """Ids of the processes that work in a folder; none are found where there is no /proc."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):  # it has ended, or is not ours
            if os.readlink(place) == str(folder):
                found.append(int(place.parts[2]))
    return found


def workers_in(folder):
    return [
        pid
        for pid in processes_in(folder)
        if b"LokyProcess" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


class Running:
    """A run of 40 samples in a folder of its own, with its terminal."""

    def __init__(self, made, folder, jobs, more=()):
        n = 40
        np.save(folder / "p.npy", np.resize(made.starts, (n, 70, 70)))
        (folder / "seismic").mkdir()
        for k in range(n):
            source = f"{made.seismic}/{made.ids[k % 3]}.npy"
            os.symlink(source, folder / "seismic" / f"{k:02d}.npy")
        command = [sys.executable, "-c", "from fwi_refine.cli import main; main()"]
        arguments = [
            "p.npy",
            "seismic",
            "--out",
            "o.npy",
            "--method",
            "lbfgs",
            "--time-budget",
            "1.5",
        ]
        self.folder = folder
        self.terminal, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 120))
        self.process = subprocess.Popen(
            [*command, *arguments, "--jobs", str(jobs), *more],
            cwd=folder,
            stderr=theirs,
            stdout=subprocess.PIPE,
        )
        os.close(theirs)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        os.close(self.terminal)

    def wait_for_two(self):
        """Until two samples are finished; returns what stands on the terminal."""
        return read_until(self.terminal, "2/40", 120)

    def check_partial(self):
        """Nothing is left but the partial files, and they tell what is finished."""
        assert wait_for(lambda: not processes_in(self.folder), 10), "worker processes are left"
        files = {"p.npy", "seismic", "o.partial.npy", "o.partial.csv"}
        assert set(os.listdir(self.folder)) == files
        with open(self.folder / "o.partial.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        counts = Counter(row["status"] for row in rows)
        assert set(counts) <= {"refined", "unchanged", "unfinished"}
        assert 2 <= len(rows) - counts["unfinished"] < 40
        maps = np.load(self.folder / "o.partial.npy")
        starts = np.load(self.folder / "p.npy")
        for row, v, start in zip(rows, maps, starts, strict=True):
            assert np.array_equal(v, start) == (row["status"] != "refined")


@pytest.mark.parametrize(
    ("signum", "code", "jobs"),
    [
        (signal.SIGINT, 130, 1),
        pytest.param(signal.SIGTERM, 143, 2, marks=pytest.mark.process),
    ],
)
def test_interruption_keeps_what_is_finished(made, tmp_path, signum, code, jobs):
    with Running(made, tmp_path, jobs) as running:
        bar = running.wait_for_two()
        assert " times smaller" in bar
        assert "sample" in bar
        running.process.send_signal(signum)
        told = time.monotonic()
        text = read_until(running.terminal, "stopped by", 10)
        assert running.process.wait(10) == code
        assert time.monotonic() - told < 10
        assert "o.partial.npy" in text
        running.check_partial()


@pytest.mark.process
def test_interruption_of_a_run_directory_keeps_its_parts(made, tmp_path):
    with Running(made, tmp_path, 2, ["--run-dir", "run", "--chunk-size", "1"]) as running:
        running.wait_for_two()
        running.process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        read_until(running.terminal, "stopped by", 10)
        assert running.process.wait(10) == 143
        assert time.monotonic() - told < 10
        assert wait_for(lambda: not processes_in(tmp_path), 10), "worker processes are left"
    assert set(os.listdir(tmp_path)) == {"p.npy", "seismic", "run"}
    run = RunDirectory(tmp_path / "run")
    assert 2 <= len(run.parts()) < 40
    assert run.temporaries() == []
    assert all(problem is None for _, problem in check_parts(run))
    state = look(run)
    assert state.done == len(run.parts()) == sum(state.status.values())
    assert not state.shards[0]["running"]


@pytest.mark.process
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="finds the workers in /proc")
def test_a_worker_that_dies_does_not_end_the_run(made, tmp_path):
    with Running(made, tmp_path, 2) as running:
        running.wait_for_two()
        workers = workers_in(tmp_path)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        text = read_until(running.terminal, "a worker process died", 60)
        text += read_until(running.terminal, "6/40", 120)
        assert "failed" not in text
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 143
        running.check_partial()


@pytest.mark.process
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="finds the workers in /proc")
def test_workers_end_with_a_run_that_is_killed(made, tmp_path):
    with Running(made, tmp_path, 2) as running:
        running.wait_for_two()
        assert len(workers_in(tmp_path)) == 2
        running.process.kill()
        running.process.wait()
        assert wait_for(lambda: not processes_in(tmp_path), 20), "worker processes are left"
