"""kill -9, full disks, disks that cannot be written: what is finished stays."""

import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from run_cases import expected_maps, merged, part_names, prepare, refine_all, write_inputs
from small_survey_cases import SURVEY

from fwi_refine.cli import run as run_command
from fwi_refine.runs import executors
from fwi_refine.runs.directory import RunDirectory, check_parts
from fwi_refine.survey.toml import write_survey
from fwi_refine.wave import Simulator

KILLS = 20


@pytest.fixture(scope="module")
def forked():
    """Starts a function in a new process, without the seconds that importing takes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["fwi_refine.runs.directory", "fwi_refine.cli.commands.refine", "rich"]
    )

    def start(function, *arguments):
        process = context.Process(target=function, args=arguments)
        process.start()
        return process

    start(os.getpid).join()  # so that the server has imported it all
    return start


def kill_repeatedly(start, run, pause, every=1):
    """Starts a process and kills it, KILLS times; every part under its final name is sound.

    pause(): seconds from its start to the kill; each `every`-th time from the moment when it has
    finished another part, so that there is progress on a machine of any speed.
    """
    for k in range(KILLS):
        before = len(run.parts())
        process = start()
        while k % every == 0 and len(run.parts()) == before and process.is_alive():
            time.sleep(0.001)
        process.join(pause())
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it had ended before it was killed"
        assert all(problem is None for _, problem in check_parts(run))


@pytest.mark.process
def test_twenty_kills_while_parts_are_written(forked, tmp_path):
    """Samples that take no time, so that most of the time goes into storing them."""
    n = 700
    case = write_inputs(tmp_path, [f"n{k:04d}" for k in range(n)])
    run, plain = (prepare(case, tmp_path / name, chunk_size=1) for name in ("run", "plain"))
    rng = random.Random(1)
    kill_repeatedly(lambda: forked(refine_all, case, run), run, lambda: rng.uniform(0, 0.03))
    found, added = [], []
    refine_all(case, run, found=found.extend, added=added.extend)
    assert len(found) + len(added) == n
    assert len(found) >= KILLS
    assert added
    refine_all(case, plain)
    assert part_names(run) == part_names(plain)
    for mine, theirs in zip(run.parts().values(), plain.parts().values(), strict=True):
        assert mine[0].read_bytes() == theirs[0].read_bytes()
    (maps, report), (plain_maps, plain_report) = merged(run, tmp_path), merged(plain, tmp_path)
    assert maps.tobytes() == plain_maps.tobytes()
    assert report == plain_report


def die_in(name, case, run, samples):
    """Refines some samples and is killed within the next call of os.`name`."""

    def die(*arguments):
        os.kill(os.getpid(), signal.SIGKILL)

    def arm(rows):
        if rows[-1].id == samples:
            setattr(os, name, die)

    refine_all(case, run, added=arm)


@pytest.mark.parametrize("name", [pytest.param("fsync", marks=pytest.mark.process), "replace"])
def test_death_between_writing_and_renaming(forked, tmp_path, name):
    case = write_inputs(tmp_path, ["a", "b", "c", "d"])
    run = prepare(case, tmp_path / "run", chunk_size=1)
    process = forked(die_in, name, case, run, "b")
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (stale,) = run.temporaries()
    assert re.fullmatch(r"\.part-000002-[0-9a-f]{16}\.h5\.[0-9a-f]{16}\.tmp", stale.name)
    assert list(run.parts()) == [0, 1]
    added = []
    refine_all(case, run, added=added.extend)
    assert [row.id for row in added] == ["c", "d"]
    assert run.temporaries() == []
    np.testing.assert_array_equal(merged(run, tmp_path)[0], expected_maps(case))


def refine_here(arguments):
    """The command in this very process: a worker of its own would only take seconds to start."""
    executors.Processes = lambda jobs, *more: executors.Serial()
    run_command(arguments)


def duration(command):
    started = time.monotonic()
    assert command() == 0
    return time.monotonic() - started


@pytest.mark.process
def test_twenty_kills_of_a_real_refinement(forked, tmp_path):
    """On a small survey, where a sample takes less than a tenth of a second."""
    n = 120  # more than twenty starts can finish
    write_survey(SURVEY, tmp_path / "survey.toml")
    truth = np.where(np.arange(20)[:, None] < 9 + np.arange(n)[:, None, None] % 4, 1800.0, 2600.0)
    truth = np.broadcast_to(truth, (n, 20, 25))
    (tmp_path / "seismic").mkdir()
    records = Simulator(SURVEY).forward(torch.tensor(truth)).numpy()
    for k, record in enumerate(records):
        np.save(tmp_path / "seismic" / f"{k:03d}.npy", record)
    np.save(tmp_path / "p.npy", np.roll(truth, 1, axis=1))
    arguments = [
        str(tmp_path / "p.npy"), str(tmp_path / "seismic"), "--family", "layered",
        "--survey", str(tmp_path / "survey.toml"), "--method", "lbfgs",
        "--max-evaluations", "3", "--threads", "1", "--chunk-size", "1", "--run-dir",
    ]  # fmt: skip
    begin = [*arguments, str(tmp_path / "run")]
    assert run_command([*begin, "--shard", f"1/{n}"]) == 0  # so that there is a directory
    run = RunDirectory(tmp_path / "run")
    each = min(
        duration(lambda k=k: run_command([*begin, "--shard", f"{k}/{n}"])) for k in (2, 3, 4)
    )
    rng = random.Random(2)
    kill_repeatedly(
        lambda: forked(refine_here, begin), run, lambda: rng.uniform(0, 0.7) * each, every=4
    )
    assert 4 + KILLS // 4 <= len(run.parts()) < n
    assert run_command([*begin, "--out", str(tmp_path / "o.npy")]) == 0
    assert run_command([*arguments, str(tmp_path / "whole"), "--out", str(tmp_path / "w.npy")]) == 0
    assert (tmp_path / "o.npy").read_bytes() == (tmp_path / "w.npy").read_bytes()
    assert part_names(run) == part_names(RunDirectory(tmp_path / "whole"))


# Disks. A small one of its own is mounted where the system lets an ordinary user do that.

DISK = """
set -e
mount -t tmpfs -o size={size}k tmpfs disk
trap 'umount disk' EXIT
cp -r run disk/run
{before}
set +e
{python} -c "from fwi_refine.cli import main; main()" p.npy seismic --run-dir disk/run {more}
echo "code $?"
mount -o remount,rw disk
{python} -c "from fwi_refine.cli import main; main()" verify disk/run
echo "verified $?"
ls -A disk/run/parts
"""


def on_a_disk(begin, folder, size, before, more):
    """Continues the run in `folder` on a disk of `size` kB; returns what it printed."""
    (folder / "disk").mkdir()
    script = DISK.format(size=size, before=before, more=more, python=sys.executable)
    return subprocess.run(
        [*begin, "sh", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def half_a_run(made, tmp_path):
    """Two of three parts in `run`, of the inputs beside it."""
    shutil.copytree(made.seismic, tmp_path / "seismic")
    np.save(tmp_path / "p.npy", made.starts)
    more = ["--method", "lbfgs", "--max-evaluations", "1", "--chunk-size", "1"]
    inputs = [str(tmp_path / "p.npy"), str(tmp_path / "seismic")]
    for shard in ("1/3", "2/3"):
        run_dir = str(tmp_path / "run")
        assert run_command([*inputs, "--run-dir", run_dir, *more, "--shard", shard]) == 0
    return tmp_path, " ".join(more), part_names(RunDirectory(tmp_path / "run"))


@pytest.mark.process
@pytest.mark.parametrize(
    ("size", "before", "words"),
    [
        (4000, "dd if=/dev/zero of=disk/filler bs=1k 2>/dev/null || true; truncate -s -20K "
         "disk/filler", "No space left on device"),
        (4000, "mount -o remount,ro disk", "Read-only file system"),
    ],
)  # fmt: skip
def test_a_disk_that_cannot_take_a_part(own_mounts, half_a_run, size, before, words):
    folder, more, parts = half_a_run
    done = on_a_disk(own_mounts, folder, size, before, more)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["code 1", "verified 0"], done.stderr
    assert lines[2:] == parts
    (error,) = [line for line in done.stderr.splitlines() if words in line]
    assert error.startswith("fwi-refine: ")
    assert "disk/run" in error
