"""Maps as .npy and .npz, in float32 and float16: what is written can be read, and is judged."""

import os

import numpy as np
import pytest
from small_survey_cases import SURVEY

from fwi_refine import simulate
from fwi_refine.cli import run
from fwi_refine.errors import InputError
from fwi_refine.io import npz
from fwi_refine.io.map_writer import MapWriter
from fwi_refine.io.predictions import open_predictions
from fwi_refine.io.report import read_report
from fwi_refine.survey import write_survey

INPUTS = ["p.npy", "d.npy", "--survey", "s.toml", "--ids", "ids.txt"]
HOW = ["--family", "layered", "--method", "lbfgs", "--max-evaluations", "4"]
IDS = ["a", "ç"]


@pytest.fixture(scope="module")
def arrays():
    truth = np.full((2, *SURVEY.shape), 1800.0)
    for k in range(2):
        truth[k, 7 + k :] = 2601.0 + 2 * k  # no number of float16
    starts = np.where(truth > 2000, truth - 9.5, truth)
    return truth, starts, simulate(truth, survey=SURVEY)


@pytest.fixture
def case(tmp_path, monkeypatch, arrays):
    monkeypatch.chdir(tmp_path)
    truth, starts, records = arrays
    write_survey(SURVEY, "s.toml")
    np.save("t.npy", truth)
    np.save("p.npy", starts.astype("f4"))
    np.save("d.npy", records)
    (tmp_path / "ids.txt").write_text("\n".join(IDS), encoding="utf-8")
    return tmp_path


def test_npz_holds_what_npy_holds(case):
    assert run([*INPUTS, *HOW, "--out", "o.npy", "--deviation", "e.npy"]) == 0
    assert run([*INPUTS, *HOW, "--out", "o.npz", "--deviation", "e.npz", "--report", "z.csv"]) == 0
    with np.load("o.npz") as found, np.load("e.npz") as errors:
        assert {*found} == {"velocity", "ids"}
        np.testing.assert_array_equal(found["velocity"], np.load("o.npy"))
        np.testing.assert_array_equal(errors["deviation"], np.load("e.npy"))
        assert found["ids"].tolist() == errors["ids"].tolist() == IDS
    source = open_predictions("o.npz", SURVEY)
    assert source.ids == IDS
    np.testing.assert_array_equal(source.read(1), np.load("o.npy")[1])
    assert not [name for name in os.listdir() if name.endswith((".tmp", ".run"))]
    assert run(["evaluate", "o.npz", "t.npy", "--survey", "s.toml", "--ids", "ids.txt"]) == 0


def test_the_same_maps_have_the_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        writer = MapWriter(tmp_path / name, (2, 1, 3, 4), (3, 4), ids=["x", "y"])
        for k in (1, 0):
            writer.write(k, np.full((3, 4), 1500.0 + k))
        writer.publish(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.npz", "b.npz"]


def test_what_is_reported_is_the_rounded_map(case, arrays):
    assert run([*INPUTS, *HOW, "--out", "f.npy"]) == 0
    run_dir = ["--run-dir", "run", "--dtype", "float16"]
    assert run([*INPUTS, *HOW, *run_dir, "--out", "h.npz"]) == 0
    assert run(["merge", "run", "--out", "m.npy"]) == 0  # as the run was begun
    half, single = np.load("m.npy"), np.load("f.npy")
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, single.astype(np.float16))
    with np.load("h.npz") as found:
        np.testing.assert_array_equal(found["velocity"], half)
    simulated = simulate(half.astype(np.float64), survey=SURVEY, dtype="float64")
    expected = np.sqrt(((simulated - arrays[2]) ** 2).mean((1, 2, 3)))
    rows = read_report("m.csv")
    np.testing.assert_allclose([row.misfit_after for row in rows], expected, rtol=1e-5)
    others = [row.misfit_after for row in read_report("f.csv")]
    assert max(abs(a / b - 1) for a, b in zip(others, expected, strict=True)) > 1e-3
    assert all("rounded to float16" in row.flags for row in rows)
    assert all(row.vmin == half[k].min() for k, row in enumerate(rows))


def test_another_type_is_another_run(case, capsys):
    assert run([*INPUTS, *HOW, "--run-dir", "run", "--dtype", "float16"]) == 0
    assert run([*INPUTS, *HOW, "--run-dir", "run"]) == 2
    assert "settings.dtype: 'float16' in the run, not set now" in capsys.readouterr().err


def test_a_map_that_float16_holds_stays_as_it_is(case):
    np.save("p.npy", np.full((2, *SURVEY.shape), 1800.0, "f4"))
    assert run([*INPUTS, *HOW, "--max-evaluations", "1", "--dtype", "float16", "--force",
                "--out", "o.npy"]) == 0  # fmt: skip
    assert np.load("o.npy").dtype == np.float16
    assert not any("rounded" in row.flags for row in read_report("o.csv"))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_blends(case, suffix):
    half = ["--dtype", "float16", "--survey", "s.toml"]
    mix = ["blend", "p.npy", "t.npy", *half, "--ids", "ids.txt", "--records", "d.npy", "--mix"]
    assert run([*mix, "--out", f"b{suffix}", "--rounds", "1", "--force"]) == 0
    source = open_predictions(f"b{suffix}", SURVEY)
    assert source.count == 2
    assert source.read(0).dtype == np.float16


@pytest.mark.slow
def test_starts(case):
    line = ["start", "d.npy", "--survey", "s.toml", "--limit", "1", "--dtype", "float16"]
    assert run([*line, "--out", "s.npz"]) == 0
    source = open_predictions("s.npz", SURVEY)
    assert source.ids == ["d_0"]
    assert source.read(0).dtype == np.float16


@pytest.mark.parametrize(
    "command",
    [
        [*INPUTS, *HOW],
        ["blend", "p.npy", "t.npy", "--median", "--survey", "s.toml"],
        ["start", "d.npy", "--survey", "s.toml"],
    ],
)
@pytest.mark.parametrize("name", ["o.h5", "o", "o.csv", "o.NPZ"])
def test_other_suffixes_are_refused(case, capsys, command, name):
    assert run([*command, "--out", name]) == 2
    assert "expected a name that ends in .npy or .npz" in capsys.readouterr().err
    assert not os.path.exists(name)


def test_an_npz_that_would_not_be_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "LARGEST", 100)
    with pytest.raises(InputError, match=r"write \.npy"):
        MapWriter(tmp_path / "o.npz", (3, 3, 4), (3, 4))
    assert not os.listdir(tmp_path)
