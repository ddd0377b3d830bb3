"""Integer maps that their record proves, and the search that repairs them."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.levels.candidates import Change, apply_changes
from fwi_refine.inversion.levels.exact import certify, prove, search
from fwi_refine.inversion.levels.scattering import arrival_steps, scattered
from fwi_refine.objective.arithmetic import has_released_arithmetic
from fwi_refine.optimise.integer_least_squares import IntegerProblem, integer_least_squares
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave import Simulator, released_record

PAIR = Path(__file__).parents[2] / "shared/data/real/pair_curvefault_b.npz"
SMALL = Survey(
    shape=(22, 26),
    n_steps=260,
    file_rows=260,
    absorbing_cells=20,
    velocity_bounds=(1000.0, 5000.0),
    sources=((1, 0), (1, 12), (1, 25)),
    receivers=tuple((1, column) for column in range(26)),
)


def simulator(survey=SMALL):
    return Simulator(survey, threads=1)


def layers():
    """Four layers of integers with a bend, (22, 26)."""
    depth = np.arange(22)[:, None] - np.round(2 * np.sin(np.arange(26) / 5))
    return torch.from_numpy(
        np.select([depth < 6, depth < 11, depth < 16], [1750.0, 2120, 2610], 3055)
    )


@pytest.fixture(scope="module")
def truth():
    return layers()


@pytest.fixture(scope="module")
def record(truth):
    return released_record(truth, survey=SMALL, threads=1).numpy()


def damaged(v):
    """Cells of the wrong layer at three edges, and the third layer 1 m/s off."""
    v = v.clone()
    v[v == 2610.0] = 2611.0
    for cell, value in (((8, 5), 1750.0), ((9, 20), 2120.0), ((16, 17), 2611.0)):
        assert v[cell] != value
        v[cell] = value
    return v


def test_the_right_map_is_proven(truth, record):
    certificate = prove(truth, record, simulator())
    assert certificate.exact is True
    assert certificate.equal_fraction == 1.0
    assert (certificate.first == SMALL.n_steps).all()


def test_one_sample_that_differs_by_an_ulp_is_no_proof(truth, record):
    rng = np.random.default_rng(0)
    for _ in range(5):
        at = tuple(rng.integers(1, n) for n in record.shape)
        other = record.copy()
        other[at] = np.nextafter(other[at], np.float32(np.inf))
        certificate = prove(truth, other, simulator())
        assert certificate.exact is False
        assert certificate.first[at[0], at[2]] == at[1]
        assert certificate.equal_fraction < 1


@pytest.mark.parametrize("cell", [(0, 3), (10, 13), (21, 25)])
def test_a_wrong_cell_is_no_proof(truth, record, cell):
    v = truth.clone()
    v[cell] += 1
    certificate = prove(v, record, simulator())
    assert certificate.exact is False
    assert 0 < certificate.equal_fraction < 1


def searched(v, record, limit=None, should_stop=None):
    """(v, certificate, evaluations) of a search."""
    budget = Budget(limit, should_stop)
    data = Data.of_sample(record, v, simulator())
    v, certificate = search(v, certify(v, data, budget), None, data, budget)
    return v, certificate, budget.evaluations


def test_rows_beyond_the_steps_do_not_count(truth, record):
    longer = np.concatenate([record, np.full_like(record[:, :1], np.nan)], axis=1)
    assert prove(truth, np.nan_to_num(longer), simulator()).exact is True


def test_records_of_another_arithmetic_are_not_tried(truth, record):
    double = simulator().forward(truth[None])[0].numpy()
    assert not has_released_arithmetic(double, SMALL)
    assert prove(truth, double, simulator()).exact is None
    v, certificate, trials = searched(truth, double)
    assert (v is truth, certificate.exact, trials) == (True, None, 0.0)
    single = record.copy()
    single[0, 0, 0] *= -1  # no velocity makes that
    assert prove(truth, single, simulator()).exact is None
    assert has_released_arithmetic(record.astype(np.float64), SMALL)


def test_search_repairs_cells_and_a_level(truth, record):
    start = damaged(truth)
    before = prove(start, record, simulator())
    v, certificate, trials = searched(start, record)
    assert before.exact is False
    assert certificate.exact is True
    assert torch.equal(v, truth)
    assert 2 < trials < 100


def test_search_leaves_the_right_map_after_one_simulation(truth, record):
    v, certificate, trials = searched(truth, record)
    assert torch.equal(v, truth)
    assert (certificate.exact, trials) == (True, 1.0)


@pytest.mark.parametrize("budget", [0.0, 0.5, 1.0, 1.5, 4.0, 13.0])
def test_search_keeps_to_its_budget(truth, record, budget, monkeypatch):
    spent = [0.0]

    def counting(method):
        def run(self, v, *rest, **options):
            fraction = len(self.survey.sources) / len(SMALL.sources)
            spent[0] += fraction * self.survey.n_steps / SMALL.n_steps * len(v)
            return method(self, v, *rest, **options)

        return run

    for name in ("forward", "released", "first_differences"):
        monkeypatch.setattr(Simulator, name, counting(getattr(Simulator, name)))
    start = damaged(truth)
    v, certificate, trials = searched(start, record, budget)
    assert trials <= budget
    assert spent[0] == pytest.approx(trials)
    if budget < 1:
        assert (v is start, certificate.exact) == (True, None)
    else:
        assert certificate.exact is False
        assert certificate.equal_fraction >= prove(start, record, simulator()).equal_fraction


def test_search_stops_when_it_is_told(truth, record):
    asked = []

    def should_stop():
        asked.append(True)
        return len(asked) > 2

    start = damaged(truth)
    v, certificate, trials = searched(start, record, should_stop=should_stop)
    assert certificate.exact is False
    assert trials <= 2
    assert torch.equal(v, start)


def test_a_map_of_other_values_than_integers_is_compared_only(truth, record):
    start = truth + 0.5
    v, certificate, trials = searched(start, record)
    assert (v is start, certificate.exact, trials) == (True, False, 1.0)


def test_changes_of_a_level_hold_for_cells_that_take_it():
    v = torch.tensor([[1500.0, 1500.0], [2000.0, 3000.0]])
    changes = [Change(0, 1, 2001.0, level=2000.0), Change(1, 1, 2000.0, cell=(0, 1))]
    expected = torch.tensor([[1500.0, 2001.0], [2001.0, 3000.0]])
    assert torch.equal(apply_changes(v, changes), expected)


@pytest.mark.parametrize("cell", [(9, 13), (3, 4), (0, 9), (12, 0), (21, 14)])
def test_scattering_is_the_tangent(truth, cell):
    """Also at edges, whose band is as wide here as what is taken of it reaches within the steps."""
    survey = replace(SMALL, n_steps=200)
    steps = torch.arange(200).expand(3, 26, 200)
    change = scattered(truth, np.array([cell]), steps, simulator(survey))[0].movedim(2, 1)
    dv = torch.zeros_like(truth)
    dv[cell] = truth[cell] / 2  # of 1 - (v / v')^2: 1
    tangent = simulator(survey).tangent(truth[None], dv[None], truth.min()[None])[0]
    inside = 0 < cell[0] < 21 and 0 < cell[1] < 25
    error = float((change - tangent).norm() / tangent.norm())
    assert error < (1e-5 if inside else 0.05)


def test_arrivals_are_along_straight_paths_in_a_uniform_map():
    steps = arrival_steps(np.full(SMALL.shape, 2000.0), SMALL).reshape(3, 26, *SMALL.shape)
    straight = np.hypot(20 - 1, 12 - 12) + np.hypot(20 - 1, 12 - 20)
    assert straight * 5 <= steps[1, 20, 20, 12] <= 1.03 * straight * 5
    assert steps[1, 12, 1, 12] == 0


@pytest.mark.parametrize("seed", range(4))
def test_integer_least_squares_finds_the_best_of_all(seed):
    """Columns that are alike: neighbours stand in for each other."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(60, 1))
    columns = common + 0.3 * rng.normal(size=(60, 8))
    unknown, value = np.repeat(np.arange(8), 2), np.tile([1.0, -0.6], 8)
    u = np.zeros(8)
    u[rng.permutation(8)[:3]] = 1.0, -0.6, 1.0
    y = columns @ u + 0.01 * rng.normal(size=60)
    problem = IntegerProblem(columns.T @ columns, columns.T @ y, float(y @ y), unknown, value)
    found, probability = integer_least_squares(problem, 1e-4)
    every = np.array(list(itertools.product((0.0, 1.0, -0.6), repeat=8)))
    left = np.square(every @ columns.T - y).sum(1) + 1e-4 * y @ y * (every != 0).sum(1)
    assert np.array_equal(found, every[left.argmin()])
    assert problem.misfit(found) == pytest.approx(np.square(columns @ found - y).sum(), rel=1e-6)
    assert ((probability >= 0) & (probability <= 1)).all()


@pytest.mark.skipif(not PAIR.exists(), reason="the real pair is not here")
def test_the_released_pair_is_proven():
    pair = np.load(PAIR)
    certificate = prove(torch.from_numpy(pair["truth"]), pair["record"], simulator(OPENFWI))
    assert certificate.exact is True
