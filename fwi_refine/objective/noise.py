"""The noise of a record: its level, from the samples before the first arrival, and in the wavelet's
band."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fwi_refine.survey import Survey
from fwi_refine.survey.weights import distances
from fwi_refine.wave import record_basis

# Of float32 records, rms per coefficient of the wavelet's band: no record is better than this.
MIN_NOISE = 5e-6
# Fraction of the time of the first possible arrival that counts as before it: the scheme sends
# faint short waves ahead, 3e-7 rms before this.
EARLY_FRACTION = 0.5
MIN_EARLY_SAMPLES = 100  # early samples that tell a level
# Rms of a clean record before the first arrival: most samples are 0, whatever the map.
CLEAN_NOISE = 0.1 * MIN_NOISE
NORMAL_FACTOR = 1.4826  # standard deviation over median of absolute values
# Of the samples, with another one at a lag: fewer tell no correlation at that lag
MIN_PAIR_FRACTION = 0.1
# Rms by which a level may be off: estimated from some hundred independent samples.
MARGIN = 1.1


@dataclass(frozen=True)
class Noise:
    """The noise of a record beyond the rounding of float32; 0 for clean records.

    Attributes
    ----------
    sample
        Rms of a sample, in the unit of the record.
    coefficient
        Rms of a coefficient of `wave.record_basis`: of white noise the same, of noise within the
        band larger.
    """

    sample: float = 0.0
    coefficient: float = 0.0

    def misfit(self) -> float:
        """Mean square residual that it leaves."""
        return self.sample**2

    def misfit_in_band(self, survey: Survey) -> float:
        """The same within the band."""
        return misfit_of_noise(self.coefficient**2, survey)


CLEAN = Noise()


def noise_variance(misfit: float, survey: Survey) -> float:
    """Variance of a coefficient of the wavelet's band.

    Parameters
    ----------
    misfit : float
        Mean squared residual of the record's samples, within the band.
    survey : Survey
        Survey of the record.

    Returns
    -------
    float
        Variance of each coefficient of `wave.record_basis`: a trace has fewer of these than
        samples, and all of the residual is theirs.
    """
    return misfit * survey.record_shape[1] / record_basis(survey).shape[1]


def misfit_of_noise(variance: float, survey: Survey) -> float:
    """Mean squared residual that noise of the wavelet's band makes.

    Parameters
    ----------
    variance : float
        Of each coefficient of the band.
    survey : Survey
        Survey of the record.

    Returns
    -------
    float
        Of which `noise_variance` is the inverse.
    """
    return variance * record_basis(survey).shape[1] / survey.record_shape[1]


def early_samples(survey: Survey) -> NDArray[np.bool_]:
    """Samples before any wave can arrive.

    Parameters
    ----------
    survey : Survey
        The survey.

    Returns
    -------
    ndarray of bool, (shots, n_steps, receivers)
        True before a fraction of the time that a wave of the fastest velocity takes.
    """
    travelled = np.arange(1, survey.n_steps + 1) * survey.dt * survey.velocity_bounds[1]
    return np.asarray(travelled[None, :, None] < EARLY_FRACTION * distances(survey)[:, None, :])


def early_noise(
    record: NDArray[np.floating], survey: Survey, weights: NDArray[np.float64] | None = None
) -> Noise | None:
    """The noise of a record by its samples before the first arrival.

    Parameters
    ----------
    record : ndarray, (shots, >= n_steps, receivers)
        The record, finite.
    survey : Survey
        That of the record.
    weights : ndarray, (shots, n_steps, receivers), optional
        Of the samples; what has none is not looked at.

    Returns
    -------
    Noise or None
        None where too few samples come so early.

    Notes
    -----
    The variance of a coefficient is q^T C q, C the covariance of the samples of a trace, averaged
    over the columns q of the basis. With correlations c of samples that are tau steps apart it is

        sum over tau of c(tau) p(tau) / K,    p(tau) = sum over columns and t of q(t) q(t + tau),

    K the number of columns; c comes from the early samples.
    """
    early = early_samples(survey)
    counts = early if weights is None else early & (weights > 0)
    if np.count_nonzero(counts) < MIN_EARLY_SAMPLES:
        return None
    values = np.where(counts, record[:, : survey.n_steps].astype(np.float64), 0.0)
    if weights is not None:
        values = values * np.sqrt(weights)
    if _typical(values, counts) < CLEAN_NOISE * survey.unit:
        return CLEAN
    length = int(early.any((0, 2)).sum())
    covariance, pairs = (
        _autocorrelation(part[:, :length].astype(np.float64)) for part in (values, counts)
    )
    enough = int(np.argmax(pairs < MIN_PAIR_FRACTION * pairs[0])) or length
    covariance, pairs = covariance[:enough], pairs[:enough]
    basis = record_basis(survey).numpy()
    shared = 2 * _autocorrelation(basis[None])[:enough]
    shared[0] /= 2
    square = float(covariance[0] / pairs[0])
    steps, modes = basis.shape
    coefficient = float((covariance / pairs) @ shared) / modes
    # within the limits of noise that is all in the band, and of noise that is hardly there
    coefficient = min(max(coefficient, 0.05 * square), square * steps / modes)
    return Noise(square**0.5, coefficient**0.5)


def _typical(values: NDArray[np.float64], counts: NDArray[np.bool_]) -> float:
    """Rms over the traces of what is typical of each, whatever few samples are."""
    traces = np.moveaxis(np.where(counts, np.abs(values), np.nan), 1, 2)
    medians = np.nanmedian(traces[counts.any(1)], axis=1)
    return NORMAL_FACTOR * float(np.sqrt(np.mean(medians**2)))


def _autocorrelation(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of products (n,) of values (m, n, k) that are 0, 1, ... steps apart along the second
    axis."""
    n = x.shape[1]
    spectrum = np.fft.rfft(x, 2 * n, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).sum((0, 2))
    return np.fft.irfft(power, 2 * n)[:n]


def residual_noise(in_band: float, sample: float, survey: Survey) -> Noise:
    """The noise of a record by what a map leaves of it.

    Parameters
    ----------
    in_band, sample : float
        Mean square residual within the band, and of all samples.
    survey : Survey
        That of the record.

    Returns
    -------
    Noise
    """
    return Noise(sample**0.5, noise_variance(in_band, survey) ** 0.5)
