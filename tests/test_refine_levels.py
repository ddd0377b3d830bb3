"""Levels assigned: every cell of a layered map, only where that explains the record."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from wave_cases import THREE_SHOTS as SURVEY
from wave_cases import tilted_layers

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.families.layered import GAUSS_NEWTON
from fwi_refine.inversion.levels import rounds as level_rounds
from fwi_refine.inversion.levels.assign import EdgeCells
from fwi_refine.inversion.levels.refine import _are_better_integers, assign_levels
from fwi_refine.inversion.levels.rounding import rounding_of
from fwi_refine.inversion.levels.rounds import (
    Candidate,
    _best_assignment,
    assign_twice,
    repaired,
)
from fwi_refine.inversion.levels.settings import LevelSettings
from fwi_refine.inversion.model import Model
from fwi_refine.inversion.stage_result import Curvature
from fwi_refine.objective.parameterisation import Full
from fwi_refine.priors import load
from fwi_refine.wave import Simulator, released_record
from fwi_refine.wave.cpu_library import load as load_native

pytestmark = pytest.mark.skipif(load_native() is None, reason="the compiled kernel was not built")

ASSIGNMENT = GAUSS_NEWTON.assignment
ONE_LOOK = 3  # evaluations: the misfit of the map, and its integers with and without rounding


@pytest.fixture(scope="module")
def truth():
    return tilted_layers()


@pytest.fixture(scope="module")
def simulator():
    return Simulator(SURVEY)


@pytest.fixture(scope="module")
def exact(truth, simulator):
    return simulator.forward(truth[None])[0].numpy()


@pytest.fixture(scope="module")
def released(truth):
    return released_record(truth, survey=SURVEY).numpy()


def assign(simulator, record, v, max_evaluations=None, should_stop=None, assignment=ASSIGNMENT):
    """The map, the result and the budget, for a start v of which nothing may change in place."""
    data, budget = Data.of_sample(record, v, simulator), Budget(max_evaluations, should_stop)
    v_before, record_before = v.clone(), record.copy()
    model = Model(v, v.min() + 0.25)
    found = assign_levels(assignment, data, model, load(), budget, Curvature())
    assert np.array_equal(record, record_before, equal_nan=True)
    assert torch.equal(v, v_before)
    return found.model.v, found, budget


def slightly_off(truth):
    """A map that rounds to the truth."""
    generator = torch.Generator().manual_seed(0)
    return truth + 0.6 * torch.rand(truth.shape, generator=generator, dtype=torch.float64) - 0.3


def with_wrong_cells(truth):
    """Cells along both edges that have the other level, or one between, and layers a little off."""
    v = truth.clone()
    upper = (truth[1:] != truth[:-1]).nonzero()[::7]
    v[upper[:, 0], upper[:, 1]] = truth[upper[:, 0] + 1, upper[:, 1]]
    between = (truth[1:] != truth[:-1]).nonzero()[3::9]
    v[between[:, 0], between[:, 1]] += 200.0
    assert ((v - truth).abs() > 1).sum() >= 6
    return v + 0.2


def noisy(record, rms):
    return record + rms * np.random.default_rng(0).standard_normal(record.shape)


def test_integers_that_explain_the_record_need_no_round(truth, released, simulator):
    found, result, budget = assign(simulator, released, slightly_off(truth))
    assert torch.equal(found, truth)
    assert result.model.vmin == 1700
    assert budget.evaluations == ONE_LOOK
    assert budget.iterations == 0
    assert not result.stopped


@pytest.mark.parametrize("what", ["released", "exact", "noisy"])
def test_wrong_cells_are_put_right(what, truth, exact, released, simulator):
    """Also in the records of other software, which rounds otherwise, and with a little noise."""
    record = {
        "released": released,
        "exact": exact,
        "noisy": noisy(released, 2e-5),
    }[what]
    found, result, budget = assign(simulator, record, with_wrong_cells(truth))
    assert torch.equal(found, truth)
    assert result.model.vmin == 1700
    assert 0 < budget.iterations <= 2 * ASSIGNMENT.rounds
    assert result.curvature.uncertainty.deviation(found) is not None


def test_levels_at_the_bounds_stay_within(truth, released):
    """Where a level is not known exactly it may come out beyond, where nothing is simulated."""
    bounds = (1700.0, 2903.0)
    narrow = Simulator(replace(SURVEY, velocity_bounds=bounds))
    found, result, _ = assign(narrow, released, with_wrong_cells(truth).clamp(*bounds))
    assert torch.equal(found, truth)
    assert result.model.vmin == 1700


def test_cells_between_two_levels_are_left_between(truth, simulator):
    v = truth.clone()
    v[5, 3:8] = torch.tensor([1800.0, 2000.0, 1950.0, 2100.0, 1900.0])
    record = released_record(v, survey=SURVEY).numpy()
    start = v.clone()
    start[5, 3:8] += torch.tensor([60.0, -50.0, 40.0, 30.0, -60.0])
    found, _, _ = assign(simulator, record, start)
    assert float((found - v).abs().max()) <= 1.0


def test_a_cell_beyond_all_levels_stays_where_the_record_has_it(truth):
    """As one of a level of too few cells to be found."""
    v = truth.clone()
    v[6:8, 9] = v.max() + 300.0
    cells = EdgeCells(v, v.min())
    # each cell is known to a tenth of a m/s, and is where it should be
    normal = torch.eye(len(cells.open_cells) + len(cells.levels) + 1, dtype=torch.float64)
    gradient = torch.zeros(v.numel() + 1, dtype=torch.float64)
    found = cells.assign(normal, gradient, 1e-2, lambda: False)
    step = found.step[:-1].reshape(v.shape)
    assert not found.sure[6:8, 9].any()
    assert float(step.abs().max()) < 1e-3


def repair_of(v, record, simulator, most=None):
    """What first differences put right in a map of integers."""
    data, budget = Data.of_sample(record, v, simulator), Budget(most)
    misfit = rounding_of(Model.of(v), data, budget).misfit
    return repaired(Model.of(v), misfit, data, budget)


def test_first_differences_put_a_cell_right(truth, released, simulator):
    wrong = truth.clone()
    wrong[14, 9] += 50.0
    repair = repair_of(wrong, released, simulator)
    assert torch.equal(repair.integers.v, truth)
    assert repair.exact
    assert repair.rounding.misfit < 1e-20
    assert repair_of(wrong, released, simulator, most=4) is None
    assert repair_of(truth, released, simulator) is None


def test_nothing_is_put_right_in_other_records(truth, exact, simulator):
    """Their first differences are of another arithmetic."""
    wrong = truth.clone()
    wrong[9, 9] += 300.0
    assert repair_of(wrong, exact, simulator) is None


def test_a_map_that_fits_to_the_noise_is_left(truth, exact, simulator):
    v = slightly_off(truth)
    found, result, _ = assign(simulator, noisy(exact, 1e-2), v)
    assert torch.equal(found, v)
    assert result.model.vmin == v.min() + 0.25


def test_integers_that_fit_to_the_noise_are_taken(truth, exact, simulator):
    """The record tells the noise, and integers leave no more."""
    found, _, _ = assign(simulator, noisy(exact, 1e-3), slightly_off(truth))
    assert torch.equal(found, truth)


def test_rows_beyond_the_steps_are_not_used(truth, released, simulator):
    longer = np.concatenate([released, np.full((3, 2, 20), np.nan)], axis=1)
    found, _, budget = assign(simulator, longer, with_wrong_cells(truth))
    assert torch.equal(found, truth)
    assert budget.iterations > 0


@pytest.mark.parametrize(("limit", "looks"), [(1, 0), (4, 0), (5, 1), (10, 1)])
def test_a_spent_budget_leaves_the_map(limit, looks, truth, released, simulator):
    """Cells are above the highest level, so that there are two maps of integers to look at."""
    v = with_wrong_cells(truth)
    found, result, budget = assign(simulator, released, v, max_evaluations=limit)
    assert torch.equal(found, v)
    assert budget.evaluations == looks * (ONE_LOOK + 2)
    assert result.stopped


def test_no_round_follows_when_it_is_asked_to_stop(truth, released, simulator):
    v = with_wrong_cells(truth)
    found, result, budget = assign(simulator, released, v, should_stop=lambda: True)
    assert budget.iterations == 0
    assert torch.equal(found, v)
    assert result.stopped


def test_a_stop_within_the_last_round_is_said(truth, released, simulator):
    once = replace(ASSIGNMENT, rounds=1)
    asked = iter([False])
    _, result, budget = assign(
        simulator,
        released,
        with_wrong_cells(truth),
        should_stop=lambda: next(asked, True),
        assignment=once,
    )
    assert budget.iterations > 0
    assert result.stopped


@pytest.mark.parametrize("limit", [1, 8, 9])
def test_time_that_is_used_up_ends_a_round_within_its_jacobian(limit, truth, released, simulator):
    asked = iter(range(1000))
    v = with_wrong_cells(truth)
    data = Data.of_sample(released, v, simulator)
    budget = Budget(out_of_time=lambda: next(asked) >= limit)
    found = assign_levels(ASSIGNMENT, data, Model.of(v), load(), budget, Curvature())
    assert budget.iterations == 0
    assert torch.equal(found.model.v, v)
    assert found.stopped
    assert next(asked) <= limit + 4


@pytest.mark.parametrize("same", [True, False])
def test_less_noise_that_changes_no_integer_leaves_no_doubt(
    same, truth, released, simulator, monkeypatch
):
    """One that fits but is not nearby is believed if the second, with less noise, is the same."""
    doubting = replace(ASSIGNMENT, settings=LevelSettings(nearby_change=0.0))
    data = Data.of_sample(released, truth, simulator)
    assign_cells, noises = level_rounds._assign_cells, []

    def assigned(linear, data, noise, budget):
        found = assign_cells(linear, data, noise, budget)
        noises.append(noise)
        if same or len(noises) == 1:
            return found
        return replace(found, model=replace(found.model, v=found.model.v + 1.0))

    monkeypatch.setattr(level_rounds, "_assign_cells", assigned)
    made, beyond_doubt = assign_twice(
        data, data, Model.of(slightly_off(truth)), 3e-5, doubting, 1e-11, Budget()
    )
    least, _ = ASSIGNMENT.noise
    assert noises == [3e-5, least]
    assert torch.equal(made[0].integers.v, truth)
    assert made[0].misfit < 1e-11
    assert beyond_doubt == same


@pytest.mark.parametrize(
    ("belief", "misfit", "limit", "better"),
    [
        ("of an assignment", 1e-12, 1.0, True),
        (None, 1e-12, 1.0, False),  # read off the map before any assignment
        ("of an assignment", 0.5, 1.0, False),  # the fit's own integers are better
        ("of an assignment", 1e-12, 1e-3, False),  # the fit would not be rounded
        ("of an assignment", 1e-4, 1e-3, False),  # neither explains the record
    ],
)
def test_assigned_integers_or_those_of_the_fit(
    belief, misfit, limit, better, truth, released, simulator
):
    settings = LevelSettings(max_rms_for_rounding=limit)
    data = Data.of_sample(released, truth, simulator)
    assigned = Candidate(Model.of(truth), misfit, belief)
    fit = Candidate(Model(with_wrong_cells(truth), truth.min()), 1e-12)
    assert _are_better_integers(assigned, fit, data, Budget(), settings) == better


def test_what_rounding_adds(truth, exact, released, simulator):
    budget = Budget()
    found = rounding_of(Model.of(truth), Data.of_sample(released, truth, simulator), budget)
    np.testing.assert_allclose(found.shift, released - exact, rtol=0, atol=1e-13)
    assert found.misfit_with == pytest.approx(np.square(released - exact).mean())
    assert found.misfit == found.misfit_without < 1e-12 * found.misfit_with
    assert budget.evaluations == 2


@pytest.mark.parametrize(
    ("relaxed", "rounds"), [((), 2), (ASSIGNMENT.relaxed[:1], 3), (ASSIGNMENT.relaxed[:2], 4)]
)
def test_rounds_that_lose_their_way_end_and_what_fitted_best_is_returned(
    relaxed, rounds, truth, simulator, monkeypatch
):
    """Where the record is of no map of integers: all that a round can do is to fit better. Softer
    stages, and the rounds after them, begin where it fitted best, as often as there are any."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.rand(truth.shape, generator=generator, dtype=torch.float64)
    start = truth + 0.45 * noise
    record = simulator.forward(start[None])[0].numpy()
    start[8, 10] += 30.0  # integers explain it no better
    assign_cells, before = level_rounds._assign_cells, []

    def instead(linear, data, noise, budget):
        v, vmin = linear.parameters.velocity(linear.x), linear.parameters.vmin(linear.x)
        before.append((data.misfit(Model(v, vmin), budget), v))
        found = assign_cells(linear, data, noise, budget)
        if len(before) == 1:
            return found
        away = found.model.v * (1 + 0.2 * (noise - 0.5))
        return replace(found, model=replace(found.model, v=away))

    monkeypatch.setattr(level_rounds, "_assign_cells", instead)

    def nothing(*how):  # in between that would find back
        stage = ASSIGNMENT.between(*how)
        return replace(stage, optimiser=replace(stage.optimiser, iterations=0))

    assignment = replace(ASSIGNMENT, between=nothing, relaxed=relaxed)
    found, _, budget = assign(simulator, record, start, assignment=assignment)
    assert len(before) == rounds, (
        "the first, the one that loses its way, and one after each of the relaxed stages"
    )
    assert before[1][0] < 0.5 * before[0][0]
    if not relaxed:
        assert torch.equal(found, before[1][1])
    else:
        assert before[2][0] < 2 * before[1][0]
        data = Data.of_sample(record, truth, simulator)
        assert data.misfit(Model.of(found), budget) < 0.5 * before[0][0]


@pytest.mark.parametrize(
    ("off", "chosen", "tried"),
    [
        ((400.0, 150.0, 60.0), 2, 3),
        ((400.0, 300.0, 100.0), 2, 3),  # not half, then less than half
        ((400.0, 390.0, 380.0), 0, 3),
        ((400.0, 0.0, 0.0), 1, 2),  # fits: no more is tried
        ((0.0, 0.0, 0.0), 0, 1),
    ],
)
def test_more_noise_is_taken_where_a_decision_fits_far_better(
    off, chosen, tried, truth, released, simulator
):
    """off: m/s by which a cell of the map that is assigned with each noise is wrong."""
    data = Data.of_sample(released, truth, simulator)
    parameters, asked = Full(truth.shape), []
    x = parameters.from_velocity(truth, truth.min())

    def assign(variance, should_stop):
        step = torch.zeros(x.numel(), dtype=torch.float64)
        step[5] = off[len(asked)]
        asked.append(variance)
        return SimpleNamespace(step=step, number=len(asked) - 1)

    budget = Budget()
    assigned, found = _best_assignment(assign, data, 3e-5, parameters, x, budget)
    assert assigned.number == chosen
    assert torch.equal(found, parameters.retract(x, assigned.step))
    assert np.sqrt(np.array(asked) / asked[0]).tolist() == pytest.approx([1.0, 4.0, 16.0][:tried])
    assert budget.evaluations == tried
