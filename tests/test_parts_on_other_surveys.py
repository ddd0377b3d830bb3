"""What other surveys mean for single parts: routing, starts, priors, recipes, method, doctor."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
from other_survey_cases import SURVEY

from fwi_refine.analysis import diagnose
from fwi_refine.inversion import initial_model
from fwi_refine.inversion.families.layered import GAUSS_NEWTON
from fwi_refine.inversion.method import MAX_MEMORY, choose_method, gauss_newton_bytes
from fwi_refine.objective.source_cells import source_velocities
from fwi_refine.priors import load
from fwi_refine.routing import Family, can_classify
from fwi_refine.runs.settings import Settings, check_memory
from fwi_refine.survey import OPENFWI
from fwi_refine.survey.frequency import lower_frequency
from fwi_refine.wave import Simulator
from fwi_refine.wave.cpu_library import load as load_native


def test_which_surveys_can_be_classified():
    assert can_classify(OPENFWI)
    assert can_classify(
        dataclasses.replace(OPENFWI, n_steps=900, absorbing_cells=90, velocity_bounds=(1e3, 5.9e3))
    )
    assert not can_classify(dataclasses.replace(OPENFWI, sources=OPENFWI.sources[:4]))
    assert not can_classify(dataclasses.replace(OPENFWI, frequency=14.0))
    assert not can_classify(SURVEY)


@pytest.mark.parametrize(
    ("sources", "receivers"),
    [
        (SURVEY.sources, SURVEY.receivers),  # no velocity is told
        (((9, 16), (9, 2)), SURVEY.receivers),  # one is, in a well
    ],
)
def test_the_trend_that_a_start_begins_with(sources, receivers):
    """An increase with depth comes out almost as it is, however little the sources tell."""
    survey = dataclasses.replace(SURVEY, sources=sources, receivers=receivers, n_steps=300)
    truth = 1900.0 + 31.25 * np.arange(14)[:, None] + np.zeros(survey.shape)
    record = Simulator(survey).forward(torch.from_numpy(truth)[None])[0].numpy()
    velocities, depth = initial_model._velocity_at_depth(record, survey)
    if (9, 16) in sources:
        assert velocities == pytest.approx([truth[9, 16]], rel=1e-6)
        assert depth == 8.0
    lower, filtered = lower_frequency(record, 3.2, survey)
    found = initial_model._best_trend(velocities, depth, lower, filtered, {}).numpy()
    assert np.abs(found - truth).mean() < 150.0


@pytest.mark.parametrize(
    ("sources", "told"),
    [
        (((1, 16), (1, 4), (1, 10)), 6),  # not from left to right, all at receivers
        (((1, 16), (2, 5)), 3),  # one of them: its velocity, no pair, the sign
        (((9, 16), (9, 2)), 2),  # in a well, no receiver near in that row
    ],
)
def test_the_doctor_asks_what_the_geometry_can_tell(sources, told):
    survey = dataclasses.replace(SURVEY, sources=sources)
    v = torch.full((1, *survey.shape), 2000.0, dtype=torch.float64)
    v[:, 6:] = 2500.0
    record = Simulator(survey).forward(v)[0].numpy()
    checks = diagnose.check_physics(record, Simulator(survey))
    assert len(checks) == told
    assert all(check.passed is not False for check in checks)
    known = source_velocities(record, survey)
    np.testing.assert_allclose(known[np.isfinite(known)], v[0][tuple(np.array(
        [s for s in sources if s in survey.receivers]).T)], rtol=1e-6)  # fmt: skip


def test_priors_on_another_grid():
    """Cells of half the size: texture is twice as many cells long, slopes are half as steep."""
    priors = load()
    fine = priors.on_grid((30, 40), 5.0)
    assert fine.style_a.shape == fine.style_b.shape == (30, 40)
    assert fine.style_a.length == pytest.approx(2 * priors.style_a.length)
    assert fine.style_b.slope == priors.style_b.slope / 2
    coarse = fine.style_a.covariance().reshape(30, 40, 30, 40)[8, ::2, 8, ::2]
    whole = dataclasses.replace(priors.style_a, shape=(15, 20))
    same = whole.covariance().reshape(15, 20, 15, 20)[4, :, 4, :]
    # in the middle rows differ in depth by half a cell: texture alone is compared
    assert torch.allclose(coarse - coarse[0, -1], same - same[0, -1], rtol=1e-6)
    assert priors.on_grid((70, 70), 10.0) is priors
    assert priors.on_grid((30, 40), 5.0).style_b is fine.style_b


LARGE = dataclasses.replace(SURVEY, shape=(150, 200))


def test_total_variation_alone_takes_no_matrix_where_products_cost_less():
    wide = dataclasses.replace(SURVEY, shape=(70, 190))
    assert gauss_newton_bytes(wide, "general") < MAX_MEMORY
    assert choose_method("auto", "general", wide, "native") == (
        "matrix-free",
        "on 70 x 190 cells a matrix takes longer",
    )
    assert choose_method("auto", Family.LAYERED, wide, "native") == ("gauss-newton", "")
    assert choose_method("gauss-newton", "general", wide, "native") == ("gauss-newton", "")
    assert choose_method("auto", "general", OPENFWI, "native") == ("gauss-newton", "")


def test_large_maps_take_no_matrix(caplog):
    """The square matrices of 30000 cells alone would be 7 GB each."""
    assert gauss_newton_bytes(LARGE, Family.LAYERED) > 50e9
    method, why = choose_method("auto", Family.LAYERED, LARGE, "native")
    assert method == "matrix-free"
    assert "150 x 200 cells would take" in why
    assert choose_method("auto", Family.STYLE_B, LARGE, "native")[0] == "lbfgs"
    assert choose_method("gauss-newton", Family.LAYERED, LARGE, "native") == ("gauss-newton", "")
    assert choose_method("auto", Family.LAYERED, OPENFWI, "native") == ("gauss-newton", "")
    assert choose_method("auto", Family.LAYERED, OPENFWI, "reference")[0] == "lbfgs"
    flat = dataclasses.replace(LARGE, shape=(90, 500))
    assert choose_method("auto", Family.FLAT_VEL, flat, "native")[0] == "gauss-newton"
    words = {"auto": "method: matrix-free", "gauss-newton": "each job will take about"}
    for method, level in words.items():
        settings = Settings(load(), "layered", method, survey=LARGE)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            check_memory(settings)
        expected = level if load_native() is not None or method != "auto" else "method: lbfgs"
        assert expected in caplog.text


def test_recipes_in_another_unit():
    recipe = GAUSS_NEWTON
    assert recipe.in_unit(1.0) == recipe
    larger = recipe.in_unit(4.0)
    assert larger.assignment.noise == tuple(4 * noise for noise in recipe.assignment.noise)
    # of the noise a ratio is passed on, which has no unit
    between = larger.assignment.between(1.0, 2.0), recipe.assignment.between(1.0, 2.0)
    pairs = (*zip(larger.stages, recipe.stages, strict=True), between)
    for stage, before in pairs:
        assert stage.weight == 16 * before.weight
        target = before.optimiser.target
        assert stage.optimiser.target == (target and 16 * target)
        assert stage.skip_if == (before.skip_if and 16 * before.skip_if)
