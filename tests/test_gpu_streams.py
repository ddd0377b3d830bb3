"""Several samples at a time in one process: the same bits, also where memory is too little."""

import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from emulation import NEEDS_COMPILER, Emulation
from helpers import others_slow
from pretend import pretended
from run_cases import expected_maps, merged, prepare, refine_all, trivial, write_inputs
from small_samples import SETTINGS, small_chunk
from threadpoolctl import threadpool_info, threadpool_limits
from wave_cases import NATIVE

from fwi_refine.cli import run as run_command
from fwi_refine.errors import DeviceError
from fwi_refine.io.report import Row
from fwi_refine.runs import batch, gpu_streams
from fwi_refine.runs import settings as run_settings
from fwi_refine.runs.executors import Processes, Serial
from fwi_refine.runs.one_sample import Outcome, refine_one
from fwi_refine.wave import Simulator
from fwi_refine.wave.cuda import program as cuda
from fwi_refine.wave.cuda.layout import Layout

WAIT = 120  # s for what should happen at once


@pytest.fixture(autouse=True)
def as_in_a_new_process():
    gpu_streams._room.cache_clear()
    yield
    gpu_streams._room.cache_clear()


class Card:
    """A device with memory for some items at a time; it notes how many there were. Those in it stay
    until one more has come."""

    def __init__(self, room):
        self.room, self.running, self.seen, self.lock = room, 0, [], threading.Lock()
        self.overfull = threading.Event()

    def __enter__(self):
        with self.lock:
            self.running += 1
            self.seen.append(self.running)
            if self.running > self.room:
                self.running -= 1
                self.overfull.set()
                raise torch.OutOfMemoryError("the card of this test is full")
        assert self.overfull.wait(WAIT)

    def __exit__(self, *error):
        with self.lock:
            self.running -= 1


def test_as_many_at_a_time_as_asked_for():
    all_three = threading.Barrier(3)

    def work(item):
        all_three.wait(WAIT)
        return item**2

    assert gpu_streams.each(work, range(9), 3) == [k**2 for k in range(9)]
    with pytest.raises(threading.BrokenBarrierError):
        gpu_streams.each(lambda item: all_three.wait(0.2), range(2), 2)


def test_each_has_one_thread_of_linear_algebra_and_none_lifts_anothers_limit():
    """Also for the second of two, when the first, which set the limit, has ended."""
    before = torch.get_num_threads()
    entered, both, left = (threading.Event() for _ in range(3))

    def work(item):
        assert item == 0 or entered.wait(WAIT)
        with gpu_streams.one_thread():
            (entered, both)[item].set()
            assert (both, left)[item].wait(WAIT)
            blas = {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}
            seen = torch.get_num_threads(), blas
        left.set()
        return seen

    try:
        with threadpool_limits(2, user_api="blas"):
            torch.set_num_threads(2)
            assert gpu_streams.each(work, range(2), 2) == [(1, {1}), (1, {1})]
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_too_little_memory_means_fewer_at_a_time_from_then_on():
    card, both = Card(2), threading.Barrier(2)

    def work(item):
        with card:
            return -item

    def in_pairs(item):
        with card:
            both.wait(WAIT)
            return item

    assert gpu_streams.each(work, range(8), 4) == [-k for k in range(8)]
    assert max(card.seen) > 2
    card.seen.clear()
    assert gpu_streams.each(in_pairs, range(8), 4) == list(range(8))
    assert max(card.seen) == 2


@pytest.mark.parametrize("at_a_time", [1, 4])
def test_memory_that_is_too_little_for_one_is_said(at_a_time):
    card = Card(0)
    with pytest.raises(DeviceError, match="too little memory for one sample at a time: the card"):
        gpu_streams.each(lambda item: card.__enter__(), range(3), at_a_time)


def test_what_did_not_fit_is_given_back_before_the_next_attempt():
    held = []

    def work(item):
        assert all(reference() is None for reference in held)
        allocated = torch.zeros(3)
        held.append(weakref.ref(allocated))
        if len(held) == 1:
            raise torch.OutOfMemoryError("the first attempt")
        return item

    assert gpu_streams.each(work, [5], 2) == [5]
    assert len(held) == 2


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), torch.OutOfMemoryError),
        (torch.AcceleratorError("CUDA error: out of memory"), torch.OutOfMemoryError),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when"), torch.OutOfMemoryError),
        (RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED"), torch.OutOfMemoryError),
        (torch.AcceleratorError("CUDA error: an illegal memory access"), DeviceError),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when"), DeviceError),
        (DeviceError("forward of 5 shots: CUDA_ERROR_LAUNCH_FAILED"), DeviceError),
        (RuntimeError("shapes do not fit"), type(None)),
        (MemoryError("out of memory in the compiled wave kernel"), type(None)),
        (ValueError("CUDA error: out of memory"), type(None)),
    ],
    ids=str,
)
def test_what_an_error_says_of_the_device(error, kind):
    assert type(gpu_streams.trouble(error)) is kind


def outcomes(chunk, settings, refine=None):
    ((_, found),) = batch.run([chunk], settings, Serial(), refine)
    return found


def assert_same(found, expected):
    # two of these maps are fitted poorly by flat layers, so that their starts are kept
    assert [o.row.status for o in expected].count("refined") >= 2
    for one, other in zip(found, expected, strict=True):
        assert replace(one.row, seconds=0.0) == replace(other.row, seconds=0.0)
        assert np.array_equal(one.velocity, other.velocity)


@NATIVE
@pytest.mark.parametrize("family", others_slow(["layered", "style-a", "style-b", "flat-vel"]))
def test_samples_at_a_time_have_the_bits_of_one_after_the_other(family):
    chunk, settings = small_chunk(), replace(SETTINGS, family=family)
    alone = outcomes(chunk, settings)
    assert_same(outcomes(chunk, replace(settings, per_job=4)), alone)
    assert_same(outcomes(chunk, replace(settings, per_job=3)), alone)


@pytest.mark.slow
@NATIVE
@NEEDS_COMPILER
def test_a_card_that_is_full_loses_no_sample_and_no_bit(monkeypatch):
    """The whole main method on a pretended card, whose memory holds the wavefields of two Jacobians
    or residuals at a time."""
    card, started = Card(2), threading.Barrier(4)
    real = Simulator.wavefields

    def limited(self, *args):
        with card:
            return real(self, *args)

    def refine(sample, settings, watch=None):
        with pretended():  # in this thread
            if settings.per_job > 1 and sample.id not in seen:
                seen.add(sample.id)
                started.wait(WAIT)
            return refine_one(sample, settings)

    with pretended() as device:
        program = Emulation(Layout(1, 1, 1, side=1, halo=2, shared=True), device=device)
        monkeypatch.setattr(cuda, "program", lambda _: program)
        run_settings._simulator.cache_clear()
        chunk, seen = small_chunk(), set()
        settings = replace(SETTINGS, device=str(device), max_evaluations=40)
        alone = outcomes(chunk, settings, refine)
        monkeypatch.setattr(Simulator, "wavefields", limited)
        assert_same(outcomes(chunk, replace(settings, per_job=4), refine), alone)
        run_settings._simulator.cache_clear()
    assert max(card.seen) > 2
    assert gpu_streams._room(4, device).most < 4


def test_a_sample_that_fits_nowhere_fails_alone():
    chunk = small_chunk(3)

    def refine(sample, settings, watch=None):
        if sample.id == "s1":
            raise torch.OutOfMemoryError("however many there are")
        return Outcome(sample.index, Row(id=sample.id, status="refined"))

    found = outcomes(chunk, replace(SETTINGS, per_job=2), refine)
    assert [o.row.status for o in found] == ["refined", "failed", "refined"]
    assert "too little memory for one sample at a time: however many" in found[1].row.reason


@pytest.mark.parametrize("per_job", [1, 3])
def test_a_sample_that_does_not_fit_onto_its_card_is_refined_on_the_cpu(per_job, monkeypatch):
    chunk = small_chunk(4)

    def refine(sample, settings, watch=None):
        if sample.id == "s1" and settings.device != "cpu":
            raise torch.OutOfMemoryError("however many there are")
        row = Row(id=sample.id, status="refined", start=settings.device, flags="poor fit")
        return Outcome(sample.index, row)

    monkeypatch.setattr(batch, "identity", lambda settings: ("1", "cuda"))
    # a GPU without streams, as this machine has none of the others
    found = outcomes(chunk, replace(SETTINGS, device="mps", per_job=per_job), refine)
    assert [o.row.status for o in found] == 4 * ["refined"]
    assert [o.row.start for o in found] == ["mps", "cpu", "mps", "mps"]
    assert found[1].row.flags == "poor fit; on the CPU: the GPU had too little memory"
    assert found[2].row.flags == "poor fit"


def test_a_sample_that_fits_neither_there_nor_on_the_cpu_fails_alone(monkeypatch):
    def refine(sample, settings, watch=None):
        raise torch.OutOfMemoryError("however many there are")

    monkeypatch.setattr(batch, "identity", lambda settings: ("1", "cuda"))
    with pytest.raises(DeviceError, match="at a time, and elsewhere as well: however many"):
        gpu_streams.each(
            lambda item: refine(item, None),
            [1],
            1,
            "cuda",
            otherwise=lambda item: refine(item, None),
        )


@NATIVE
@NEEDS_COMPILER
def test_a_card_that_is_too_small_for_any_sample_costs_nothing_but_time(monkeypatch):
    """The pretended card holds nobody's wavefields: the samples have the CPU's bits."""
    chunk = small_chunk(1)
    settings = replace(SETTINGS, family="flat-vel", max_evaluations=12)
    expected = outcomes(chunk, settings)
    real = Simulator.forward

    def limited(self, *args):
        if self.device.type != "cpu":
            raise torch.OutOfMemoryError("the card of this test is full")
        return real(self, *args)

    with pretended() as device:
        program = Emulation(Layout(1, 1, 1, side=1, halo=2, shared=True), device=device)
        monkeypatch.setattr(cuda, "program", lambda _: program)
        monkeypatch.setattr(Simulator, "forward", limited)
        run_settings._simulator.cache_clear()
        found = outcomes(chunk, replace(settings, device=str(device)))
        run_settings._simulator.cache_clear()
    for one, other in zip(found, expected, strict=True):
        assert one.row.status == other.row.status
        assert np.array_equal(one.velocity, other.velocity)
        assert "on the CPU: the GPU had too little memory" in one.row.flags


def fails_on_its_card(sample, settings, watch=None):
    if sample.id.startswith("deadly"):
        raise DeviceError("an error that stays")
    return trivial(sample, settings)


@pytest.mark.process
def test_a_card_that_fails_ends_its_process_and_costs_one_sample(tmp_path):
    names = ["a", "b", "deadly1", "c", "d", "e"]
    case = write_inputs(tmp_path, names)
    run, rows = prepare(case, tmp_path / "run"), []
    refine_all(case, run, Processes(2), refine=fails_on_its_card, added=rows.extend)
    failed = {row.id: row.reason for row in rows if row.status == "failed"}
    assert set(failed) == {"deadly1"}
    assert "its worker process died" in failed["deadly1"]
    np.testing.assert_array_equal(merged(run, tmp_path)[0], expected_maps(case))


@pytest.mark.slow
def test_on_the_command_line(made, baseline, tmp_path):
    out = tmp_path / "out.npy"
    quick = ["--method", "lbfgs", "--max-evaluations", "4", "--per-job", "3"]
    assert run_command([made.starts_file, made.seismic, "--out", str(out), *quick]) == 0
    assert np.load(out).tobytes() == baseline.maps.tobytes()
