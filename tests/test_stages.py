"""Which stages of a recipe are carried out."""

import math
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch

from fwi_refine.inversion.recipe import GOOD_FIT
from fwi_refine.inversion.recipes import (
    every_cell,
    every_row,
    flat_layers_smoothed,
    layers_smoothed,
    newton,
    tied_layers,
)
from fwi_refine.inversion.stages import StageRunner
from fwi_refine.priors import load
from fwi_refine.survey import OPENFWI
from fwi_refine.survey.frequency import lower_frequency
from fwi_refine.wave import Simulator
from fwi_refine.wave.cpu import load as load_native

pytestmark = pytest.mark.skipif(load_native() is None, reason="the compiled kernel was not built")

SURVEY = replace(
    OPENFWI,
    shape=(12, 14),
    n_steps=200,
    absorbing_cells=12,
    sources=((1, 0), (1, 13)),
    receivers=tuple((1, column) for column in range(14)),
)


FIRST = newton(every_cell, layers_smoothed(10.0), weight=1e-10, share=0.3)


def started(error):
    """(run, start): two layers, the start off by error (m/s) everywhere."""
    truth = torch.full(SURVEY.shape, 2000.0, dtype=torch.float64)
    truth[6:] = 2600.0
    simulator = Simulator(SURVEY)
    record = simulator.forward(truth[None])[0].numpy()
    start = truth + error
    return StageRunner(simulator, load(), record, start, None, None), start


@pytest.mark.parametrize(("target", "stages"), [(1e-2, 1), (1e-30, 3)])
def test_stages_are_left_out_where_the_record_fits(target, stages):
    run, start = started(error=1.0)
    again = replace(FIRST, misfit_target=target, unless_it_fits=True)
    run.run_stages((FIRST, again, replace(again, share=0.2)), start, start.min())
    assert run.stage == stages


def test_stages_with_another_target_are_asked_for_themselves():
    run, start = started(error=1.0)
    fits = replace(FIRST, misfit_target=1e-2, unless_it_fits=True)
    run.run_stages((FIRST, fits, replace(fits, misfit_target=1e-30)), start, start.min())
    assert run.stage == 2


def test_a_map_that_has_just_moved_is_not_done():
    """And it is asked once for all of the stages: the first of them does end near the map."""
    run, start = started(error=40.0)
    again = replace(FIRST, misfit_target=1e-2, unless_it_fits=True)
    run.run_stages((FIRST, again, replace(again, share=0.2)), start, start.min())
    assert run.stage == 3


def test_a_stage_at_a_lower_frequency_leaves_all_else_as_it_was():
    run, start = started(error=20.0)
    simulator, record, before = run.simulator, run.record, run.record.copy()
    low = replace(FIRST, frequency=0.6)
    found, vmin = run.run_stages((low,), start, start.min())
    assert run.simulator is simulator
    assert run.record is record
    assert (record == before).all()
    assert run.misfit(found, vmin) < 0.5 * run.misfit(start, start.min())
    lower, filtered = lower_frequency(record, 9.0, SURVEY)
    misfits = [
        float(Simulator(lower).misfit(v[None], torch.from_numpy(filtered)[None], v.min()[None]))
        for v in (found, start)
    ]
    assert misfits[0] < 0.5 * misfits[1]


def two_flat_layers():
    """(survey, map): on the route of flat layers, whose stages take the first shot."""
    survey = replace(OPENFWI, n_steps=150, absorbing_cells=20)
    truth = torch.where(torch.arange(70) < 8, 2000.0, 2600.0).double()[:, None].expand(70, 70)
    return survey, truth


@pytest.mark.parametrize(("shots", "share"), [(1, Fraction(1, 5)), (None, 1)])
def test_a_stage_on_the_first_shot_looks_at_no_other_and_counts_as_a_fifth(shots, share):
    survey, truth = two_flat_layers()
    simulator = Simulator(survey)
    record = simulator.forward(truth[None])[0].numpy()
    start = truth * torch.where(truth > 2500, 1.01, 1.0)
    stage = newton(every_row, flat_layers_smoothed(10.0), weight=1e-8, shots=shots)
    run = StageRunner(simulator, load(), record, start, 60, None)
    if shots == 1:
        run.record = np.concatenate([record[:1], np.full_like(record[1:], np.nan)])
    found, _, _ = run.minimise(stage, start, start.min())
    assert (found - truth).abs().mean() < 0.5 * (start - truth).abs().mean()
    assert run.simulator is simulator
    assert run.record.shape == record.shape
    spent = run.evaluations / share  # a Jacobian, residuals, products, and one of the end
    assert spent == int(spent)
    assert 5 <= spent < 24  # by a tangent run for each row the Jacobian alone would be 24
    assert run.left == 60 - run.evaluations
    noted = [evaluations for _, evaluations, _ in run.history]
    assert noted == sorted(noted)
    assert noted[-1] <= math.ceil(run.evaluations)
    run.misfit(found, found.min())
    assert run.evaluations == spent * share + 1


@pytest.mark.slow
def test_a_stage_on_every_second_receiver_looks_at_no_other():
    survey, truth = two_flat_layers()
    simulator = Simulator(survey)
    record = simulator.forward(truth[None])[0].numpy()
    start = truth * torch.where(truth > 2500, 1.01, 1.0)
    stage = newton(every_cell, layers_smoothed(10.0), weight=1e-10, share=0.3, receivers=2)
    run = StageRunner(simulator, load(), record, start, 60, None)
    run.record = record.copy()
    run.record[..., 1::2] = np.nan
    found, vmin, _ = run.minimise(stage, start, start.min())
    assert run.simulator is simulator
    assert run.record.shape == record.shape
    run.record = record
    assert run.misfit(found, vmin) < 0.1 * run.misfit(start, start.min())
    # a Jacobian of 35 receivers and two sources between them, and a few residuals and products
    assert 8 + 2 + 1 <= run.evaluations <= 8 + 2 * stage.corrections + 1 + 2


@pytest.mark.parametrize("others", ["of the same map", "of another"])
def test_all_shots_follow_where_a_map_from_the_first_does_not_fit_them(others):
    survey, truth = two_flat_layers()
    record = Simulator(survey).forward(truth[None])[0].numpy()
    if others == "of another":
        record[1:] = Simulator(survey).forward(truth[None] + 100)[0, 1:].numpy()
    run = StageRunner(Simulator(survey), load(), record, truth, 60, None)
    tied = partial(tied_layers, 1.0, misfit_target=4 * GOOD_FIT)
    first = newton(every_row, flat_layers_smoothed(0.1), weight=1e-9, shots=1)
    run.run_stages((first, tied(shots=1), tied(unless_it_fits=True)), truth, truth.min())
    assert run.history[-1][2] ** 2 < GOOD_FIT or others == "of another"
    assert run.stage == (2 if others == "of the same map" else 3)


def test_another_survey_is_looked_at_whole():
    run, start = started(error=20.0)
    parts = ({}, {"shots": 1}, {"receivers": 2})
    found = [run.minimise(replace(FIRST, **part), start, start.min())[0] for part in parts]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
