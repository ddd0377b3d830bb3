"""How a wavelet differs from a survey's: amplitude, delay, frequency and shape."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fwi_refine.objective.noise import noise_variance
from fwi_refine.objective.source import (
    SourceFit,
    convolve,
    impulse_record,
)
from fwi_refine.objective.source_model import SourceModel
from fwi_refine.objective.weights import Weights
from fwi_refine.survey import Survey
from fwi_refine.survey.wavelet_file import peak_frequency
from fwi_refine.wave import Simulator

LAGS_PER_STEP = 32  # lags between two steps, at which wavelets are compared
FIRST_NOISE = 0.1  # of the record's rms, which a start may leave
MIN_MODE_DEVIATION = 1e-6  # modes that spread less are left out of a delayed wavelet
FIRST_SPREAD = 10.0  # factor of a wavelet's spread while its amplitude is not known


@dataclass(frozen=True)
class SourceShape:
    """A wavelet beside that of a survey.

    Attributes
    ----------
    amplitude : float
        Factor, negative where the sign is reversed.
    delay : float
        s, later than the survey's.
    frequency : float
        Of the peak of its spectrum, Hz.
    difference : float
        Rms of what is left of it once amplitude and delay are those of the survey's, over its rms.
    """

    amplitude: float
    delay: float
    frequency: float
    difference: float

    def describe(self) -> str:
        """For a report."""
        return (
            f"amplitude {self.amplitude:.5g} times, delay {1e3 * self.delay:+.3g} ms, peak at "
            f"{self.frequency:.3g} Hz, shape off by {self.difference:.1%}"
        )


def compare_wavelet(wavelet: ArrayLike, survey: Survey) -> SourceShape:
    """How a wavelet differs from the survey's.

    Parameters
    ----------
    wavelet : array_like, (n,)
        Samples, one for each step.
    survey : Survey
        With the wavelet that it is compared with.

    Returns
    -------
    SourceShape
    """
    w, expected = (np.asarray(x, np.float64) for x in (wavelet, survey.whole_wavelet))
    length = 2 * max(w.size, expected.size)
    spectra = np.fft.rfft(w, length) * np.fft.rfft(expected, length).conj()
    correlation = np.fft.irfft(spectra, LAGS_PER_STEP * length) * LAGS_PER_STEP
    best = int(np.argmax(np.abs(correlation)))
    half = LAGS_PER_STEP * length // 2
    lag = float((best + half) % (LAGS_PER_STEP * length) - half)
    left, right = (abs(correlation[(best + k) % correlation.size]) for k in (-1, 1))
    curvature = left + right - 2 * abs(correlation[best])
    lag += 0.5 * (left - right) / curvature if curvature < 0 else 0.0
    energy, own = float(expected @ expected), float(w @ w)
    likeness = min(1.0, float(correlation[best] ** 2) / (energy * own))
    return SourceShape(
        float(correlation[best]) / energy,
        float(lag) / LAGS_PER_STEP * survey.dt,
        peak_frequency(w, survey.dt),
        float(np.sqrt(1 - likeness)),
    )


def shifted(wavelet: ArrayLike, steps: float, n_steps: int) -> NDArray[np.float64]:
    """A wavelet that comes later.

    Parameters
    ----------
    wavelet : array_like, shape (n,)
        One sample for each step.
    steps : float
        By how many steps it is later; they need not be whole.
    n_steps : int
        Length of the result.

    Returns
    -------
    ndarray of float64, shape (n_steps,)
        By a phase in frequency; cut off, or zero after its end.
    """
    w = np.asarray(wavelet, np.float64)
    length = 2 * max(n_steps, w.size)
    phase = np.exp(-2j * np.pi * np.fft.rfftfreq(length) * steps)
    return np.fft.irfft(np.fft.rfft(w, length) * phase, length)[:n_steps]


def first_estimate(
    record: Tensor,
    v: Tensor,
    simulator: Simulator,
    each: bool = False,
    weights: Weights | None = None,
) -> tuple[float, SourceFit]:
    """Amplitude and delay of a record's source, by a map that need not be right.

    Parameters
    ----------
    record : Tensor, shape (shots, n_steps, receivers)
        Measured record.
    v : Tensor, shape (nz, nx)
        Map in m/s.
    simulator : Simulator
        Of the survey.
    each : bool
        Whether each shot is to have a wavelet of its own.
    weights : Weights, optional
        Of the samples; what has none is 0 in the record.

    Returns
    -------
    amplitude : float
        Of the record, relative to the survey.
    fit : SourceFit
        For the record divided by that, about the survey's wavelet with its delay.
    """
    survey = simulator.survey
    impulse = impulse_record(simulator, v[None], v.min()[None])
    wavelet = torch.from_numpy(survey.wavelet.copy())
    expected = convolve(impulse.cpu(), wavelet[None, :, None])
    root = 1.0 if weights is None else weights.root(expected)
    measured, weighted = root * record, root * expected
    scale = float(measured.square().mean().sqrt() / weighted.square().mean().sqrt())
    model = SourceModel.of(survey)
    anything = SourceModel(torch.zeros_like(model.mean), FIRST_SPREAD * model.basis)
    noise = noise_variance(float(weighted.square().mean()) * FIRST_NOISE**2, survey)
    fit = SourceFit.of(anything, survey, noise, weights)
    found = fit.estimate(impulse, record / scale).wavelets[0]
    shape = compare_wavelet(found.numpy(), survey)
    mean = shifted(survey.whole_wavelet, shape.delay / survey.dt, survey.n_steps)
    moved = survey.with_wavelet(mean)
    model = SourceModel(smoothed(torch.from_numpy(mean), model.basis), model.basis, each)
    return scale * shape.amplitude, SourceFit.of(model, moved, noise, weights)


def smoothed(wavelet: Tensor, basis: Tensor) -> Tensor:
    """A wavelet (n_steps,) as far as the modes of a process (n_steps, m) hold it: one that is
    delayed by a fraction of a step rings where it was cut, and no mode can take that out."""
    modes, spread, _ = torch.linalg.svd(basis, full_matrices=False)
    return modes @ (spread**2 / (spread**2 + MIN_MODE_DEVIATION**2) * (modes.T @ wavelet))
