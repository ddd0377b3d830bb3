"""Bad input: what it is said to be, what it costs, and that its neighbours do not notice."""

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from fwi_refine.cli import run

# Made beside the three good samples: how the record or the start is spoilt, what is said of it,
# and whether the start can be passed through.


def spoil_record(values):
    return lambda record, start: (values(record), start)


def spoil_start(values):
    return lambda record, start: (record, values(start))


def with_value(value, *place):
    def change(array):
        array = array.copy()
        array[place] = value
        return array

    return change


BAD = {
    "infinite_record": (
        spoil_record(with_value(np.inf, 2, 500, 7)),
        "1 of 349650 values not finite, the first inf at shot 2, row 500, receiver 7",
    ),
    "inf_record": (spoil_record(with_value(np.inf, 0, 0, 0)), "the first inf at shot 0, row 0"),
    "zero_record": (spoil_record(np.zeros_like), "found only zeros, expected a recorded wave"),
    "short_record": (spoil_record(lambda d: d[:, :998]), "found shape (5, 998, 70), expected (5,"),
    "narrow_record": (spoil_record(lambda d: d[..., 1:]), "found shape (5, 1000, 69), expected"),
    "int_record": (spoil_record(lambda d: d.astype("i4")), "found type int32, expected a float"),
    "text_record": (spoil_record(lambda d: b"no array at all"), "not a readable .npy file"),
    "empty_record": (spoil_record(lambda d: b""), "not a readable .npy file"),
    "pickled_record": (spoil_record(lambda d: np.array([None])), "pickled objects, which are"),
    "cut_record": (spoil_record(lambda d: "cut"), "file is truncated: found 69878 bytes of values"),
    "missing_record": (spoil_record(lambda d: None), "no record with the id 'missing_record'"),
    "nan_start": (spoil_start(with_value(np.nan, 3, 4)), "1 of 4900 values not finite, the first"),
    "row_start": (spoil_start(np.ravel), "found shape (4900,), expected (70, 70)"),
    "int_start": (spoil_start(lambda v: v.astype("i4")), "found type int32, expected a float"),
    "wide_start": (spoil_start(lambda v: np.tile(v, 2)), "found shape (70, 140), expected"),
    "cut_start": (spoil_start(lambda v: "cut"), "file is truncated"),
}


def save(path, content, original):
    """Content as .npy; bytes as they are; "cut": the original, cut; None: no file."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        np.save(path, original)
        os.truncate(path, path.stat().st_size // 20)
    elif content is not None:
        np.save(path, content, allow_pickle=True)


@pytest.fixture(scope="session")
def spoilt(made, refine, tmp_path_factory):
    """One run of the good and all the bad samples: (result, starts as they were, folder). The good
    ones have no evaluation to spare, see `test_neighbours_have_the_same_bits_as_without_it`."""
    folder = tmp_path_factory.mktemp("spoilt")
    (folder / "starts").mkdir()
    shutil.copytree(made.seismic, folder / "seismic")
    for name, start in zip(made.ids, made.starts, strict=True):
        np.save(folder / "starts" / f"{name}.npy", start)
    starts = {}
    for name, (change, _) in BAD.items():
        record, start = change(made.records[0], made.starts[0])
        save(folder / "seismic" / f"{name}.npy", record, made.records[0])
        save(folder / "starts" / f"{name}.npy", start, made.starts[0])
        starts[name] = start
    files = folder / "starts", folder / "seismic", folder / "out.npy"
    return refine(*files, "--max-evaluations", 1), starts, folder


def test_the_run_finishes_and_says_that_samples_failed(spoilt, made):
    result, _, _ = spoilt
    assert result.code == 3
    names = sorted([*made.ids, *BAD])
    assert [row["id"] for row in result.report] == names
    assert result.maps.shape == (len(names), 70, 70)
    assert result.maps.dtype == np.float32


@pytest.mark.parametrize("name", BAD)
def test_a_bad_sample_fails_with_its_reason_and_its_start(spoilt, name):
    result, starts, folder = spoilt
    place = [row["id"] for row in result.report].index(name)
    row = result.report[place]
    assert row["status"] == "failed"
    assert BAD[name][1] in row["reason"]
    assert name in row["reason"]
    spoilt_kind = "starts" if name.endswith("_start") else "seismic"
    assert str(folder / spoilt_kind) in row["reason"]
    start = starts[name]
    if isinstance(start, str) or start.size != 4900:
        assert np.isnan(result.maps[place]).all()
    else:
        np.testing.assert_array_equal(result.maps[place], start.reshape(70, 70))


@pytest.mark.slow
def test_neighbours_have_the_same_bits_as_without_it(spoilt, baseline, made, refine, tmp_path):
    folder = spoilt[2]
    result = refine(folder / "starts", folder / "seismic", tmp_path / "out.npy")
    ids = [row["id"] for row in result.report]
    for k, name in enumerate(made.ids):
        place = ids.index(name)
        assert result.report[place]["status"] == "refined"
        assert result.maps[place].tobytes() == baseline.maps[k].tobytes()
        assert not np.array_equal(result.maps[place], made.starts[k])


def test_a_duplicate_id_fails_wherever_it_stands(made, baseline, refine, tmp_path):
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["velocity"] = made.starts[[1, 0, 1, 2]][:, None]
        file["ids"] = ["b2", "a1", "b2", "absent"]
    (tmp_path / "seismic").mkdir()
    for name in ("a1", "b2"):
        os.symlink(f"{made.seismic}/{name}.npy", tmp_path / "seismic" / f"{name}.npy")
    result = refine(tmp_path / "p.h5", tmp_path / "seismic", tmp_path / "out.npy")
    assert result.code == 3
    assert result.maps.shape == (4, 1, 70, 70)
    assert [row["status"] for row in result.report] == ["failed", "refined", "failed", "failed"]
    assert "duplicate id 'b2'" in result.report[2]["reason"]
    assert "no record with the id 'absent'" in result.report[3]["reason"]
    assert result.maps[1, 0].tobytes() == baseline.maps[0].tobytes()
    for k, start in ((0, 1), (2, 1), (3, 2)):
        np.testing.assert_array_equal(result.maps[k, 0], made.starts[start])


def test_a_cut_shard_costs_the_samples_that_are_missing(made, baseline, refine, tmp_path):
    shard = tmp_path / "records" / "seis1.npy"
    shard.parent.mkdir()
    np.save(shard, made.records[1:])
    os.truncate(shard, shard.stat().st_size - 1)
    np.save(tmp_path / "p.npy", made.starts[1:])
    result = refine(tmp_path / "p.npy", shard.parent, tmp_path / "out.npy")
    assert result.code == 3
    assert [row["status"] for row in result.report] == ["refined", "failed"]
    assert "seis1.npy, row 1: file is truncated" in result.report[1]["reason"]
    assert result.maps[0].tobytes() == baseline.maps[1].tobytes()
    np.testing.assert_array_equal(result.maps[1], made.starts[2])


def test_a_start_out_of_range_is_flagged_and_passed_through_as_it_was(made, refine, tmp_path):
    """What is refined is within the bounds; where nothing better is found, it is the user's map."""
    start = made.starts[0].copy()
    start[40:, :20] = 1e7
    start[:5] = -300
    np.save(tmp_path / "p.npy", start[None])
    more = "--force", "--max-evaluations", 12
    result = refine(tmp_path / "p.npy", f"{made.seismic}/a1.npy", tmp_path / "out.npy", *more)
    assert result.code == 0
    assert result.report[0]["status"] == "unchanged"
    np.testing.assert_array_equal(result.maps[0], start)
    assert "bounds" in result.report[0]["flags"]


# What concerns the whole input: exit code 2, and not a byte is written


def tree(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def array(made, folder, values, name="p.npy"):
    np.save(folder / name, values)
    return folder / name


WHOLE = {
    "too few predictions": (
        lambda made, folder: [array(made, folder, made.starts[:2]), made.seismic],
        ["found 2 predictions and 3 records", "'c3', record number 3"],
    ),
    "too many predictions": (
        lambda made, folder: [array(made, folder, made.starts[[0, 1, 2, 0]]), made.seismic],
        ["found 4 predictions and 3 records", "prediction 4, which has no record"],
    ),
    "wrong shape": (
        lambda made, folder: [array(made, folder, made.starts[:, :69]), made.seismic],
        ["found shape (3, 69, 70), expected (N, 70, 70) or (N, 1, 70, 70)"],
    ),
    "wrong type": (
        lambda made, folder: [array(made, folder, made.starts.astype(int)), made.seismic],
        ["found type int64, expected a float type"],
    ),
    "no predictions": (
        lambda made, folder: [folder / "absent.npy", made.seismic],
        ["absent.npy: no such file or directory"],
    ),
    "no records": (
        lambda made, folder: [made.starts_file, folder / "absent"],
        ["absent: no such file or directory"],
    ),
    "a list of ids that is too short": (
        lambda made, folder: [made.starts_file, made.seismic, "--ids", ids(folder, "a1", "b2")],
        ["holds 2 ids, but", "3 samples", "number 3"],
    ),
    "ids of other records": (
        lambda made, folder: [
            made.starts_file, made.seismic, "--ids", ids(folder, "a1", "b2", "x"),
        ],
        ["3 predictions and 3 records", "first that differs is 'x'", "number 3", "'c3'"],
    ),
    "an id that leaves the directory": (
        lambda made, folder: [
            made.starts_file, made.seismic, "--ids", ids(folder, "a1", "b2", "../../c3"),
        ],
        ["id '../../c3' cannot be used"],
    ),
    "a candidate of another length": (
        lambda made, folder: [
            made.starts_file, made.seismic, "--candidate", array(made, folder, made.starts[:2]),
        ],
        ["found 2 maps", "and 3 in", "expected as many", "number 3"],
    ),
    "priors that are none": (
        lambda made, folder: [made.starts_file, made.seismic, "--priors", ids(folder, "x")],
        ["--priors"],
    ),
}  # fmt: skip


def ids(folder, *names):
    (folder / "ids").write_text("\n".join(names))
    return folder / "ids"


@pytest.mark.parametrize("what", WHOLE)
def test_input_that_cannot_be_used_as_a_whole(made, tmp_path, capsys, what):
    build, words = WHOLE[what]
    arguments = build(made, tmp_path)
    before = tree(tmp_path)
    assert run([*map(str, arguments), "--out", str(tmp_path / "out.npy")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    for word in words:
        assert word in error
    assert tree(tmp_path) == before
