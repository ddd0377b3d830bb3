"""Lists of ids, and which record belongs to which prediction."""

import h5py
import numpy as np
import pytest

from fwi_refine import io
from fwi_refine.errors import InputError
from fwi_refine.io.order import in_order

MAPS = np.random.default_rng(0).uniform(1500, 4500, (3, 70, 70)).astype(np.float32)
IDS = ["a", "b", "c"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/b", "a\\b", "..", ".", ""])
def test_ids_cannot_leave_their_directory(tmp_path, name):
    with pytest.raises(InputError, match="cannot be used"):
        io.check_id(name)
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["velocity"] = MAPS
        file["ids"] = ["a", name, "c"]
    with pytest.raises(InputError, match="cannot be used"):
        io.open_predictions(tmp_path / "p.h5")


@pytest.mark.parametrize(
    "text", ["a\nb\nc\n", "a\r\nb\r\nc", "\na\n\nb\nc\n", "id\na\nb\nc\n", "n,id\n1,a\n2,b\n3,c\n"]
)
def test_a_list_of_ids(tmp_path, text):
    (tmp_path / "ids").write_text(text)
    assert io.read_ids(tmp_path / "ids") == IDS


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no ids"),
        (b"a,b\nc,d\n", "expected one called 'id'"),
        (b"a\n../b\n", "cannot be used"),
        (b"\xff\xfe", "cannot be read as a list of ids"),
    ],
)
def test_a_list_of_ids_that_is_none(tmp_path, content, words):
    (tmp_path / "ids").write_bytes(content)
    with pytest.raises(InputError, match=words):
        io.read_ids(tmp_path / "ids")


def test_ids_that_differ_in_number_or_name():
    assert io.resolve_ids(None, None, 3, "p") is None
    assert io.resolve_ids(None, IDS, 3, "p") == IDS
    assert io.resolve_ids(IDS, IDS, 3, "p") == IDS
    with pytest.raises(InputError, match=r"holds 3 ids, but p holds 2 samples.*'c' \(number 3\)"):
        io.resolve_ids(None, IDS, 2, "p")
    with pytest.raises(InputError, match=r"holds 3 ids, but p holds 4 samples.*number 4"):
        io.resolve_ids(None, IDS, 4, "p")
    with pytest.raises(InputError, match="number 2, 'x' against 'b'"):
        io.resolve_ids(IDS, ["a", "x", "c"], 3, "p")


class Records:
    def __init__(self, *ids, named=True):
        self.ids, self.named, self.path = list(ids), named, "seismic"
        self.order = None


def test_pairs_by_position():
    pairs = io.pair(None, 3, Records("x", "y", "z"))
    assert [(p.id, p.record, p.problem) for p in pairs] == [
        ("x", 0, None), ("y", 1, None), ("z", 2, None)
    ]  # fmt: skip
    pairs = io.pair(IDS, 3, Records("s_0", "s_1", "s_2", named=False))
    assert [(p.id, p.record) for p in pairs] == [("a", 0), ("b", 1), ("c", 2)]


def test_pairs_by_id_take_no_notice_of_order_or_of_records_left_over():
    pairs = io.pair(["c", "a"], 2, Records(*IDS))
    assert [(p.index, p.id, p.record) for p in pairs] == [(0, "c", 2), (1, "a", 0)]
    pairs = io.pair(["s_1", "s_0"], 2, Records("s_0", "s_1", named=False))
    assert [p.record for p in pairs] == [1, 0]


@pytest.mark.parametrize(
    ("count", "records", "words"),
    [
        (2, ("x", "y", "z"), r"found 2 predictions and 3 records.*'z', record number 3"),
        (4, ("x", "y", "z"), r"found 4 predictions and 3 records.*prediction 4, which has no"),
    ],
)
def test_counts_that_do_not_match(count, records, words):
    with pytest.raises(InputError, match=words):
        io.pair(None, count, Records(*records))


def test_ids_that_do_not_match():
    with pytest.raises(InputError, match=r"3 predictions and 3 records.*first.*'b'.*number 2.*'x'"):
        io.pair(IDS, 3, Records("a", "c", "x"))
    with pytest.raises(InputError, match="first that differs is 'a'"):
        io.pair(IDS, 3, Records("x", "y"))


def test_a_missing_or_duplicate_id_costs_its_sample_alone():
    missing = io.pair(IDS, 3, Records("a", "c"))
    assert [p.record for p in missing] == [0, None, 1]
    assert "no record with the id 'b'" in missing[1].problem
    double = io.pair(["a", "b", "b"], 3, Records("a", "b"))
    assert [p.record for p in double] == [0, None, None]
    assert "predictions number 2, 3" in double[1].problem
    twice = io.pair(["a", "b"], 2, Records("a", "b", "b"))
    assert [p.record for p in twice] == [0, None]
    assert "found 2 records with the id 'b'" in twice[1].problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id;family\na;b\nc;d\n", "every line holds ';'"),
        ("a\tb\nc\td\n", "every line holds a tab"),
    ],
)
def test_other_separators_have_a_hint(tmp_path, text, words):
    path = tmp_path / "ids.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        io.read_ids(path)


def test_headings(tmp_path):
    path = tmp_path / "ids.csv"
    path.write_text("ID,Family\na,b\n")
    assert io.read_ids(path) == ["a"]
    path.write_text("name\na\nb\n")
    with pytest.raises(InputError, match="if the first line, 'name', is a heading, call it 'id'"):
        io.resolve_ids(None, io.read_ids(path), 2, "maps.npy")
    path.write_text("a;b\nc\n")  # not every line: it belongs to the id
    assert io.read_ids(path) == ["a;b", "c"]


def test_text_of_another_encoding_has_a_hint(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_bytes("a\nb\n".encode("utf-16"))
    with pytest.raises(InputError, match="save it as UTF-8"):
        io.read_ids(path)


@pytest.mark.parametrize("names", [["a", "a1"], ["a1", "a", "a1b"], ["1", "x", "a"]])
def test_names_with_and_without_numbers_are_sorted(names):
    assert in_order(names).names == sorted(names)
