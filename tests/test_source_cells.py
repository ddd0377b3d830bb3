"""Velocities at the sources: read from a record, left out where in doubt, kept as an objective."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import taylor_test
from wave_cases import SMALL, random_like, random_maps

from fwi_refine.objective.parameterisation import Full, Regions
from fwi_refine.objective.source_cells import (
    AGREEMENT,
    SourceCells,
    source_cells,
    source_velocities,
)
from fwi_refine.wave import Simulator

# All of its sources stand at a receiver, two of them in cells of the same region.
SURVEY = replace(
    SMALL,
    sources=((1, 0), (1, 6), (1, 9)),
    receivers=((1, 9), (1, 0), (5, 3), (1, 6)),
)
REGIONS = torch.arange(9)[:, None] // 3 * 4 + torch.arange(12)[None, :] // 5
KINDS = {"full": Full((9, 12)), "regions": Regions(REGIONS)}
kinds = pytest.mark.parametrize("parameters", KINDS.values(), ids=KINDS)
EMPTY = (torch.tensor([]).long(), torch.tensor([]).long(), torch.tensor([]).double())


@pytest.fixture(scope="module")
def v():
    return random_maps(SURVEY, samples=1)[0]


@pytest.fixture(scope="module")
def record(v):
    return Simulator(SURVEY).forward(v[None])[0].numpy()


def at_sources(v, survey=SURVEY):
    return [float(v[source]) for source in survey.sources]


def columns_of(cells):
    """The columns of known cells, after a check that the rest belongs to them."""
    rows, columns, velocities = cells
    assert rows.dtype == columns.dtype == torch.int64
    assert velocities.dtype == torch.float64
    assert rows.tolist() == [1] * len(columns)
    assert len(velocities) == len(columns)
    return columns.tolist()


def test_velocities_are_read_from_the_first_row(v, record):
    np.testing.assert_allclose(source_velocities(record, SURVEY), at_sources(v), rtol=1e-12)
    rounded = record.astype(np.float32)
    np.testing.assert_allclose(source_velocities(rounded, SURVEY), at_sources(v), rtol=1e-7)


def test_a_source_without_a_receiver_or_of_the_wrong_sign_is_not_a_number(v, record):
    wrong = record.copy()
    wrong[2, 0] *= -1
    survey = replace(SURVEY, receivers=((1, 9), (0, 0), (5, 3), (1, 6)))
    velocities = source_velocities(wrong, survey)
    assert np.isnan(velocities).tolist() == [True, False, True]
    assert velocities[1] == pytest.approx(float(v[1, 6]))
    assert columns_of(source_cells(wrong, v, survey)) == [6]


def test_source_cells_are_those_of_the_record_not_of_the_map(v, record):
    cells = source_cells(record, 1.05 * v, SURVEY)
    assert columns_of(cells) == [0, 6, 9]
    np.testing.assert_allclose(cells[2], at_sources(v), rtol=1e-12)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("fraction", "wanted"), [(0.999, [0, 6, 9]), (1.001, [0, 9])])
def test_a_cell_that_disagrees_with_the_map_is_left_out(v, record, sign, fraction, wanted):
    prediction = v.clone()
    prediction[1, 6] /= 1 + sign * fraction * AGREEMENT
    assert columns_of(source_cells(record, prediction, SURVEY)) == wanted


def test_a_velocity_beyond_the_bounds_is_left_out(v, record):
    slowest, middle, fastest = sorted(at_sources(v))
    for bounds in ((slowest + 1, fastest + 1), (slowest - 1, fastest - 1)):
        survey = replace(SURVEY, velocity_bounds=bounds)
        velocities = source_cells(record, v, survey)[2].tolist()
        assert len(velocities) == 2
        assert min(velocities, key=lambda x: abs(x - middle)) == pytest.approx(middle)
        assert bounds[0] <= min(velocities) <= max(velocities) <= bounds[1]


def test_a_record_of_nothing_or_of_nan_tells_nothing(v, record):
    for useless in (0 * record, np.full_like(record, np.nan)):
        assert columns_of(source_cells(useless, v, SURVEY)) == []


@pytest.mark.parametrize("outside", [(-1, 6), (1, -1), (9, 6), (1, 12)])
def test_a_source_outside_the_map_has_no_cell(outside):
    """Not even where a negative index would find one of the same velocity."""
    survey = replace(SMALL, sources=((1, 0), outside), receivers=((1, 0), outside))
    v = torch.full(survey.shape, 2000.0, dtype=torch.float64)
    record = Simulator(survey).forward(v[None])[0].numpy()
    np.testing.assert_allclose(source_velocities(record, survey), 2000, rtol=1e-12)
    assert columns_of(source_cells(record, v, survey)) == [0]


@kinds
def test_value_and_gradient(parameters, v, record):
    cells = source_cells(record, v, SURVEY)
    objective = SourceCells(cells, parameters, width=0.5)
    x = parameters.from_velocity(v + 20 * random_like(v.shape, seed=1))
    off = parameters.velocity(x)[1, [0, 6, 9]] - v[1, [0, 6, 9]]
    assert objective(x) == pytest.approx(float((off / 0.5).square().sum()), rel=1e-9)
    dx = random_like(x.shape, seed=2)
    assert taylor_test(objective.value_and_gradient, x, dx, [8.0, 4.0, 2.0]) == pytest.approx(2)
    assert objective.gradient(x)[-1] == 0  # vmin has no part in it
    h = 3.0  # the central difference of a parabola is its slope
    for i in range(x.numel()):
        unit = torch.eye(x.numel(), dtype=torch.float64)[i]
        slope = (objective(x + h * unit) - objective(x - h * unit)) / (2 * h)
        assert float(objective.gradient(x)[i]) == pytest.approx(slope, rel=1e-8, abs=1e-6)


@kinds
def test_the_hessian_is_the_second_derivative(parameters, v, record):
    objective = SourceCells(source_cells(record, v, SURVEY), parameters)
    x = parameters.from_velocity(v)
    units = torch.eye(x.numel(), dtype=torch.float64)
    second = torch.stack([objective.gradient(x + e) - objective.gradient(x - e) for e in units]) / 2
    hessian = objective.hessian(x)
    torch.testing.assert_close(hessian, second, rtol=1e-9, atol=1e-9)
    assert hessian.count_nonzero() == (3 if isinstance(parameters, Full) else 2)


@kinds
def test_no_cells_cost_nothing(parameters, v, record):
    for cells in (EMPTY, source_cells(0 * record, v, SURVEY)):
        objective = SourceCells(cells, parameters)
        x = parameters.from_velocity(v)
        value, gradient = objective.value_and_gradient(x)
        assert value == 0
        assert torch.equal(gradient, torch.zeros_like(x))
        assert torch.equal(objective.hessian(x), torch.zeros(x.numel(), x.numel()).double())
