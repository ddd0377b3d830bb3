"""Executors: the same bytes from each, and what a dying worker costs."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import replace

import numpy as np
import pytest
from process_cases import Running, dask_cluster, read_until, wait_for
from run_cases import (
    DEADLY,
    SETTINGS,
    expected_maps,
    merged,
    open_case,
    prepare,
    refine_all,
    trivial,
    write_inputs,
)

from fwi_refine.cli import run as run_command
from fwi_refine.errors import InputError, WorkerError
from fwi_refine.io.report import Row
from fwi_refine.runs import batch
from fwi_refine.runs.directory import RunDirectory, check_parts, read_state
from fwi_refine.runs.executors import Dask, Processes, Serial
from fwi_refine.runs.one_sample import Outcome
from fwi_refine.runs.settings import identity

# processes take seconds to start: by default a single test has them, that of a death
PROCESSES = pytest.param("processes", marks=pytest.mark.process)
DASK = pytest.param("dask", marks=pytest.mark.process)  # a cluster takes seconds to start

NAMES = ["a", "b", "bad", "c", "d", "e", "f"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with dask_cluster(tmp_path_factory.mktemp("cluster")) as address:
        yield address


@contextmanager
def executor(kind, request):
    if kind == "dask":
        with closing(Dask(request.getfixturevalue("cluster"))) as opened:
            yield opened
    else:
        yield Serial() if kind == "serial" else Processes(2)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("case"), NAMES)


def stored(run):
    return {p.name: p.read_bytes() for p in run.parts_folder.iterdir()}


def parts_of(case, path, opened):
    run = prepare(case, path)
    refine_all(case, run, opened)
    return stored(run)


@pytest.mark.parametrize("kind", [PROCESSES, DASK])
def test_every_executor_stores_the_same_bytes(case, request, tmp_path, kind):
    serial = parts_of(case, tmp_path / "serial", Serial())
    assert len(serial) == 4
    with executor(kind, request) as opened:
        assert parts_of(case, tmp_path / kind, opened) == serial


@pytest.mark.process
def test_a_worker_that_lacks_the_program_is_named(tmp_path):
    """It could not even read its tasks, and they would be waited for for ever."""
    lacking = tmp_path / "fwi_refine"
    lacking.mkdir()
    (lacking / "__init__.py").write_text("raise ModuleNotFoundError('no such program')")
    with dask_cluster(tmp_path, workers=0) as address:
        worker = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard",
             "--nthreads", "1", "--no-nanny"],
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            cwd=tmp_path,  # which Python looks into first
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            from distributed import Client

            with Client(address, set_as_default=False) as client:
                client.wait_for_workers(1, timeout=60)
                (name,) = client.nthreads()
            with pytest.raises(InputError, match=rf"{name} cannot import fwi_refine.*no such prog"):
                Dask(address)
        finally:
            worker.kill()
            worker.wait()


@pytest.mark.process
def test_a_worker_that_does_not_answer_is_named(cluster, monkeypatch):
    with closing(Dask(cluster)) as opened:
        opened._client.wait_for_workers(1, timeout=60)
        monkeypatch.setattr(opened, "_version_at", lambda worker: time.sleep(3))
        with pytest.raises(InputError, match=r"the worker tcp://\S+ does not answer in 0\.1 s"):
            opened._check_workers(0.1)


def square(x):
    return x * x


def fail_at_three(x):
    if x == 3:
        raise ZeroDivisionError("three")
    return x


@pytest.mark.parametrize("kind", ["serial", PROCESSES, DASK])
def test_tasks_are_taken_as_there_is_room_and_errors_are_raised(request, kind):
    taken = []

    def tasks():
        for k in range(40):
            taken.append(k)
            yield k

    with executor(kind, request) as opened:
        finished = []
        for task, result in opened.map(square, tasks()):
            finished.append(task)
            assert result == task**2
            assert len(taken) - len(finished) <= 5
        assert sorted(finished) == [*range(40)]
        with pytest.raises(ZeroDivisionError, match="three"):
            list(opened.map(fail_at_three, range(10)))
        assert sorted(opened.map(square, range(3))) == [(0, 0), (1, 1), (2, 4)]


def spared(sample, settings, watch=None):
    """`trivial`, but that a deadly sample fails without a death."""
    if sample.id.startswith(DEADLY):
        return Outcome(sample.index, Row(sample.id, reason="spared"))
    return trivial(sample, settings)


def test_a_sample_that_kills_its_worker_fails_alone(tmp_path):
    """The other parts have the bytes that they have in one process. On Dask: tests/test_deadly.py,
    as it takes some seconds for each death."""
    names = ["a", "b", f"{DEADLY}1", "c", "bad", "d"]
    case = write_inputs(tmp_path, names)
    run = prepare(case, tmp_path / "run")
    rows = []
    refine_all(case, run, Processes(2), added=rows.extend)
    serial = prepare(case, tmp_path / "serial")
    refine_all(case, serial, refine=spared)
    parts, others = stored(run).items(), stored(serial).items()
    assert len(parts) == len(others) == 3
    assert len(parts & others) == 2
    failed = {row.id: row.reason for row in rows if row.status == "failed"}
    assert set(failed) == {f"{DEADLY}1", "bad"}
    assert "died" in failed[f"{DEADLY}1"]
    maps, report = merged(run, tmp_path)
    np.testing.assert_array_equal(maps, expected_maps(case))
    assert [line[0] for line in report[1:]] == names
    refine_all(case, run, Serial())  # nothing is left to do, so nothing can be killed


@pytest.mark.process
def test_a_neighbour_on_the_same_dask_worker_does_not_fail_with_it(tmp_path):
    """One worker, which dies at the first deadly task: whatever waited for it is a suspect too."""
    names = ["a", f"{DEADLY}1", "b", "c", "d", f"{DEADLY}2"]
    case = write_inputs(tmp_path, names)
    run, rows = prepare(case, tmp_path / "run", chunk_size=3), []
    cluster = dask_cluster(tmp_path, workers=1, ALLOWED_FAILURES=0)
    with cluster as address, closing(Dask(address)) as opened:
        refine_all(case, run, opened, added=rows.extend)
    assert {row.id for row in rows if row.status == "failed"} == {f"{DEADLY}1", f"{DEADLY}2"}
    np.testing.assert_array_equal(merged(run, tmp_path)[0], expected_maps(case))


@pytest.mark.process
def test_workers_that_die_whatever_they_do_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "MAX_DEATHS", 2)
    case = write_inputs(tmp_path, [f"{DEADLY}{k}" for k in range(2)])
    run = prepare(case, tmp_path / "run", chunk_size=1)
    with pytest.raises(WorkerError, match=r"2 samples in a row.*use fewer --jobs"):
        refine_all(case, run, Processes(2))
    assert len(run.parts()) == 1


def seen_device(task):
    """What a worker sees, once so many workers have begun that each has a task."""
    workers, folder = task
    (folder / str(os.getpid())).touch()
    assert wait_for(lambda: len(os.listdir(folder)) >= workers, 60)
    return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.mark.process
@pytest.mark.parametrize(("jobs", "wanted"), [(2, ["a", "b"]), (3, ["a", "a", "b"])])
def test_each_process_has_a_device_of_its_own(tmp_path, jobs, wanted):
    opened = Processes(jobs, devices=["a", "b"])
    seen = {result for _, result in opened.map(seen_device, [(jobs, tmp_path)] * 12)}
    assert sorted(device for _, device in seen) == wanted


def seen_unless_first(mark):
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.mark.process
def test_the_device_of_a_process_that_died_is_free(tmp_path):
    results = Processes(1, devices=["a"]).map(seen_unless_first, [tmp_path / "mark"] * 6)
    assert [device for _, device in results] == ["a"] * 6


def slow(sample, settings, watch=None):
    time.sleep(0.3)
    return trivial(sample, settings)


def worker_pids(opened):
    return opened._client.run(os.getpid)


@pytest.mark.process
def test_dask_workers_that_die_cost_nothing(tmp_path):
    """One worker is killed, later both, and their nannies start others."""
    case = write_inputs(tmp_path, [f"n{k:02d}" for k in range(16)])
    plain = parts_of(case, tmp_path / "plain", Serial())
    run = prepare(case, tmp_path / "run")
    deaths, killed = iter([1, 2]), []
    with dask_cluster(tmp_path) as address, closing(Dask(address)) as opened:
        opened._client.wait_for_workers(2, timeout=60)

        def kill(rows):
            several = next(deaths, 0)
            if several > 1:  # the one that was killed is there again
                opened._client.wait_for_workers(2, timeout=60)
            for pid in list(worker_pids(opened).values())[:several]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

        refine_all(case, run, opened, refine=slow, added=kill)
    assert len(killed) == 3
    assert stored(run) == plain


@pytest.mark.process
def test_a_scheduler_that_dies_ends_the_run_and_the_parts_stay(tmp_path):
    case = write_inputs(tmp_path, [f"n{k:02d}" for k in range(16)])
    run = prepare(case, tmp_path / "run")
    with dask_cluster(tmp_path) as address, closing(Dask(address)) as opened:
        scheduler = opened._client.run_on_scheduler(os.getpid)
        killed = []

        def kill(rows):
            if not killed:
                os.kill(scheduler, signal.SIGKILL)
                killed.append(scheduler)

        with pytest.raises(WorkerError, match="the Dask scheduler has gone"):
            refine_all(case, run, opened, refine=slow, added=kill)
    assert 1 <= read_state(run).done < 16
    assert all(problem is None for _, problem in check_parts(run))


def test_a_worker_with_another_program_is_refused(case):
    chunk = next(open_case(case).tasks([[0, 1]]))
    version, kernel = identity(SETTINGS)
    assert len(batch.refine_chunk(chunk, SETTINGS, trivial, (version, kernel))) == 2
    with pytest.raises(WorkerError, match=r"has fwi-refine .*, expected 9\.9 with the kernel"):
        batch.refine_chunk(chunk, SETTINGS, trivial, ("9.9", kernel))


@pytest.mark.process
def test_a_defect_in_a_worker_is_logged_here_with_its_place(case, caplog):
    broken = replace(SETTINGS, method="unheard-of")
    ((_, outcomes),) = batch.run(open_case(case).tasks([[0, 1]]), broken, Processes(1))
    assert [outcome.row.status for outcome in outcomes] == ["failed", "failed"]
    assert "unheard-of" in outcomes[0].row.reason
    assert caplog.text.count("Traceback (most recent call last)") == 2
    assert "in refine_one" in caplog.text


def test_a_scheduler_that_does_not_answer():
    pytest.importorskip("distributed")
    with pytest.raises(InputError, match="no scheduler answers"):
        Dask("tcp://127.0.0.1:9", timeout=1)
    with pytest.raises(InputError, match="no scheduler answers"):
        Dask("nonsense://x", timeout=1)


@pytest.mark.process
def test_dask_on_the_command_line(made, baseline, cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(made.folder)
    arguments = ["starts.npy", "seismic", "--dask", cluster]
    quick = ["--method", "lbfgs", "--max-evaluations", "4"]
    run_dir = ["--run-dir", str(tmp_path / "run"), "--chunk-size", "1"]
    assert run_command([*arguments, *quick, *run_dir, "--out", str(tmp_path / "o.npy")]) == 0
    assert np.load(tmp_path / "o.npy").tobytes() == baseline.maps.tobytes()
    assert run_command([*arguments, *quick, "--out", str(tmp_path / "p.npy")]) == 0
    assert (tmp_path / "p.npy").read_bytes() == (tmp_path / "o.npy").read_bytes()


@pytest.mark.process
def test_interruption_of_a_run_on_dask(made, cluster, tmp_path):
    more = ["--dask", cluster, "--run-dir", "run", "--chunk-size", "1"]
    with Running(made, tmp_path, 1, more) as running:
        running.wait_for_two()
        running.process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        read_until(running.terminal, "stopped by SIGTERM", 10)
        assert running.process.wait(10) == 143
        assert time.monotonic() - told < 10
    run = RunDirectory(tmp_path / "run")
    assert 2 <= len(run.parts()) < 40
    assert all(problem is None for _, problem in check_parts(run))


def test_processes_of_a_daemonic_one_are_refused(monkeypatch):
    """As those of a pool or of a loader are, which may have none."""
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with pytest.raises(InputError, match=r"2 jobs: this process is a daemonic one.*jobs=1"):
        Processes(2)
