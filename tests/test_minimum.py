"""The map that is written is the one that was judged: float32, with its own minimum as vmin."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from fwi_refine.inversion.accept import written
from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.families import find_family
from fwi_refine.inversion.minimum import TOLERANCE, with_minimum
from fwi_refine.inversion.model import Model
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.inversion.stages import run_stage
from fwi_refine.priors import load
from fwi_refine.survey import OPENFWI
from fwi_refine.wave import Simulator, released_record
from fwi_refine.wave.cpu_library import load as load_native

pytestmark = pytest.mark.skipif(load_native() is None, reason="the compiled kernel was not built")

SURVEY = replace(
    OPENFWI,
    shape=(16, 20),
    n_steps=260,
    absorbing_cells=20,
    velocity_bounds=(1000.0, 5000.0),
    sources=((1, 0), (1, 10), (1, 19)),
    receivers=tuple((1, column) for column in range(20)),
)
PRIORS = load().on_grid(SURVEY.shape, SURVEY.spacing)


@pytest.fixture(scope="module")
def truth():
    """A map whose minimum the data tell better than most of its cells."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=SURVEY.shape), 3)
    return np.float32(2400 + 200 * noise / noise.std())


@pytest.fixture(scope="module")
def record(truth):
    return released_record(torch.from_numpy(truth), survey=SURVEY).numpy()


ONE_SHOT = replace(SURVEY, sources=((1, 10),))


@pytest.fixture(scope="module")
def one_shot(truth):
    return released_record(torch.from_numpy(truth), survey=ONE_SHOT).numpy()


def rms_of(v, record):
    """What someone finds who reads the map from a file."""
    v = torch.from_numpy(v.astype(np.float32)).double()[None]
    return float(Simulator(ONE_SHOT).misfit(v, torch.from_numpy(record)[None])) ** 0.5


@pytest.mark.parametrize("family", ["style-a", "style-b", "layered", "flat-vel"])
@pytest.mark.parametrize("limit", [2, 4, 30, None])
def test_the_report_is_of_the_map_that_is_written(family, limit, truth, one_shot):
    start, how = gaussian_filter(truth.astype(np.float64), 1.0), {"survey": ONE_SHOT}
    refined = refine_sample(start, one_shot, family=family, max_evaluations=limit, **how)
    assert refined.misfit_after == pytest.approx(rms_of(refined.velocity, one_shot), rel=1e-9)
    if limit is None and family != "flat-vel":  # flat rows explain a rough map no better
        assert refined.status == "refined"
    if refined.status == "refined":
        assert refined.vmin == refined.velocity.min()
        assert np.array_equal(refined.velocity, refined.velocity.astype(np.float32))


@pytest.fixture(scope="module")
def ended(truth, record):
    """(data, model, solution) after a rough map's stage, whose vmin was free."""
    start = torch.from_numpy(gaussian_filter(truth.astype(np.float64), 1.0))
    data = Data.of_sample(record, start, Simulator(SURVEY))
    stage = find_family("style-b").gauss_newton.stages[-1]  # the others are of far starts
    found = run_stage(stage, data, Model.of(start), PRIORS, Budget())
    return data, found.model, found.curvature.uncertainty


def test_cells_below_vmin_are_lifted_at_next_to_no_cost(ended, truth):
    data, model, solution = ended
    below = model.v < model.vmin - 1.0
    assert bool(below.any())
    hessian = solution.hessian.clone()
    lifted = with_minimum(model, solution)
    assert torch.equal(hessian, solution.hessian)
    assert float((lifted.v.min() - lifted.vmin).abs()) <= TOLERANCE
    misfits = [
        data.misfit(m, Budget())
        for m in (model, lifted, Model.of(model.v.clamp_min(model.vmin)), Model.of(model.v))
    ]
    assert misfits[1] < 1.5 * misfits[0]
    assert misfits[1] < 0.01 * min(misfits[2:])  # lifted one by one, or with a lower vmin


def test_a_minimum_above_vmin_is_lowered(ended):
    _, model, solution = ended
    lifted = with_minimum(Model(model.v.clamp_min(model.vmin + 5.0), model.vmin), solution)
    assert float((lifted.v.min() - lifted.vmin).abs()) <= TOLERANCE


def test_a_map_that_is_far_from_its_end_is_not_lifted(ended, monkeypatch):
    _, model, solution = ended
    monkeypatch.setattr("fwi_refine.inversion.minimum.MAX_CELLS", 0)
    assert with_minimum(model, solution) is None


def test_what_may_stand_in_a_file():
    v = torch.tensor([[1500.123456789, 1600.0], [1700.0, 1800.0]], dtype=torch.float64)
    (only,) = written(Model.of(v.float().double()), None)
    assert torch.equal(only.v, v.float().double())
    as_it_is, lifted, lowered = written(Model(v, torch.tensor(1650.0).double()), None)
    assert as_it_is.vmin == v.float().min()
    assert lifted.v.tolist() == [[1650.0, 1650.0], [1700.0, 1800.0]]
    assert lowered.v.tolist() == [[1650.0, 1600.0], [1700.0, 1800.0]]
    assert [m.vmin for m in (lifted, lowered)] == [1650.0, 1600.0]
