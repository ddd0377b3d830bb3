"""The record that the same ground would give with a wavelet of a lower frequency.

A Ricker wavelet of a lower frequency f is the one of f0 convolved with a Gaussian,

    W_f(nu) / W_f0(nu) = (f0 / f)^3 exp(-nu^2 (1 / f^2 - 1 / f0^2)),

and the wave equation does not mind where a convolution in time is done. So a record that is
filtered like that is the record of a survey with the lower frequency, and nothing else of an
inversion changes.
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fwi_refine.survey.geometry import OPENFWI, Survey


def lower_frequency(
    record: ArrayLike, frequency: float, survey: Survey = OPENFWI
) -> tuple[Survey, NDArray[np.float64]]:
    """The survey and the record with a wavelet of a lower frequency.

    The longer wavelet has a longer delay; the Gaussian reaches less far ahead than that delay, so
    that nothing beyond the end of the record is needed.

    Parameters
    ----------
    record : array_like, (shots, >= n_steps, receivers)
        The record; rows from n_steps on are not used.
    frequency : float
        Of the lower peak, Hz.
    survey : Survey
        That of the record.

    Returns
    -------
    survey : Survey
        The same with the lower frequency.
    record : ndarray of float64, (shots, n_steps, receivers)
        The record that it would give.

    Raises
    ------
    ValueError
        For a frequency that is not below the survey's.
    """
    if not 0 < frequency < survey.frequency:
        raise ValueError(f"frequency {frequency} Hz: expected less than {survey.frequency} Hz")
    steps = survey.n_steps
    period = 4 * steps  # zero-padded, so that the end does not come back at the start
    filter_ = _filter(survey, frequency, period)
    spectrum = np.fft.rfft(np.asarray(record, dtype=np.float64)[:, :steps], period, axis=1)
    lower = dataclasses.replace(survey, frequency=frequency)
    if survey.given_wavelet is not None:
        lower = lower.with_wavelet(lower_wavelet(survey.whole_wavelet[:steps], frequency, survey))
    return lower, np.fft.irfft(spectrum * filter_[:, None], period, axis=1)[:, :steps]


def lower_wavelet(
    wavelets: ArrayLike, frequency: float, survey: Survey = OPENFWI
) -> NDArray[np.float64]:
    """Wavelets filtered as `lower_frequency` filters a record.

    Parameters
    ----------
    wavelets : array_like, (n, ...)
        One for each column; n <= n_steps.
    frequency : float
        Of the lower peak, Hz.
    survey : Survey
        That of the record.

    Returns
    -------
    ndarray of float64, (n_steps, ...)
        Longer ones.
    """
    period = 4 * survey.n_steps
    spectrum = np.fft.rfft(np.asarray(wavelets, dtype=np.float64), period, axis=0)
    filter_ = _filter(survey, frequency, period).reshape(-1, *(1,) * (spectrum.ndim - 1))
    return np.fft.irfft(spectrum * filter_, period, axis=0)[: survey.n_steps]


def _filter(survey: Survey, frequency: float, period: int) -> NDArray[np.complex128]:
    """From the survey's Ricker wavelet to that of a lower frequency, with its longer delay."""
    ricker = dataclasses.replace(survey, given_wavelet=None)
    delay = dataclasses.replace(ricker, frequency=frequency).wavelet_centre - ricker.wavelet_centre
    nu = np.fft.rfftfreq(period, survey.dt)
    gain = (survey.frequency / frequency) ** 3
    filter_ = gain * np.exp(-(nu**2) * (frequency**-2 - survey.frequency**-2))
    return filter_ * np.exp(-2j * np.pi * nu * delay * survey.dt)
