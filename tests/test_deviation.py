"""Maps of the expected error: the same bytes with a run directory, with shards, and without."""

from dataclasses import replace

import numpy as np
import pytest
from run_cases import SETTINGS, expected_maps, open_case, trivial, write_inputs

from fwi_refine.cli import run
from fwi_refine.errors import PartError
from fwi_refine.runs import one_sample
from fwi_refine.runs.directory import RunDirectory, Work, carry_out, describe
from fwi_refine.runs.executors import Serial

NAMES = ["a", "b", "bad", "c", "d"]


@pytest.fixture
def case(tmp_path, monkeypatch, unchecked):
    monkeypatch.setattr(one_sample, "refine_one", trivial)
    return write_inputs(tmp_path, NAMES)


@pytest.fixture
def refine(case):
    inputs = [case / "starts.npy", case / "seismic", "--ids", case / "ids.txt"]
    return lambda *more: run([str(a) for a in (*inputs, *more)])


@pytest.mark.slow
def test_the_same_bytes_with_and_without_a_run_directory(case, refine, tmp_path):
    plain = tmp_path / "plain-d.npy"
    assert refine("--out", tmp_path / "plain.npy", "--deviation", plain) == 3
    found = np.load(plain)
    assert (found.shape, found.dtype) == ((5, 70, 70), np.float32)
    assert np.isnan(found[2]).all()
    good = [0, 1, 3, 4]
    np.testing.assert_allclose(found[good], expected_maps(case)[good] / 100, rtol=1e-6)

    keep = ["--run-dir", tmp_path / "run", "--chunk-size", "2"]
    for shard in ("1/2", "2/2"):
        assert refine(*keep, "--keep-deviation", "--shard", shard) in (0, 3)
    merged = tmp_path / "merged-d.npy"
    arguments = ["merge", tmp_path / "run", "--out", tmp_path / "m.npy", "--deviation", merged]
    assert run([*map(str, arguments)]) == 3
    at_once = tmp_path / "at-once-d.npy"
    keep[1] = tmp_path / "other"
    assert refine(*keep, "--out", tmp_path / "a.npy", "--deviation", at_once) == 3
    assert merged.read_bytes() == at_once.read_bytes() == plain.read_bytes()
    maps = {(tmp_path / name).read_bytes() for name in ("plain.npy", "m.npy", "a.npy")}
    assert len(maps) == 1


@pytest.mark.slow
def test_a_run_keeps_them_from_its_beginning_or_not_at_all(refine, tmp_path, capsys):
    keep = ["--run-dir", tmp_path / "run"]
    assert refine(*keep) == 3
    assert refine(*keep, "--keep-deviation") == 2
    assert "settings.keep_deviation: False in the run, True now" in capsys.readouterr().err
    arguments = ["merge", tmp_path / "run", "--out", tmp_path / "m.npy"]
    assert run([*map(str, arguments), "--deviation", str(tmp_path / "d.npy")]) == 2
    assert "has no expected errors of cells" in capsys.readouterr().err
    assert not (tmp_path / "m.npy").exists()
    assert run([*map(str, arguments)]) == 3


def test_a_part_without_them_is_none_of_a_run_that_keeps_them(case, tmp_path):
    settings = replace(SETTINGS, keep_deviation=True)
    inputs = open_case(case)
    directory = RunDirectory.prepare(tmp_path / "run", describe(inputs, settings, 2))
    carry_out(directory, Work(inputs, settings, Serial()))
    ((path, *_), *_) = directory.parts().values()
    part = directory.read(path)
    path.unlink()
    directory.add(0, replace(part, maps={"velocity": part.maps["velocity"]}))
    with pytest.raises(PartError, match=r"found maps \['velocity'\], expected \['velocity', 'dev"):
        directory.read(directory.parts()[0][0])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--out", "o.npy", "--deviation", "d.csv"], "--deviation d.csv: expected a name that"),
        (["--run-dir", "r", "--deviation", "d.npy"], "--deviation d.npy: needs --out"),
        (["--out", "o.npy", "--keep-deviation"], "--keep-deviation: needs --run-dir"),
    ],
)
def test_usage_errors(refine, more, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refine(*more) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
