"""Flat layers from the record alone, from the top down.

The record up to a time T depends only on the layers that waves have reached by then. It is fitted
up to a time that grows by less than a period: each time only the next event is new, and it is in
the linear range, as all layers above it are known. From a record of 15 Hz this leads to maps that
low frequencies do not reach, where a fast layer lies deep below slow ones.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from fwi_refine.objective.base import PriorTerm
from fwi_refine.objective.flat_misfit import TAPER, FlatMisfit, window_before_return, window_to
from fwi_refine.objective.parameterisation import Rows
from fwi_refine.objective.vmin_prior import VminPrior
from fwi_refine.optimise import DescentSettings, levenberg_marquardt, weight_by_fraction
from fwi_refine.survey import Survey
from fwi_refine.wave import Simulator

WINDOW_STEP = 0.5  # periods of the wavelet: the first window, and how it grows
ITERATIONS = 8  # most Jacobians for each window
MAX_DAMPING_INCREASES = 6
# Fraction of the misfit that the prior counts. The prior is next to nothing on the constant map and
# rises with the first layer found: a tenth of the misfit would not let that happen.
PRIOR_FRACTION = 0.01
# Least weight of the prior: with less, windows' tails are fitted by what lies deeper
MIN_PRIOR_WEIGHT = 1e-7
ROW_STEP_DEVIATION = 300.0  # m/s, the prior's standard deviation of the step from row to row
TARGET_MISFIT = 1e-6  # mean square misfit of a window that is good enough to go on


def flat_layers(
    record: np.ndarray,
    surface: float,
    survey: Survey,
    *,
    threads: int | None = None,
    device: str | torch.device = "cpu",
    kernel: str = "auto",
) -> torch.Tensor:
    """A map of flat layers that explains the first shot.

    Parameters
    ----------
    record : ndarray, shape (shots, >= n_steps, receivers)
        Measured record. Rows from n_steps on are not used.
    surface : float
        Velocity at the sources, m/s. The map begins as this constant.
    survey : Survey
        Survey of the record, one that `wave.has_flat_jacobian` accepts.
    threads, device, kernel
        As for `wave.Simulator`.

    Returns
    -------
    Tensor, shape (nz, nx)
        Map of equal columns in m/s, float64, on the device.

    Raises
    ------
    ValueError
        For a survey without a flat Jacobian.

    Notes
    -----
    It takes some 15 to 40 Jacobians by rows.
    """
    first = dataclasses.replace(survey, sources=survey.sources[:1])
    simulator = Simulator(first, kernel=kernel, threads=threads, device=device)
    parameters = Rows(survey.shape)
    v = torch.full(survey.shape, surface, dtype=torch.float64, device=simulator.device)
    x = parameters.from_velocity(v)
    least = MIN_PRIOR_WEIGHT * survey.unit**2
    weight = partial(weight_by_fraction, PRIOR_FRACTION, least=least)
    smooth = PriorTerm(SumOfSquaredDifferences(ROW_STEP_DEVIATION), parameters)
    for window in _windows(survey):
        window = torch.minimum(window, window_before_return(x[:-1], survey))
        misfit = FlatMisfit(simulator, parameters, record[:1], window)
        if misfit(x) < TARGET_MISFIT * survey.unit**2:
            continue
        x = levenberg_marquardt(
            misfit,
            smooth + VminPrior(parameters.velocity(x).min()),
            x,
            DescentSettings(
                weight=weight,
                max_iterations=ITERATIONS,
                target=TARGET_MISFIT * survey.unit**2,
                retract=parameters.retract,
            ),
            max_damping_increases=MAX_DAMPING_INCREASES,
        ).x
    return parameters.velocity(x)


def _windows(survey: Survey) -> Iterator[torch.Tensor]:
    """Weights of the time steps (n_steps,), one after the other, the last all ones."""
    period = 1 / survey.frequency
    after = survey.n_steps * survey.dt - survey.wavelet_centre * survey.dt
    for end in np.arange(WINDOW_STEP * period, after + TAPER * period, WINDOW_STEP * period):
        yield window_to(end, survey)


class SumOfSquaredDifferences:
    """The prior sum((d / width)^2) over the steps d from row to row.

    Parameters
    ----------
    width : float
        Standard deviation of a step, m/s.

    Attributes
    ----------
    quadratic : bool
        True: the Hessian is the same everywhere.
    """

    quadratic = True

    def __init__(self, width: float) -> None:
        self.width = width

    def value_and_gradient(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Value and gradient in one pass.

        Parameters
        ----------
        rows : Tensor, shape (n,)
            Velocity of each row, m/s.

        Returns
        -------
        value : Tensor, shape ()
        gradient : Tensor, shape (n,)
        """
        return self.value(rows), self.gradient(rows)

    def value(self, rows: torch.Tensor) -> torch.Tensor:
        """Value, shape (), at the velocities of rows (n,)."""
        return (rows.diff() / self.width).square().sum()

    def gradient(self, rows: torch.Tensor) -> torch.Tensor:
        """Gradient, shape (n,), at the velocities of rows (n,)."""
        return self.hessian(rows) @ rows

    def hessian(self, rows: torch.Tensor) -> torch.Tensor:
        """Hessian, shape (n, n), tridiagonal."""
        d = torch.eye(len(rows)).to(rows).diff(dim=0) / self.width
        return 2.0 * d.T @ d
