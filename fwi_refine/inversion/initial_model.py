"""An initial model without a network: from the record alone.

Flat layers, which a record tells, are found from the top down (layer_stripping.py). All other maps
are inverted from low frequencies on: at 3 Hz a linear increase with depth is close enough to begin
with.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from fwi_refine.inversion.layer_stripping import flat_layers
from fwi_refine.objective.base import PriorTerm, SumOfSquares
from fwi_refine.objective.flat_misfit import has_flat_misfit
from fwi_refine.objective.misfit import BandMisfit
from fwi_refine.objective.parameterisation import Modes
from fwi_refine.objective.source_cells import source_velocities
from fwi_refine.objective.vmin_prior import VminPrior
from fwi_refine.optimise import DescentSettings, levenberg_marquardt, weight_by_fraction
from fwi_refine.priors import Priors
from fwi_refine.priors import load as load_priors
from fwi_refine.routing import are_flat
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.frequency import lower_frequency
from fwi_refine.survey.validate import check_record
from fwi_refine.wave import Simulator

# One after the other, in fifteenths of the survey's frequency: Hz for the survey of OpenFWI
FREQUENCIES = (3.0, 4.0, 6.0)
TREND_FREQUENCY = 2.0  # for the choice of the slope: at 4 Hz it may come out 20 m/s too small
SLOPES = np.arange(0.0, 50.0, 5.0)  # m/s per 10 m of depth
SURFACE_VELOCITIES = 6  # tried at the surface where no source tells
ITERATIONS = 3  # Jacobians at each frequency
MAX_DAMPING_INCREASES = 6  # trends may be far off
PRIOR_FRACTION = 0.05  # fraction of the misfit that the prior counts
# Distance of trends from the survey's velocity bounds, as a fraction of their range: as modes they
# overshoot, and beyond the bounds nothing is simulated.
BOUND_MARGIN = 0.01


def start_from_record(
    record: np.ndarray,
    *,
    survey: Survey = OPENFWI,
    priors: Priors | None = None,
    threads: int | None = None,
    device: str | torch.device = "cpu",
    kernel: str = "auto",
) -> np.ndarray:
    """A map that explains a record, or the low frequencies of one.

    Parameters
    ----------
    record : ndarray, shape (shots, >= n_steps, receivers)
        Measured record. Rows from n_steps on are not used.
    survey : Survey
        Survey of the record.
    priors : Priors, optional
        By default those for OpenFWI.
    threads, device, kernel
        As for `wave.Simulator`.

    Returns
    -------
    ndarray of float64, shape (nz, nx)
        Map in m/s, within the survey's velocity bounds.

    Raises
    ------
    SampleError
        For a record that cannot be used.

    Notes
    -----
    The velocity at the depth of the sources is that of their cells, which the record tells exactly
    where sources stand at receivers; without such sources it is the best of a few. The map is in
    the span of the modes of the Style A process, in which layers come out blurred; flat layers of
    the survey of OpenFWI come out sharp. It takes some ten Jacobians.
    """
    record = check_record(record, survey=survey)
    options: dict[str, Any] = {"threads": threads, "device": device, "kernel": kernel}
    velocities, depth = _velocity_at_depth(record, survey)
    priors = (priors or load_priors()).on_grid(survey.shape, survey.spacing)
    constant = torch.full(survey.shape[:1], velocities[0], dtype=torch.float64)
    flat = are_flat(record, priors, survey) and has_flat_misfit(constant, survey)
    if len(velocities) == 1 and flat:
        v = flat_layers(record, velocities[0], survey, **options)
    else:
        v = _low_frequencies_first(record, velocities, depth, survey, priors, options)
    return v.clamp(*survey.velocity_bounds).cpu().numpy()


def _low_frequencies_first(
    record: np.ndarray,
    velocities: Sequence[float],
    depth: float,
    survey: Survey,
    priors: Priors,
    options: dict[str, Any],
) -> torch.Tensor:
    """A map (nz, nx) m/s, on the device, by the Style A modes, at one frequency after the other."""
    unit = survey.frequency / 15.0
    lower, filtered = lower_frequency(record, TREND_FREQUENCY * unit, survey)
    v = _best_trend(velocities, depth, lower, filtered, options)
    parameters = Modes(*(part.to(v.device) for part in priors.style_a.modes(1.0)))
    x = parameters.from_velocity(v, v.min())
    for frequency in FREQUENCIES:
        lower, filtered = lower_frequency(record, frequency * unit, survey)
        misfit = BandMisfit(Simulator(lower, **options), parameters, filtered)
        x = levenberg_marquardt(
            misfit,
            PriorTerm(SumOfSquares(), parameters) + VminPrior(parameters.velocity(x).min()),
            x,
            DescentSettings(
                weight=partial(weight_by_fraction, PRIOR_FRACTION),
                max_iterations=ITERATIONS,
                retract=parameters.retract,
            ),
            max_damping_increases=MAX_DAMPING_INCREASES,
        ).x
    return parameters.velocity(x)


def _velocity_at_depth(record: np.ndarray, survey: Survey) -> tuple[Sequence[float], float]:
    """(velocities, m/s, that a trend may have at some depth, that depth in cells).

    Sources one cell deep, as those of OpenFWI, count as standing at the surface.
    """
    known = source_velocities(record, survey).clip(*survey.velocity_bounds)
    found = np.isfinite(known)
    if found.any():
        rows = np.array([row for row, _ in survey.sources])[found]
        return [float(known[found].mean())], max(float(rows.mean()) - 1.0, 0.0)
    slowest, fastest = survey.velocity_bounds
    return np.linspace(slowest, (slowest + fastest) / 2, SURFACE_VELOCITIES).tolist(), 0.0


def _best_trend(
    velocities: Sequence[float],
    depth: float,
    survey: Survey,
    record: np.ndarray,
    options: dict[str, Any],
) -> torch.Tensor:
    """The linear increase with depth whose record fits best, (nz, nx) m/s, on the device.

    velocities: m/s, those to try at `depth`, in cells
    """
    nz, nx = survey.shape
    below = torch.arange(nz, dtype=torch.float64)[:, None].expand(nz, nx) - depth
    slopes = SLOPES * survey.spacing / 10.0
    simulator = Simulator(survey, **options)
    slowest, fastest = survey.velocity_bounds
    margin = BOUND_MARGIN * (fastest - slowest)
    trends = torch.stack([velocity + slope * below for velocity in velocities for slope in slopes])
    trends = trends.clamp(slowest + margin, fastest - margin).to(simulator.device)
    measured = torch.from_numpy(record).expand(len(trends), *survey.record_shape)
    return trends[int(simulator.misfit(trends, measured).argmin())]
