"""Blending: hill climbing finds weights, areas are taken where the record says so."""

import csv
import itertools
import json
from dataclasses import dataclass

import h5py
import numpy as np
import pytest
import torch
from helpers import others_slow
from small_survey_cases import SURVEY

from fwi_refine.analysis.blend import Climbed, LabelScore, MisfitScore, climb, combine, misfits
from fwi_refine.analysis.mosaic import make_mosaic, tiles
from fwi_refine.cli import run
from fwi_refine.errors import InputError, SampleError
from fwi_refine.wave import Simulator, released_record


@pytest.fixture(scope="module")
def simulator():
    return Simulator(SURVEY)


@dataclass(frozen=True)
class Small:
    """Two samples of a small survey, float32."""

    truth: np.ndarray  # (2, 20, 25) m/s
    starts: np.ndarray  # (2, 20, 25) m/s, every interface a row too deep
    records: np.ndarray  # (2, 2, 400, 25)


@pytest.fixture(scope="module")
def small():
    row, column = np.mgrid[:20, :25]
    layers = np.select([row + column // 5 < 7, row - column // 5 < 10], [1700, 2300], 3100)
    step = np.where(row < np.where(column < 12, 7, 12), 2000, 2900)
    truth = np.stack([layers, step]).astype(np.float32)
    starts = np.roll(truth, 1, axis=1)
    starts[:, 0] = truth[:, 0]
    records = [released_record(torch.from_numpy(v), survey=SURVEY).numpy() for v in truth]
    return Small(truth, starts, np.stack(records))


# Hill climbing


@pytest.mark.parametrize("best", [(1, 0, 0), (0.5, 0.5, 0), (0.75, 0, 0.25), (0.2, 0.3, 0.5)])
def test_the_best_weights_are_found(best):
    calls = []

    def score(weights):
        calls.append(tuple(weights))
        return float(np.square(weights - np.array(best)).sum())

    found = climb(score, 3, rounds=20)
    assert found.weights == pytest.approx(best)
    assert found.score == pytest.approx(0)
    assert found.alone == tuple(score(w) for w in np.eye(3))
    assert len(set(calls[:-3])) == len(calls) - 3, "a state was scored twice"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rounds", [1, 2, 9])
def test_never_worse_than_the_best_alone_and_weights_are_fractions(seed, rounds):
    rng = np.random.default_rng(seed)
    table = {}
    found = climb(lambda w: table.setdefault(tuple(w), rng.normal()), 4, rounds)
    assert found.score == min(table.values()) <= min(found.alone)
    assert sum(found.weights) == pytest.approx(1)
    assert any(np.allclose(n * np.array(found.weights) % 1 % 1, 0) for n in range(1, rounds + 1))
    if rounds == 1:
        assert sorted(found.weights) == [0, 0, 0, 1]


def test_a_member_without_a_score_is_left_out():
    def score(weights):
        return float("nan") if weights[1] else 1.0

    assert climb(score, 2) == Climbed((1.0, 0.0), 1.0, (1.0, np.inf))
    with pytest.raises(InputError, match="no prediction has a finite score"):
        climb(lambda weights: float("nan"), 2)


def test_errors_that_cancel_are_found_by_labels():
    rng = np.random.default_rng(0)
    truth = rng.uniform(2000, 3000, (4, 70, 70))
    maps = np.stack([truth + 30, truth - 10, truth + rng.normal(0, 40, truth.shape)], axis=1)
    score = LabelScore(maps, truth)
    assert [score(w) for w in np.eye(3)[:2]] == pytest.approx([30, 10], rel=1e-5)
    found = climb(score, 3)
    assert found.weights == (0.25, 0.75, 0)
    assert found.score < 1e-3


def test_score_by_the_misfit_is_the_mean_of_the_roots(small, simulator):
    maps, records = np.stack([small.truth, small.starts], axis=1), small.records
    score = MisfitScore(maps, records, simulator)
    roots = [np.sqrt(misfits(simulator, v, d)) for v, d in zip(maps, records, strict=True)]
    assert [score(w) for w in np.eye(2)] == pytest.approx(np.mean(roots, axis=0), rel=1e-12)
    found = climb(score, 2, rounds=2)
    assert found.weights == (1, 0)
    assert found.score < 1e-4 < found.alone[1]


def test_misfits_of_maps_beyond_the_bounds(small, simulator):
    high = simulator.survey.velocity_bounds[1]
    v = small.truth[0].astype(np.float64)
    beyond, nearest = v.copy(), v.copy()
    beyond[12], nearest[12] = 1e5, high
    a, b = misfits(simulator, [beyond, nearest], small.records[0])
    assert a == b
    broken = np.full_like(small.records[0], np.inf)
    assert np.isinf(misfits(simulator, [v], broken)).all()


# Mosaics of maps


def test_combine():
    a, b, c = (np.full((2, 2), x) for x in (1.0, 2.0, 6.0))
    np.testing.assert_array_equal(combine([a, b, c], (0.5, 0.25, 0.25)), np.full((2, 2), 2.5))
    np.testing.assert_array_equal(combine([a, b, c], None), b)
    np.testing.assert_array_equal(combine([None, b, c], (0.5, 0.25, 0.25)), np.full((2, 2), 4.0))
    np.testing.assert_array_equal(combine([None, b, c], (1, 0, 0)), np.full((2, 2), 4.0))
    np.testing.assert_array_equal(combine([None, b, c], None), np.full((2, 2), 4.0))
    with pytest.raises(SampleError, match="no prediction"):
        combine([None, None], (0.5, 0.5))


@pytest.mark.parametrize("size", [35, 14, 7, 33, 100])
def test_tiles_are_squares_that_cover_the_map(size):
    labels = tiles((70, 70), size)
    n = -(-70 // size)
    assert sorted(np.unique(labels)) == [*range(n * n)]
    for k in range(n * n):
        rows, columns = np.nonzero(labels == k)
        assert (np.ptp(rows) + 1) * (np.ptp(columns) + 1) == rows.size
        assert max(np.ptp(rows), np.ptp(columns)) < size


def quilt(truth, wrong, size=35):
    """Two maps, each right in half of the squares, like the colours of a chessboard."""
    labels = tiles(truth.shape, size)
    n = labels[0, -1] + 1
    black = (labels // n + labels % n) % 2 == 0
    return np.where(black, truth, wrong), np.where(black, wrong, truth)


def test_the_right_areas_of_two_maps_are_put_together(small, simulator):
    truth = small.truth[0]
    a, b = quilt(truth, small.starts[0], size=10)
    found = make_mosaic([a, b], small.records[0], simulator, areas=(10, 5))
    np.testing.assert_array_equal(found.velocity, truth)
    assert found.misfit < 1e-8 < found.misfit_start
    chosen = np.where(found.origin == 0, a, b)
    np.testing.assert_array_equal(chosen, truth)
    assert found.simulations <= 100


@pytest.mark.parametrize("budget", others_slow([6, 2, 5, 9, 20]))
def test_the_misfit_never_rises_and_the_budget_holds(small, simulator, budget, monkeypatch):
    spent = []
    counted = Simulator.misfit
    monkeypatch.setattr(
        Simulator, "misfit", lambda self, v, d: spent.append(len(v)) or counted(self, v, d)
    )
    gradient, points = Simulator.misfit_and_gradient, []

    def counted_gradient(self, v, d):
        spent.append(3 * len(v))
        points.append(v[0].numpy())
        return gradient(self, v, d)

    monkeypatch.setattr(Simulator, "misfit_and_gradient", counted_gradient)
    maps, record = [small.starts[1] + 40, small.starts[1]], small.records[1]
    found = make_mosaic(maps, record, simulator, max_simulations=budget, areas=(10, 5))
    assert sum(spent) == found.simulations <= budget
    assert found.misfit <= found.misfit_start
    before = misfits(simulator, maps, record)
    assert found.misfit_start == before.min()
    assert found.start == before.argmin()
    (again,) = misfits(simulator, [found.velocity], record)
    assert again == found.misfit
    assert found.velocity.dtype == np.float32
    if budget == 20:  # a gradient for each map that was reached, and none twice
        assert len(points) > 1
        assert all((a != b).any() for a, b in itertools.combinations(points, 2))
    if budget == 2:
        np.testing.assert_array_equal(found.velocity, maps[found.start])


def test_the_truth_is_not_touched(small, simulator):
    maps = [small.starts[0], small.truth[0]]
    found = make_mosaic(maps, small.records[0], simulator, areas=(10, 5))
    np.testing.assert_array_equal(found.velocity, small.truth[0])
    assert found.start == 1
    assert (found.origin == 1).all()


# The command


@pytest.fixture
def files(made, tmp_path):
    """a.npy and b.h5: 40 m/s too fast and 10 m/s too slow in the first two samples; as h5 with
    ids in another order. The third sample is right in a, wrong in b."""
    offset = np.array([40, 40, 0])[:, None, None]
    np.save(tmp_path / "a.npy", made.truth + offset)
    offset = np.array([-10, -10, 5])[:, None, None]
    order = [2, 0, 1]
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["velocity"] = (made.truth + offset)[order].astype(np.float32)
        file["ids"] = [made.ids[k] for k in order]
    (tmp_path / "ids").write_text("\n".join(made.ids))
    (tmp_path / "families.csv").write_text("id,family\na1,A\nb2,A\nc3,B\n")
    return tmp_path


def blend(files, *arguments):
    common = [files / "a.npy", files / "b.h5", "--ids", files / "ids", "--out", files / "o.npy"]
    return run(["blend", *map(str, common), *map(str, arguments)])


def read(files):
    with open(files / "o.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    table = files / "o.json"
    return np.load(files / "o.npy"), rows, json.loads(table.read_text()) if table.exists() else None


def test_weights_by_labels_for_each_family(made, files, capsys):
    truth = str(made.folder / "truth.npy")
    assert blend(files, "--truth", truth, "--families", files / "families.csv") == 0
    maps, rows, table = read(files)
    families = table["families"]
    assert families["A"]["weights"] == pytest.approx([0.2, 0.8])
    assert families["B"]["weights"] == [1, 0]
    assert families["A"]["score_alone"] == pytest.approx([40, 10], rel=1e-4)
    assert families["A"]["score"] < 1e-3
    assert [families[f]["samples"] for f in "AB"] == [families[f]["fitted_on"] for f in "AB"]
    np.testing.assert_allclose(maps, made.truth, atol=1e-3)
    assert [(row["id"], row["family"], row["status"]) for row in rows] == [
        ("a1", "A", "blended"), ("b2", "A", "blended"), ("c3", "B", "blended"),
    ]  # fmt: skip
    assert "A: weights 0.20, 0.80" in capsys.readouterr().err
    assert blend(files, "--median") == 2
    assert "o.npy exists already" in capsys.readouterr().err


def test_weights_found_on_one_set_serve_another(made, files, capsys):
    weights = files / "w.json"
    families = ["--families", files / "families.csv"]
    weights.write_text(
        json.dumps({"families": {"A": {"weights": [1, 3]}, "B": {"weights": [1, 0]}}})
    )
    assert blend(files, "--weights", weights, *families) == 0
    maps, _, table = read(files)
    np.testing.assert_allclose(
        maps - made.truth, [[[2.5]], [[2.5]], [[0]]] * np.ones((70, 70)), atol=1e-3
    )
    assert table["families"]["A"]["weights"] == [1, 3]
    assert blend(files, "--weights", weights, "--overwrite") == 2
    assert "has none for 'all', only for ['A', 'B']" in capsys.readouterr().err
    for text, words in (
        ('{"families": {"A": {"weights": [1]}}}', "expected 2 weights"),
        ('{"families": {"A": {"weights": [2, -1]}}}', "none negative"),
        ('{"families": {"A": {"weights": [0, 0]}}}', "expected 2 weights"),
        ('{"families": {"A": {"weights": ["x", 1]}}}', "no table of weights"),
        ('{"families": []}', "no table of weights"),
        ("[", "no table of weights"),
    ):
        weights.write_text(text)
        assert blend(files, "--weights", weights, *families, "--overwrite") == 2
        assert words in capsys.readouterr().err


def test_the_median_needs_nothing_else(made, files):
    assert blend(files, "--median") == 0
    maps, _, table = read(files)
    assert table is None
    np.testing.assert_allclose(maps - made.truth, [[[15]], [[15]], [[2.5]]] * np.ones((70, 70)))


@pytest.mark.slow
def test_weights_by_the_misfit_then_areas_by_the_misfit(made, files, capsys):
    a, b = made.truth.copy(), made.truth.copy()
    a[1], b[1] = quilt(made.truth[1], made.starts[1])
    np.save(files / "a.npy", a)
    with h5py.File(files / "b.h5", "w") as file:
        file["velocity"], file["ids"] = b, list(made.ids)
    arguments = ["--records", made.seismic, "--rounds", "2", "--samples", "3"]
    assert blend(files, *arguments, "--families", "auto") == 0
    _, rows, table = read(files)
    assert table["measure"] == "mean rms misfit"
    assert {row["family"] for row in rows} == set(table["families"])
    for family in table["families"].values():
        assert family["score"] <= min(family["score_alone"])
    assert blend(files, *arguments, "--mix", "--overwrite") == 0
    maps, rows, _ = read(files)
    np.testing.assert_array_equal(maps, made.truth)
    assert float(rows[1]["misfit"]) < 1e-4 < float(rows[1]["misfit_start"])
    assert int(rows[1]["cells_replaced"]) > 0
    assert rows[0]["cells_replaced"] == "0"
    assert "kernel: " in capsys.readouterr().err


def test_a_map_that_cannot_be_used_leaves_its_weight_to_the_others(made, files, capsys):
    a = np.load(files / "a.npy")
    a[0, 3, 3] = np.nan
    np.save(files / "a.npy", a)
    assert blend(files, "--truth", made.folder / "truth.npy") == 0
    maps, _, table = read(files)
    assert table["families"]["all"]["fitted_on"] == 2
    np.testing.assert_allclose(maps[0], made.truth[0] - 10)
    assert "a1: left out: " in capsys.readouterr().err


def test_a_family_without_usable_samples_gets_equal_weights(made, files, capsys):
    a = np.load(files / "a.npy")
    a[2, 3, 3] = np.nan
    np.save(files / "a.npy", a)
    arguments = ["--truth", made.folder / "truth.npy", "--families", files / "families.csv"]
    assert blend(files, *arguments) == 0
    table = read(files)[2]["families"]
    assert table["B"] == {
        "weights": [0.5, 0.5], "score": None, "score_alone": None, "fitted_on": 0, "samples": 1,
    }  # fmt: skip
    assert table["A"]["fitted_on"] == 2
    assert "B: none of the 1 samples drawn can be used" in capsys.readouterr().err
    np.save(files / "a.npy", np.full_like(a, np.nan))
    assert blend(files, *arguments, "--overwrite") == 2
    assert "no weights can be found" in capsys.readouterr().err


def test_a_sample_without_any_map_fails_alone(made, files, capsys):
    for name in ("a", "b"):
        maps = np.load(files / "a.npy")
        maps[1] = np.nan
        np.save(files / f"{name}.npy", maps)
    arguments = [str(files / name) for name in ("a.npy", "b.npy")]
    arguments += ["--records", made.seismic, "--families", "auto", "--median"]
    assert run(["blend", *arguments, "--out", str(files / "o.npy")]) == 3
    maps, rows, _ = read(files)
    assert [row["status"] for row in rows] == ["blended", "failed", "blended"]
    assert rows[1]["reason"] == "no prediction of it can be used"
    assert np.isnan(maps[1]).all()
    assert np.isfinite(maps[[0, 2]]).all()
    assert "b2 failed" in capsys.readouterr().err


def test_samples_are_drawn_by_the_seed(made, files):
    tables = []
    for seed in ("1", "1", "2", "3", "4"):
        arguments = ["--truth", made.folder / "truth.npy", "--samples", "1", "--seed", seed]
        assert blend(files, *arguments, "--overwrite") == 0
        tables.append(read(files)[2]["families"]["all"])
    assert tables[0] == tables[1]
    assert tables[0]["fitted_on"] == 1
    assert tables[0]["samples"] == 3
    assert any(table != tables[0] for table in tables)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.npy", "--median"], "expected two or more"),
        (["a.npy", "b.npy"], "Give --truth or --records"),
        (["a.npy", "b.npy", "--median", "--truth", "t.npy"], "exclude one another"),
        (["a.npy", "b.npy", "--median", "--mix"], "--mix needs --records"),
        (["a.npy", "b.npy", "--median", "--families", "auto"], "auto needs --records"),
        (["a.npy", "b.npy", "--median", "--rounds", "0"], "is not in the range"),
    ],
)
def test_usage(arguments, words, capsys):
    assert run(["blend", *arguments, "--out", "o.npy"]) == 2
    assert words in capsys.readouterr().err


def test_no_input_is_overwritten(made, files, capsys):
    arguments = ["--median", "--families", files / "families.csv", "--overwrite"]
    common = [files / "a.npy", files / "b.h5", "--ids", files / "ids", *arguments, "--out"]
    for out in ("a.npy", "families.npy"):
        assert run(["blend", *map(str, common), str(files / out)]) == 2
        assert "is an input as well" in capsys.readouterr().err
    assert (files / "families.csv").read_text().startswith("id,family")


def test_predictions_that_do_not_belong_together(made, files, capsys):
    np.save(files / "c.npy", made.truth[:2])
    arguments = [str(files / "a.npy"), str(files / "c.npy"), "--median"]
    assert run(["blend", *arguments, "--out", str(files / "o.npy")]) == 2
    assert "found 2 maps" in capsys.readouterr().err
    assert not (files / "o.npy").exists()
