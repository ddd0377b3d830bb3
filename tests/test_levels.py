"""Levels read off a map, its integers, and the prior that draws cells to them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fwi_refine.levels import find_levels, to_integers
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


def test_a_cell_may_have_the_levels_within_reach_only():
    near = find_levels(layers()).near
    assert not near[1, 0, 0]
    assert near[0, 12, 0]
    assert not near[0, 19, 0]


def test_integers_are_those_of_the_levels_and_lie_between_them():
    v = layers()
    v[2, 2], v[15, 15], v[5, 7] = 1900.0, 3100.0, 2440.4
    integers, vmin = to_integers(v)
    assert vmin == 2000.0
    assert integers[5, 9] == 3000.0  # 3000.4 by itself
    assert (integers[2, 2], integers[15, 15], integers[5, 7]) == (2000.0, 3000.0, 2440.0)


def test_a_map_without_levels_is_rounded():
    v = torch.linspace(1500, 4500, 400, dtype=torch.float64).reshape(20, 20)
    integers, vmin = to_integers(v)
    assert torch.equal(integers, v.round())
    assert vmin == 1500.0
    assert len(find_levels(v).velocities) == 0


def prior(width=20.0):
    levels = find_levels(layers())
    return SharedLevels(levels.velocities, levels.near, width)


def test_the_gradient_is_that_of_the_value():
    v = layers() + 30 * torch.randn(20, 20, generator=torch.Generator().manual_seed(0)).double()
    dv = torch.randn(20, 20, generator=torch.Generator().manual_seed(1)).double()
    value, gradient = prior().value_and_gradient(v)
    assert value == prior().value(v)
    assert torch.equal(gradient, prior().gradient(v))
    difference = (prior().value(v + 1e-4 * dv) - prior().value(v - 1e-4 * dv)) / 2e-4
    assert float(difference) == pytest.approx(float((gradient * dv).sum()), rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), size=st.floats(0.1, 800), width=st.floats(0.5, 100))
def test_the_quadratic_of_its_hessian_lies_above_it(seed, size, width):
    rng = np.random.default_rng(seed)
    p = prior(width)
    v = layers() + torch.from_numpy(rng.normal(0, 300, (20, 20)))
    dv = torch.from_numpy(rng.normal(0, size, (20, 20)))
    value, gradient = p.value_and_gradient(v)
    hessian = p.hessian(v)
    assert torch.equal(hessian, torch.diag(hessian.diagonal()))
    above = value + (gradient * dv).sum() + 0.5 * (hessian.diagonal() * dv.flatten() ** 2).sum()
    assert float(p.value(v + dv)) <= float(above) + 1e-6 * abs(float(above))


def test_cells_at_a_level_cost_less_and_cells_without_one_nothing():
    v = layers()
    off = v.clone()
    off[2, 2] += 5.0
    assert prior().value(v) < prior().value(off)
    lonely = SharedLevels(torch.tensor([2000.0]), torch.zeros(1, 20, 20, dtype=torch.bool), 20.0)
    assert float(lonely.value(v)) == 0.0
    assert not lonely.gradient(v).any()


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="do not fit"):
        SharedLevels(torch.tensor([1.0, 2.0]), torch.zeros(1, 3, 3, dtype=torch.bool), 1.0)
    with pytest.raises(ValueError, match="width is 0"):
        SharedLevels(torch.tensor([1.0]), torch.zeros(1, 3, 3, dtype=torch.bool), 0.0)
