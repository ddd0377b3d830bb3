"""Which stages of a recipe are carried out."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from wave_cases import TWO_SHOTS as SURVEY

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.families.choices import (
    every_cell,
    every_row,
    flat_layers_smoothed,
    layers_smoothed,
    newton,
)
from fwi_refine.inversion.families.flat_vel import tied_rows
from fwi_refine.inversion.model import Model
from fwi_refine.inversion.recipe import GOOD_FIT, Subset
from fwi_refine.inversion.stages import run_stage, run_stages
from fwi_refine.priors import load
from fwi_refine.survey import OPENFWI
from fwi_refine.survey.frequency import lower_frequency
from fwi_refine.wave import Simulator
from fwi_refine.wave.cpu_library import load as load_native

pytestmark = pytest.mark.skipif(load_native() is None, reason="the compiled kernel was not built")

FIRST = newton(every_cell, layers_smoothed(10.0), weight=1e-10, prior_fraction=0.3)
AGAIN = replace(FIRST, prior_fraction=0.2)


def started(error):
    """(data, model): two layers, the start off by error (m/s) everywhere."""
    truth = torch.full(SURVEY.shape, 2000.0, dtype=torch.float64)
    truth[6:] = 2600.0
    simulator = Simulator(SURVEY)
    record = simulator.forward(truth[None])[0].numpy()
    start = truth + error
    return Data.of_sample(record, start, simulator), Model.of(start)


def run(stages, data, model, budget=None):
    budget = budget or Budget()
    return run_stages(stages, data, model, load(), budget, data.misfit(model, Budget()))


@pytest.mark.parametrize(("limit", "stages"), [(1e-2, 1), (1e-30, 3)])
def test_stages_are_left_out_where_the_record_fits(limit, stages):
    found = run(
        (FIRST, replace(FIRST, skip_if=limit), replace(AGAIN, skip_if=limit)), *started(1.0)
    )
    assert len(found.traces) == stages


def test_stages_with_another_limit_are_asked_for_themselves():
    stages = FIRST, replace(FIRST, skip_if=1e-2), replace(FIRST, skip_if=1e-30)
    assert len(run(stages, *started(1.0)).traces) == 2


def test_a_map_that_has_just_moved_is_not_done():
    """And it is asked once for all of the stages: the first of them does end near the map."""
    stages = FIRST, replace(FIRST, skip_if=1e-2), replace(AGAIN, skip_if=1e-2)
    assert len(run(stages, *started(40.0)).traces) == 3


def test_a_stage_at_a_lower_frequency_leaves_all_else_as_it_was():
    data, model = started(20.0)
    before = data.record.copy()
    found = run((replace(FIRST, data=Subset(frequency=0.6)),), data, model)
    assert (data.record == before).all()
    assert found.curvature.uncertainty is None
    assert data.misfit(found.model, Budget()) < 0.5 * data.misfit(model, Budget())
    lower, filtered = lower_frequency(data.record, 9.0, SURVEY)
    misfits = [
        float(Simulator(lower).misfit(v[None], torch.from_numpy(filtered)[None], v.min()[None]))
        for v in (found.model.v, model.v)
    ]
    assert misfits[0] < 0.5 * misfits[1]


def two_flat_layers():
    """(survey, map): on the route of flat layers, whose stages take the first shot."""
    survey = replace(OPENFWI, n_steps=150, absorbing_cells=20, velocity_bounds=(1000.0, 5000.0))
    truth = torch.where(torch.arange(70) < 8, 2000.0, 2600.0).double()[:, None].expand(70, 70)
    return survey, truth


def faster(truth):
    """A start whose lower layer is 1 % too fast."""
    return truth * torch.where(truth > 2500, 1.01, 1.0)


@pytest.mark.parametrize(("shots", "fraction"), [(1, Fraction(1, 5)), (None, 1)])
def test_a_stage_on_the_first_shot_looks_at_no_other_and_counts_as_a_fifth(shots, fraction):
    survey, truth = two_flat_layers()
    record = Simulator(survey).forward(truth[None])[0].numpy()
    start = Model.of(faster(truth))
    data, budget = Data.of_sample(record, start.v, Simulator(survey)), Budget(60)
    looked_at = data
    if shots == 1:
        nothing = np.full_like(record[1:], np.nan)
        looked_at = replace(data, record=np.concatenate([record[:1], nothing]))
    stage = newton(every_row, flat_layers_smoothed(10.0), weight=1e-8, data=Subset(shots=shots))
    found = run_stage(stage, looked_at, start, load(), budget)
    assert found.model.mean_change(truth) < 0.5 * start.mean_change(truth)
    spent = budget.evaluations / fraction  # a Jacobian, residuals, products, and one of the end
    assert spent == int(spent)
    assert 5 <= spent < 24  # by a tangent run for each row the Jacobian alone would be 24
    assert budget.left == 60 - budget.evaluations
    noted = [evaluations for evaluations, _ in found.traces[0]]
    assert noted == sorted(noted)
    assert noted[-1] <= math.ceil(budget.evaluations)
    data.misfit(found.model, budget)
    assert budget.evaluations == spent * fraction + 1


@pytest.mark.slow
def test_a_stage_on_every_second_receiver_looks_at_no_other():
    survey, truth = two_flat_layers()
    record = Simulator(survey).forward(truth[None])[0].numpy()
    start = Model.of(faster(truth))
    data, budget = Data.of_sample(record, start.v, Simulator(survey)), Budget(60)
    half = record.copy()
    half[..., 1::2] = np.nan
    stage = replace(
        newton(every_cell, layers_smoothed(10.0), weight=1e-10, prior_fraction=0.3),
        data=Subset(receivers=2),
    )
    found = run_stage(stage, replace(data, record=half), start, load(), budget)
    # a Jacobian of 35 receivers and two sources between them, and a few residuals and products
    assert 8 + 2 + 1 <= budget.evaluations <= 8 + 2 * stage.optimiser.corrections + 1 + 1
    assert data.misfit(found.model, budget) < 0.1 * data.misfit(start, budget)


@pytest.mark.parametrize("others", ["of the same map", "of another"])
def test_all_shots_follow_where_a_map_from_the_first_does_not_fit_them(others):
    survey, truth = two_flat_layers()
    record = Simulator(survey).forward(truth[None])[0].numpy()
    if others == "of another":
        record[1:] = Simulator(survey).forward(truth[None] + 100)[0, 1:].numpy()
    data, limit = Data.of_sample(record, truth, Simulator(survey)), 4 * GOOD_FIT
    shot = Subset(shots=1)
    first = newton(every_row, flat_layers_smoothed(0.1), weight=1e-9, data=shot)
    stages = first, tied_rows(target=limit, data=shot), tied_rows(target=limit, skip_if=limit)
    found = run(stages, data, Model.of(truth), Budget(60))
    assert found.traces[-1][-1][1] ** 2 < GOOD_FIT or others == "of another"
    assert len(found.traces) == (2 if others == "of the same map" else 3)


def test_another_survey_is_looked_at_whole():
    data, model = started(20.0)
    found = [
        run_stage(replace(FIRST, data=part), data, model, load(), Budget()).model.v
        for part in (Subset(), Subset(shots=1), Subset(receivers=2))
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_budget_keeps_and_counts():
    budget = Budget(10)
    with budget.keeping(3):
        assert budget.left == 7
        assert not budget.affords(8)
        budget.charge(Fraction(5, 2))
        assert budget.limit_in(Fraction(1, 2)) == 9
    assert budget.left == Fraction(15, 2)
    assert Budget().limit_in(1) is None
    assert Budget().affords(10**9)
