"""Faults of the machine stop a run or pass; they never become the result of a sample."""

import errno
import os
import pickle
import socket
import threading

import h5py
import numpy as np
import pytest
from run_cases import (
    SETTINGS,
    expected_maps,
    merged,
    open_case,
    part_names,
    prepare,
    refine_all,
    trivial,
    write_inputs,
)

from fwi_refine.cli import run as run_command
from fwi_refine.errors import (
    DamagedPartError,
    InputError,
    MachineError,
    PartError,
    SampleError,
)
from fwi_refine.files import open_regular
from fwi_refine.io.hdf5 import Hdf5Array
from fwi_refine.io.npy import NpyArray
from fwi_refine.io.records import open_records
from fwi_refine.machine_faults import is_machine_fault, persistently
from fwi_refine.runs import one_sample, starts
from fwi_refine.runs.directory import RunDirectory, check_parts, read_state
from fwi_refine.runs.directory.parts import read_part
from fwi_refine.runs.executors import Serial

NAMES = ["a", "b", "c", "d", "e"]
NUMBERS = [errno.EIO, errno.ESTALE, errno.ENOENT, errno.EMFILE, errno.EACCES, errno.ENOSPC]


@pytest.fixture
def impatient(monkeypatch):
    """Tries again at once."""
    monkeypatch.setattr("fwi_refine.machine_faults.WAITS", (0.0, 0.0))


@pytest.fixture
def case(tmp_path):
    return write_inputs(tmp_path, NAMES)


def failing(number, ending, times=10**9):
    """os.open, failing for some files the first `times` times, and the calls that failed."""
    real, calls = os.open, []

    def fail(path, *arguments, **more):
        if str(path).endswith(ending) and len(calls) < times:
            calls.append(path)
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *arguments, **more)

    return fail, calls


@pytest.mark.parametrize("number", NUMBERS)
def test_a_record_that_the_machine_cannot_read_stops_the_run(case, impatient, monkeypatch, number):
    run = prepare(case, case / "run")
    fail, _ = failing(number, "seismic/c.npy")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(MachineError, match=rf"c\.npy.*{os.strerror(number)}.*on "):
            refine_all(case, run)
    assert [row["id"] for row in journal_rows(run)] == ["a", "b"]
    refine_all(case, run)
    np.testing.assert_array_equal(merged(run, case)[0], expected_maps(case))
    assert read_state(run).status == {"refined": 5}


def journal_rows(run):
    """The finished samples of a run that is not complete."""
    from fwi_refine.runs.directory import Contents

    return [{"id": row.id} for row in Contents(run).rows]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOENT, errno.EMFILE])
def test_a_fault_that_passes_costs_nothing(case, impatient, monkeypatch, number):
    run = prepare(case, case / "run")
    fail, calls = failing(number, "seismic/c.npy", times=2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        refine_all(case, run)
    assert len(calls) == 2
    assert read_state(run).status == {"refined": 5}


def test_what_does_not_pass_is_not_tried_again(monkeypatch):
    calls = []

    def read():
        calls.append(0)
        raise PermissionError(errno.EACCES, "no", "f")

    with pytest.raises(MachineError, match="f: Permission denied"):
        persistently(read, "f")
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("error", "machine"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOSPC, "full"), True),
        (OSError("Can't read data (errno = 5, error message = 'Input/output error')"), True),
        (OSError("Can't read data (wrong B-tree signature)"), False),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate"), True),
        (RuntimeError("found nan"), False),
        (ValueError("x"), False),
        (MachineError("x"), True),
    ],
)
def test_which_errors_are_of_the_machine(error, machine):
    assert is_machine_fault(error) == machine


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EIO, "disk"), MachineError("m")])
def test_an_error_of_the_machine_is_no_failure_of_a_sample(case, monkeypatch, error):
    def fail(*arguments, **more):
        raise error

    (sample,) = open_case(case, 1).tasks([[0]])
    monkeypatch.setattr(one_sample, "refine_sample", fail)
    with pytest.raises(MachineError):
        one_sample.refine_one(sample.samples[0], SETTINGS)
    monkeypatch.setattr(one_sample, "refine_sample", lambda *a, **k: 1 / 0)
    assert one_sample.refine_one(sample.samples[0], SETTINGS).row.status == "failed"

    monkeypatch.setattr(starts.initial_model, "start_from_record", fail)
    record = open_records(case / "seismic").alone(0)
    with pytest.raises(MachineError):
        starts.make_starts([(0, record)], 1, device="cpu")
    monkeypatch.setattr(starts.initial_model, "start_from_record", lambda *a, **k: 1 / 0)
    assert isinstance(starts.make_starts([(0, record)], 1, device="cpu")[0], SampleError)


def test_records_of_the_python_interface_too(made):
    from fwi_refine import refine

    class Broken:
        def __init__(self, error):
            self.error = error

        def __len__(self):
            return 1

        def __getitem__(self, k):
            raise self.error

    with pytest.raises(MachineError):
        refine(made.starts[:1], Broken(OSError(errno.EIO, "disk")))
    assert refine(made.starts[:1], Broken(KeyError(0))).failed


def test_a_mount_that_goes_and_comes_back(case):
    """As the records' folder vanishes for a second while its samples are read."""
    run = prepare(case, case / "run")
    gone, back = case / "away", case / "seismic"

    def vanish(rows):
        if rows[0].id == "b":
            back.rename(gone)
            threading.Timer(0.4, gone.rename, [back]).start()

    refine_all(case, run, added=vanish)
    assert read_state(run).status == {"refined": 5}


def test_a_worker_without_the_mount_stops_the_run_and_is_named(case, impatient):
    run = prepare(case, case / "run")
    inputs = open_case(case)
    (case / "seismic").rename(case / "elsewhere")
    from fwi_refine.runs.directory import Work, carry_out

    with pytest.raises(MachineError, match=socket.gethostname()):
        carry_out(run, Work(inputs, SETTINGS, Serial(), refine=trivial))
    (case / "elsewhere").rename(case / "seismic")
    refine_all(case, run)
    assert read_state(run).status == {"refined": 5}


def test_hdf5_files_are_opened_where_they_are_read(tmp_path, impatient):
    """A worker that lacks the file says so when it reads; that of a damaged one is the sample's."""
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file.create_dataset("records", data=np.ones((3, 4, 4)), chunks=(1, 4, 4), fletcher32=True)
    array = Hdf5Array(tmp_path / "r.h5", ("records",))
    sent = pickle.loads(pickle.dumps(array))
    np.testing.assert_array_equal(sent.row(1), np.ones((4, 4)))
    (tmp_path / "r.h5").rename(tmp_path / "away.h5")
    lost = pickle.loads(pickle.dumps(array))
    with pytest.raises(MachineError, match="No such file"):
        lost.row(1)
    data = bytearray((tmp_path / "away.h5").read_bytes())
    place = data.find(np.ones(16).tobytes())
    data[place + 3] ^= 1
    (tmp_path / "r.h5").write_bytes(data)
    damaged = pickle.loads(pickle.dumps(array))
    with pytest.raises(SampleError, match="unreadable"):
        damaged.row(0)
    np.testing.assert_array_equal(damaged.row(1), np.ones((4, 4)))


def test_rows_are_read_and_not_mapped(tmp_path):
    """In either order of memory; a file that has shrunk meanwhile costs its sample, not the
    process, which a memory map of it would end."""
    values = np.random.default_rng(0).normal(size=(5, 3, 4, 2)).astype("f4")
    for name, array in (("c", values), ("f", np.asfortranarray(values))):
        np.save(tmp_path / f"{name}.npy", array)
        opened = NpyArray(tmp_path / f"{name}.npy")
        np.testing.assert_array_equal(opened.read(), values)
        for k in range(5):
            np.testing.assert_array_equal(opened.row(k), values[k])
        os.truncate(tmp_path / f"{name}.npy", 200)
        with pytest.raises(SampleError, match="shorter than when it was opened"):
            opened.row(4)


# Parts


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.ESTALE, errno.EIO])
def test_a_part_that_cannot_be_read_is_kept(case, impatient, monkeypatch, number):
    run = prepare(case, case / "run")
    refine_all(case, run)
    before = part_names(run)
    fail, _ = failing(number, before[1])
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(MachineError, match=before[1]):
            refine_all(case, run)
        problems = {k: problem for k, problem in check_parts(run) if problem}
        assert os.strerror(number) in problems[1]
    assert part_names(run) == before


def test_a_part_that_memory_does_not_suffice_for_is_kept(case, monkeypatch):
    run = prepare(case, case / "run")
    refine_all(case, run)
    before = part_names(run)

    def fail(data):
        raise MemoryError

    monkeypatch.setattr("fwi_refine.runs.directory.parts._decode", fail)
    with pytest.raises(MemoryError):
        refine_all(case, run)
    assert part_names(run) == before


def test_whole_parts_of_another_run_are_kept(case):
    """A table that was exchanged makes every digest wrong; the parts say whose they are."""
    one, two = prepare(case, case / "one"), prepare(case, case / "two", limit=4)
    refine_all(case, one)
    before = part_names(one)
    (one.path / "run.toml").write_bytes((two.path / "run.toml").read_bytes())
    with pytest.raises(PartError, match="sound part of another run"):
        refine_all(case, RunDirectory(one.path))
    assert part_names(one) == before
    path = one.parts_folder / before[0]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DamagedPartError):
        read_part(path, one.hash)


@pytest.mark.parametrize("chunk_size", [1, 2])
def test_parts_without_their_table_are_kept(case, chunk_size):
    run = prepare(case, case / "run", chunk_size)
    refine_all(case, run)
    before = part_names(run)
    (run.path / "run.toml").unlink()
    for size in (1, 2):
        with pytest.raises(InputError, match=r"run\.toml is lost"):
            prepare(case, run.path, size)
    assert part_names(run) == before
    assert not (run.path / "run.toml").exists()


def test_a_sample_is_on_disk_as_soon_as_it_is_finished(case):
    """Whatever the chunk size: of five samples in one chunk, three are finished before the end."""
    run = prepare(case, case / "run", chunk_size=5)

    class Killed(BaseException):
        pass

    def stop_at_d(sample, settings, watch=None):
        if sample.id == "d":
            raise Killed
        return trivial(sample, settings)

    with pytest.raises(Killed):
        refine_all(case, run, refine=stop_at_d)
    assert [name.split("-")[0] for name in part_names(run)] == ["piece"] * 3
    state = read_state(run)
    assert (state.done, state.parts, state.status) == (3, 0, {"refined": 3})
    path = run.parts_folder / part_names(run)[1]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert [chunk for chunk, problem in check_parts(run) if problem] == [0]
    calls, found = [], []

    def count(sample, settings, watch=None):
        calls.append(sample.id)
        return trivial(sample, settings)

    refine_all(case, run, refine=count, found=found.extend)
    assert calls == ["b", "d", "e"]
    assert [(row.id, row.seconds) for row in found] == [("a", 0.125), ("c", 0.125)]
    whole = prepare(case, case / "whole", chunk_size=5)
    refine_all(case, whole)
    assert part_names(run) == part_names(whole)
    assert (run.parts()[0][0]).read_bytes() == (whole.parts()[0][0]).read_bytes()
    assert merged(run, case)[1] == merged(whole, case)[1]


# Files that are none


@pytest.mark.parametrize("kind", ["pipe", "directory", "socket"])
def test_only_regular_files_are_read(tmp_path, kind):
    path = tmp_path / "x.npy"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        socket.socket(socket.AF_UNIX).bind(str(path))
    with pytest.raises((InputError, OSError)):
        open_regular(path)
    with pytest.raises((SampleError, MachineError)):
        NpyArray(path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["pipe", "seismic", "--out", "o.npy"],
        ["starts.npy", "pipe", "--out", "o.npy"],
        ["starts.npy", "seismic", "--ids", "pipe", "--out", "o.npy"],
        ["starts.npy", "seismic", "--priors", "pipe", "--out", "o.npy"],
        ["starts.npy", "seismic", "--survey", "pipe", "--out", "o.npy"],
        ["starts.npy", "seismic", "--config", "pipe", "--out", "o.npy"],
        ["starts.npy", "seismic", "--candidate", "pipe", "--out", "o.npy"],
        ["submit", "starts.npy", "--ids", "ids.txt", "--like", "pipe", "--out", "o.csv"],
        ["blend", "starts.npy", "starts.npy", "--weights", "pipe", "--out", "o.npy"],
        ["plot", "convergence", "pipe", "--out", "o.png"],
        ["probe", "solve", "pipe", "1", "2", "3"],
    ],
)
def test_a_pipe_among_the_inputs_is_refused(case, monkeypatch, capsys, arguments):
    monkeypatch.chdir(case)
    os.mkfifo("pipe")
    done = []
    thread = threading.Thread(target=lambda: done.append(run_command(arguments)), daemon=True)
    thread.start()
    thread.join(60)
    assert done == [2], "it waits for the pipe"
    assert "pipe" in capsys.readouterr().err
    assert not (case / "o.npy").exists()


def test_a_pipe_among_the_records_fails_its_sample(case):
    (case / "seismic" / "c.npy").unlink()
    os.mkfifo(case / "seismic" / "c.npy")
    fresh = prepare(case, case / "fresh")
    refine_all(case, fresh)
    assert read_state(fresh).status == {"refined": 4, "failed": 1}


def test_a_header_is_held_against_the_size_of_its_file(tmp_path):
    """30 million records in 200 bytes are refused before memory is taken for their ids."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (30_000_000, 5, 1000, 70)}
    with open(tmp_path / "data1.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file.create_dataset("records", (30_000_000, 5, 1000, 70), "f4", chunks=(1, 5, 1000, 70))
    import tracemalloc

    tracemalloc.start()
    try:
        for name, words in (("data1.npy", "truncated"), ("r.h5", "only 0 bytes")):
            with pytest.raises(InputError, match=words):
                open_records(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 10**8
    finally:
        tracemalloc.stop()
    with open(tmp_path / "a.npy", "wb") as file:  # as large as it says, without a byte on disk
        np.lib.format.write_array_header_1_0(file, header | {"shape": (300_000, 1000, 70)})
        file.truncate(128 + 4 * 300_000 * 70_000)
    with pytest.raises(SampleError, match="expected a sample"):
        NpyArray(tmp_path / "a.npy").read()
