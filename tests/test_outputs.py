"""Outputs stand under their final name only when they are whole."""

import os

import numpy as np
import pytest

from fwi_refine import io
from fwi_refine.errors import InputError, OutputExistsError
from fwi_refine.io.history import Step, read_history
from fwi_refine.io.map_writer import MapWriter
from fwi_refine.io.report import Row
from fwi_refine.io.results import Results

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
    assert os.listdir(tmp_path) == ["x.npy"]


@pytest.mark.parametrize("same", ["report", "deviation", "history"])
def test_two_outputs_with_one_name_are_refused(same, tmp_path):
    out = tmp_path / "o.npy"
    names = {"report": tmp_path / "o.csv", same: tmp_path / "." / "o.npy"}
    with pytest.raises(InputError, match="two outputs with one name"):
        Results(out, shape=(1, 70, 70), map_shape=(70, 70), ids=["a"], **names)
    assert os.listdir(tmp_path) == []


def test_an_output_does_not_replace_an_input(tmp_path):
    (tmp_path / "x.csv").write_text("predictions")
    with pytest.raises(InputError, match="is an input as well"):
        io.claim_output(tmp_path / "x.csv", overwrite=True, inputs=(None, tmp_path / "x.csv"))


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a folder that nobody may write to")
def test_a_folder_that_cannot_be_written_to():
    with pytest.raises(InputError, match=r"^output /proc/x\.npy: cannot be written \("):
        io.claim_output("/proc/x.npy", overwrite=False)


def test_what_is_finished_is_kept_beside_what_was_kept_before(tmp_path):
    names = [tmp_path / name for name in ("o.npy", "o.csv", "d.npy", "h.csv")]
    for k in range(3):
        results = Results(*names[:2], MAPS.shape, (70, 70), ["a", "b", "c"], False, *names[2:])
        for place in range(3):
            results.start(place, MAPS[place])
        assert results.keep_partial() is None
        results.add(1, MAPS[2], Row("b", status="refined"), MAPS[1] / 100, ((0, 1, 0.5),))
        mark = ".partial" if k == 0 else f".partial-{k + 1}"
        assert results.keep_partial() == (tmp_path / f"o{mark}.npy", tmp_path / f"o{mark}.csv")
        results.close()
        kept = np.load(tmp_path / f"o{mark}.npy"), np.load(tmp_path / f"d{mark}.npy")
        np.testing.assert_array_equal(kept[0], MAPS[[0, 2, 2]])
        np.testing.assert_array_equal(kept[1][1], MAPS[1] / 100)
        assert np.isnan(kept[1][[0, 2]]).all()
        assert read_history(tmp_path / f"h{mark}.csv") == {"b": [Step(0, 1, 0.5)]}
    assert len(os.listdir(tmp_path)) == 12
