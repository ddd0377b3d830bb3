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

    The surface velocity is that of the sources' cells, which the record tells exactly. The map is
    a draw of the Gaussian process of the Style A family; layers come out blurred. Costs some ten
    Jacobians. threads, device: as for `wave.Simulator`. Raises SampleError for a record that
    cannot be used.
    """
    record = check_record(record, survey=survey)
    known = source_velocities(record, survey)
    known = known[np.isfinite(known)].clip(*survey.velocity_bounds)
    # without sources among the receivers: slow, as the ground mostly is at the surface
    surface = float(known.mean()) if known.size else survey.velocity_bounds[0] * 1.5
    how = {"threads": threads, "device": device}
    unit = survey.frequency / 15.0
    v = _best_trend(surface, *lower_frequency(record, TREND_FREQUENCY * unit, survey), how)
    priors = (priors or load_priors()).on_grid(survey.shape, survey.spacing)
    modes = priors.style_a.modes(1.0)
    parameters = Modes(*(part.to(v.device) for part in modes))
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


def _best_trend(surface, survey, record, how):
    """The linear increase with depth whose record fits best, (nz, nx), on the device."""
    nz, nx = survey.shape
    depth = torch.arange(nz, dtype=torch.float64)[:, None].expand(nz, nx)
    slopes = SLOPES * survey.spacing / 10.0
    simulator = Simulator(survey, **how)
    trends = torch.stack([surface + slope * depth for slope in slopes])
    trends = trends.clamp(*survey.velocity_bounds).to(simulator.device)
    record = torch.from_numpy(record).expand(len(trends), *survey.record_shape)
    return trends[int(simulator.misfit(trends, record).argmin())]
