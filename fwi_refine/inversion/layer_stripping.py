"""Flat layers from the record alone, from the top down.

What has arrived by a time T depends only on the layers that waves have reached by then. So the
record is fitted up to a time that grows by less than a period: each time only the next event is
new, and it is met in the linear range, as all above it is known. From a record of 15 Hz this leads
to maps that low frequencies do not reach, where a fast layer lies deep below slow ones.
"""

import dataclasses
from functools import partial

import numpy as np
import torch

from fwi_refine.objective.base import PriorTerm
from fwi_refine.objective.flat_misfit import EDGE, FlatMisfit, window_before_return, window_to
from fwi_refine.objective.misfit import VminTie
from fwi_refine.objective.parameterisation import Rows
from fwi_refine.optimise import levenberg_marquardt, weight_by_share
from fwi_refine.wave import Simulator

STEP = 0.5  # periods of the wavelet: the first window, and how it grows
ITERATIONS = 8  # most Jacobians for each window
MAX_DAMPING_INCREASES = 6
# Of the misfit, that the prior counts. It is next to nothing on the constant map and rises with the
# first layer found: a tenth of the misfit would not let that happen.
SHARE = 0.01
WEIGHT = 1e-7  # least weight of the prior: with less, windows' tails are fitted by what lies deeper
JUMP = 300.0  # m/s from row to row that the prior takes for usual
FITS = 1e-6  # mean square misfit of a window that is good enough to go on


def flat_layers(record, surface, survey, *, threads=None, device="cpu"):
    """A map of equal columns (nz, nx) float64 m/s, on the device, that explains the first shot.

    record: (shots, n_steps, receivers); surface: m/s, the velocity at the sources, from which the
    map is a constant at first. Costs some 15 to 40 Jacobians by rows.
    """
    first = dataclasses.replace(survey, sources=survey.sources[:1])
    simulator = Simulator(first, threads=threads, device=device)
    parameters = Rows(survey.shape)
    v = torch.full(survey.shape, surface, dtype=torch.float64, device=simulator.device)
    x = parameters.from_velocity(v)
    smooth = PriorTerm(SumOfSquaredDifferences(JUMP), parameters)
    for window in _windows(survey):
        window = torch.minimum(window, window_before_return(x[:-1], survey))
        misfit = FlatMisfit(simulator, parameters, record[:1], window)
        if misfit(x) < FITS * survey.unit**2:
            continue
        x = levenberg_marquardt(
            misfit,
            smooth + VminTie(parameters.velocity(x).min()),
            x,
            weight=partial(weight_by_share, SHARE, least=WEIGHT * survey.unit**2),
            max_iterations=ITERATIONS,
            max_damping_increases=MAX_DAMPING_INCREASES,
            target=FITS * survey.unit**2,
            retract=parameters.retract,
        ).x
    return parameters.velocity(x)


def _windows(survey):
    """Weights of the time steps (n_steps,), one after the other, the last all ones."""
    period = 1 / survey.frequency
    after = survey.n_steps * survey.dt - survey.wavelet_centre * survey.dt
    for end in np.arange(STEP * period, after + EDGE * period, STEP * period):
        yield window_to(end, survey)


class SumOfSquaredDifferences:
    """The prior sum((d / width)^2) over the steps d from row to row of a vector (n,)."""

    quadratic = True

    def __init__(self, width):
        self.width = width

    def value_and_gradient(self, rows):
        return self.value(rows), self.gradient(rows)

    def value(self, rows):
        return (rows.diff() / self.width).square().sum()

    def gradient(self, rows):
        return self.hessian(rows) @ rows

    def hessian(self, rows):
        d = torch.eye(len(rows)).to(rows).diff(dim=0) / self.width
        return 2.0 * d.T @ d
