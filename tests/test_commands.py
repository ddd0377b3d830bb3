"""simulate, classify and evaluate as a user runs them."""

import csv
import json
import os

import h5py
import numpy as np
import pytest

from fwi_refine.cli import run
from fwi_refine.inversion.families import inferred


def rows_of(text):
    return list(csv.DictReader(text.splitlines()))


def test_simulate_gives_records_as_the_released_data_has_them(made, tmp_path, capsys):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["velocity"] = made.truth[1:]
        file["ids"] = ["x", "y"]
    out = tmp_path / "seismic"
    arguments = ["simulate", str(tmp_path / "v.h5"), "--out", str(out)]
    assert run(arguments) == 0
    assert sorted(os.listdir(out)) == ["x.npy", "y.npy"]
    for name, record in (("x", made.records[1]), ("y", made.records[2])):
        written = np.load(out / f"{name}.npy")
        assert written.dtype == np.float32
        assert written.tobytes() == record.tobytes()
    assert run(arguments) == 2
    assert "holds 2 of these records already, the first is x.npy" in capsys.readouterr().err


def test_simulate_leaves_out_maps_that_cannot_be_simulated(made, tmp_path, capsys):
    maps = made.truth.copy()
    maps[0, 0, 0] = np.nan
    maps[1] = 7000
    np.save(tmp_path / "v.npy", maps)
    arguments = [str(tmp_path / "v.npy"), "--out", str(tmp_path / "s"), "--precision", "float64"]
    assert run(["simulate", *arguments]) == 3
    error = capsys.readouterr().err
    assert "v.npy[0]: found 1 of 4900 values not finite" in error
    assert "v.npy[1]: found velocities 7000 to 7000 m/s, expected 1000 to 6000" in error
    assert os.listdir(tmp_path / "s") == ["000002.npy"]
    double = np.load(tmp_path / "s" / "000002.npy")
    assert double.dtype == np.float32
    np.testing.assert_allclose(double, made.records[2], atol=1e-3)
    assert not np.array_equal(double, made.records[2])


def test_classify(made, tmp_path, capsys):
    truth = tmp_path / "families.csv"
    truth.write_text("id,family\na1,FlatFault_B\nb2,curvevel-b\nc3,Style_B\n")
    assert run(["classify", made.starts_file, made.seismic, "--truth", str(truth)]) == 0
    captured = capsys.readouterr()
    rows = rows_of(captured.out)
    assert [row["id"] for row in rows] == list(made.ids)
    assert [row["family"] for row in rows][:2] == ["layered", "layered"]
    assert all(0 <= float(row["confidence"]) <= 1 for row in rows)
    assert "blended_edges=" in rows[0]["evidence"]
    table = [line.split() for line in captured.err.splitlines()]
    assert ["family", *inferred()] in table
    assert ["FlatFault_B", "0", "0", "0", "0", "1"] in table
    assert "2 of 3 as expected" in captured.err


def test_classify_names_the_sample_that_it_cannot_use(made, tmp_path, capsys):
    np.save(tmp_path / "p.npy", np.full((3, 70, 70), np.nan))
    assert run(["classify", str(tmp_path / "p.npy"), made.seismic]) == 3
    rows = rows_of(capsys.readouterr().out)
    assert [row["family"] for row in rows] == ["", "", ""]
    assert "prediction of sample b2" in rows[1]["evidence"]


def test_evaluate(made, tmp_path, capsys):
    moved = made.truth.astype(np.float64) + np.array([1.0, -2.0, 6.0])[:, None, None]
    np.save(tmp_path / "p.npy", moved)
    truth = str(made.folder / "truth.npy")
    (tmp_path / "families.csv").write_text("id,family\na1,A\nb2,B\nc3,B\n")
    arguments = ["evaluate", str(tmp_path / "p.npy"), truth]
    assert run([*arguments, "--families", str(tmp_path / "families.csv")]) == 0
    rows = {row["family"]: row for row in rows_of(capsys.readouterr().out)}
    assert list(rows) == ["A", "B", "all"]
    assert [float(rows[name]["mae"]) for name in rows] == [1, 4, 3]
    assert float(rows["B"]["rmse"]) == pytest.approx(np.sqrt(20), rel=1e-5)
    assert [rows[name]["samples"] for name in rows] == ["1", "2", "3"]
    assert float(rows["all"]["ssim"]) > 0.99


def test_evaluate_by_depth(made, tmp_path, capsys):
    error = np.zeros((3, 70, 70))
    error[0] = np.arange(70)[:, None]
    error[1, 10], error[1, 10, ::2], error[2, 20] = 6, -2, -5
    np.save(tmp_path / "p.npy", made.truth + error)
    (tmp_path / "families.csv").write_text("id,family\na1,A\nb2,B\nc3,B\n")
    arguments = ["evaluate", str(tmp_path / "p.npy"), str(made.folder / "truth.npy"), "--by"]
    arguments += ["depth", "--families", str(tmp_path / "families.csv")]
    assert run(arguments) == 0
    rows = rows_of(capsys.readouterr().out)
    assert list(rows[0]) == ["family", "row", "depth", "samples", "mae", "rmse", "bias"]
    assert len(rows) == 3 * 70
    found = {(row["family"], int(row["row"])): row for row in rows}

    def numbers(family, row):
        keys = ("depth", "samples", "mae", "rmse", "bias")
        return [float(found[family, row][key]) for key in keys]

    assert numbers("A", 12) == [120, 1, 12, 12, 12]
    assert numbers("B", 10) == pytest.approx([100, 2, 2, np.sqrt(10), 1])
    assert numbers("B", 20) == pytest.approx([200, 2, 2.5, np.sqrt(12.5), -2.5], rel=1e-5)
    assert numbers("all", 20) == pytest.approx([200, 3, 25 / 3, np.sqrt(425 / 3), 5], rel=1e-5)
    assert run([*arguments, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [row["family"] for row in listed[::70]] == ["A", "B", "all"]
    assert listed[12]["mae"] == 12


def test_evaluate_by_sample_and_as_the_leaderboard_does(made, tmp_path, capsys):
    moved = made.truth.astype(np.float64)
    moved[0, :, ::2] += 8  # even columns are in no submission
    moved[1, :, 1::2] -= 4
    moved[2, 0, 0] = np.nan
    np.save(tmp_path / "p.npy", moved)
    (tmp_path / "ids").write_text("\n".join(made.ids))
    arguments = ["evaluate", str(tmp_path / "p.npy"), str(made.folder / "truth.npy")]
    arguments += ["--by", "sample", "--ids", str(tmp_path / "ids")]
    assert run(arguments) == 3
    captured = capsys.readouterr()
    rows = rows_of(captured.out)
    assert list(rows[0]) == ["id", "mae", "rmse", "score", "ssim"]
    measured = [(r["id"], *(float(r[key]) for key in ("mae", "score"))) for r in rows]
    assert measured == [("a1", 4, 0), ("b2", 2, 4)]
    assert "c3 failed" in captured.err
    assert run([*arguments, "--families", "auto", "--records", made.seismic]) == 3
    rows = rows_of(capsys.readouterr().out)
    assert [row["family"] for row in rows] == ["layered", "layered"]
    assert all(float(row["misfit_rms"]) > 0 for row in rows)
    assert run([*arguments, "--families", "auto"]) == 2
    assert "auto: needs --records" in capsys.readouterr().err


def test_evaluate_measures_the_misfit(made, tmp_path, capsys):
    truth, start = str(tmp_path / "truth.npy"), str(tmp_path / "start.npy")
    np.save(truth, made.truth[:1])
    np.save(start, made.starts[:1])
    arguments = ["--records", f"{made.seismic}/a1.npy", "--json"]
    assert run(["evaluate", truth, truth, *arguments]) == 0
    (right,) = json.loads(capsys.readouterr().out)
    assert right["family"] == "all"
    assert right["mae"] == 0
    assert right["ssim"] == pytest.approx(1)
    assert 0 < right["misfit_rms"] < 1e-4
    assert right["exact"] == 1
    assert run(["evaluate", start, truth, *arguments]) == 0
    (wrong,) = json.loads(capsys.readouterr().out)
    assert wrong["misfit_rms"] > 1e-3
    assert wrong["exact"] == 0


def test_evaluate_matches_by_id_and_refuses_what_does_not_match(made, tmp_path, capsys):
    for name, maps in (("p", made.truth), ("t", made.truth)):
        (tmp_path / name).mkdir()
        for k, v in enumerate(maps):
            np.save(tmp_path / name / f"{'abc'[k]}.npy", v)
    (tmp_path / "p" / "c.npy").unlink()
    assert run(["evaluate", str(tmp_path / "p"), str(tmp_path / "t")]) == 0
    assert rows_of(capsys.readouterr().out)[0]["samples"] == "2"
    assert run(["evaluate", str(tmp_path / "t"), str(tmp_path / "p")]) == 2
    assert "the first id that differs is 'c'" in capsys.readouterr().err
    assert run(["evaluate", str(tmp_path / "p"), str(made.folder / "truth.npy")]) == 2
    assert " and 2 in " in capsys.readouterr().err


def test_evaluate_takes_the_ids_of_a_truth_that_has_none(made, tmp_path, capsys):
    """Maps with ids, in the order of a sample submission, against an array in another."""
    np.savez(tmp_path / "p.npz", velocity=made.truth[[2, 0, 1]], ids=["c", "a", "b"])
    (tmp_path / "ids.txt").write_text("a\nb\nc\n")
    line = ["evaluate", str(tmp_path / "p.npz"), str(made.folder / "truth.npy")]
    assert run([*line, "--ids", str(tmp_path / "ids.txt")]) == 0
    captured = capsys.readouterr()
    assert rows_of(captured.out)[0]["mae"] == "0"
    assert "has no ids" not in captured.err
    assert run(line) == 2
    said = capsys.readouterr().err
    assert "truth.npy has no ids: taken in the order of" in said
    assert "they seem to be in another order" in said
    (tmp_path / "ids.txt").write_text("a\nb\nd\n")
    assert run([*line, "--ids", str(tmp_path / "ids.txt")]) == 2
    assert "the first id that differs is 'c'" in capsys.readouterr().err
