"""Sharpening: the record's own rounding taken out, only where it explains what is left."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fwi_refine.inversion import _Run
from fwi_refine.priors import load
from fwi_refine.recipes import GAUSS_NEWTON
from fwi_refine.routing import Family
from fwi_refine.survey import OPENFWI
from fwi_refine.wave import Simulator, released_record
from fwi_refine.wave.native import load as load_native

pytestmark = pytest.mark.skipif(load_native() is None, reason="the compiled kernel was not built")

SURVEY = replace(
    OPENFWI,
    shape=(16, 20),
    n_steps=300,
    absorbing_cells=20,
    sources=((1, 0), (1, 10), (1, 19)),
    receivers=tuple((1, column) for column in range(20)),
)
RECIPE = GAUSS_NEWTON[Family.LAYERED]
ONE_LOOK = 4  # evaluations


@pytest.fixture(scope="module")
def truth():
    """Three tilted layers of integer velocity."""
    row, column = np.mgrid[:16, :20]
    v = np.select([row + column // 5 < 6, row + column // 7 < 11], [1700, 2301], 2903)
    return torch.from_numpy(v).double()


@pytest.fixture(scope="module")
def simulator():
    return Simulator(SURVEY)


@pytest.fixture(scope="module")
def exact(truth, simulator):
    return simulator.forward(truth[None])[0].numpy()


@pytest.fixture(scope="module")
def released(truth):
    return released_record(truth, survey=SURVEY).numpy()


def sharpen(simulator, record, v, max_evaluations=None, should_stop=None):
    """The map, vmin and the run, for a start v of which nothing may be changed in place."""
    run = _Run(simulator, load(), record, v, RECIPE, max_evaluations, should_stop)
    v_before, record_before = v.clone(), record.copy()
    found, vmin = run.sharpen(v, v.min() + 0.25)
    assert run.record is record
    assert np.array_equal(record, record_before, equal_nan=True)
    assert torch.equal(v, v_before)
    return found, vmin, run


def slightly_off(truth):
    """A map that rounds to the truth."""
    generator = torch.Generator().manual_seed(0)
    return truth + 0.6 * torch.rand(truth.shape, generator=generator, dtype=torch.float64) - 0.3


def noisy(record, rms):
    return record + rms * np.random.default_rng(0).standard_normal(record.shape)


@pytest.mark.parametrize("what", ["exact", "single", "noisy", "released and noisy"])
def test_a_record_that_rounding_does_not_explain_leaves_the_map(
    what, truth, exact, released, simulator
):
    record = {
        "exact": exact,
        "single": exact.astype(np.float32),
        "noisy": noisy(exact, 1e-4),
        "released and noisy": noisy(released, 1e-4),
    }[what]
    v = slightly_off(truth)
    found, vmin, run = sharpen(simulator, record, v)
    assert torch.equal(found, v)
    assert vmin == v.min() + 0.25
    assert run.evaluations == ONE_LOOK
    assert run.iterations == 0


@pytest.mark.parametrize(("off", "noise"), [(False, 0.0), (True, 0.0), (True, 2e-5)])
def test_integers_that_explain_the_record_stay(off, noise, truth, released, simulator):
    v = slightly_off(truth) if off else truth
    found, vmin, run = sharpen(simulator, noisy(released, noise), v)
    assert torch.equal(found, truth)
    assert vmin == 1700
    # one round: as many iterations at most as its stages have, and no second look
    assert run.iterations <= len(run.recipe.sharpen)
    assert run.flags == []


def test_a_record_in_float32_arithmetic_is_explained_too(truth, simulator):
    record = released_record(truth, survey=SURVEY, arithmetic=torch.float32).numpy()
    found, _, _ = sharpen(simulator, record, slightly_off(truth))
    assert torch.equal(found, truth)


@pytest.mark.parametrize("row", [9, 12])
def test_a_cell_that_rounds_wrongly_is_put_right(row, truth, released, simulator):
    """Deep enough for the rounding still to explain most of what is left."""
    v = truth.clone()
    v[row, 7] += 1
    found, _, run = sharpen(simulator, released, v)
    assert torch.equal(found, truth)
    assert run.iterations > 0


def test_a_map_too_far_off_is_left(truth, released, simulator):
    v = truth.clone()
    v[0, 7] += 1
    found, _, run = sharpen(simulator, released, v)
    assert torch.equal(found, v)
    assert run.evaluations == ONE_LOOK


def test_rows_beyond_the_steps_are_not_used(truth, released, simulator):
    longer = np.concatenate([released, np.full((3, 2, 20), np.nan)], axis=1)
    found, _, run = sharpen(simulator, longer, slightly_off(truth))
    assert torch.equal(found, truth)
    assert run.iterations > 0


@pytest.mark.parametrize("budget", [ONE_LOOK, 20])
def test_a_spent_budget_keeps_the_integers_that_explain_the_record(
    budget, truth, released, simulator
):
    found, _, run = sharpen(simulator, released, slightly_off(truth), max_evaluations=budget)
    assert torch.equal(found, truth)
    assert run.flags == ["stopped early"]
    assert run.evaluations <= budget + ONE_LOOK


def test_no_stage_follows_when_it_is_asked_to_stop(truth, released, simulator):
    v = truth.clone()
    v[12, 7] += 1  # takes two rounds where it is not stopped
    found, _, run = sharpen(simulator, released, v, should_stop=lambda: True)
    assert run.iterations == 1
    assert run.flags == ["stopped early"]
    assert torch.equal(found, found.round())


def test_what_rounding_adds(truth, exact, released, simulator):
    run = _Run(simulator, load(), released, truth, RECIPE, None, None)
    shift, plain, fits = run.rounding_of_coefficients(truth, truth.min(), released)
    np.testing.assert_allclose(shift, released - exact, rtol=0, atol=1e-13)
    assert plain == pytest.approx(np.square(released - exact).mean())
    assert fits < 1e-12 * plain
