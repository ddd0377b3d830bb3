"""Opening a run to look at it: every map and record must be that of its sample."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import run_cases
import torch

from fwi_refine import io
from fwi_refine.analysis import plots
from fwi_refine.analysis.metrics import mean_absolute_error
from fwi_refine.analysis.opened_run import OpenedRun
from fwi_refine.analysis.run_files import Files
from fwi_refine.errors import InputError
from fwi_refine.io.report import COLUMNS, Row, format_row
from fwi_refine.runs.directory import RunDirectory, Work, carry_out, describe
from fwi_refine.runs.executors import Serial
from fwi_refine.survey import OPENFWI
from fwi_refine.wave import released_record

NAMES = ("e", "b", "bad1", "a", "d")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Inputs in the order of NAMES, which is not sorted; a run of them; and its merged result."""
    folder = run_cases.write_inputs(tmp_path_factory.mktemp("views"), NAMES)
    run = run_cases.prepare(folder, folder / "run")
    run_cases.refine_all(folder, run)
    run_cases.merged(run, folder)
    starts = np.load(folder / "starts.npy")
    np.save(folder / "truth.npy", starts + np.arange(1, 6, dtype="f4")[:, None, None])
    return folder


def write_report(path, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *map(format_row, rows)])


def test_a_run_directory_finds_its_inputs(folder):
    opened = OpenedRun(folder / "run", Files(truth=folder / "truth.npy"))
    assert [row.id for row in opened.rows] == list(NAMES)
    assert (len(opened), opened.unfinished) == (5, 0)
    assert all(row.seconds is not None for row in opened.rows if row.status == "refined")
    starts, truth = np.load(folder / "starts.npy"), np.load(folder / "truth.npy")
    maps = run_cases.expected_maps(folder)
    for k in range(5):
        view = opened.view(k)
        np.testing.assert_array_equal(view.start, starts[k])
        np.testing.assert_array_equal(view.truth, truth[k])
        np.testing.assert_array_equal(view.refined, maps[k])
        assert opened.rows[k].mae_before == pytest.approx(k + 1, rel=1e-4)
        assert opened.rows[k].mae_after == mean_absolute_error(maps[k], truth[k])
        assert view.measured.shape == (5, 999, 70)
        assert view.deviation is None
    assert opened.config["settings"]["method"] == "lbfgs"


def test_the_files_of_a_run_are_the_same_as_its_directory(folder):
    files = Files(
        report=folder / "merged.csv", start=folder / "starts.npy", ids=folder / "ids.txt",
        records=folder / "seismic", truth=folder / "truth.npy",
    )  # fmt: skip
    opened = OpenedRun(folder / "merged.npy", files)
    other = OpenedRun(folder / "run", Files(truth=folder / "truth.npy"))
    assert opened.config == {}
    for k in range(5):
        a, b = opened.view(k, with_record=False), other.view(k, with_record=False)
        assert a.row.id == b.row.id
        assert a.row.mae_after == b.row.mae_after
        for name in ("start", "refined", "truth"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_a_run_that_is_not_finished_or_damaged(folder, tmp_path, caplog):
    run = run_cases.prepare(folder, tmp_path / "run")
    with pytest.raises(InputError, match="no sample of this run is finished yet"):
        OpenedRun(tmp_path / "run")
    run_cases.refine_all(folder, run, shard=(2, 3))
    run_cases.refine_all(folder, run, shard=(3, 3))
    opened = OpenedRun(tmp_path / "run")
    assert ([row.id for row in opened.rows], opened.unfinished) == (["bad1", "a", "d"], 2)
    starts = np.load(folder / "starts.npy")
    for k in range(3):
        np.testing.assert_array_equal(opened.map("start", k), starts[k + 2])
    path = min(run.parts_folder.iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    opened = OpenedRun(tmp_path / "run")
    assert ([row.id for row in opened.rows], opened.unfinished) == (["d"], 4)
    assert f"{path}: damaged" in caplog.text


def test_expected_errors_and_survey_that_a_run_directory_keeps(folder, tmp_path):
    run = run_cases.prepare(folder, tmp_path / "run", chunk_size=5)
    run_cases.refine_all(folder, run)
    opened = OpenedRun(tmp_path / "run")
    assert opened.map("deviation", 2) is None
    assert opened.survey == OPENFWI
    case, settings = run_cases.open_case(folder), replace(run_cases.SETTINGS, keep_deviation=True)
    kept = RunDirectory.prepare(tmp_path / "kept", describe(case, settings, chunk_size=2))
    carry_out(kept, Work(case, settings, Serial(), (1, 1), run_cases.trivial))
    opened = OpenedRun(tmp_path / "kept")
    maps = run_cases.expected_maps(folder)
    for k, row in enumerate(opened.rows):
        deviation = opened.view(k, with_record=False).deviation
        if row.status == "failed":
            assert np.isnan(deviation).all()
        else:
            np.testing.assert_allclose(deviation, np.abs(maps[k] / 100), rtol=1e-6)
    table = tmp_path / "run" / "run.toml"
    table.write_text(table.read_text().replace("dt = 0.001", 'dt = "x"'))
    with pytest.raises(InputError, match="its survey cannot be used"):
        OpenedRun(tmp_path / "run")


def test_inputs_that_are_gone_are_left_out(folder, tmp_path, caplog):
    moved = run_cases.write_inputs(tmp_path, ("a", "b"))
    run_cases.refine_all(moved, run_cases.prepare(moved, tmp_path / "run"))
    (tmp_path / "starts.npy").rename(tmp_path / "elsewhere.npy")
    opened = OpenedRun(tmp_path / "run")
    assert opened.map("start", 0) is None
    assert "starts.npy: the predictions of the run are no longer there" in caplog.text
    opened = OpenedRun(tmp_path / "run", Files(start=tmp_path / "elsewhere.npy"))
    np.testing.assert_array_equal(opened.map("start", 1), np.load(tmp_path / "elsewhere.npy")[1])


def test_part_of_a_set_is_found_by_the_order_of_its_records(folder, tmp_path):
    """As --limit and --shard take it, without ids of the predictions."""
    names = sorted(NAMES)
    starts = np.random.default_rng(1).uniform(1500, 4500, (5, 70, 70)).astype("f4")
    np.save(tmp_path / "p.npy", starts)
    np.save(tmp_path / "r.npy", starts[1:4] + 1)
    write_report(tmp_path / "r.csv", [Row(name, status="refined") for name in names[1:4]])
    files = Files(tmp_path / "r.csv", start=tmp_path / "p.npy", records=folder / "seismic")
    opened = OpenedRun(tmp_path / "r.npy", files)
    for k in range(3):
        np.testing.assert_array_equal(opened.map("start", k), starts[k + 1])
        np.testing.assert_array_equal(opened.map("refined", k), starts[k + 1] + 1)
    # in another order the predictions may be in any: refused, until their ids are given
    write_report(tmp_path / "r.csv", [Row(names[k], status="refined") for k in (3, 1, 2)])
    with pytest.raises(InputError, match="found 5 samples that none of the 3 ids"):
        OpenedRun(tmp_path / "r.npy", files)
    (tmp_path / "ids").write_text("\n".join(names[k] for k in (4, 0, 1, 2, 3)))
    opened = OpenedRun(tmp_path / "r.npy", replace(files, ids=tmp_path / "ids"))
    for k, place in enumerate((4, 2, 3)):
        np.testing.assert_array_equal(opened.map("start", k), starts[place])


def test_maps_alone(tmp_path):
    np.save(tmp_path / "p.npy", np.full((2, 70, 70), 2000.0))
    opened = OpenedRun(tmp_path / "p.npy")
    assert [row.id for row in opened.rows] == ["000000", "000001"]
    assert opened.order("error") == [0, 1]
    with pytest.raises(InputError, match="found no sample '7' among 2"):
        opened.find("7")
    write_report(tmp_path / "r.csv", [Row("a", status="refined")])
    with pytest.raises(InputError, match=r"found 2 maps .* and 1 samples"):
        OpenedRun(tmp_path / "p.npy", Files(report=tmp_path / "r.csv"))


def test_the_truth_beside_the_records_and_the_residual(made, baseline, tmp_path):
    np.save(tmp_path / "seis1.npy", made.records)
    np.save(tmp_path / "vel1.npy", made.truth[:, None])
    np.save(tmp_path / "o.npy", baseline.maps)
    opened = OpenedRun(tmp_path / "o.npy", Files(records=tmp_path))
    assert opened.rows[1].id == "seis1_1"
    for k, row in enumerate(baseline.report):
        opened.rows[k] = replace(opened.rows[k], vmin=float(row["vmin"]))
        view = opened.view(k)
        np.testing.assert_array_equal(view.truth, made.truth[k])
        rms = np.sqrt(np.mean((view.simulated - view.measured) ** 2))
        assert rms == pytest.approx(float(row["misfit_after"]), rel=1e-3)


def test_a_proven_map_leaves_nothing_of_its_record(made, tmp_path):
    truth = torch.from_numpy(np.round(made.truth[:1]).astype("f8"))
    np.save(tmp_path / "o.npy", truth.numpy())
    np.save(tmp_path / "seis1.npy", released_record(truth[0])[None].numpy())
    for exact, left in (("yes", False), ("", True)):
        report = tmp_path / "o.csv"
        write_report(report, [Row("seis1_0", status="refined", exact=exact)])
        view = OpenedRun(tmp_path / "o.npy", Files(report=report, records=tmp_path)).view(0)
        assert (view.simulated != view.measured).any() == left
        titles = [ax.get_title() for ax in plots.panels(view, shots=[0]).axes]
        assert any("no residual" in title for title in titles) != left


def test_what_cannot_be_used_of_a_sample_is_left_out(made, tmp_path, caplog):
    maps = made.truth.copy()
    maps[0, 3] = np.nan
    np.save(tmp_path / "p.npy", maps)
    records = made.records.copy()
    records[1, 0, 0, 0] = np.inf
    np.save(tmp_path / "seis1.npy", records)
    opened = OpenedRun(tmp_path / "p.npy", Files(records=tmp_path))
    view = opened.view(0)
    assert np.isnan(view.refined[3]).all()
    assert view.measured is not None
    assert view.simulated is None
    assert "the map of seis1_0 cannot be simulated" in caplog.text
    view = opened.view(1)
    assert view.measured is view.simulated is None
    assert "1 of 349650 values not finite" in caplog.text


def test_order():
    rows = [Row("a", misfit_after=1e-3), Row("b"), Row("c", misfit_after=2e-3)]
    opened = object.__new__(OpenedRun)
    opened.rows = rows
    assert opened.order("misfit") == [2, 0, 1]


def test_find_places():
    ids = ["b", "x", "a"]
    assert io.find_indices(ids, ["a", "b", "c"], 3, [], "f") == [1, None, 0]
    assert io.find_indices(ids, None, 3, [None, ["b", "x", "a"]], "f") == [0, 1, 2]
    assert io.find_indices(ids, ["s_0"], 1, [["q"], ["a"]], "f") == [None, None, 0]
    with pytest.raises(InputError, match="f: found 3 samples"):
        io.find_indices(ids, None, 3, [["a", "b"], ["p", "q", "r"]], "f")
    assert io.is_part_of(["b", "c"], ["a", "b", "c"])
    assert not io.is_part_of(["c", "b"], ["a", "b", "c"])
    assert not io.is_part_of(["z"], ["a"])
