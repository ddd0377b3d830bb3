"""A start without a network: from the record alone, low frequencies first.

A Ricker wavelet of a lower frequency f is the one of f0 convolved with a Gaussian,

    W_f(nu) / W_f0(nu) = (f0 / f)^3 exp(-nu^2 (1 / f^2 - 1 / f0^2)),

and the wave equation does not mind where a convolution in time is done. So a record that is
filtered like that is the record of a survey with the lower frequency, and nothing else of an
inversion changes. At 3 Hz a linear increase with depth is close enough to start from.
"""

import dataclasses

import numpy as np
import torch

from fwi_refine.known_cells import source_velocities
from fwi_refine.misfit import BandMisfit, VminTie
from fwi_refine.objective import PriorTerm, SumOfSquares
from fwi_refine.optimise import levenberg_marquardt
from fwi_refine.parameters import Modes
from fwi_refine.priors import Priors
from fwi_refine.priors import load as load_priors
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.validate import check_record
from fwi_refine.wave import Simulator

# One after the other, in fifteenths of the survey's frequency: Hz for the survey of OpenFWI
FREQUENCIES = (3.0, 4.0, 6.0)
TREND_FREQUENCY = 4.0  # at which the slope is chosen
SLOPES = np.arange(0.0, 50.0, 5.0)  # m/s per 10 m of depth
VELOCITIES = 6  # tried at the surface where no source tells
ITERATIONS = 3  # Jacobians at each frequency
SHARE = 0.05  # of the misfit, that the prior counts


def start_from_record(
    record: np.ndarray,  # (shots, >= n_steps, receivers)
    *,
    survey: Survey = OPENFWI,
    priors: Priors | None = None,
    threads: int | None = None,
    device: str = "cpu",
) -> np.ndarray:
    """A smooth map (nz, nx) float64 m/s that explains the low frequencies of a record.

    The velocity at the depth of the sources is that of their cells, which the record tells exactly
    where they stand at receivers; without such sources, the one of some that fits best. The map is
    a draw of the Gaussian process of the Style A family; layers come out blurred. Costs some ten
    Jacobians. threads, device: as for `wave.Simulator`. Raises SampleError for a record that
    cannot be used.
    """
    record = check_record(record, survey=survey)
    unit = survey.frequency / 15.0
    how = {"threads": threads, "device": device}
    lower = lower_frequency(record, TREND_FREQUENCY * unit, survey)
    v = _best_trend(*_velocity_at_depth(record, survey), *lower, how)
    priors = (priors or load_priors()).on_grid(survey.shape, survey.spacing)
    parameters = Modes(*(part.to(v.device) for part in priors.style_a.modes(1.0)))
    x = parameters.from_velocity(v, v.min())
    for frequency in FREQUENCIES:
        lower, filtered = lower_frequency(record, frequency * unit, survey)
        misfit = BandMisfit(Simulator(lower, **how), parameters, filtered)
        x = levenberg_marquardt(
            misfit,
            PriorTerm(SumOfSquares(), parameters) + VminTie(parameters.velocity(x).min()),
            x,
            weight=lambda misfit, prior: SHARE * misfit / max(prior, 1.0),
            max_iterations=ITERATIONS,
            retract=parameters.retract,
        ).x
    return parameters.velocity(x).clamp(*survey.velocity_bounds).cpu().numpy()


def lower_frequency(record, frequency, survey=OPENFWI):
    """(survey, record (shots, n_steps, receivers)) as with a wavelet of a lower frequency (Hz).

    The longer wavelet has a longer delay; the Gaussian reaches less far ahead than that delay, so
    that nothing beyond the end of the record is needed. Raises ValueError for a frequency that is
    not below the survey's.
    """
    if not 0 < frequency < survey.frequency:
        raise ValueError(f"frequency {frequency} Hz: expected less than {survey.frequency} Hz")
    lower = dataclasses.replace(survey, frequency=frequency)
    delay = int(np.argmax(lower.whole_wavelet)) - int(np.argmax(survey.whole_wavelet))
    steps = survey.n_steps
    period = 4 * steps  # zero-padded, so that the end does not come back at the start
    nu = np.fft.rfftfreq(period, survey.dt)
    gain = (survey.frequency / frequency) ** 3
    filter_ = gain * np.exp(-(nu**2) * (frequency**-2 - survey.frequency**-2))
    filter_ = filter_ * np.exp(-2j * np.pi * nu * delay * survey.dt)
    spectrum = np.fft.rfft(np.asarray(record, dtype=np.float64)[:, :steps], period, axis=1)
    return lower, np.fft.irfft(spectrum * filter_[:, None], period, axis=1)[:, :steps]


def _velocity_at_depth(record, survey):
    """(velocities that a trend may have at some depth, that depth in cells).

    Sources one cell deep, as those of OpenFWI, count as standing at the surface.
    """
    known = source_velocities(record, survey).clip(*survey.velocity_bounds)
    found = np.isfinite(known)
    if found.any():
        rows = np.array([row for row, _ in survey.sources])[found]
        return [float(known[found].mean())], max(float(rows.mean()) - 1.0, 0.0)
    slowest, fastest = survey.velocity_bounds
    return np.linspace(slowest, (slowest + fastest) / 2, VELOCITIES), 0.0


def _best_trend(velocities, depth, survey, record, how):
    """The linear increase with depth whose record fits best, (nz, nx), on the device.

    velocities: m/s, those to try at `depth`, in cells
    """
    nz, nx = survey.shape
    below = torch.arange(nz, dtype=torch.float64)[:, None].expand(nz, nx) - depth
    slopes = SLOPES * survey.spacing / 10.0
    trends = [velocity + slope * below for velocity in velocities for slope in slopes]
    simulator = Simulator(survey, **how)
    trends = torch.stack(trends).clamp(*survey.velocity_bounds).to(simulator.device)
    record = torch.from_numpy(record).expand(len(trends), *survey.record_shape)
    return trends[int(simulator.misfit(trends, record).argmin())]
