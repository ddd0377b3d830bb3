"""Levels read off a map, its integers, and the prior that draws cells to them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fwi_refine.inversion.levels.integers import merge_scattered, to_integers, without_rare
from fwi_refine.inversion.levels.levels import find_levels
from fwi_refine.priors import SharedLevels


def layers():
    """Two layers, the upper one on both sides of a block of the lower one, and cells between."""
    v = torch.full((20, 20), 2000.0, dtype=torch.float64)
    v[10:] = 3000.0
    v[4:, 8:12] = 3000.4
    v[4:10, 7] = 2440.0
    return v


def test_areas_far_apart_share_their_level():
    levels = find_levels(layers())
    assert levels.velocities.tolist() == [2000.0, 3000.0]
    off, which = levels.distance(layers())
    assert float(off[5, 7]) == 440.0
    assert int(which[5, 7]) == 0
    assert float(off[5, 9]) == pytest.approx(0.4)


def test_a_few_cells_at_the_surface_are_a_layer_that_it_cuts():
    v = layers()
    v[0, :3] = 1700.0
    v[1, 0] = 1700.0
    assert find_levels(v).velocities.tolist() == [1700.0, 2000.0, 3000.0]
    v = layers()
    v[5, :3] = 1700.0  # deeper down they are not
    assert find_levels(v).velocities.tolist() == [2000.0, 3000.0]


def test_a_wedge_at_the_surface_is_not_taken_for_the_level_nearby():
    v = layers()
    v[0, :4], v[1:4, 0] = 1960.0, 1960.0
    assert find_levels(v).velocities.tolist() == [1960.0, 2000.0, 3000.0]
    v = layers()
    v[14, :15] = 3040.0  # deeper down its cells and those around make up for each other
    assert find_levels(v).velocities.tolist() == [2000.0, 3000.0]


def test_layers_that_differ_by_little_keep_their_levels():
    v = torch.full((30, 20), 2000.0, dtype=torch.float64)
    v[:10], v[20:] = 3000.0, 3001.0
    assert find_levels(v).velocities.tolist() == [2000.0, 3000.0, 3001.0]


def test_small_areas_in_between_do_not_make_one_level_of_two():
    v = torch.full((40, 20), 3000.0, dtype=torch.float64)
    v[:10], v[35:] = 1524.0, 1526.0
    for number, row in enumerate((12, 17, 22, 27)):
        v[row : row + 2, 2:10] = 1524.4 + 0.4 * number
    assert find_levels(v).velocities.tolist() == [1524.0, 1526.0, 3000.0]


def test_of_two_levels_that_are_close_a_cell_may_have_that_of_its_surroundings():
    """Layers far apart, 8 m/s from each other: the lower one has cells at the upper one's level."""
    v = torch.full((40, 20), 3000.0, dtype=torch.float64)
    v[:10], v[30:] = 1528.0, 1520.0
    v[35, 3:9] = 1528.0
    levels = find_levels(v)
    assert levels.velocities.tolist() == [1520.0, 1528.0, 3000.0]
    assert levels.allowed[1, :10].all()
    assert not levels.allowed[1, 20:].any()
    assert levels.allowed[0, 30:].all()
    assert not levels.allowed[0, :20].any()


def test_a_cell_may_have_the_levels_within_reach_only():
    allowed = find_levels(layers()).allowed
    assert not allowed[1, 0, 0]
    assert allowed[0, 12, 0]
    assert not allowed[0, 19, 0]


def thin_layer(spread):
    """A layer three cells thick, 10 m/s from the one below, whose cells scatter."""
    v = torch.full((40, 60), 2000.0, dtype=torch.float64)
    v[20:] = 4286.0
    rng = np.random.default_rng(3)
    v[20:23, 15:45] = 4276.0 + torch.from_numpy(rng.uniform(-spread, spread, (3, 30)))
    return v


@pytest.mark.parametrize("spread", [0.0, 7.0])
def test_a_thin_layer_close_to_the_next_is_a_level(spread):
    v = thin_layer(spread)
    levels = find_levels(v)
    assert levels.velocities.numpy() == pytest.approx([2000.0, 4276.0, 4286.0], abs=1.5)
    # any cell around may have it
    assert bool(levels.allowed[1, 20:23, 15:45].all())
    assert not bool(levels.allowed[1, 35:].any())


def test_cells_at_many_velocities_make_no_level():
    v = thin_layer(0.0)
    rng = np.random.default_rng(4)
    v[20:23, 15:45] = torch.from_numpy(rng.uniform(2100.0, 4200.0, (3, 30)))
    assert find_levels(v).velocities.tolist() == [2000.0, 4286.0]
    # where much of the map is off its levels, what is close to one velocity may be an edge
    v = thin_layer(7.0)
    v[:8] = torch.from_numpy(rng.uniform(1600.0, 4200.0, (8, 60)))
    assert find_levels(v).velocities.tolist() == [2000.0, 4286.0]


def test_an_uneven_area_far_from_all_levels_is_one():
    v = layers()
    v[16:, :5] = 4440.0 + 6.0 * (torch.arange(20).reshape(4, 5) % 2)
    assert find_levels(v).velocities.tolist() == [2000.0, 3000.0, 4443.0]
    v[16:, :5] = (
        3000.0 + 20.0 + 6.0 * (torch.arange(20).reshape(4, 5) % 2)
    )  # near one it is its edge
    assert len(find_levels(v).velocities) == 2


def test_integers_are_those_of_the_levels_and_lie_between_them():
    v = layers()
    v[2, 2], v[15, 15], v[5, 7] = 1900.0, 3100.0, 2440.4
    integers, vmin = to_integers(v)
    assert vmin == 2000.0
    assert integers[5, 9] == 3000.0  # 3000.4 by itself
    assert (integers[2, 2], integers[15, 15], integers[5, 7]) == (2000.0, 3000.0, 2440.0)


def test_cells_above_the_highest_level_may_stay():
    v = layers()
    v[2, 2], v[15, 15], v[5, 7] = 1900.0, 3100.4, 2440.4
    integers, vmin = to_integers(v, above=True)
    assert vmin == 2000.0
    assert (integers[2, 2], integers[15, 15], integers[5, 7]) == (2000.0, 3100.0, 2440.0)


def test_cells_that_scatter_about_a_velocity_get_it():
    """A deep area of a few dozen cells, one whose velocity a dozen of its cells have, and one of
    which no cell is right."""
    draws = torch.Generator().manual_seed(3)
    truth = torch.full((30, 30), 2000.0, dtype=torch.float64)
    truth[20:] = 3000.0
    truth[25:, 4:12] = 3692.0
    truth[25:, 20:26] = 3400.0
    noise = 14 * torch.randn(truth.shape, generator=draws, dtype=torch.float64).clamp(-2, 2)
    scattered = truth.clone()
    scattered[26:, 4:12] += noise[26:, 4:12].round()
    scattered[25:28, 4:9] = 3692.0  # known in part
    scattered[25:, 20:26] += noise[25:, 20:26].round()
    merged = merge_scattered(scattered)
    assert torch.equal(merged[:25], truth[:25])
    assert torch.equal(merged[25:, :20], truth[25:, :20])
    assert len(merged[25:, 20:26].unique()) == 1
    assert (merged - truth)[25:, 20:26].abs().max() < 10
    assert torch.equal(merge_scattered(truth), truth)


def test_cells_far_from_every_level_stay():
    v = torch.full((20, 20), 2000.0, dtype=torch.float64)
    v[10:] = 3000.0
    v[10, 3:8] = 2500.0  # along an edge
    assert torch.equal(merge_scattered(v), v)


def test_a_map_without_levels_is_rounded():
    v = torch.linspace(1500, 4500, 400, dtype=torch.float64).reshape(20, 20)
    integers, vmin = to_integers(v)
    assert torch.equal(integers, v.round())
    assert vmin == 1500.0
    assert len(find_levels(v).velocities) == 0


def prior(width=20.0, variation=None):
    levels = find_levels(layers())
    return SharedLevels(levels.velocities, levels.allowed, width, variation)


@pytest.mark.parametrize("variation", [None, 5.0])
@pytest.mark.parametrize("width", [20.0, torch.linspace(1, 100, 400).double().reshape(20, 20)])
def test_the_gradient_is_that_of_the_value(width, variation):
    p = prior(width, variation)
    v = layers() + 30 * torch.randn(20, 20, generator=torch.Generator().manual_seed(0)).double()
    dv = torch.randn(20, 20, generator=torch.Generator().manual_seed(1)).double()
    value, gradient = p.value_and_gradient(v)
    assert value == p.value(v)
    assert torch.equal(gradient, p.gradient(v))
    difference = (p.value(v + 1e-4 * dv) - p.value(v - 1e-4 * dv)) / 2e-4
    assert float(difference) == pytest.approx(float((gradient * dv).sum()), rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1000),
    size=st.floats(0.1, 800),
    width=st.floats(0.5, 100),
    variation=st.none() | st.floats(1, 1000),
)
def test_the_quadratic_of_its_hessian_lies_above_it(seed, size, width, variation):
    rng = np.random.default_rng(seed)
    p = prior(width, variation)
    v = layers() + torch.from_numpy(rng.normal(0, 300, (20, 20)))
    dv = torch.from_numpy(rng.normal(0, size, (20, 20)))
    value, gradient = p.value_and_gradient(v)
    hessian, step = p.hessian(v), dv.flatten()
    assert variation or torch.equal(hessian, torch.diag(hessian.diagonal()))
    above = value + (gradient * dv).sum() + 0.5 * step @ hessian @ step
    assert float(p.value(v + dv)) <= float(above) + 1e-6 * abs(float(above))


def test_cells_at_a_level_cost_less_and_cells_without_one_nothing():
    v = layers()
    off = v.clone()
    off[2, 2] += 5.0
    assert prior().value(v) < prior().value(off)
    lonely = SharedLevels(torch.tensor([2000.0]), torch.zeros(1, 20, 20, dtype=torch.bool), 20.0)
    assert float(lonely.value(v)) == 0.0
    assert not lonely.gradient(v).any()


def test_an_edge_costs_its_height_over_the_variation():
    v = layers()
    off = v.clone()
    off[2, 2] += 500.0  # from each of its four neighbours
    more = prior(variation=50.0).value(off) - prior(variation=50.0).value(v)
    levels_alone = prior().value(off) - prior().value(v)
    assert float(more - levels_alone) == pytest.approx(2 * 4 * 500 / 50, rel=0.01)


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="do not fit"):
        SharedLevels(torch.tensor([1.0, 2.0]), torch.zeros(1, 3, 3, dtype=torch.bool), 1.0)
    with pytest.raises(ValueError, match="width is 0"):
        SharedLevels(torch.tensor([1.0]), torch.zeros(1, 3, 3, dtype=torch.bool), 0.0)
    with pytest.raises(ValueError, match="variation is -1"):
        SharedLevels(torch.tensor([1.0]), torch.zeros(1, 3, 3, dtype=torch.bool), 1.0, -1.0)


def test_rare_velocities_take_the_most_frequent_similar_one_around_them():
    v = torch.full((20, 20), 2000.0, dtype=torch.float64)
    v[10:] = 2600.0
    right = v.clone()
    right[8:12, 6] = 2150.0  # few, but no other velocity is like theirs
    v[8:12, 6] = torch.tensor([2150.0, 2151.0, 2150.0, 2149.0])
    v[3, 3], v[15, 15] = 1998.0, 2604.0
    right[3, 3] = 2000.0
    right[15, 15] = 2604.0
    assert torch.equal(without_rare(v, 2.0), right)
    right[15, 15] = 2600.0
    assert torch.equal(without_rare(v, 5.0), right)
    assert torch.equal(without_rare(right, 5.0), right)
