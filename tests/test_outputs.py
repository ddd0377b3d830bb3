"""Outputs stand under their final name only when they are whole."""

import os

import numpy as np
import pytest

from fwi_refine import io
from fwi_refine.errors import InputError, OutputExistsError
from fwi_refine.io.outputs import MapWriter

MAPS = np.random.default_rng(0).uniform(1500, 4500, (3, 70, 70)).astype(np.float32)


def test_maps_are_written_in_any_order_and_published_once(tmp_path):
    writer = MapWriter(tmp_path / "out.npy", (3, 1, 70, 70), (70, 70))
    for k in (2, 0, 1):
        writer.write(k, MAPS[k].astype(np.float64))
    assert not (tmp_path / "out.npy").exists()
    writer.publish(tmp_path / "out.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), MAPS[:, None])
    assert os.listdir(tmp_path) == ["out.npy"]


def test_discarded_maps_leave_nothing(tmp_path):
    writer = MapWriter(tmp_path / "out.npy", (3, 70, 70), (70, 70))
    writer.write(0, MAPS[0])
    writer.discard()
    assert os.listdir(tmp_path) == []


def test_a_disk_without_room_says_so_at_once_and_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match=r"(?i)space|large"):
        MapWriter(tmp_path / "out.npy", (2**44, 70, 70), (70, 70))
    assert os.listdir(tmp_path) == []


def test_a_failed_write_leaves_the_earlier_file(tmp_path):
    (tmp_path / "x").write_text("before")

    def write():
        with io.atomic_path(tmp_path / "x") as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert (tmp_path / "x").read_text() == "before"
    assert os.listdir(tmp_path) == ["x"]


def test_outputs_are_not_overwritten_unasked(tmp_path):
    (tmp_path / "x.npy").write_text("before")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        io.claim_output(tmp_path / "x.npy", overwrite=False)
    assert io.claim_output(tmp_path / "x.npy", overwrite=True) == tmp_path / "x.npy"
    with pytest.raises(InputError, match="is a directory"):
        io.claim_output(tmp_path, overwrite=True)
    with pytest.raises(InputError, match="no directory"):
        io.claim_output(tmp_path / "absent" / "x.npy", overwrite=False)
