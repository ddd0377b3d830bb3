"""What the released arithmetic added to a record, and the edges of a layered map."""

import numpy as np
import pytest
import torch
from wave_cases import THREE_SHOTS as SURVEY

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.levels.integers import to_integers
from fwi_refine.inversion.levels.levels import find_levels, level_labels, near_edges
from fwi_refine.inversion.levels.rounding import (
    DRAWS,
    EVALUATIONS,
    rounding_of,
    without_expected_rounding,
)
from fwi_refine.inversion.model import Model
from fwi_refine.wave import Simulator, released_record


@pytest.fixture(scope="module")
def truth():
    v = torch.full(SURVEY.shape, 1700.0, dtype=torch.float64)
    v[8:] = 2500.0
    return v


def test_it_is_the_released_record_less_the_exact_one(truth):
    simulator = Simulator(SURVEY)
    released = released_record(truth, survey=SURVEY).numpy()
    longer = np.concatenate([released, np.full((3, 2, 20), np.nan)], axis=1)
    data = Data.of_sample(longer, truth, simulator)
    found = rounding_of(Model.of(truth), data, Budget())
    shift = found.shift
    assert shift.shape == longer.shape
    assert not shift[:, SURVEY.n_steps :].any()
    exact = simulator.forward(truth[None])[0].numpy()
    np.testing.assert_allclose(shift[:, : SURVEY.n_steps], released - exact, rtol=0, atol=1e-13)
    assert found.misfit_with == pytest.approx(np.square(released - exact).mean())
    assert found.misfit < 1e-12 * found.misfit_with  # the shift is a difference, rounded in float64


def smooth_map():
    """A slope with last digits that no one knows."""
    rng = np.random.default_rng(5)
    v = np.linspace(1600.0, 2600.0, SURVEY.shape[0])[:, None] + rng.uniform(0, 30, SURVEY.shape)
    return torch.from_numpy(v).float().double()


def test_the_mean_rounding_of_a_map_nearby_is_most_of_that_of_a_map():
    truth, simulator, budget = smooth_map(), Simulator(SURVEY), Budget()
    released = released_record(truth, survey=SURVEY).double().numpy()
    longer = np.concatenate([released, np.full((3, 2, 20), np.nan)], axis=1)
    data = Data.of_sample(longer, truth, simulator)
    model = Model.of(torch.where(truth == truth.min(), truth, truth + 0.3))
    cleared = without_expected_rounding(model, data, budget)
    assert budget.evaluations == DRAWS * EVALUATIONS
    exact = simulator.forward(truth[None])[0].numpy()
    before, after = (
        np.sqrt(np.square(part[:, : SURVEY.n_steps] - exact).mean())
        for part in (longer, cleared.record)
    )
    assert after < 0.92 * before
    assert np.isnan(cleared.record[:, SURVEY.n_steps :]).all()
    again = without_expected_rounding(model, data, budget)
    assert np.array_equal(again.record, cleared.record, equal_nan=True)


def test_nothing_is_taken_out_where_the_least_velocity_lies_deep():
    truth, budget = smooth_map().flip(0), Budget()
    record = released_record(truth, survey=SURVEY).numpy()
    data = Data.of_sample(record, truth, Simulator(SURVEY))
    assert data.released
    assert without_expected_rounding(Model.of(truth), data, budget) is data


@pytest.mark.parametrize("budget", [Budget(), Budget(DRAWS * EVALUATIONS - 1)])
def test_nothing_is_taken_out_of_another_arithmetic_nor_beyond_the_budget(budget):
    truth, simulator = smooth_map(), Simulator(SURVEY)
    if budget.affords(DRAWS * EVALUATIONS):
        record = simulator.forward(truth[None])[0].numpy()
    else:
        record = released_record(truth, survey=SURVEY).numpy()
    data = Data.of_sample(record, truth, simulator)
    assert without_expected_rounding(Model.of(truth), data, budget) is data
    assert budget.evaluations == 0


def faulted():
    """Two layers on both sides of a fault, with cells between along it."""
    v = torch.full((24, 24), 2000.0, dtype=torch.float64)
    v[12:] = 3000.0
    v[6:, 12:] = 3000.0
    v[6:12, 11] = 2600.0
    return v


def test_cells_away_from_edges_share_the_label_of_their_level():
    v = faulted()
    labels = level_labels(v)
    own = near_edges(v, find_levels(v), 1.5)
    assert [bool(own[8, column]) for column in (8, 10, 11)] == [False, True, True]
    assert own[12, 3]
    assert labels[0, 0] == labels[3, 20] == 0
    assert labels[20, 2] == labels[20, 20] == 1
    assert len(torch.unique(labels[own])) == int(own.sum())
    assert int(labels[own].min()) == 2


def test_a_level_without_cells_away_from_edges_is_the_one_nearby():
    """Such an area is 25 m/s off only because its cells and those around make up for each other."""
    v = faulted()
    v[8:12, 14:20] = 3025.0
    assert find_levels(v).velocities.tolist() == [2000.0, 3000.0]
    v[8:12, 14:20] = 3400.0  # nothing is near that
    assert find_levels(v).velocities.tolist() == [2000.0, 3000.0, 3400.0]
    v[6:, 14:20] = 3025.0  # large enough to be known
    assert find_levels(v).velocities.tolist() == [2000.0, 3000.0, 3025.0]


def test_further_from_a_level_with_a_larger_snap():
    v = faulted()
    v[2, 2], v[20, 20] = 2004.0, 2997.2
    assert to_integers(v)[0][2, 2] == 2004.0
    assert to_integers(v, 5.0)[0][2, 2] == 2000.0
    assert to_integers(v, 5.0)[0][20, 20] == 3000.0
