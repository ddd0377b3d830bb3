"""Expected error of a refined map.

`Solution` has it from the curvature of the objective, `LevelBelief` from the probabilities with
which cells were given one of a few levels.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from fwi_refine.objective.noise import MIN_NOISE, noise_variance
from fwi_refine.objective.parameterisation import Parameters
from fwi_refine.objective.source_hessian import SourceHessian
from fwi_refine.survey import Survey

WIDE = 1000.0  # m/s, standard deviation that an unknown has without data
MEAN_OF_NORMAL = math.sqrt(2 / math.pi)  # mean absolute value of a standard normal


class Uncertainty(Protocol):
    """The source of a map's expected error."""

    def deviation(self, v: torch.Tensor) -> torch.Tensor | None:
        """Expected rms error of each cell of a map v (nz, nx), m/s; None where it is not known."""


@dataclass(frozen=True)
class Solution:
    """Where a Gauss-Newton stage ended, with the normal posterior about it.

    Attributes
    ----------
    parameters : Parameters
        The n unknowns.
    hessian : Tensor, shape (n, n)
        Gauss-Newton Hessian 2 / N J^T J of the misfit, N the number of samples of the record, at
        the last Jacobian.
    misfit : float
        Mean square residual within the wavelet's band, in the squared unit of the record.
    prior_hessian : Tensor, shape (n, n), or None
        2 K^-1, twice the precision of a prior that is Gaussian, or was made so; None for total
        variation.
    survey : Survey
        Survey of the record.
    spread : float
        Factor of the expected errors, which the prior says.
    samples_used : int or None
        N, of the samples that count; None: all of the record.
    source : SourceHessian or None
        How map and wavelets depend on each other, where the wavelets are estimated.

    Notes
    -----
    Close to the solution the record is linear in the unknowns. With noise of variance s^2 and a
    Gaussian prior of precision K^-1 their posterior covariance is [1]_

        C = (J^T J / s^2 + K^-1)^-1

    and the rms error of cell i is sqrt((B C B^T)_ii), B the columns of the parameterisation. Total
    variation is no Gaussian prior: for tied regions C is the error of their velocities if their
    outlines are right.

    References
    ----------
    .. [1] A. Tarantola, "Inverse Problem Theory and Methods for Model Parameter Estimation", SIAM,
       2005, section 3.2.
    """

    parameters: Parameters
    hessian: torch.Tensor
    misfit: float
    prior_hessian: torch.Tensor | None
    survey: Survey
    spread: float = 1.0
    samples_used: int | None = None
    source: SourceHessian | None = None

    @property
    def variance(self) -> float:
        """Of the noise of a coefficient of the band, at least that of float32 records."""
        return max(noise_variance(self.misfit, self.survey), (MIN_NOISE * self.survey.unit) ** 2)

    def precision(self) -> torch.Tensor:
        """Posterior precision C^-1 of the unknowns (n, n), its own memory.

        K^-1 is WIDE^-2 on the diagonal without a Gaussian prior, and for vmin, which priors leave
        alone.
        """
        samples = self.samples_used or math.prod(self.survey.record_shape)
        found = self.hessian * (samples / (2 * self.variance))
        if self.prior_hessian is None:
            found.diagonal().add_(WIDE**-2)
        else:
            found = found.add_(self.prior_hessian, alpha=0.5)
            found[-1, -1] += WIDE**-2  # vmin
        return found

    def deviation(self, v: torch.Tensor | None = None) -> torch.Tensor | None:
        """Expected rms error of each cell, from the curvature.

        Parameters
        ----------
        v
            Any map: it does not matter which, as the curvature is that of the solution.

        Returns
        -------
        Tensor, shape (nz, nx), or None
            In m/s, float64; None if rounding has made the precision indefinite.
        """
        factored = scaled_factor(self.precision())
        if factored is None:
            return None
        factor, scale = factored
        columns = self.parameters.matrix(self.hessian.device)[:-1] / scale
        halves = torch.linalg.solve_triangular(factor, columns.T, upper=False)
        return self.spread * halves.square().sum(0).sqrt().reshape(self.parameters.shape)

    def samples(self, v: torch.Tensor, count: int, seed: int) -> torch.Tensor | None:
        """Maps (count, nz, nx), m/s, drawn from the posterior about a map v (nz, nx), or None."""
        draws = np.random.default_rng(seed).standard_normal((count, self.parameters.size))
        return posterior_samples(
            self.parameters.from_velocity(v),
            self.precision(),
            self.parameters,
            self.spread * torch.from_numpy(draws),
        )


def scaled_factor(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Cholesky factor of a precision in units of its own diagonal.

    Parameters
    ----------
    matrix : Tensor, shape (n, n)
        A precision, as of `Solution.precision`; it is overwritten.

    Returns
    -------
    (Tensor, Tensor) or None
        L, lower, and d (n,), with matrix = d L L^T d; None where rounding left it not definite, as
        some unknown is hardly seen at all.
    """
    scale = matrix.diagonal().sqrt()
    factor, info = torch.linalg.cholesky_ex(matrix.div_(scale).div_(scale[:, None]))
    return None if int(info) != 0 else (factor, scale)


def posterior_samples(
    x: torch.Tensor,
    matrix: torch.Tensor,
    parameters: Parameters,
    draws: torch.Tensor,
) -> torch.Tensor | None:
    """Maps drawn from the normal posterior about a solution.

    Parameters
    ----------
    x : Tensor, shape (n,)
        Unknowns at the solution.
    matrix : Tensor, shape (n, n)
        Posterior precision, as of `Solution.precision`; it is overwritten.
    parameters : Parameters
        Parameterisation of the n unknowns.
    draws : Tensor, shape (K, n)
        Independent standard normal numbers.

    Returns
    -------
    Tensor, shape (K, nz, nx), or None
        In m/s; None if rounding has made the precision indefinite. Each is a step from the
        solution in squared slowness, where the record is closest to linear.
    """
    factored = scaled_factor(matrix)
    if factored is None:
        return None
    factor, scale = factored
    steps = torch.linalg.solve_triangular(factor.T, draws.to(factor).T, upper=True).T / scale
    return torch.stack([parameters.velocity(parameters.retract(x, step)) for step in steps])


@dataclass(frozen=True)
class LevelBelief:
    """Probabilities of the cells of a map of K levels.

    Attributes
    ----------
    levels : Tensor, shape (K,)
        Mean velocity of each level, m/s.
    variance : Tensor, shape (K,)
        Variance of each, (m/s)^2.
    probabilities : Tensor, shape (K + 1, nz, nx)
        Of each cell having each level; the last of lying between levels.
    between : tuple of Tensor, shape (nz, nx)
        Mean, m/s, and variance, (m/s)^2, of a cell that lies between levels.
    """

    levels: torch.Tensor
    variance: torch.Tensor
    probabilities: torch.Tensor
    between: tuple[torch.Tensor, torch.Tensor]

    def deviation(self, v: torch.Tensor) -> torch.Tensor:
        """Expected rms error of each cell of a map.

        Parameters
        ----------
        v : Tensor, shape (nz, nx)
            Map in m/s.

        Returns
        -------
        Tensor, shape (nz, nx)
            In m/s.
        """
        mean, variance = self.between
        off = torch.cat([v - self.levels[:, None, None], (v - mean)[None]]).square()
        off[:-1] += self.variance[:, None, None]
        off[-1] += variance
        return (self.probabilities * off).sum(0).sqrt()


def expected_error(deviation: torch.Tensor) -> float:
    """Mean absolute error that goes with standard deviations, for normal errors.

    Parameters
    ----------
    deviation : Tensor, shape (nz, nx)
        Expected rms error of each cell, m/s.

    Returns
    -------
    float
        In m/s.
    """
    return MEAN_OF_NORMAL * float(deviation.mean())
