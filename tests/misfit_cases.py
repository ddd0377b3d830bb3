"""A small survey and a misfit near its minimum, for the tests of misfits."""

import torch

from fwi_refine.objective.misfit import DataMisfit
from fwi_refine.survey import Survey
from fwi_refine.wave import Simulator

SURVEY = Survey(
    shape=(8, 10),
    n_steps=70,
    absorbing_cells=6,
    velocity_bounds=(1000.0, 4200.0),
    sources=((1, 0), (1, 9)),
    receivers=tuple((1, c) for c in range(10)),
)


def random(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def misfit_near(parameters, seed=0, kind=DataMisfit):
    """A misfit, a point x that is off, and the record's own point."""
    simulator = Simulator(SURVEY, imaging_step=1)
    truth = 2500 + 120 * random(8, 10, seed=seed)
    true_x = parameters.from_velocity(truth)
    record = simulator.forward(parameters.velocity(true_x)[None], parameters.vmin(true_x)[None])[0]
    x = parameters.from_velocity(truth + 60 * random(8, 10, seed=seed + 1))
    return kind(simulator, parameters, record), x, true_x
