"""A start without a network: the filter that makes a record one of a lower frequency."""

import dataclasses
import os
import shutil

import numpy as np
import pytest
import torch
from emulation import NEEDS_COMPILER, Emulation
from pretend import pretended

from fwi_refine.cli import run
from fwi_refine.errors import DeviceError, SampleError
from fwi_refine.inversion import initial_model
from fwi_refine.inversion.initial_model import start_from_record
from fwi_refine.priors import GaussianProcess, load
from fwi_refine.runs import starts
from fwi_refine.runs.executors import Serial
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.frequency import lower_frequency
from fwi_refine.wave import Simulator
from fwi_refine.wave.cuda import program as cuda
from fwi_refine.wave.cuda.layout import Layout

SMALL = Survey(
    shape=(20, 24),
    n_steps=600,
    file_rows=600,
    absorbing_cells=20,
    velocity_bounds=(1000.0, 5000.0),
    sources=((1, 4), (1, 18)),
    receivers=tuple((1, column) for column in range(24)),
)


def velocity(seed=0):
    generator = torch.Generator().manual_seed(seed)
    v = 2000 + 40 * torch.arange(20, dtype=torch.float64)[:, None].expand(20, 24)
    return v + 50 * torch.randn(20, 24, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("frequency", "bound"), [(10.0, 5e-4), (6.0, 2e-3), (4.0, 5e-3)])
def test_a_filtered_record_is_that_of_the_lower_frequency(frequency, bound):
    """What differs are the cut ends of the wavelets, which grow with its length."""
    v = velocity()
    record = Simulator(SMALL).forward(v[None])[0].numpy()
    lower, filtered = lower_frequency(record, frequency, SMALL)
    assert lower == dataclasses.replace(SMALL, frequency=frequency)
    expected = Simulator(lower).forward(v[None])[0].numpy()
    assert filtered.shape == expected.shape
    assert np.linalg.norm(filtered - expected) < bound * np.linalg.norm(expected)


@pytest.mark.parametrize("frequency", [15.0, 20.0, 0.0])
def test_a_frequency_that_is_not_lower_is_refused(frequency):
    with pytest.raises(ValueError, match="expected less than"):
        lower_frequency(np.zeros(SMALL.record_shape), frequency, SMALL)


@pytest.mark.slow
@NEEDS_COMPILER
def test_a_start_is_made_on_the_device_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(initial_model, "FREQUENCIES", (4.0,))
    monkeypatch.setattr(initial_model, "ITERATIONS", 1)
    process = GaussianProcess(2.0, 150.0, 20.0, 500.0, 30.0, 2500.0, SMALL.shape)
    priors = dataclasses.replace(load(), style_a=process)
    record = Simulator(SMALL).forward(velocity()[None])[0].numpy()
    expected = start_from_record(record, survey=SMALL, priors=priors)
    with pretended() as device:
        program = Emulation(Layout(1, 1, 1, side=1, halo=2, shared=True), device=device)
        monkeypatch.setattr(cuda, "program", lambda _: program)
        found = start_from_record(record, survey=SMALL, priors=priors, device=str(device))
    assert {kernel for kernel, _ in program.launches} == {"forward", "adjoint"}
    assert isinstance(found, np.ndarray)
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected - expected.mean()).max()


@pytest.mark.slow
def test_start_on_the_command_line(made, tmp_path, monkeypatch):
    """The trend alone, which takes seconds: maps in the records' order, zeros for a bad one."""
    monkeypatch.setattr(initial_model, "FREQUENCIES", ())
    monkeypatch.setattr(initial_model, "SLOPES", np.array([0.0, 20.0]))
    records = tmp_path / "records"
    records.mkdir()
    names = [f"{name}.npy" for name in made.ids]
    for name in names:
        shutil.copy(made.folder / "seismic" / name, records)
    np.save(records / "b0.npy", np.full((5, 1000, 70), np.nan, np.float32))
    command = ["start", str(records), "--device", "cpu", "--threads", "2"]
    one, three = tmp_path / "one.npy", tmp_path / "three.npy"
    assert run([*command, "--out", str(one)]) == 3
    assert run([*command, "--out", str(three), "--per-job", "3"]) == 3
    maps = np.load(one)
    assert maps.shape == (4, 70, 70)
    assert not maps[1].any()
    expected = start_from_record(np.load(records / names[2]))
    np.testing.assert_allclose(maps[3], expected, rtol=1e-5)
    assert one.read_bytes() == three.read_bytes()
    assert run([*command, "--out", str(tmp_path / "part.npy"), "--shard", "4/4"]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "part.npy"), maps[3:])


def test_a_part_without_records_is_named(made, tmp_path, capsys):
    command = ["start", str(made.seismic), "--out", str(tmp_path / "o.npy"), "--shard", "1/8"]
    assert run(command) == 2
    assert "--shard 1/8: no records in this part" in capsys.readouterr().err


def test_maps_that_were_made_are_kept_when_it_is_stopped(made, tmp_path, monkeypatch):
    def each_made(executor, make, tasks):
        (record, *_) = (record for task in tasks for record in task)
        yield record, np.full((70, 70), 2000.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(starts, "each_made", each_made)
    command = ["start", str(made.seismic), "--out", str(tmp_path / "o.npy")]
    assert [run(command), run(command)] == [130, 130]
    assert sorted(os.listdir(tmp_path)) == [".o.npy.start", "o.partial-2.npy", "o.partial.npy"]
    maps = np.load(tmp_path / "o.partial.npy")
    assert (maps[0] == 2000.0).all()
    assert not maps[1:].any()


def test_a_defect_that_one_record_brings_to_light_costs_no_other(monkeypatch):
    class Record:
        def __init__(self, value):
            self.value = value

        def read(self, k):
            return self.value

    monkeypatch.setattr(initial_model, "start_from_record", lambda record, device: 1 / record)
    task = [(0, Record(2.0)), (1, Record(0.0)), (2, Record(4.0))]
    first, second, third = starts.make_starts(task, 1, device="cpu")
    assert (first, third) == (0.5, 0.25)
    assert isinstance(second, SampleError)
    assert "ZeroDivisionError" in str(second)


def test_a_start_whose_process_dies_costs_no_other():
    def make(task):
        if 2 in task:
            raise DeviceError("the card fails")
        return [-k for k in task]

    found = dict(starts.each_made(Serial(), make, [[0, 1, 2, 3], [4]]))
    assert isinstance(found.pop(2), DeviceError)
    assert found == {0: 0, 1: -1, 3: -3, 4: -4}


@pytest.mark.accuracy
@pytest.mark.parametrize("family", ["CurveVel_A", "Style_A"])
@pytest.mark.usefixtures("much_memory")
def test_a_record_alone_gives_a_start_that_fits_as_a_networks_does(family):
    from fwi_refine.synthetic import make_sample

    sample = make_sample(family, seed=11)
    v = torch.from_numpy(start_from_record(sample.record))
    record = torch.from_numpy(sample.record[None, :, : OPENFWI.n_steps]).double()
    misfit = float(Simulator().misfit(v[None], record)[0]) ** 0.5
    assert misfit < 0.2 * float(record.square().mean()) ** 0.5
    constant = torch.full_like(v, float(np.median(sample.truth)))
    truth = torch.from_numpy(sample.truth).double()
    assert (v - truth).abs().mean() < 0.3 * (constant - truth).abs().mean()
