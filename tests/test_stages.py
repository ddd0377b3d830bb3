"""Which stages of a recipe are carried out."""

from dataclasses import replace

import pytest
import torch

from fwi_refine.priors import load
from fwi_refine.recipes import every_cell, layers_smoothed, newton
from fwi_refine.stages import StageRunner
from fwi_refine.survey import OPENFWI
from fwi_refine.wave import Simulator
from fwi_refine.wave.native import load as load_native

pytestmark = pytest.mark.skipif(load_native() is None, reason="the compiled kernel was not built")

SURVEY = replace(
    OPENFWI,
    shape=(12, 14),
    n_steps=200,
    absorbing_cells=12,
    sources=((1, 0), (1, 13)),
    receivers=tuple((1, column) for column in range(14)),
)


@pytest.mark.parametrize(("target", "stages"), [(1e-2, 1), (1e-30, 2)])
def test_a_stage_is_left_out_where_the_record_fits(target, stages):
    truth = torch.full(SURVEY.shape, 2000.0, dtype=torch.float64)
    truth[6:] = 2600.0
    simulator = Simulator(SURVEY)
    record = simulator.forward(truth[None])[0].numpy()
    start = truth + 20.0
    run = StageRunner(simulator, load(), record, start, None, None)
    first = newton(every_cell, layers_smoothed(10.0), weight=1e-10, share=0.3)
    run.run_stages(
        (first, replace(first, misfit_target=target, unless_it_fits=True)), start, start.min()
    )
    assert run.stage == stages
