"""Every form that records may come in: directories, shards, one array, HDF5."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from fwi_refine import io
from fwi_refine.errors import InputError, SampleError
from fwi_refine.survey.validate import check_prediction

MAPS = np.random.default_rng(0).uniform(1500, 4500, (3, 70, 70)).astype(np.float32)
IDS = ["a", "b", "c"]


def small_records(n, seed=1):
    """Records of the right shape that are noise: reading does not look at more than that."""
    return np.random.default_rng(seed).normal(size=(n, 5, 1000, 70)).astype(np.float32)


def test_directory_of_records(tmp_path):
    records = small_records(2)
    np.save(tmp_path / "b.npy", records[0])
    np.save(tmp_path / "a.npy", records[1])
    source = io.open_records(tmp_path)
    assert (source.ids, source.named) == (["a", "b"], True)
    np.testing.assert_array_equal(source.read(1), records[0])
    assert source.truth(0) is None
    one = io.open_records(tmp_path / "b.npy")
    assert one.ids == ["b"]
    np.testing.assert_array_equal(one.read(0), records[0])


def test_a_truth_that_cannot_be_read_costs_nothing_else(tmp_path):
    path, records = tmp_path / "r.h5", small_records(2)
    with h5py.File(path, "w") as file:
        file["records"] = records
        file["ids"] = ["a", "b"]
        file.create_dataset("velocity", data=MAPS[:2], chunks=(1, 70, 70), fletcher32=True)
        place = file["velocity"].id.get_chunk_info(1).byte_offset
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(b"damage")
    source = io.open_records(path)
    first, second = (
        io.load_record(io.Sample(k, source.ids[k], (), source=source.alone(k))) for k in range(2)
    )
    np.testing.assert_array_equal(first.truth, MAPS[0])
    np.testing.assert_array_equal(second.record, records[1])
    assert second.problem is None
    assert second.truth is None


@pytest.mark.parametrize(
    ("shards", "truths"),
    [
        (["seis2_1_0.npy", "seis2_1_1.npy"], ["vel2_1_0.npy", "vel2_1_1.npy"]),
        (["data1.npy", "data2.npy"], ["model1.npy", "model2.npy"]),
        (["data/data1.npy", "data/data2.npy"], ["model/model1.npy", "model/model2.npy"]),
    ],
)
def test_shards_with_the_truth_beside_them(tmp_path, shards, truths):
    records = small_records(3)
    for folder in ("data", "model"):
        (tmp_path / folder).mkdir()
    for name, rows in zip(shards, (slice(0, 2), slice(2, 3)), strict=True):
        np.save(tmp_path / name, records[rows])
    np.save(tmp_path / truths[0], MAPS[:2, None])
    np.save(tmp_path / truths[1], MAPS[2:, None])
    source = io.open_records(tmp_path)
    stems = [Path(name).stem for name in shards]
    assert source.ids == [f"{stems[0]}_0", f"{stems[0]}_1", f"{stems[1]}_0"]
    assert not source.named
    for k in range(3):
        np.testing.assert_array_equal(source.read(k), records[k])
        np.testing.assert_array_equal(check_prediction(source.truth(k)), MAPS[k])


def test_shards_without_truth_or_with_one_of_another_length(tmp_path):
    np.save(tmp_path / "data1.npy", small_records(2))
    assert io.open_records(tmp_path).truth(0) is None
    np.save(tmp_path / "model1.npy", MAPS)
    assert io.open_records(tmp_path).truth(0) is None
    assert io.open_records(tmp_path / "data1.npy").ids == ["data1_0", "data1_1"]


def test_a_truncated_shard_keeps_its_complete_rows(tmp_path):
    records = small_records(3)
    path = tmp_path / "seis1.npy"
    np.save(path, records)
    os.truncate(path, path.stat().st_size - 10)
    source = io.open_records(tmp_path)
    for k in (0, 1):
        np.testing.assert_array_equal(source.read(k), records[k])
    with pytest.raises(SampleError, match=r"seis1\.npy, row 2: file is truncated"):
        source.read(2)


@pytest.mark.parametrize("ids", [None, IDS[:2]])
def test_hdf5_records(tmp_path, ids):
    records = small_records(2)
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file["records"] = records
        file["velocity"] = MAPS[:2]
        if ids:
            file["ids"] = ids
    source = io.open_records(tmp_path / "r.h5")
    assert (source.named, source.ids) == (bool(ids), ids or ["r_0", "r_1"])
    np.testing.assert_array_equal(source.read(1), records[1])
    np.testing.assert_array_equal(source.truth(1), MAPS[1])


def test_records_that_cannot_be_used_as_a_whole(tmp_path):
    np.save(tmp_path / "flat.npy", np.zeros((10, 70), "f4"))
    with pytest.raises(InputError, match=r"found shape \(10, 70\), expected \(samples, shots"):
        io.open_records(tmp_path / "flat.npy")
    (tmp_path / "text.npy").write_text("text")
    with pytest.raises(InputError, match="not a readable"):
        io.open_records(tmp_path / "text.npy")
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file["records"] = np.zeros((2, 70, 70))
    with pytest.raises(InputError, match="found shape"):
        io.open_records(tmp_path / "r.h5")
