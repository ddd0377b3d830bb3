"""How far a refined map is expected to be from the truth.

Close to the solution the record is linear in the unknowns, so that with noise of variance s^2 and
a Gaussian prior of precision K^-1 the unknowns are distributed with the covariance

    C = (J^T J / s^2 + K^-1)^-1

(Tarantola, "Inverse Problem Theory", 2005, section 3.2), and cell i is off by sqrt((B C B^T)_ii)
rms, B the columns of the parameterisation. Total variation is no Gaussian prior: for tied regions
K^-1 is `WIDE` alone, and C is the error of their velocities if their outlines are right. How far
off cells are that were given one of a few levels, `LevelBelief` says.
"""

import math
from dataclasses import dataclass

import torch

from fwi_refine.objective.noise import LEAST_NOISE, noise_variance

WIDE = 1000.0  # m/s, standard deviation that an unknown has without data
MEAN_OF_NORMAL = math.sqrt(2 / math.pi)  # mean absolute value of a standard normal


def precision(hessian, parameters, misfit, survey, prior_hessian=None):
    """Posterior precision J^T J / s^2 + K^-1 of the unknowns, (n, n).

    hessian: 2 / N J^T J (n, n) at the solution; misfit: mean square residual there, within the
    wavelet's band; prior_hessian: 2 K^-1 (n, n), or None without a Gaussian prior.
    """
    shots, steps, receivers = survey.record_shape
    samples = shots * steps * receivers
    variance = max(noise_variance(misfit, survey), (LEAST_NOISE * survey.unit) ** 2)
    found = hessian * (samples / (2 * variance))
    if prior_hessian is None:
        found.diagonal().add_(WIDE**-2)
    else:
        found = found.add_(prior_hessian, alpha=0.5)
        found[-1, -1] += WIDE**-2  # vmin, which priors leave alone
    return found


def standard_deviation(hessian, parameters, misfit, survey, prior_hessian=None):
    """Expected rms error of each cell, (nz, nx) float64 m/s; None if it cannot be computed.

    Arguments as of `precision`.
    """
    matrix = precision(hessian, parameters, misfit, survey, prior_hessian)
    scale = matrix.diagonal().sqrt()
    factor, info = torch.linalg.cholesky_ex(matrix.div_(scale).div_(scale[:, None]))
    if int(info) != 0:  # rounding: some unknown is hardly seen at all
        return None
    columns = parameters.matrix(hessian.device)[:-1] / scale
    halves = torch.linalg.solve_triangular(factor, columns.T, upper=False)
    return halves.square().sum(0).sqrt().reshape(parameters.shape)


@dataclass(frozen=True)
class LevelBelief:
    """What is believed of a map of few levels, K of them.

    levels, variance: (K,), where they lie; probabilities: (K + 1, nz, nx) of having each, the last
    of lying between; between: (mean, variance) (nz, nx) of a cell that does. m/s, and squared.
    """

    levels: torch.Tensor
    variance: torch.Tensor
    probabilities: torch.Tensor
    between: tuple[torch.Tensor, torch.Tensor]

    def deviation(self, v):
        """Expected rms distance of each cell of a map v (nz, nx) from the truth."""
        mean, variance = self.between
        off = torch.cat([v - self.levels[:, None, None], (v - mean)[None]]).square()
        off[:-1] += self.variance[:, None, None]
        off[-1] += variance
        return (self.probabilities * off).sum(0).sqrt()


def expected_error(deviation) -> float:
    """Mean absolute error (m/s) that goes with standard deviations (nz, nx)."""
    return MEAN_OF_NORMAL * float(deviation.mean())
