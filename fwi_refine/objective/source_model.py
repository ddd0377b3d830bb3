"""The wavelets that are expected of a source: a Gaussian process about a mean."""

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fwi_refine.survey import Survey
from fwi_refine.survey.frequency import lower_wavelet

# Of the process: how far a wavelet strays from its mean, as a fraction of its largest sample; how
# long it may be, in lengths of the survey's; and the length in which it changes, in 1 / (pi f),
# which is 1 for half of a Ricker wavelet's peak.
SPREAD = 0.3
MAX_LENGTH = 1.7
CORRELATION_LENGTH = 0.6
MIN_MODE = 1e-13  # modes of less variance than this fraction of the largest are left out


@dataclass(frozen=True)
class SourceModel:
    """The wavelets that are expected.

    Attributes
    ----------
    mean : Tensor (n_steps,)
        The wavelet that is expected.
    basis : Tensor (n_steps, m)
        B; a change of a coefficient by 1 is one standard deviation.
    each : bool
        Whether each shot has a wavelet of its own.
    """

    mean: Tensor
    basis: Tensor
    each: bool = False

    @classmethod
    def of(cls, survey: Survey, each: bool = False) -> "SourceModel":
        """That of a survey, about its wavelet."""
        size = float(np.abs(survey.wavelet).max())
        modes = torch.from_numpy(_modes(replace(survey, given_wavelet=None)))
        return cls(torch.from_numpy(survey.wavelet.copy()), size * modes, each)

    @property
    def columns(self) -> Tensor:
        """The modes and, last, the mean, (n_steps, m + 1)."""
        return torch.cat([self.basis, self.mean[:, None]], dim=1)

    def low_passed(self, factor: float, survey: Survey) -> "SourceModel":
        """The same wavelets at a frequency that is the survey's times a factor."""
        frequency = factor * survey.frequency
        mean, basis = (
            torch.from_numpy(lower_wavelet(w.numpy(), frequency, survey))
            for w in (self.mean, self.basis)
        )
        return replace(self, mean=mean, basis=basis)


@functools.lru_cache(maxsize=4)
def _modes(survey: Survey) -> NDArray[np.float64]:
    """The modes of the process, (n_steps, m), of variance SPREAD^2 in all."""
    size = min(survey.n_steps, math.ceil(MAX_LENGTH * survey.whole_wavelet.size))
    t = np.arange(size) * survey.dt * np.pi * survey.frequency / CORRELATION_LENGTH
    variance, modes = np.linalg.eigh(np.exp(-0.5 * (t[:, None] - t) ** 2))
    kept = variance > MIN_MODE * variance[-1]
    modes = SPREAD * modes[:, kept][:, ::-1] * np.sqrt(variance[kept][::-1])
    return np.concatenate([modes, np.zeros((survey.n_steps - size, modes.shape[1]))])
