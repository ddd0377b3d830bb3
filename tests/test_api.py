"""The Python interface: arrays in, arrays out, and a bad sample harms no other."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import fwi_refine
from fwi_refine.api import classify, options, refine, simulate
from fwi_refine.errors import InputError, SampleError
from fwi_refine.inversion import routes
from fwi_refine.priors import load
from fwi_refine.routing import Family
from fwi_refine.survey import OPENFWI
from fwi_refine.synthetic import make_record

# Two records of it are simulated in a hundredth of a second.
TINY = replace(
    OPENFWI,
    shape=(10, 14),
    n_steps=120,
    file_rows=121,
    absorbing_cells=8,
    velocity_bounds=(1000.0, 4600.0),
    sources=((1, 0), (1, 13)),
    receivers=tuple((1, column) for column in range(14)),
)
QUICK = {"survey": TINY, "family": "layered", "method": "lbfgs", "max_evaluations": 7, "threads": 1}


# The grid of OpenFWI, for which families can be told apart.
SHORT = replace(
    OPENFWI, n_steps=150, file_rows=151, absorbing_cells=20, velocity_bounds=(1000.0, 5000.0)
)


def truth(count=3):
    row, column = np.mgrid[:10, :14]
    return np.stack([np.where(row + (column > 3 + k) < 5, 1800.0, 2300.0) for k in range(count)])


@pytest.fixture(scope="module")
def case():
    """(starts, records) of three samples."""
    starts = truth() + 30.0
    return starts, simulate(truth(), survey=TINY, dtype="float64")


def quick(starts, records, **options):
    return refine(starts, records, **(QUICK | options))


# The package


def test_every_name_of_the_package_is_there():
    for name in fwi_refine.__all__:
        assert getattr(fwi_refine, name) is not None
        assert name in dir(fwi_refine)
    assert fwi_refine.refine is refine
    with pytest.raises(AttributeError, match="unheard_of"):
        _ = fwi_refine.unheard_of


def test_type_checkers_are_told_the_same_names():
    import ast
    from pathlib import Path

    tree = ast.parse(Path(fwi_refine.__file__).read_text())
    told = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for branch in tree.body
        if isinstance(branch, ast.If)
        for node in branch.body
        for alias in node.names
    }
    places = ((name, *place.split(":")) for name, place in fwi_refine._MODULES.items())
    modules = {name: f"fwi_refine.{place}.{(*other, name)[0]}" for name, place, *other in places}
    assert told == modules


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, fwi_refine\n"
        "assert 'refine' in dir(fwi_refine) and fwi_refine.__version__\n"
        "print({'torch', 'numpy', 'scipy', 'sklearn', 'h5py', 'joblib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr


# refine


def test_one_map_in_one_map_out(case):
    starts, records = case
    batch = quick(starts, records)
    single = quick(starts[1], records[1])
    assert single.velocity.shape == single.deviation.shape == TINY.shape
    assert np.array_equal(single.velocity, batch.velocity[1])
    assert len(single.reports) == 1
    channel = quick(starts[:, None], records)
    assert channel.velocity.shape == (3, 1, *TINY.shape)
    assert np.array_equal(channel.velocity[:, 0], batch.velocity)
    assert batch.column("status") == ["refined"] * 3
    assert batch.column("family") == ["layered"] * 3
    assert not batch.failed
    before, after = (np.array(batch.column(f"misfit_{when}")) for when in ("before", "after"))
    assert (after < 0.7 * before).all()


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.process)])
def test_bad_samples_fail_alone(case, jobs):
    starts, records = case
    alone = quick(starts, records)
    bad_starts = np.concatenate([starts, starts[:1], starts])
    bad_starts[3, 2, 5] = np.nan
    bad_records = [*records, records[0], records[0, :, :50], np.zeros_like(records[1]), None]
    found = quick(bad_starts, bad_records, jobs=jobs, family=["layered"] * 7)
    assert np.array_equal(found.velocity[:3], alone.velocity)
    assert np.array_equal(found.velocity[3:], bad_starts[3:], equal_nan=True)
    assert np.isnan(found.deviation[3:]).all()
    assert found.column("status") == ["refined"] * 3 + ["failed"] * 4
    assert [*found.failed] == [3, 4, 5, 6]
    assert "prediction of sample 3: found 1 of 140 values not finite" in found.failed[3]
    assert "record of sample 4 (records[4]): found shape (2, 50, 14), expected" in found.failed[4]
    assert "record of sample 5 (records[5]): found only zeros" in found.failed[5]
    assert "record of sample 6 (records[6]): found type object" in found.failed[6]


def test_a_record_that_cannot_be_read_fails_alone(case):
    starts, records = case

    class Broken(list):
        def __getitem__(self, k):
            if k == 1:
                raise OSError("the disk is gone")
            return super().__getitem__(k)

    found = quick(starts, Broken(records))
    assert found.column("status") == ["refined", "failed", "refined"]
    assert found.failed[1] == "record of sample 1: OSError: the disk is gone"


@pytest.mark.process
def test_records_of_any_kind_give_the_same_bits(case, tmp_path):
    starts, records = case
    path = tmp_path / "records.npy"
    np.save(path, records)
    plain = quick(starts, records).velocity
    mapped = np.load(path, mmap_mode="r")
    for kind in (mapped, torch.from_numpy(records), tuple(records)):
        assert np.array_equal(quick(starts, kind).velocity, plain)
    assert np.array_equal(quick(starts, mapped, jobs=2).velocity, plain)
    tensors = [torch.from_numpy(start) for start in starts]
    assert np.array_equal(quick(tensors, records).velocity, plain)


def test_records_are_read_one_by_one(case):
    starts, records = case
    log = []

    class Watched(list):
        def __getitem__(self, k):
            log.append(f"read {k}")
            return super().__getitem__(k)

    def callback(outcome):
        log.append(f"done {outcome.index}")

    one_by_one = ["read 0", "done 0", "read 1", "done 1", "read 2", "done 2"]
    quick(starts, Watched(records), callback=callback, force=True)
    assert log == one_by_one
    log.clear()
    quick(starts, Watched(records), callback=callback)  # a few are looked at before
    assert log == ["read 0", "read 1", "read 2", *one_by_one]


def test_the_type_of_the_maps_stays(case):
    starts, records = case
    double = quick(starts, records)
    single = quick(torch.from_numpy(starts).float(), records)
    assert double.velocity.dtype == np.float64
    assert single.velocity.dtype == np.float32
    assert np.array_equal(double.velocity.astype(np.float32), single.velocity)  # starts are exact
    half = quick(torch.from_numpy(starts).bfloat16(), records)
    assert half.velocity.dtype == np.float32
    predicted = torch.from_numpy(starts).requires_grad_()
    assert np.array_equal(quick(predicted, records).velocity, double.velocity)


def test_the_callback_gets_every_sample_and_may_end_the_run(case):
    starts, records = case
    starts = starts.copy()
    starts[1] = np.inf
    seen = {}
    found = quick(starts, records, callback=lambda outcome: seen.update({outcome.index: outcome}))
    assert sorted(seen) == [0, 1, 2]
    assert seen[1].velocity is None
    assert seen[2].row == found.reports[2]
    assert np.array_equal(seen[2].velocity, found.velocity[2])

    def stop(outcome):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick(starts, records, callback=stop)


def test_a_family_for_each_sample(case):
    starts, records = case
    families = ["layered", Family.BLENDED, "layered"]
    found = quick(starts, records, family=families)
    assert found.column("family") == families
    for k in range(3):
        one = quick(starts[k], records[k], family=families[k])
        assert np.array_equal(one.velocity, found.velocity[k])


def test_families_are_told_apart_where_not_given():
    v = np.full((2, 70, 70), 2000.0)
    v[0, 20:], v[1, 3:, 30:] = 2500.0, 2500.0
    v[1, 3, 30:] = 2250.0  # half way
    records = simulate(v, survey=SHORT)
    options = {"survey": SHORT, "method": "lbfgs", "max_evaluations": 2}
    found = refine(v + 10, records, **options)
    assert found.column("family") == ["flat-vel", "blended"]
    assert found.reports[1].evidence.startswith("blended edges")
    part = refine(v + 10, records, family=["auto", "layered"], **options)
    assert part.column("family") == ["flat-vel", "layered"]
    assert np.array_equal(part.velocity[0], found.velocity[0])


def test_gauss_newton_on_a_tiny_survey(case):
    starts, records = case
    found = quick(starts[0], records[0], method="gauss-newton", max_evaluations=120)
    assert found.column("status") == ["refined"]
    assert found.reports[0].misfit_after < 0.1 * found.reports[0].misfit_before


def test_no_samples_at_all():
    found = quick(np.empty((0, *TINY.shape)), np.empty((0, *TINY.file_shape)))
    assert found.velocity.shape == (0, *TINY.shape)
    assert found.reports == ()


@pytest.mark.parametrize(
    ("starts", "records", "message"),
    [
        (np.ones((3, 9, 14)), None, r"predictions: found shape \(3, 9, 14\), expected \(10, 14\)"),
        (np.ones((3, 2, 10, 14)), None, r"predictions: found shape \(3, 2, 10, 14\)"),
        (np.ones((3, 10, 14), int), None, "predictions: found type int64"),
        ([np.ones((10, 14)), np.ones((9, 14))], None, "predictions: found a list of no maps"),
        (np.ones((2, 10, 14)), np.ones((3, 2, 121, 14)), "found 2 predictions and 3 records"),
        (np.ones((2, 10, 14)), np.ones((2, 121, 14)), r"records: found shape \(2, 121, 14\)"),
        (np.ones((2, 10, 14)), [np.ones((2, 121, 14))], "found 2 predictions and 1 records"),
    ],
)
def test_arrays_that_do_not_belong_together(starts, records, message):
    with pytest.raises(InputError, match=message):
        quick(starts, records)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "newton"}, "method 'newton'"),
        ({"family": "flat-earth"}, "family 'flat-earth'"),
        ({"family": "auto"}, "families can be told apart on the survey of OpenFWI only"),
        ({"family": ["layered"]}, "found 3 predictions and 1 families"),
        ({"jobs": 0}, "jobs 0"),
        ({"threads": 0}, "threads 0"),
        ({"max_evaluations": 0}, "max_evaluations 0"),
        ({"time_budget": 0.0}, "time_budget 0.0"),
        ({"time_budget": float("nan")}, "time_budget nan"),
        ({"device": "tpu"}, "device 'tpu'"),
    ],
)
def test_options_that_are_not_possible(case, options, message):
    with pytest.raises(InputError, match=message):
        quick(*case, **options)


def test_which_gpus_are_meant(monkeypatch):
    monkeypatch.setattr(options, "devices", lambda: ["0", "GPU-b"])
    assert [options.gpus_meant(name) for name in ("auto", "cuda", "cuda:1", "cpu")] == [
        ["0", "GPU-b"],
        ["0", "GPU-b"],
        ["GPU-b"],
        [],
    ]
    assert options.torch_device("auto", ["0"]) == "cuda"
    assert options.torch_device(torch.device("cuda:1"), ["GPU-b"]) == "cuda:1"
    with pytest.raises(InputError, match="there are 2 GPUs"):
        options.gpus_meant("cuda:2")
    monkeypatch.setattr(options, "devices", list)
    monkeypatch.setattr(options, "gpu_problem", lambda: "the extra is missing")
    assert options.torch_device("auto", options.gpus_meant("auto")) == "cpu"
    with pytest.raises(InputError, match="the extra is missing"):
        options.gpus_meant("cuda")


# simulate


def test_records_are_those_of_the_released_data():
    v = np.full((70, 70), 1700)
    v[40:] = 3000
    record = simulate(v)
    assert record.shape == (5, 1000, 70)
    assert record.dtype == np.float32
    np.testing.assert_array_equal(record, make_record(v))
    assert np.abs(record[:, -1]).max() > 0  # the last row is there too


def test_simulating_many_is_simulating_each():
    maps = np.concatenate([truth()] * 4)  # more than are simulated at a time
    records = simulate(maps, survey=TINY)
    assert records.shape == (12, 2, 121, 14)
    assert np.array_equal(simulate(maps[:, None], survey=TINY), records)
    for v, record in zip(maps, records, strict=True):
        assert np.array_equal(simulate(v, survey=TINY), record)


@pytest.mark.parametrize("dtype", ["float64", np.float64, torch.float64])
def test_records_in_double_precision(dtype):
    double = simulate(truth(1), survey=TINY, dtype=dtype)
    assert double.dtype == np.float64
    single = simulate(torch.from_numpy(truth(1)), survey=TINY)
    assert 0 < np.abs(double - single).max() < 1e-5 * np.abs(double).max()


def test_maps_that_cannot_be_simulated():
    maps = truth()
    maps[1, 3, 4] = 6500.0
    with pytest.raises(SampleError, match=r"map 1: found velocities 1800 to 6500 m/s"):
        simulate(maps, survey=TINY)
    maps[1, 3, 4] = np.nan
    with pytest.raises(SampleError, match=r"map 1: found 1 of 140 values not finite"):
        simulate(maps, survey=TINY)
    with pytest.raises(InputError, match="velocity: found shape"):
        simulate(np.ones((70, 70)), survey=TINY)
    with pytest.raises(InputError, match="dtype 'float16'"):
        simulate(truth(), survey=TINY, dtype="float16")


# classify


def test_classifying_one_and_many():
    row, column = np.mgrid[:70, :70]
    step = [10 - 7 * (column > 30 + k) for k in range(3)]  # what the short records reach
    depth = row - np.stack(step)
    starts = np.select([depth < 0, depth == 0], [1800.0, 2000.0], 2300.0)
    records = simulate(starts, survey=SHORT)
    many = classify(torch.from_numpy(starts), records, survey=SHORT)
    assert [found.family for found in many] == ["blended"] * 3
    pairs = zip(starts, records, strict=True)
    assert many == [routes.classify(*pair, load(), SHORT) for pair in pairs]
    assert classify(starts[2], records[2], survey=SHORT) == many[2]
    never = load()
    never = replace(never, routing=replace(never.routing, blended_edges=1.5))
    assert classify(starts[0], records[0], survey=SHORT, priors=never).family == "layered"
    starts[1, 0, 0] = np.nan
    with pytest.raises(SampleError, match="sample 1: prediction: found 1 of 4900 values"):
        classify(starts, records, survey=SHORT)
