"""Known cells: fixed ones, bounds of single cells, a water layer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import dot_test, inner, taylor_test
from misfit_cases import misfit_near, random
from noisy_cases import SURVEY, error, layered, record_of
from test_misfit import modes

from fwi_refine import refine
from fwi_refine.cli import run
from fwi_refine.errors import InputError
from fwi_refine.inversion.levels.assign import EdgeCells
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.objective.base import PriorTerm, SumOfSquares
from fwi_refine.objective.constraints import (
    BoundPenalty,
    WithFixedCells,
    check_bounds,
    check_fixed,
    constraints_of,
)
from fwi_refine.objective.misfit import BandMisfit
from fwi_refine.objective.parameterisation import Full, Regions, Rows
from fwi_refine.priors import TotalVariation1D, TotalVariation2D, VariationalTotalVariation
from fwi_refine.survey.toml import read_survey, write_survey

FIXED = torch.zeros(8, 10, dtype=torch.bool)
FIXED[:2] = True
FIXED[4:6, 3:5] = True
VALUES = 2000 + 50 * random(8, 10, seed=1)
LABELS = torch.arange(8)[:, None] // 2 * 3 + torch.arange(10)[None, :] // 4
INNER = {"full": Full((8, 10)), "rows": Rows((8, 10)), "modes": modes(), "regions": Regions(LABELS)}
inners = pytest.mark.parametrize("inner_", INNER.values(), ids=INNER)


@inners
def test_fixed_cells_are_no_unknowns(inner_):
    held = WithFixedCells(inner_, FIXED, VALUES)
    c = random(held.size, seed=2)
    v = held.velocity(c)
    assert torch.equal(v[FIXED], VALUES[FIXED])
    left_out = {"Full": 24, "Rows": 2, "Regions": 3}.get(type(inner_).__name__, 0)
    assert held.size == inner_.size - left_out
    g = random(8, 10, seed=3)
    assert dot_test(held.expand, held.gather, c[:-1], g) < 1e-12
    assert torch.allclose(held.fit(v), c[:-1], rtol=0, atol=1e-4 * float(c.abs().max()))
    rows = random(5, 81, seed=4)
    transformed = held.jacobian_transform(rows)(rows)
    assert torch.allclose(transformed, rows @ held.matrix())
    dx = 1e-3 * random(held.size, seed=5)
    moved = held.retract(held.from_velocity(2500 + 0 * g, 2000.0), dx)
    assert torch.equal(held.velocity(moved)[FIXED], VALUES[FIXED])


PRIORS = {
    "full": TotalVariation2D(10.0),
    "rows": TotalVariation1D(10.0),
    "modes": SumOfSquares(),
    "regions": TotalVariation2D(10.0),
}


@pytest.mark.parametrize("name", INNER)
def test_priors_of_the_cells_that_are_left(name):
    held = WithFixedCells(INNER[name], FIXED, VALUES)
    prior = PriorTerm(PRIORS[name], held)
    x = held.from_velocity(2300 + 80 * random(8, 10, seed=6), 2000.0)
    dx = random(held.size, seed=7)
    order = taylor_test(prior.value_and_gradient, x, dx, [4.0, 2.0, 1.0])
    assert order == pytest.approx(2, abs=0.2) or PRIORS[name].quadratic
    matrix = prior.hessian(x)
    assert matrix.shape == (held.size, held.size)
    coordinates = held.prior_coordinates
    change = coordinates(x + dx) - coordinates(x)
    hessian = PRIORS[name].hessian(coordinates(x))
    expected = inner(change.flatten(), hessian @ change.flatten())
    assert inner(dx, matrix @ dx) == pytest.approx(expected, rel=1e-9)


def test_variational_total_variation_knows_fixed_cells():
    held = WithFixedCells(Full((8, 10)), FIXED, VALUES)
    half = random(held.size, held.size, seed=8)
    covariance = half @ half.T
    found = held.map_covariance(covariance)
    assert torch.equal(found[~FIXED.flatten()][:, ~FIXED.flatten()], covariance[:-1, :-1])
    assert torch.allclose(found.diagonal()[FIXED.flatten()], torch.tensor(0.01).double())
    assert VariationalTotalVariation().update(found, (8, 10)).variances is not None


def test_the_jacobian_of_the_free_cells():
    misfit, x, _ = misfit_near(Full((8, 10)), kind=BandMisfit)
    held = WithFixedCells(Full((8, 10)), FIXED, misfit.parameters.velocity(x))
    ours = BandMisfit(misfit.simulator, held, misfit._record[0])
    y = held.from_velocity(held.offset + 0, x[-1])
    y = held.from_velocity(misfit.parameters.velocity(x), x[-1])
    assert ours(y) == pytest.approx(misfit(x), rel=1e-12)
    kept = torch.cat((~FIXED.flatten(), torch.tensor([True])))
    assert torch.allclose(ours.gradient(y), misfit.gradient(x)[kept])
    assert torch.allclose(ours.hessian(y), misfit.hessian(x)[kept][:, kept])


def test_a_penalty_beyond_bounds():
    low, high = torch.full((8, 10), 1900.0), torch.full((8, 10), 2600.0)
    parameters = Full((8, 10))
    bound_penalty = BoundPenalty(low.double(), high.double(), parameters, width=2.0)
    v = torch.full((8, 10), 2000.0).double()
    assert bound_penalty(parameters.from_velocity(v)) == 0
    v[3, 4], v[5, 6] = 2610.0, 1894.0
    x = parameters.from_velocity(v)
    assert bound_penalty(x) == pytest.approx(5**2 + 3**2)
    expected = torch.zeros(81, 81).double()
    expected[34, 34] = expected[56, 56] = 2 / 2.0**2
    assert torch.equal(bound_penalty.hessian(x), expected)
    assert bound_penalty.gradient(x)[34] == pytest.approx(10 / 2)


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (lambda s: check_fixed(np.ones((3, 3), bool), s), "expected a mask of shape"),
        (lambda s: check_fixed(np.full(s.shape, 2), s), "true, or 1, for cells that are kept"),
        (lambda s: check_bounds(np.ones((3, 3)), np.ones(s.shape), s), "lower bounds of type"),
        (lambda s: check_bounds(np.full(s.shape, 3e3), np.full(s.shape, 2e3), s), "3000 to 2000"),
        (lambda s: check_bounds(np.full(s.shape, 6e3), np.full(s.shape, 7e3), s), "6000 to 7000"),
    ],
)
def test_what_is_no_mask_and_no_bound(check, words):
    with pytest.raises(InputError, match=words):
        check(SURVEY)


def test_bounds_that_are_not_said_are_the_survey_s():
    low, high = check_bounds(np.full(SURVEY.shape, np.nan), np.full(SURVEY.shape, 1e4), SURVEY)
    assert (low == 1400).all()
    assert (high == 5000).all()


def test_every_cell_fixed():
    with pytest.raises(InputError, match="nothing to refine"):
        constraints_of(torch.ones(SURVEY.shape), SURVEY, np.ones(SURVEY.shape, bool))


def test_levels_are_not_assigned_to_fixed_cells():
    v = torch.as_tensor(layered()[0])
    fixed = torch.zeros(v.shape, dtype=torch.bool)
    fixed[:, :5] = True
    free, held = EdgeCells(v, v.min()), EdgeCells(v, v.min(), fixed=fixed)
    assert set(held.open_cells) == {cell for cell in free.open_cells if cell % 25 >= 5}
    assert not held.step[:-1].reshape(20, 25)[:, :5].any()
    assert not held.step_by_level[:-1].reshape(20, 25, -1)[:, :5].any()


def test_a_water_layer_in_a_file(tmp_path):
    survey = replace(SURVEY, water=(4, 1500.0))
    write_survey(survey, tmp_path / "sea.toml")
    assert read_survey(tmp_path / "sea.toml") == survey
    for rows, velocity, words in ((20, 1500.0, "expected 1 to 19 rows"), (4, 900.0, "velocity")):
        with pytest.raises(ValueError, match=words):
            replace(SURVEY, water=(rows, velocity))
    text = (tmp_path / "sea.toml").read_text().replace("\nrows = 4", "\ndepth = 4")
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(InputError, match="water: found key 'depth'"):
        read_survey(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("method", "evaluations", "left"),
    [
        ("lbfgs", 10, 0.9),
        pytest.param("gauss-newton", 400, 0.01, marks=pytest.mark.slow),
        pytest.param("preconditioned-lbfgs", 400, 0.5, marks=pytest.mark.slow),
    ],
)
def test_fixed_cells_are_kept_and_bounds_hold(method, evaluations, left):
    truth, start = layered()
    record = record_of(truth)
    fixed = np.zeros(SURVEY.shape, bool)
    fixed[:4, :8] = True
    start[fixed] = truth[fixed]
    bounds = np.full(SURVEY.shape, 1700.0), np.full(SURVEY.shape, np.nan)
    bounds[1][:8] = 2300.0
    how = {"survey": SURVEY, "family": "layered", "threads": 1, "force": True}
    known = {"fixed": fixed, "bounds": bounds}
    found = refine(start, record, **known, method=method, max_evaluations=evaluations, **how)
    assert found.reports[0].status == "refined"
    assert (found.velocity[fixed] == start[fixed]).all()
    assert found.velocity.min() >= 1700
    assert found.velocity[:8].max() <= 2300
    assert error(found.velocity, truth) < left * error(start, truth)


def test_the_command_line(tmp_path):
    truth, start = layered()
    (tmp_path / "records").mkdir()
    record = record_of(truth)
    record[1, :, 7] = 0
    np.save(tmp_path / "records" / "a.npy", record)
    np.save(tmp_path / "start.npy", start[None])
    write_survey(replace(SURVEY, water=(2, 1800.0)), tmp_path / "s.toml")
    fixed = np.zeros(SURVEY.shape, bool)
    fixed[10, 10] = True
    np.save(tmp_path / "fixed.npy", fixed)
    np.save(tmp_path / "low.npy", np.full(SURVEY.shape, 1800.0))
    np.save(tmp_path / "high.npy", np.full(SURVEY.shape, 2900.0))
    np.save(tmp_path / "weights.npy", np.array([1.0, 1.0, 0.0]))
    names = ("start.npy", "records", "s.toml", "o.npy", "weights.npy", "fixed.npy")
    paths = {name: str(tmp_path / name) for name in (*names, "low.npy", "high.npy")}
    command = [
        "refine", paths["start.npy"], paths["records"], "--survey", paths["s.toml"], "--force",
        "--family", "layered", "--method", "lbfgs", "--max-evaluations", "4",
        "--out", paths["o.npy"], "--weights", paths["weights.npy"], "--fixed", paths["fixed.npy"],
        "--bounds", paths["low.npy"], paths["high.npy"],
    ]  # fmt: skip
    assert run(command) == 0
    found = np.load(tmp_path / "o.npy")[0]
    assert (found[:2] == 1800).all()
    assert found[10, 10] == np.float32(start[10, 10])
    assert 1800 <= found.min() <= found.max() <= 2900
    header, row = (line.split(",") for line in (tmp_path / "o.csv").read_text().splitlines())
    assert row[header.index("missing")] == str(400 * 25 + 400)
    assert row[header.index("noise")] == "0"
    np.save(tmp_path / "fixed.npy", fixed[:3])
    assert run([*command, "--overwrite"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gauss-newton", "preconditioned-lbfgs"])
def test_a_sea(method):
    """Under known water the map is found as well as on land."""
    truth, start = layered()
    truth[:4] = 1500.0
    start[:4] = 1700.0
    survey = replace(SURVEY, water=(4, 1500.0))
    how = {"family": "layered", "method": method, "max_evaluations": 400}
    found = refine_sample(start, record_of(truth, survey), survey=survey, **how)
    assert (found.velocity[:4] == 1500).all()
    assert error(found.velocity, truth) < 0.1 * error(start, truth)
