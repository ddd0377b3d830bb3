"""What is checked of one sample, and how a broken .npy file is read."""

import contextlib
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from fwi_refine.errors import SampleError
from fwi_refine.io.npy import NpyArray
from fwi_refine.survey.validate import check_prediction, check_record


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@settings(max_examples=20, deadline=None)
@given(place=st.tuples(st.integers(0, 4), st.integers(0, 998), st.integers(0, 69)))
def test_a_record_with_a_value_that_is_not_finite(value, place):
    record = np.ones((5, 1000, 70), np.float32)
    record[place] = value
    shot, row, receiver = place
    words = f"found 1 of 349650 values not finite, the first {value} at shot {shot}, row {row}, "
    with pytest.raises(SampleError) as caught:
        check_record(record, where="record x")
    assert str(caught.value).startswith(f"record x: {words}receiver {receiver}")


def test_the_last_row_is_not_used_and_not_checked():
    record = np.ones((5, 1000, 70), np.float32)
    record[:, 999] = np.nan
    assert check_record(record).shape == (5, 1000, 70)
    record[:, 998] = 0
    assert check_record(record[:, :999]).shape == (5, 999, 70)


@settings(max_examples=50, deadline=None)
@given(shape=array_shapes(min_dims=0, max_dims=5, max_side=12))
def test_a_record_of_another_shape(shape):
    with pytest.raises(SampleError, match=r"found shape .*, expected \(5, 1000, 70\)"):
        check_record(np.ones(shape, np.float32))


@pytest.mark.parametrize("shape", [(5, 998, 70), (5, 1000, 69), (4, 1000, 70), (70, 1000, 5)])
def test_a_record_of_nearly_the_right_shape(shape):
    with pytest.raises(SampleError, match="found shape"):
        check_record(np.ones(shape))


@pytest.mark.parametrize("dtype", ["i2", "i8", "u1", "c16", "?", "U3", object])
def test_values_of_another_type(dtype):
    for check, shape in ((check_record, (5, 1000, 70)), (check_prediction, (70, 70))):
        with pytest.raises(SampleError, match=r"found type .*, expected a float type"):
            check(np.ones(shape).astype(dtype))


def test_a_record_of_zeros():
    with pytest.raises(SampleError, match="found only zeros"):
        check_record(np.zeros((5, 1000, 70)))
    with pytest.raises(SampleError, match="found only NaN"):
        check_record(np.full((5, 1000, 70), np.nan), gaps=True)


@pytest.mark.parametrize(("dtype", "kept"), [("f2", "f4"), (">f4", "f4"), ("f8", "f8")])
def test_a_checked_record_has_native_floats(dtype, kept):
    assert check_record(np.ones((5, 1000, 70), dtype)).dtype == np.dtype(kept)


@given(row=st.integers(0, 69), column=st.integers(0, 69))
def test_a_prediction_with_a_value_that_is_not_finite(row, column):
    v = np.full((70, 70), 2000.0)
    v[row, column] = np.nan
    with pytest.raises(SampleError, match=f"the first nan at row {row}, column {column}"):
        check_prediction(v)


@given(shape=array_shapes(min_dims=0, max_dims=4, max_side=80))
def test_a_prediction_of_another_shape(shape):
    if shape not in ((70, 70), (1, 70, 70)):
        with pytest.raises(SampleError, match=r"expected \(70, 70\)"):
            check_prediction(np.broadcast_to(np.float32(2000), shape))


def test_a_header_that_holds_nonsense(tmp_path):
    for shape in ((-1, 70), (2**62, 2**62), (2**40, 0)):
        with open(tmp_path / "x.npy", "wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.write(bytes(100))
        with pytest.raises(SampleError):
            check_prediction(NpyArray(tmp_path / "x.npy").read())


@settings(max_examples=60, deadline=None)
@given(dtype=st.sampled_from(["f4", "f8"]), data=st.data())
def test_a_file_cut_anywhere_gives_complete_rows_or_a_sample_error(tmp_path_factory, dtype, data):
    path = tmp_path_factory.mktemp("cut") / "x.npy"
    array = np.arange(60, dtype=dtype).reshape(5, 3, 4)
    np.save(path, array)
    size = path.stat().st_size
    length = data.draw(st.integers(0, size))
    os.truncate(path, length)
    if length < 128:  # the length of the header
        with pytest.raises(SampleError, match=r"x\.npy"):
            NpyArray(path)
        return
    opened = NpyArray(path)
    complete = (length - 128) // (12 * array.itemsize)
    for k in range(5):
        with contextlib.nullcontext() if k < complete else pytest.raises(SampleError):
            np.testing.assert_array_equal(opened.row(k), array[k])
    with contextlib.nullcontext() if length == size else pytest.raises(SampleError):
        np.testing.assert_array_equal(opened.read(), array)


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=200), magic=st.booleans())
def test_a_file_of_anything_is_a_sample_error(tmp_path_factory, content, magic):
    path = tmp_path_factory.mktemp("any") / "x.npy"
    path.write_bytes((b"\x93NUMPY\x01\x00" if magic else b"") + content)
    with pytest.raises(SampleError):
        NpyArray(path).read()
