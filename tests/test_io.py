"""Every form that predictions may come in, and what is said of files that are none."""

import os

import h5py
import numpy as np
import pytest

from fwi_refine import io
from fwi_refine.errors import InputError, SampleError
from fwi_refine.survey.validate import check_prediction

MAPS = np.random.default_rng(0).uniform(1500, 4500, (3, 70, 70)).astype(np.float32)
IDS = ["a", "b", "c"]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("shape", [(3, 70, 70), (3, 1, 70, 70)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_predictions_of_any_float_type(tmp_path, dtype, shape, order):
    stored = np.array(MAPS.reshape(shape).astype(dtype), order=order)
    np.save(tmp_path / "p.npy", stored)
    source = io.open_predictions(tmp_path / "p.npy")
    assert (source.count, source.ids, source.shape) == (3, None, shape)
    for k in range(3):
        np.testing.assert_array_equal(
            check_prediction(source.read(k)), stored[k].reshape(70, 70).astype(np.float64)
        )


@pytest.mark.parametrize("ids", [None, ["a", "b", "c"], [7, 8, 9]])
def test_hdf5_predictions(tmp_path, ids):
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["velocity"] = MAPS
        if ids:
            file["ids"] = ids
    source = io.open_predictions(tmp_path / "p.h5")
    assert source.ids == (ids and [str(name) for name in ids])
    np.testing.assert_array_equal(source.read(2), MAPS[2])


def test_directory_predictions_are_sorted_and_skip_other_files(tmp_path):
    for name, v in zip(["b", "a", "c"], MAPS, strict=True):
        np.save(tmp_path / f"{name}.npy", v)
    (tmp_path / "notes.txt").write_text("not a map")
    (tmp_path / "._a.npy").write_bytes(b"left by a copy")
    source = io.open_predictions(tmp_path)
    assert source.ids == ["a", "b", "c"]
    np.testing.assert_array_equal(source.read(0), MAPS[1])


def write_submission_lines(path, maps, names, order=None):
    lines = [
        f"{name}_y_{row},{','.join(str(x) for x in v[row, 1::2])}"
        for name, v in zip(names, maps, strict=True)
        for row in range(70)
    ]
    lines = [lines[k] for k in order] if order is not None else lines
    path.write_text("oid_ypos," + ",".join(f"x_{k}" for k in range(1, 70, 2)) + "\n")
    with open(path, "a") as file:
        file.write("\n".join(lines) + "\n")
    return lines


def test_submission_csv_interpolates_even_columns(tmp_path, caplog):
    order = np.random.default_rng(3).permutation(210)
    write_submission_lines(tmp_path / "s.csv", MAPS, IDS, order)
    with caplog.at_level("INFO"):
        source = io.open_predictions(tmp_path / "s.csv")
    assert "even ones are interpolated" in caplog.text
    assert sorted(source.ids) == IDS
    for k, name in enumerate(source.ids):
        read, v = source.read(k), MAPS[IDS.index(name)].astype(np.float64)
        np.testing.assert_array_equal(read[:, 1::2].astype("f4"), v[:, 1::2])
        between = (v[:, 1:68:2] + v[:, 3:70:2]) / 2
        np.testing.assert_allclose(read[:, 2:69:2], between, rtol=1e-6)
        np.testing.assert_array_equal(read[:, 0], read[:, 1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: lines[:75] + lines[76:], "69 of 70 rows, row 5 is missing"),
        (lambda lines: [*lines, lines[75]], "row 5 stands twice"),
        (lambda lines: [*lines[:75], lines[75] + ",1.0", *lines[76:]], "found 36 values"),
        (lambda lines: [*lines[:75], lines[75] + "x", *lines[76:]], "could not convert"),
    ],
)
def test_a_broken_line_of_a_submission_costs_its_map_alone(tmp_path, change, words):
    path = tmp_path / "s.csv"
    lines = write_submission_lines(path, MAPS, IDS)
    header = path.read_text().partition("\n")[0]
    path.write_text("\n".join([header, *change(lines)]))
    source = io.open_predictions(path)
    with pytest.raises(SampleError, match=words):
        source.read(1)
    for k in (0, 2):
        np.testing.assert_array_equal(source.read(k)[:, 1::2].astype("f4"), MAPS[k][:, 1::2])
    start = io.read_start(source, 1)
    np.testing.assert_array_equal(start[6:, 1::2], MAPS[1][6:, 1::2])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,x\n", "found the header 'id,x'"),
        ("", "found the header"),
        ("oid_ypos,{columns}\n", "holds no maps"),
        ("oid_ypos,{columns}\na_row_3,1\n", "line 2: found key 'a_row_3'"),
        ("oid_ypos,{columns}\na_y_70,1\n", "row 0..69"),
        ("oid_ypos,{columns}\n../a_y_3,1\n", "cannot be used"),
    ],
)
def test_a_file_that_is_no_submission(tmp_path, text, words):
    columns = ",".join(f"x_{k}" for k in range(1, 70, 2))
    (tmp_path / "s.csv").write_text(text.replace("{columns}", columns))
    with pytest.raises(InputError, match=words):
        io.open_predictions(tmp_path / "s.csv")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 70, 69), "f4"), r"found shape \(3, 70, 69\), expected \(N, 70, 70\)"),
        (np.zeros((70, 70), "f4"), "found shape"),
        (np.zeros((3, 2, 70, 70), "f4"), "found shape"),
        (np.zeros((3, 70, 70), "i4"), "found type int32, expected a float type"),
        (np.zeros((3, 70, 70), "c8"), "found type complex64"),
        (np.zeros((0, 70, 70), "f4"), "holds no maps"),
        (np.array([{}], dtype=object), "pickled objects, which are never loaded"),
    ],
)
def test_predictions_that_cannot_be_used_as_a_whole(tmp_path, array, words):
    np.save(tmp_path / "p.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=words):
        io.open_predictions(tmp_path / "p.npy")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.npy", b"\x93NUMPY", "not a readable .npy file"),
        ("p.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': 'boom", "not a readable .npy file"),
        ("p.npy", b"text", "neither .npy, nor .npz, nor HDF5"),
        ("p.npy", b"", "neither .npy, nor .npz, nor HDF5"),
        ("p.npz", b"PK\x03\x04....", "not a readable .npz file"),
        ("p.pt", b"PK\x03\x04....", "of a torch tensor: np.save"),
        ("p.h5", b"\x89HDF\r\n\x1a\n....", "not a readable HDF5 file"),
        ("s.csv", b"\xff\xfe\xff", "cannot be read"),
    ],
)
def test_predictions_that_cannot_be_read(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        io.open_predictions(tmp_path / name)


@pytest.mark.parametrize("shape", [(2, 70, 70), (5, 70, 70), (2, 1, 70, 70)])
def test_maps_in_the_place_of_records(tmp_path, shape):
    np.save(tmp_path / "p.npy", np.ones(shape, np.float32))
    with pytest.raises(InputError, match="that of maps; the predictions come first"):
        io.open_records(tmp_path / "p.npy")


def test_a_truncated_array_of_predictions(tmp_path):
    np.save(tmp_path / "p.npy", MAPS)
    os.truncate(tmp_path / "p.npy", 30_000)
    with pytest.raises(InputError, match="truncated: found 29872 bytes of values, expected 58800"):
        io.open_predictions(tmp_path / "p.npy")


def test_absent_files(tmp_path):
    for opener in (io.open_predictions, io.open_records):
        with pytest.raises(InputError, match="no such file or directory"):
            opener(tmp_path / "absent")
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=r"found no \.npy files"):
            opener(tmp_path / "empty")


def test_hdf5_without_velocity_says_what_is_there(tmp_path):
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["speed"] = MAPS
    with pytest.raises(InputError, match=r"found the datasets \['speed'\], expected.*'velocity'"):
        io.open_predictions(tmp_path / "p.h5")


def test_what_is_passed_through_of_an_unusable_start(tmp_path):
    nan = MAPS[0].copy()
    nan[3, 4] = np.nan
    np.save(tmp_path / "nan.npy", nan)
    np.save(tmp_path / "row.npy", MAPS[0].ravel())
    np.save(tmp_path / "shape.npy", MAPS[0, :69])
    np.save(tmp_path / "text.npy", np.full((70, 70), "x"))
    np.save(tmp_path / "large.npy", np.full((70, 70), 1e300))
    source = io.open_predictions(tmp_path)
    start = dict(zip(source.ids, (io.read_start(source, k) for k in range(5)), strict=True))
    np.testing.assert_array_equal(start["nan"], nan)
    np.testing.assert_array_equal(start["row"], MAPS[0])
    assert np.isnan(start["shape"]).all()
    assert np.isnan(start["text"]).all()
    assert np.isposinf(start["large"]).all()
