"""Runs and clusters as processes of their own, to be interrupted, killed and looked at."""

import contextlib
import csv
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fwi_refine.runs.directory import RunDirectory, read_state


def read_until(terminal, words, seconds):
    """What the program writes on the terminal until it has written `words`, a pattern."""
    text, deadline = "", time.monotonic() + seconds
    while not re.search(words, text):
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
            env=dict(os.environ),  # without COLUMNS, which readline sets behind Python's back
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
        return read_until(self.terminal, "[2-9] of 40 samples", 120)

    def check_partial(self):
        """Nothing is left but the partial files, which tell what is finished, and the finished
        samples, from which the same command goes on."""
        assert wait_for(lambda: not processes_in(self.folder), 10), "worker processes are left"
        files = {"p.npy", "seismic", "o.partial.npy", "o.partial.csv", ".o.npy.run"}
        assert set(os.listdir(self.folder)) == files
        kept = read_state(RunDirectory(self.folder / ".o.npy.run"))
        with open(self.folder / "o.partial.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        counts = Counter(row["status"] for row in rows)
        assert set(counts) <= {"refined", "unchanged", "unfinished"}
        assert 2 <= len(rows) - counts["unfinished"] == kept.done < 40
        maps = np.load(self.folder / "o.partial.npy")
        starts = np.load(self.folder / "p.npy")
        for row, v, start in zip(rows, maps, starts, strict=True):
            assert np.array_equal(v, start) == (row["status"] != "refined")


HERE = os.path.dirname(__file__)


@contextmanager
def dask_cluster(folder, workers=2, **settings):
    """A scheduler and its workers as processes of their own on loopback; yields its address.

    settings: of the scheduler, such as ALLOWED_FAILURES=3, the deaths that it forgives a task.
    """
    pytest.importorskip("distributed")
    contact = folder / "scheduler.json"
    common = ["--scheduler-file", str(contact), "--no-dashboard"]
    roles = [["scheduler", "--host", "127.0.0.1", "--port", "0"]]
    roles += [["worker", "--host", "127.0.0.1", "--nthreads", "1"]] * workers
    environment = {f"DASK_DISTRIBUTED__SCHEDULER__{k}": str(v) for k, v in settings.items()}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{role}", *more, *common],
            env=os.environ | {"PYTHONPATH": HERE} | environment,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for role, *more in roles
    ]
    try:
        assert wait_for(contact.exists, 60)
        yield json.loads(contact.read_text())["address"]
    finally:
        for process in reversed(processes):
            os.killpg(process.pid, signal.SIGTERM)
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                # a nanny that is just starting a worker may miss the signal on a busy machine
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
