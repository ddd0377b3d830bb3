"""Parts: what is stored comes back, the same results are the same bytes, damage is noticed."""

import resource
from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_cases import RUN, make_part

from fwi_refine.errors import DamagedPartError, MachineError, PartError
from fwi_refine.runs.directory.parts import Part, read_part, write_part


def test_a_part_comes_back_as_it_was(tmp_path):
    part = make_part()
    path = write_part(tmp_path, 7, part, RUN)
    found = read_part(path, RUN)
    assert found.rows == part.rows
    assert set(found.maps) == {"velocity", "uncertainty"}
    for name, values in part.maps.items():
        np.testing.assert_array_equal(found.maps[name], values)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_the_time_that_a_sample_took_is_no_part_of_its_result(tmp_path):
    part = make_part()
    timed = Part([replace(row, seconds=4.5) for row in part.rows], part.maps)
    assert write_part(tmp_path, 7, part, RUN) == write_part(tmp_path, 7, timed, RUN)
    moved = Part(part.rows, {name: values + 1 for name, values in part.maps.items()})
    assert write_part(tmp_path, 7, part, RUN) != write_part(tmp_path, 7, moved, RUN)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = write_part(tmp_path_factory.mktemp("stored"), 7, make_part(1), RUN)
    return path, path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_flipped_bit_and_every_cut_is_noticed(stored, tmp_path_factory, data):
    path, content = stored
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        changed = content[:place]
    else:
        bit = 1 << data.draw(st.integers(0, 7))
        changed = content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
    damaged = tmp_path_factory.mktemp("damaged") / path.name
    damaged.write_bytes(changed)
    with pytest.raises(PartError, match=path.name):
        read_part(damaged, RUN)


def test_damaged_bytes_are_not_given_to_hdf5(stored, tmp_path, monkeypatch):
    """Which may crash on them, and takes the process along."""
    path, content = stored
    damaged = tmp_path / path.name
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    monkeypatch.setattr(h5py, "File", None)
    with pytest.raises(DamagedPartError):
        read_part(damaged, RUN)
    with pytest.raises(PartError, match="sound part of another run"):
        read_part(path, RUN[::-1])


def test_a_part_of_another_run_or_chunk_is_noticed(stored, tmp_path):
    path, content = stored
    assert read_part(path, RUN).rows == make_part(1).rows
    with pytest.raises(PartError, match="of another run"):
        read_part(path, RUN[::-1])
    other = tmp_path / path.name.replace("000007", "000008")
    other.write_bytes(content)
    with pytest.raises(PartError, match="of another run"):
        read_part(other, RUN)
    with pytest.raises(PartError, match="not the name of a part"):
        read_part(tmp_path / "part-7.h5", RUN)
    with pytest.raises(MachineError, match="No such file"):
        read_part(tmp_path / path.name, RUN)


def test_a_file_that_cannot_grow_leaves_nothing(tmp_path):
    first = write_part(tmp_path, 0, make_part(1), RUN)
    before = first.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot be stored.*part-000001"):
            write_part(tmp_path, 1, make_part(3), RUN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [entry.name for entry in tmp_path.iterdir()] == [first.name]
    assert first.read_bytes() == before
