"""Surveys other than OpenFWI's, end to end: every command, every route that makes sense there."""

import csv
import dataclasses
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from other_survey_cases import SURVEY
from scipy.ndimage import gaussian_filter

from fwi_refine.cli import run
from fwi_refine.errors import InputError
from fwi_refine.inversion import method
from fwi_refine.inversion.routes import classify
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.priors import load
from fwi_refine.survey.toml import read_survey, write_survey
from fwi_refine.wave import Simulator
from fwi_refine.wave.cpu_library import load as load_native

NATIVE = pytest.mark.skipif(load_native() is None, reason="the compiled kernel was not built")


@dataclass(frozen=True)
class Made:
    folder: Path
    truth: np.ndarray  # (2, 14, 18)

    def __getattr__(self, name):
        return str(self.folder / name)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    """Two layered maps, blurred starts, the survey, and records that `simulate` made."""
    folder = tmp_path_factory.mktemp("other")
    row, column = np.mgrid[:14, :18]
    layers = np.select([row + column // 6 < 5, row - column // 5 < 8], [1700, 2300], 3100)
    step = np.where(row < np.where(column < 9, 5, 7), 1800, 2600)
    truth = np.stack([layers, step]).astype(np.float32)
    np.save(folder / "truth.npy", truth)
    np.save(folder / "start.npy", [1 / gaussian_filter(1 / v, 1.5) for v in truth])
    write_survey(SURVEY, folder / "survey.toml")
    simulate = ["simulate", folder / "truth.npy", "--survey", folder / "survey.toml", "--out"]
    assert call(*simulate, folder / "records") == 0
    return Made(folder, truth)


def call(*arguments) -> int:
    return run([str(argument) for argument in arguments])


def inputs(made):
    return (
        made.folder / "start.npy",
        made.folder / "records",
        "--survey",
        made.folder / "survey.toml",
    )


def report(path):
    with open(Path(path).with_suffix(".csv"), newline="") as file:
        return list(csv.DictReader(file))


def test_simulated_records(made):
    records = [np.load(made.folder / "records" / f"00000{k}.npy") for k in range(2)]
    whole = dataclasses.replace(SURVEY, n_steps=SURVEY.file_rows)
    expected = Simulator(whole, torch.float32).forward(torch.from_numpy(made.truth).double())
    np.testing.assert_array_equal(records, expected)
    assert records[0].shape == SURVEY.file_shape == (3, 201, 10)


# family, method, the fraction of the start's error that may be left; a smooth map is no layered one
ROUTES = [
    ("layered", "auto", 0.1), ("blended", "auto", 0.1), ("style-a", "auto", 2.0),
    ("style-b", "auto", 0.9), ("layered", "lbfgs", 1.0), ("style-a", "lbfgs", 2.0),
    ("style-b", "lbfgs", 1.0),
]  # fmt: skip


@NATIVE
@pytest.mark.parametrize(("family", "method", "left"), ROUTES)
def test_every_route(made, tmp_path, family, method, left):
    """Refined by the command line."""
    out = tmp_path / "out.npy"
    more = ["--family", family, "--method", method, "--out", out, "--limit", 1]
    if (family, method) == ("style-a", "auto"):
        more += [
            "--max-evaluations",
            200,
        ]  # the start is far off, of which lower frequencies take most
    if method == "lbfgs":
        more += ["--max-evaluations", 30]
    assert call(*inputs(made), *more) == 0
    (row,) = report(out)
    made_as = "layered" if family == "blended" else family  # its edges are sharp
    assert (row["family"], row["status"]) == (made_as, "refined")
    assert float(row["misfit_after"]) < 0.4 * float(row["misfit_before"])
    before = np.abs(np.load(made.folder / "start.npy")[0] - made.truth[0]).mean()
    assert np.abs(np.load(out)[0] - made.truth[0]).mean() < left * before


@NATIVE
def test_flat_layers(tmp_path):
    """Sources at two depths, so that the Jacobian has a tangent run for each row."""
    rows = np.repeat([1700.0, 2100.0, 2900.0], [4, 5, 5])
    truth = np.repeat(rows[:, None], 18, axis=1)
    record = Simulator(SURVEY).forward(torch.from_numpy(truth)[None])[0].numpy()
    start = gaussian_filter(truth, (1.0, 0.0))
    refined = refine_sample(start, record, survey=SURVEY, family="flat-vel")
    assert np.abs(refined.velocity - truth).max() == 0.0


@NATIVE
@pytest.mark.parametrize("factor", [0.1, 3.0])
def test_a_survey_at_another_scale_is_refined_alike(made, factor):
    """Lengths and times so many times as large: records are `unit` times as large, maps the same.

    Weights, targets and thresholds of the recipes follow; with those of OpenFWI they would not.
    """
    scaled = dataclasses.replace(
        SURVEY,
        spacing=SURVEY.spacing * factor,
        dt=SURVEY.dt * factor,
        frequency=SURVEY.frequency / factor,
    )
    start = np.load(made.folder / "start.npy")[1].astype(float)
    record = Simulator(SURVEY).forward(torch.from_numpy(made.truth[1:]).double())[0].numpy()
    first, second = (
        refine_sample(start, record * (survey.unit / SURVEY.unit), survey=survey, family="layered",
                      max_evaluations=60)
        for survey in (SURVEY, scaled)
    )  # fmt: skip
    np.testing.assert_allclose(second.velocity, first.velocity, rtol=1e-5)
    assert second.misfit_after / scaled.unit == pytest.approx(
        first.misfit_after / SURVEY.unit, rel=1e-2
    )
    assert second.iterations == first.iterations


@NATIVE
def test_a_run_directory_keeps_its_survey(made, tmp_path, capfd):
    folder, other = tmp_path / "run", tmp_path / "other.toml"
    settings = ["--family", "layered", "--method", "lbfgs", "--max-evaluations", 3]
    assert call(*inputs(made), *settings, "--run-dir", folder, "--chunk-size", 1) == 0
    assert call("merge", folder, "--out", tmp_path / "merged.npy") == 0
    assert np.load(tmp_path / "merged.npy").shape == (2, 14, 18)
    assert call("verify", folder) == 0
    capfd.readouterr()
    moved = dataclasses.replace(SURVEY, receivers=(*SURVEY.receivers[:-1], (8, 16)), n_steps=199)
    write_survey(moved, other)
    again = [*inputs(made)[:2], "--survey", other, *settings, "--run-dir", folder]
    assert call(*again, "--chunk-size", 1) == 2
    refused = capfd.readouterr().err
    assert "survey.receivers: other positions, 10 in the run, 10 now" in refused
    assert "survey.n_steps: 200 in the run, 199 now" in refused
    assert refused.count("survey.") == 2


@pytest.mark.slow
def test_a_run_directory_says_which_survey_it_has(made, tmp_path, capfd):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    folder, survey = tmp_path / "run", made.folder / "survey.toml"
    settings = ["--family", "layered", "--method", "lbfgs", "--max-evaluations", 1]
    assert call(*inputs(made), *settings, "--run-dir", folder, "--out", tmp_path / "o.npy") == 0
    for given in (
        [folder], [tmp_path / "o.npy", "--survey", survey, "--records", made.folder / "records"],
    ):  # fmt: skip
        for name, more in (("a.png", ["--shot", "all"]), ("b.html", [])):
            what = ["report"] if name.endswith("html") else ["plot", "panels"]
            out = ["--out", tmp_path / name, "--overwrite", "--truth", made.folder / "truth.npy"]
            assert call(*what, *given, *more, *out) == 0
            assert (tmp_path / name).stat().st_size > 10_000
    capfd.readouterr()
    assert call("report", folder, "--survey", survey, "--out", tmp_path / "c.html") == 2
    assert "is a run directory and has its own" in capfd.readouterr().err


def test_evaluate(made, capfd):
    start, records, *survey = inputs(made)
    truth = made.folder / "truth.npy"
    assert call("evaluate", truth, truth, "--records", records, *survey) == 0
    rows = list(csv.DictReader(capfd.readouterr().out.splitlines()))
    assert float(rows[0]["mae"]) == 0.0
    assert float(rows[0]["misfit_rms"]) < 1e-4
    assert call("evaluate", start, truth, *survey, "--by", "depth") == 0
    rows = list(csv.DictReader(capfd.readouterr().out.splitlines()))
    assert [float(row["depth"]) for row in rows] == [12.5 * k for k in range(14)]
    auto = ["--families", "auto", "--records", records]
    assert call("evaluate", start, truth, *survey, *auto) == 2
    assert "--families auto: families can be told apart on the survey of OpenFWI" in (
        capfd.readouterr().err
    )
    assert call("evaluate", start, truth) == 2
    assert "found shape (2, 14, 18), expected (N, 70, 70)" in capfd.readouterr().err


def test_the_family_has_to_be_said(made, tmp_path, capfd):
    assert call(*inputs(made), "--out", tmp_path / "o.npy") == 2
    assert (
        "--family auto: families can be told apart on the survey of OpenFWI only; say which it is"
        in capfd.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []
    v, record = np.load(made.folder / "start.npy")[0], np.load(made.folder / "records/000000.npy")
    with pytest.raises(InputError, match="say which it is: layered"):
        refine_sample(v, record, survey=SURVEY)
    with pytest.raises(InputError, match="survey of OpenFWI only"):
        classify(v, record, load().on_grid(SURVEY.shape, SURVEY.spacing), SURVEY)


def test_a_survey_file_that_is_wrong(made, tmp_path, capfd):
    bad = tmp_path / "bad.toml"
    bad.write_text((made.folder / "survey.toml").read_text().replace("rows = 14", "rows = 0"))
    start, records, *_ = inputs(made)
    out = ["--survey", bad, "--out", tmp_path / "o.npy"]
    for command in (
        ["refine", start, records, "--family", "layered", *out],
        ["simulate", start, *out], ["start", records, *out], ["doctor", "--survey", bad],
        ["evaluate", start, start, "--survey", bad],
    ):  # fmt: skip
        assert call(*command) == 2
        expected = f"survey {bad}: grid.rows is 0, expected a whole number of at least 4"
        assert expected in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.toml"]


def test_records_of_another_survey_fail_alone(made, tmp_path):
    whole = np.load(made.folder / "records" / "000000.npy")
    (tmp_path / "records").mkdir()
    np.save(tmp_path / "records" / "000000.npy", whole[:, :, :9])
    np.save(tmp_path / "records" / "000001.npy", whole)
    start, _, *survey = inputs(made)
    more = ["--family", "layered", "--method", "lbfgs", "--max-evaluations", 1]
    out = tmp_path / "o.npy"
    assert call(start, tmp_path / "records", *survey, *more, "--out", out) == 3
    failed, other = report(out)
    assert "found shape (3, 201, 9), expected (3, 201, 10)" in failed["reason"]
    assert other["status"] in ("refined", "unchanged")


@NATIVE
def test_a_dry_run(made, capfd):
    assert call(*inputs(made), "--family", "style-b", "--dry-run", "--out", "o.npy") == 0
    assert "style-b,2,3," in capfd.readouterr().out


@NATIVE
def test_a_start_without_a_network(made, tmp_path):
    _, records, *survey = inputs(made)
    out = tmp_path / "starts.npy"
    assert call("start", records, *survey, "--limit", 1, "--out", out) == 0
    (v,) = np.load(out)
    misfits = [
        float(Simulator(SURVEY).misfit(torch.as_tensor(x)[None].double(), record)[0])
        for record in [torch.from_numpy(np.load(records / "000000.npy"))[None, :, :200].double()]
        for x in (v, np.full(SURVEY.shape, float(np.median(made.truth[0]))))
    ]
    assert misfits[0] < 0.3 * misfits[1]


def test_doctor(made, capfd, tmp_path):
    record, survey = made.folder / "records" / "000000.npy", made.folder / "survey.toml"
    assert call("doctor", record, "--survey", survey) == 0
    out = capfd.readouterr().out
    assert "adjoint test" in out
    assert "first arrivals, sign" in out
    assert "velocity at the sources" not in out  # none of them stands at a receiver
    np.save(tmp_path / "r.npy", -np.load(record))
    assert call("doctor", tmp_path / "r.npy", "--survey", survey) == 1


@NATIVE
def test_what_a_large_map_fell_back_to_is_reported(made, monkeypatch):
    monkeypatch.setattr(method, "MAX_MEMORY", 1e6)
    v, record = np.load(made.folder / "start.npy")[0], np.load(made.folder / "records/000000.npy")
    refined = refine_sample(v, record, survey=SURVEY, family="general", max_evaluations=30)
    words = "matrix-free Gauss-Newton: a Gauss-Newton step on 14 x 18 cells"
    assert any(words in flag for flag in refined.flags)
    assert refined.misfit_after < refined.misfit_before


def test_blend(made, tmp_path, capfd):
    """Weights by the misfit: the truth gets all of it."""
    start, records, *survey = inputs(made)
    truth, out = made.folder / "truth.npy", tmp_path / "b.npy"
    assert call("blend", start, truth, "--records", records, *survey, "--out", out) == 0
    np.testing.assert_array_equal(np.load(out), np.load(truth))
    auto = ["--families", "auto", "--records", records, "--out", tmp_path / "c.npy"]
    assert call("blend", start, truth, *survey, *auto) == 2
    assert "survey of OpenFWI only" in capfd.readouterr().err


def test_the_example_of_the_scripts():
    """Its survey is read, and its section has the layers, the faults and the body that it says."""
    scripts = Path(__file__).parents[1] / "scripts"
    spec = importlib.util.spec_from_file_location("example", scripts / "example_other_survey.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    survey = read_survey(scripts / "example_other_survey.toml")
    assert not {*survey.sources} & {*survey.receivers}
    v = example.section(survey.shape)
    assert v.shape == survey.shape
    assert {*np.unique(v)} == {*example.LAYERS, example.SALT}
    salt = v == example.SALT
    assert salt[16].sum() > 2 * salt[-1].sum() > 0  # the head is wider than the stem
    # along a row velocities fall at the faults, which lean
    falls = [np.flatnonzero(np.diff(v[row]) < 0)[:2] for row in (12, 28)]
    assert (falls[1] > falls[0]).all()
