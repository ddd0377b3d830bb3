"""The plan of a Jacobian by reciprocity: a pulse, frequencies, and a basis of records.

In the symbols of reciprocity.py: instead of g the fields P = h * g of a smooth pulse h with h * h
close to -w, w the wavelet, are simulated, so that every k-th step of them is enough; the factor
w / h^2 takes out delay and sign of h and what the two differ by, as far as h has a spectrum. High
frequencies where it has none carry nothing but the step at the wavelet's cut ends (see
`Survey.whole_wavelet`) and fade out.

Frequencies are complex, z = exp(sigma + i omega): all fields decay by exp(-sigma n), and what of a
product lies beyond the period comes round weaker by exp(-sigma period) (R. A. Phinney, J. Geophys.
Res. 70, 1965). So the period need not be twice as long as the fields: for OpenFWI there are 74
frequencies instead of 113.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave.threads import one_thread_each

KEPT_PER_PERIOD = 8.2  # wavefields kept per period of the wavelet: every 8th step at 15 Hz
PULSE_DELAY = 2.8  # of the pulse, in 1 / (pi f): it begins at 1e-6 of its peak
TAIL = 2.0  # simulated beyond the last sample to fade the fields out, in 1 / (pi f)
# Height of the pulse. The kernel drops what is below 1e-38: with the pulse this small and the
# spectra scaled back, products of what it keeps are no subnormal numbers, which cost as much time
# as all others.
PULSE_HEIGHT = 2.0**-70
MIN_PULSE = 2e-4  # records have no frequencies with less of |h|^2 than this fraction of its peak
PERIOD = 1.2  # of the transforms, in lengths of the fields
# sigma times the period. More lets less come round, but as what has decayed is restored, rounding
# and the ringing of the cut at the highest frequencies grow.
DECAY = 9.0
TAPER = 0.25  # of the survey's frequency, before and after that cut: there frequencies fade out
MIN_MODE = 3e-3  # records with less than this fraction of the largest singular value are left out


def longest_interval(survey: Survey) -> int:
    """Most steps between two kept wavefields that still hold the wavelet; at least 1."""
    return max(1, int(1 / (KEPT_PER_PERIOD * survey.frequency * survey.dt)))


def record_basis(survey: Survey = OPENFWI) -> torch.Tensor:
    """Q: orthonormal basis (n_steps, K) of the traces that the wavelet's band can make, float64."""
    return make_plan(survey, longest_interval(survey)).basis


@dataclass(frozen=True)
class _PulseSurvey(Survey):
    """The same survey with the smooth pulse h instead of the wavelet w, h * h close to -w."""

    @functools.cached_property
    def wavelet(self) -> NDArray[np.float64]:
        """First derivative of a Gaussian that has half the variance of the Ricker's, delayed."""
        a = np.pi * self.frequency * self.dt
        x = a * np.arange(self.n_steps) - PULSE_DELAY
        wavelet: NDArray[np.float64] = -x * np.exp(-2 * x**2) * PULSE_HEIGHT
        return wavelet


@dataclass(frozen=True)
class Plan:
    """The part that depends on the survey alone. F frequencies, K modes; real parts first.

    Attributes
    ----------
    survey : Survey
        With the pulse for its wavelet.
    analysis : torch.Tensor, (2 F, frames)
        Fields to their spectra.
    synthesis : torch.Tensor, (K, 2 F)
        Spectra of g_s * g_r to rows of the Jacobian.
    undifferenced : torch.Tensor, (K, 2 F)
        The same without T0, for what is not a change of velocity.
    damped : torch.Tensor of complex128, (F,)
        1 / (z - 1).
    basis : torch.Tensor, (n_steps, K)
        The modes.
    """

    survey: _PulseSurvey
    analysis: torch.Tensor
    synthesis: torch.Tensor
    undifferenced: torch.Tensor
    damped: torch.Tensor
    basis: torch.Tensor


@functools.lru_cache(maxsize=4)
def make_plan(survey: Survey, every: int) -> Plan:
    """The plan for a survey, of which every `every`-th wavefield is kept."""
    steps_per_unit = 1 / (np.pi * survey.frequency * survey.dt)
    # g * g * h * h begins this much later than the record, whose wavelet has its own delay
    lag = 2 * PULSE_DELAY * steps_per_unit - survey.wavelet_centre
    needed = survey.n_steps + lag
    frames = int(np.ceil((needed + TAIL * steps_per_unit) / every))
    own = {field.name: getattr(survey, field.name) for field in dataclasses.fields(survey)}
    pulse = _PulseSurvey(**{**own, "n_steps": frames * every + 1, "receivers": ()})
    h, w = pulse.wavelet / PULSE_HEIGHT, survey.whole_wavelet
    band = _band_of(h, frames * every)
    with one_thread_each(1) as pool:  # so that its bits do not depend on how many torch has
        basis = pool.submit(_record_basis, survey.n_steps, band, w).result().numpy()

    period = int(np.ceil(PERIOD * frames)) * every
    half = TAPER * 2 * np.pi * survey.frequency * survey.dt
    omega = 2 * np.pi / period * np.arange(int((band[-1] + half) * period / (2 * np.pi)) + 1)
    taper = np.cos(np.pi / 4 * np.clip((omega - band[-1]) / half + 1, 0, 2)) ** 2
    log_z = DECAY / period + 1j * omega
    z = np.exp(log_z)

    times = every * np.arange(1, frames + 1)
    fade = np.cos(np.pi / 2 * np.clip((times - needed) / (times[-1] + every - needed), 0, 1)) ** 2
    analysis = np.exp(-np.outer(log_z, times)) * fade / PULSE_HEIGHT
    # `every` for each of two sums over every k-th step; all but omega = 0 stand for -omega as well
    inverse = np.where(omega > 0, 2, 1) * every**2 / period
    t0, spectrum = z - 2 + 1 / z, _transform(w, log_z) / _transform(h, log_z) ** 2
    # row k of a record is the field after step k + 1
    waves = np.exp(np.outer(np.arange(1, survey.n_steps + 1), log_z))

    def synthesis(spectrum: NDArray[Any]) -> torch.Tensor:
        rows = basis.T @ (waves * spectrum * taper * inverse)
        return torch.from_numpy(np.hstack([rows.real, -rows.imag]))

    return Plan(
        pulse,
        torch.from_numpy(np.vstack([analysis.real, analysis.imag])),
        synthesis(t0 * spectrum),
        synthesis(spectrum),
        torch.from_numpy(1 / (z - 1)),
        torch.from_numpy(basis),
    )


def _transform(signal: NDArray[np.float64], log_z: NDArray[Any]) -> NDArray[Any]:
    """The z-transform of a signal."""
    transformed: NDArray[Any] = np.exp(-np.outer(log_z, np.arange(len(signal)))) @ signal
    return transformed


def _band_of(h: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Frequencies up to which h has a spectrum, as they are told apart in two lengths, rad."""
    omega = np.pi * np.arange(1, length // 2 + 1) / length
    power = np.abs(_transform(h, 1j * omega)) ** 2
    band: NDArray[np.float64] = omega[power >= MIN_PULSE * power.max()]
    return band


def _record_basis(n_steps: int, omega: NDArray[np.float64], w: NDArray[np.float64]) -> torch.Tensor:
    """An orthonormal basis of the records that these frequencies make, (n_steps, K).

    Each mode is concentrated about one time, for OpenFWI within 25 steps (rms) and 10 after the one
    before: they are the eigenvectors of Q^T t Q for any basis Q of that space. An early mode hardly
    knows of deep cells, which normal_matrix.py makes use of.
    """
    steps = np.arange(1, n_steps + 1)
    waves = np.exp(1j * np.outer(steps, omega))
    # how a column's spectrum falls towards high frequencies; at low ones it may be of any shape
    weight = np.abs(_transform(w, 1j * omega) * omega**2)
    weight = np.maximum.accumulate(weight[::-1])[::-1]
    records = torch.from_numpy(np.hstack([waves.real * weight, waves.imag * weight]))
    left, singular, _ = torch.linalg.svd(records, full_matrices=False)
    basis = left[:, singular >= MIN_MODE * singular[0]]
    return basis @ torch.linalg.eigh(basis.T @ (torch.from_numpy(steps)[:, None] * basis))[1]
