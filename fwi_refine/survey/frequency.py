"""The record that the same ground would give with a wavelet of a lower frequency.

A Ricker wavelet of a lower frequency f is the one of f0 convolved with a Gaussian,

    W_f(nu) / W_f0(nu) = (f0 / f)^3 exp(-nu^2 (1 / f^2 - 1 / f0^2)),

and the wave equation does not mind where a convolution in time is done. So a record that is
filtered like that is the record of a survey with the lower frequency, and nothing else of an
inversion changes.
"""

import dataclasses

import numpy as np

from fwi_refine.survey.geometry import OPENFWI


def lower_frequency(record, frequency, survey=OPENFWI):
    """(survey, record (shots, n_steps, receivers)) as with a wavelet of a lower frequency (Hz).

    The longer wavelet has a longer delay; the Gaussian reaches less far ahead than that delay, so
    that nothing beyond the end of the record is needed. Raises ValueError for a frequency that is
    not below the survey's.
    """
    if not 0 < frequency < survey.frequency:
        raise ValueError(f"frequency {frequency} Hz: expected less than {survey.frequency} Hz")
    lower = dataclasses.replace(survey, frequency=frequency)
    delay = lower.wavelet_centre - survey.wavelet_centre
    steps = survey.n_steps
    period = 4 * steps  # zero-padded, so that the end does not come back at the start
    nu = np.fft.rfftfreq(period, survey.dt)
    gain = (survey.frequency / frequency) ** 3
    filter_ = gain * np.exp(-(nu**2) * (frequency**-2 - survey.frequency**-2))
    filter_ = filter_ * np.exp(-2j * np.pi * nu * delay * survey.dt)
    spectrum = np.fft.rfft(np.asarray(record, dtype=np.float64)[:, :steps], period, axis=1)
    return lower, np.fft.irfft(spectrum * filter_[:, None], period, axis=1)[:, :steps]
