"""SIGINT, SIGTERM, a dead worker: what is finished is kept, and no process is left."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from process_cases import Running, processes_in, read_until, wait_for, workers_in

from fwi_refine.cli.signals import SIGNUMS, Interrupted, Signals
from fwi_refine.runs.directory import RunDirectory, check_parts, read_state


@pytest.mark.parametrize(
    ("signum", "code", "jobs"),
    [
        (signal.SIGINT, 130, 1),
        pytest.param(signal.SIGTERM, 143, 2, marks=pytest.mark.process),
        pytest.param(signal.SIGHUP, 129, 2, marks=pytest.mark.process),
    ],
)
def test_interruption_keeps_what_is_finished(made, tmp_path, signum, code, jobs):
    # four evaluations each, however busy the machine is
    more = ["--max-evaluations", "4", "--time-budget", "60"]
    with Running(made, tmp_path, jobs, more) as running:
        bar = running.wait_for_two()
        assert " times smaller" in bar
        assert "sample" in bar
        running.process.send_signal(signum)
        told = time.monotonic()
        text = read_until(running.terminal, "stopped by", 10)
        assert running.process.wait(10) == code
        assert time.monotonic() - told < 10
        assert "o.partial.npy" in text
        assert re.search(r"\d+ of 40 samples are finished and kept in \.o\.npy\.run", text)
        assert "fwi-refine p.npy seismic --out o.npy" in text.replace("\r\n", "")
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
    state = read_state(run)
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
        text += read_until(running.terminal, "[6-9] of 40 samples", 120)
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


@pytest.mark.process
@pytest.mark.parametrize("closed", [(2,), (0, 1, 2)])
def test_closed_standard_streams_are_open_in_workers_too(made, tmp_path, closed):
    """Else the pipes to a worker take their numbers, and every worker dies."""
    program = f"""
import os
for number in {closed}:
    os.close(number)
import sys
from fwi_refine.cli.logs import open_standard_streams
open_standard_streams()
child = os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c",
    "import os; [os.fstat(number) for number in range(3)]"])
os._exit(child)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
    arguments = [made.starts_file, made.seismic, "--out", str(tmp_path / "o.npy"), "--limit", "1",
                 "--method", "lbfgs", "--max-evaluations", "1", "--family", "layered"]  # fmt: skip
    main = [sys.executable, "-c", "from fwi_refine.cli import main; main()", *arguments]
    shell = " ".join(map(shlex.quote, main)) + "".join(f" {number}>&-" for number in closed)
    assert subprocess.run(["sh", "-c", shell], timeout=300).returncode == 0
    assert np.load(tmp_path / "o.npy").shape == (1, 70, 70)


def test_a_second_signal_does_not_undo_what_the_first_began():
    before = signal.getsignal(signal.SIGINT)  # a background job's shell has it ignored
    signals = Signals()
    signals.install()
    try:
        with pytest.raises(Interrupted, match="SIGINT"):
            signal.raise_signal(signal.SIGINT)
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(signum)  # while it stops
        with signals.shielded():
            signal.raise_signal(signal.SIGINT)
        signals.restore()
        signals.install()  # the next command may be stopped again
        with pytest.raises(Interrupted, match="SIGTERM"), signals.shielded():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signals.restore()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_ends_a_process_that_does_not_stop(monkeypatch):
    """Hung while it stops, on a disk that does not answer maybe, it can be ended."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr("fwi_refine.cli.signals.PATIENCE", 0.0)
    signals = Signals()
    signals.install()
    try:
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.01)
        signal.raise_signal(signal.SIGTERM)
    finally:
        signals.restore()
    assert codes == [143]


@pytest.mark.process
@pytest.mark.parametrize("waits", [(0, 0), (0.01, 0.05, 0.2), (0.5, 0.5, 0.5)])
def test_ctrl_c_again_and_again(made, tmp_path, waits):
    with Running(made, tmp_path, 1) as running:
        running.wait_for_two()
        running.process.send_signal(signal.SIGINT)
        for seconds in waits:
            time.sleep(seconds)
            running.process.send_signal(signal.SIGINT)
        text = read_until(running.terminal, "stopped by SIGINT", 10)
        assert running.process.wait(10) == 130
        assert "Traceback" not in text
        running.check_partial()


def test_a_signal_after_all_is_written(monkeypatch):
    """When the command has ended, and the signals are not ignored yet."""
    from fwi_refine import cli

    def late():
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(cli.logs, "open_standard_streams", lambda: None)
    monkeypatch.setattr(cli.logs, "close_standard_streams", lambda: None)
    monkeypatch.setattr(cli.SIGNALS, "ignore", lambda: None)
    monkeypatch.setattr(cli.logs, "tear_down", late)
    monkeypatch.setattr(sys, "argv", ["fwi-refine", "--version"])
    before = {number: signal.getsignal(number) for number in SIGNUMS}
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ended.value.code == 143


def test_ctrl_c_while_the_program_is_loaded():
    """Before it listens to signals, it ends without a traceback."""
    program = """
import os, signal, sys
class Finder:
    def find_spec(self, name, *more):
        if name == "fwi_refine.cli":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
signal.signal(signal.SIGINT, signal.default_int_handler)
from fwi_refine.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")
