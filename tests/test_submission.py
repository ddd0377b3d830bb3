"""The competition's CSV: its format, its order, and when it is refused."""

import os

import numpy as np
import pytest

from fwi_refine import io
from fwi_refine.cli import run
from fwi_refine.errors import FwiRefineError, InputError
from fwi_refine.io import submission
from fwi_refine.io.submission import write_submission

MAPS = np.random.default_rng(5).uniform(1500, 4500, (3, 70, 70)).astype(np.float32)
IDS = ["a_y_1", "000039dca2", "z"]  # an id may look like a key


@pytest.fixture
def source(tmp_path):
    np.save(tmp_path / "maps.npy", MAPS)
    return io.open_predictions(tmp_path / "maps.npy")


def test_header_keys_and_values(tmp_path, source):
    assert write_submission(source, IDS, tmp_path / "s.csv") == 3
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines[0] == "oid_ypos," + ",".join(f"x_{k}" for k in range(1, 70, 2))
    assert len(lines) == 1 + 3 * 70
    key, *values = lines[1 + 70 + 7].split(",")
    assert key == "000039dca2_y_7"
    np.testing.assert_array_equal(np.array(values, np.float32), MAPS[1, 7, 1::2])


def test_it_reads_back_as_it_was(tmp_path, source):
    write_submission(source, IDS, tmp_path / "s.csv")
    back = io.open_predictions(tmp_path / "s.csv")
    assert back.ids == IDS
    for k, v in enumerate(MAPS):
        np.testing.assert_array_equal(back.read(k)[:, 1::2].astype(np.float32), v[:, 1::2])


def sample_submission(path, names):
    keys = [f"{name}_y_{row}" for name in names for row in range(70)]
    zeros = ",0.0" * 35
    header = "oid_ypos," + ",".join(f"x_{k}" for k in range(1, 70, 2))
    path.write_text("\n".join([header, *(key + zeros for key in keys)]) + "\n")
    return keys


def test_a_sample_submission_gives_the_order(tmp_path, source):
    keys = sample_submission(tmp_path / "like.csv", ["z", "a_y_1"])
    assert write_submission(source, IDS, tmp_path / "s.csv", like=tmp_path / "like.csv") == 2
    lines = (tmp_path / "s.csv").read_text().splitlines()[1:]
    assert [line.partition(",")[0] for line in lines] == keys
    np.testing.assert_array_equal(np.array(lines[0].split(",")[1:], np.float32), MAPS[2, 0, 1::2])


def test_rows_of_different_maps_may_alternate(tmp_path, source):
    keys = sample_submission(tmp_path / "like.csv", IDS)
    order = np.random.default_rng(0).permutation(len(keys))
    lines = (tmp_path / "like.csv").read_text().splitlines()
    shuffled = [lines[0], *(lines[1 + k] for k in order)]
    (tmp_path / "like.csv").write_text("\n".join(shuffled))
    write_submission(source, IDS, tmp_path / "s.csv", like=tmp_path / "like.csv")
    written = (tmp_path / "s.csv").read_text().splitlines()[1:]
    for line, k in zip(written, order, strict=True):
        key, *values = line.split(",")
        assert key == keys[k]
        name, _, row = key.rpartition("_y_")
        expected = MAPS[IDS.index(name), int(row), 1::2]
        np.testing.assert_array_equal(np.array(values, np.float32), expected)


def test_a_missing_id_is_refused_and_nothing_is_written(tmp_path, source):
    sample_submission(tmp_path / "like.csv", ["z", "absent", "gone", "a_y_1"])
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(InputError, match=r"no map for 2 ids.*first is 'absent'"):
        write_submission(source, IDS, tmp_path / "s.csv", like=tmp_path / "like.csv")
    assert sorted(os.listdir(tmp_path)) == before


def test_a_map_that_is_not_finite_is_refused(tmp_path):
    maps = MAPS.copy()
    maps[1, 4, 4] = np.nan
    np.save(tmp_path / "maps.npy", maps)
    source = io.open_predictions(tmp_path / "maps.npy")
    with pytest.raises(InputError, match=r"maps.npy\[1\].*row 4, column 4.*nothing was written"):
        write_submission(source, IDS, tmp_path / "s.csv")
    assert os.listdir(tmp_path) == ["maps.npy"]


def test_duplicate_ids_are_refused(tmp_path, source):
    with pytest.raises(InputError, match="duplicate id 'a'"):
        write_submission(source, ["a", "b", "a"], tmp_path / "s.csv")


def test_values_are_the_shortest_text_of_their_float32(tmp_path):
    maps = MAPS.copy()
    maps[0, 0, 1::2] = np.resize([0.1, -2.5, 1e-30, 3e38, 1500, 1e16, 7], 35)
    np.save(tmp_path / "maps.npy", maps)
    write_submission(io.open_predictions(tmp_path / "maps.npy"), IDS, tmp_path / "s.csv")
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines[1].startswith("a_y_1_y_0,0.1,-2.5,1e-30,")
    for line, row in zip(lines[1:], maps.reshape(210, 70), strict=True):
        texts = line.split(",")[1:]
        assert [np.float32(text) for text in texts] == [*row[1::2]]
        assert all(len(text) <= len(str(x)) for text, x in zip(texts, row[1::2], strict=True))


def test_decimals(tmp_path, source):
    write_submission(source, IDS, tmp_path / "s.csv", decimals=1)
    lines = (tmp_path / "s.csv").read_text().splitlines()
    texts = [line.split(",")[1:] for line in lines[1:]]
    assert {len(text.partition(".")[2]) for row in texts for text in row} == {1}
    expected = np.round(MAPS.astype(np.float64), 1).reshape(210, 70)[:, 1::2]
    np.testing.assert_array_equal(np.array(texts, float), expected)


def test_a_value_too_large_for_float32_is_refused(tmp_path):
    np.save(tmp_path / "maps.npy", np.full((1, 70, 70), 1e300))
    source = io.open_predictions(tmp_path / "maps.npy")
    with pytest.raises(InputError, match=r"maps.npy\[0\].*too large for float32"):
        write_submission(source, ["a"], tmp_path / "s.csv")


def test_an_id_that_would_need_quotes_is_refused(tmp_path, source):
    with pytest.raises(InputError, match="id 'b,c' cannot stand in a CSV"):
        write_submission(source, ["a", "b,c", "d"], tmp_path / "s.csv")
    assert os.listdir(tmp_path) == ["maps.npy"]


def damage_value(text):
    key, comma, rest = text.splitlines()[50].partition(",")
    return text.replace(f"{key}{comma}{rest}", f"{key}{comma}1{rest}")


@pytest.mark.parametrize(
    "damage",
    [
        damage_value,
        lambda text: text.replace("z_y_7,", "z_y_8,"),
        lambda text: text.replace("x_69", "x_70"),
        lambda text: text[:-10],
        lambda text: text.rpartition("z_y_69")[0],
        lambda text: text + "z_y_69,1\n",
        lambda text: text.replace("z_y_3,", "z_y_3,x"),
        lambda text: text.replace("z_y_3,", "z_y_3,0.5,"),
    ],
)
def test_what_is_read_back_is_compared_with_the_maps(tmp_path, source, monkeypatch, damage):
    """A disk that stores something else: the file is changed between writing and reading."""
    write = submission._Lines.write

    def write_and_damage(self, path):
        count = write(self, path)
        before = path.read_text()
        assert damage(before) != before
        path.write_text(damage(before))
        return count

    monkeypatch.setattr(submission._Lines, "write", write_and_damage)
    with pytest.raises(FwiRefineError, match="read back, and is not as it was written in line"):
        write_submission(source, IDS, tmp_path / "s.csv")
    assert os.listdir(tmp_path) == ["maps.npy"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("key,x_1\n", "found the first column 'key'"),
        ("oid_ypos,x_1\nabc,0\n", "line 2: found key"),
        ("oid_ypos,x_1\n", "holds no ids"),
    ],
)
def test_a_sample_submission_that_is_none(tmp_path, source, text, words):
    (tmp_path / "like.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        write_submission(source, IDS, tmp_path / "s.csv", like=tmp_path / "like.csv")


def test_the_command(tmp_path, source, capsys):
    maps, out = str(source.path), str(tmp_path / "s.csv")
    assert run(["submit", maps, "--out", out]) == 2
    assert "the maps have no ids" in capsys.readouterr().err
    (tmp_path / "blended.csv").write_text("id,family\n,all\n,all\n,all\n")  # of maps without ids
    assert run(["submit", maps, "--out", out, "--ids", str(tmp_path / "blended.csv")]) == 2
    assert "sample 1 has no id; whatever made the file" in capsys.readouterr().err
    (tmp_path / "ids").write_text("\n".join(IDS))
    other = ["submit", maps, "--out", str(tmp_path / "s.txt"), "--ids", str(tmp_path / "ids")]
    assert run(other) == 2
    assert "expected a name that ends in .csv" in capsys.readouterr().err
    arguments = ["submit", maps, "--out", out, "--ids", str(tmp_path / "ids")]
    assert run(arguments) == 0
    assert "3 maps in" in capsys.readouterr().err
    assert run(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run([*arguments, "--overwrite", "-q"]) == 0
    assert capsys.readouterr() == ("", "")
