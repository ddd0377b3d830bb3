"""Made samples for the tests of files and commands: layered maps, blurred starts, records."""

import csv
import gc
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from fwi_refine.cli import run
from fwi_refine.runs import executors
from fwi_refine.synthetic import make_record


def pytest_configure(config):
    """Workers of pytest-xdist, which share the cores, and their processes have one thread each."""
    if getattr(config.option, "numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Imported modules and collected tests stay: to look for garbage among them takes seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_report_header(config):
    """How long it takes, said before: measured on two cores, with nothing beside it."""
    if config.invocation_params.args:
        return None
    return "all short tests: about five minutes on two cores"


def escaped(data):
    """Nested data with its texts in UTF-8: bytes of file names that are no text are written out."""
    if isinstance(data, str):
        return data.encode(errors="backslashreplace").decode()
    if isinstance(data, dict):
        return {escaped(key): escaped(value) for key, value in data.items()}
    return type(data)(map(escaped, data)) if isinstance(data, (list, tuple)) else data


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable():
    """Workers send their reports as UTF-8, which not all that a test writes may be."""
    return escaped((yield))


@pytest.fixture(scope="session", autouse=True)
def one_job_in_this_process():
    """A command with one job works in the process of the test: another one takes seconds to start.

    Tests that run the program as a process of its own, test_deadly among them, have two.
    """
    several = executors.Processes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            executors,
            "Processes",
            lambda jobs, *more: executors.Serial() if jobs == 1 else several(jobs, *more),
        )
        yield


@pytest.fixture
def known_speed(monkeypatch):
    """A dry run does not measure this machine, which `test_a_dry_run_writes_nothing` lets it do."""
    monkeypatch.setattr("fwi_refine.runs.plan.seconds_per_evaluation", lambda settings: 0.5)


@pytest.fixture
def unchecked(monkeypatch):
    """Inputs are not checked before a run, which takes simulations, most of all of odd records.

    Tests of the checks do without this, and so does the run of `baseline`.
    """
    monkeypatch.setattr("fwi_refine.routing.checks.inputs.check_pairs", lambda *pairs, **how: None)


@dataclass(frozen=True)
class Made:
    """Three samples, in memory and as files. Arrays are float32."""

    ids: tuple[str, ...]
    truth: np.ndarray  # (3, 70, 70) m/s
    starts: np.ndarray  # (3, 70, 70) m/s
    records: np.ndarray  # (3, 5, 1000, 70)
    folder: Path

    @property
    def starts_file(self) -> str:
        return str(self.folder / "starts.npy")

    @property
    def seismic(self) -> str:
        return str(self.folder / "seismic")


def make_truth():
    """A tilted interface, three tilted layers, and a step: (3, 70, 70) float32 m/s."""
    row, column = np.mgrid[:70, :70]
    tilted = np.where(row - column // 4 < 30, 1800, 2600)
    layers = np.select([row + column // 7 < 22, row - column // 5 < 45], [1700, 2300], 3100)
    step = np.where(row < np.where(column < 35, 25, 40), 2000, 2900)
    return np.stack([tilted, layers, step]).astype(np.float32)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """A function of (name, fill): a folder that the first worker to ask for it fills."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name, fill):
        with FileLock(root / f"{name}.lock"):
            if not (root / name).exists():
                (root / f"{name}.begun").mkdir()
                fill(root / f"{name}.begun")
                (root / f"{name}.begun").rename(root / name)
        return root / name

    return folder


IDS = ("a1", "b2", "c3")


@pytest.fixture(scope="session")
def made(shared_folder) -> Made:
    """The samples, written once: starts.npy, truth.npy and seismic/<id>.npy."""
    folder = shared_folder("made", write_samples)
    truth, starts = (np.load(folder / f"{name}.npy") for name in ("truth", "starts"))
    records = np.stack([np.load(folder / "seismic" / f"{name}.npy") for name in IDS])
    return Made(IDS, truth, starts, records, folder)


def write_samples(folder):
    """The files of `made`."""
    truth = make_truth()
    starts = np.roll(truth, 1, axis=1)  # every interface a row too deep, ...
    starts[:, 0] = truth[:, 0]
    starts[starts > 2200] *= np.float32(0.99)  # ... and deep layers 1 % too slow
    records = np.stack([make_record(v) for v in truth])
    np.save(folder / "starts.npy", starts)
    np.save(folder / "truth.npy", truth)
    (folder / "seismic").mkdir()
    for name, record in zip(IDS, records, strict=True):
        np.save(folder / "seismic" / f"{name}.npy", record)


@pytest.fixture
def much_memory(tmp_path_factory):
    """Lets one test at a time take gigabytes, whichever worker runs it."""
    with FileLock(tmp_path_factory.getbasetemp().parent / "memory.lock"):
        yield


@pytest.fixture(scope="session")
def own_mounts() -> list[str]:
    """How a shell begins that may mount disks of its own; skips where users may not do that."""
    begin = ["unshare", "--map-root-user", "--mount"]
    probe = [*begin, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("this system does not let its users mount a disk of their own")
    return begin


@dataclass(frozen=True)
class Refined:
    code: int
    maps: np.ndarray
    report: list[dict[str, str]]


def report_of(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def refine():
    """Runs `fwi-refine` with few evaluations; returns exit code, maps and report rows."""

    def call(predictions, records, out, *more) -> Refined:
        arguments = [predictions, records, "--out", out, *QUICK, *more]
        code = run([str(a) for a in arguments])
        maps, rows = None, []
        if Path(out).exists():
            maps = np.load(out)
            rows = report_of(Path(out).with_suffix(".csv"))
        return Refined(code, maps, rows)

    return call


EVALUATIONS = 4  # the start, a step of L-BFGS and the result
QUICK = ("--method", "lbfgs", "--max-evaluations", EVALUATIONS)


@pytest.fixture(scope="session")
def baseline(made, refine, shared_folder) -> Refined:
    """The three samples refined on their own: what they must be in any company."""

    def fill(folder):
        assert refine(made.starts_file, made.seismic, folder / "out.npy").code == 0

    folder = shared_folder("baseline", fill)
    return Refined(0, np.load(folder / "out.npy"), report_of(folder / "out.csv"))
