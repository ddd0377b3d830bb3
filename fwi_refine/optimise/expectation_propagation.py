"""Which unknowns stand at one of a few levels, and at which: their marginal probabilities.

    p(u) ~ exp(-(g.u + u.G u / 2)) * product over the unknowns i of p_i(u_i)
    p_i  = sum over its levels k of (1 - b) / K_i N(level_ki, s^2) + b N(centre_i, spread_i^2)

with the quadratic a minus log likelihood, s = LEVEL_DEVIATION, and b the fraction of unknowns that
lie between levels.
Trying all choices is out of question, and choosing one unknown after the other gets stuck, because
neighbours stand in for each other. Expectation propagation (Minka, UAI 2001; Opper and Winther,
Neural Computation 12, 2000) decides on all at once: each p_i is stood in for by a normal density,
its site. The likelihood and the sites of all others make the cavity of an unknown; cavity times p_i
has a mean and a variance, and the site is renewed so that the normal densities have these. It finds
symbols that interfere with each other almost as well as a search of all does (Cespedes et al., IEEE
Trans. Commun. 62, 2014), which is the same problem.

The likelihood is flat at first, and then less and less: at once as narrow as it is, it pulls
unknowns far beyond their levels while the sites are wrong, and these do not find back.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL_DEVIATION = 0.5  # m/s, standard deviation of an unknown about its level
MIN_BETWEEN_DEVIATION = 50.0  # m/s, of an unknown between levels
# Times the standard deviation of a uniform density between the outermost levels: some lie beyond.
BETWEEN_STRETCH = 1.5
DAMPING = 0.3  # fraction of a renewed site that is taken: all are renewed at once
# Variance of the likelihood, relative to what it is: at first, and from renewal to renewal.
FIRST_TEMPERATURE, COOLING = 16.0, 0.8
MIN_PRECISION = 1e-12  # of a site: what is less would widen what it stands for
MIN_CAVITY_PRECISION = 1e-9  # (m/s)^-2, its precision, where rounding has left less


@dataclass(frozen=True)
class LevelProblem:
    """The density above. n unknowns of at most K levels, and m on which these depend.

    Parameters
    ----------
    matrix : torch.Tensor of float64, (n + m, n + m)
        G, positive semidefinite, on any device, which does what goes with the cube of n.
    gradient : ndarray of float64, (n + m,)
        g, at u = 0.
    others : int
        m; they are normal about 0 with standard deviation `width`.
    width : float
        m/s.
    levels : callable
        From the m others, (m,), to the levels, (K, n).
    allowed : ndarray of bool, (K, n)
        Which levels an unknown may have. What lies between levels does so between those that it
        may have, or all where that is less than two.
    between : float
        The fraction b.
    neighbour_term : callable
        From the probabilities (K + 1, n), the last of lying between, to the neighbours' term in
        their logarithms, of the same shape; called with None at first.
    """

    matrix: torch.Tensor
    gradient: Floats
    others: int
    width: float
    levels: Callable[[Floats], Floats]
    allowed: NDArray[np.bool_]
    between: float
    neighbour_term: Callable[[Floats | None], Floats]


@dataclass(frozen=True)
class Marginals:
    """The marginal probabilities.

    Parameters
    ----------
    mean : ndarray, (n + m,)
        Of the unknowns and the others, m/s.
    levels : ndarray, (K, n)
        m/s.
    low, high : ndarray, (n,)
        Between what an unknown lies if it has no level, m/s.
    probabilities : ndarray, (K + 1, n)
        Of the levels, the last of lying between.
    between : tuple of ndarray, (n,)
        Mean and variance if an unknown lies between.
    variance : ndarray, (m,)
        Of the others.
    """

    mean: Floats
    levels: Floats
    low: Floats
    high: Floats
    probabilities: Floats
    between: tuple[Floats, Floats]
    variance: Floats


def expectation_propagation(
    problem: LevelProblem,
    iterations: int = 25,
    should_stop: Callable[[], bool] = lambda: False,
) -> Marginals | None:
    """The marginals after some renewals of all sites.

    Parameters
    ----------
    problem : LevelProblem
        The density.
    iterations : int
        Renewals, at least 1.
    should_stop : callable
        Asked before each.

    Returns
    -------
    Marginals or None
        None where the matrix is not positive definite, or when it is to stop.

    Raises
    ------
    ValueError
        For fewer than one iteration.
    """
    if iterations < 1:
        raise ValueError(f"iterations {iterations}: expected at least 1")
    total = len(problem.gradient)
    n = total - problem.others
    precision: Floats | None = None
    slope = np.zeros(n)
    probabilities: Floats | None = None
    mean = np.zeros(total)
    others = np.full(problem.others, problem.width**-2.0)
    for number in range(iterations):
        power = min(1.0, COOLING**-number / FIRST_TEMPERATURE)  # of the likelihood
        levels = problem.levels(mean[n:])
        mixture = _Mixture(levels, problem.allowed, problem.between)
        if precision is None:  # begin as if all lay between
            precision, slope = 1 / mixture.spread, mixture.centre / mixture.spread
        matrix = power * problem.matrix
        matrix.diagonal().add_(torch.from_numpy(np.concatenate([precision, others])).to(matrix))
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if int(failed) or should_stop():
            return None
        covariance = torch.cholesky_inverse(factor)
        pulled = np.pad(slope, (0, problem.others)) - power * problem.gradient
        mean = (covariance @ torch.from_numpy(pulled).to(covariance)).cpu().numpy()
        variance = covariance.diagonal().cpu().numpy()
        cavity = 1 / np.maximum(1 / variance[:n] - precision, MIN_CAVITY_PRECISION)
        centre = cavity * (mean[:n] / variance[:n] - slope)
        probabilities, means, variances = mixture.times_normal(
            centre, cavity, problem.neighbour_term(probabilities)
        )
        expected = (probabilities * means).sum(0)
        width = (probabilities * (variances + (means - expected) ** 2)).sum(0)
        renewed = 1 / width - 1 / cavity, expected / width - centre / cavity
        useful = renewed[0] > MIN_PRECISION
        precision = precision + DAMPING * np.where(useful, renewed[0] - precision, 0.0)
        slope = slope + DAMPING * np.where(useful, renewed[1] - slope, 0.0)
    assert probabilities is not None  # there was a renewal
    between = means[-1], variances[-1]
    bounds = mixture.low, mixture.high
    return Marginals(mean, levels, *bounds, probabilities, between, variance[n:])


class _Mixture:
    """p_i of every unknown. centre, spread: mean and variance of the part between levels (n,)."""

    def __init__(self, levels: Floats, allowed: NDArray[np.bool_], between: float):
        choices = allowed.sum(0)
        counts = allowed | (choices < 2)
        self.low = np.where(counts, levels, np.inf).min(0)
        self.high = np.where(counts, levels, -np.inf).max(0)
        self.centre = (self.low + self.high) / 2
        uniform = (self.high - self.low) / math.sqrt(12)
        self.spread = np.maximum(BETWEEN_STRETCH * uniform, MIN_BETWEEN_DEVIATION) ** 2
        self.means = np.vstack([levels, self.centre])
        self.variances = np.vstack([np.full(levels.shape, LEVEL_DEVIATION**2), self.spread])
        each = (1 - between) / np.maximum(choices, 1)
        self.logs = np.vstack(
            [np.where(allowed, np.log(each), -np.inf), np.full(levels.shape[1], math.log(between))]
        )

    def times_normal(
        self, mean: Floats, variance: Floats, favoured: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """(probabilities, means, variances), (K + 1, n) each, of the parts of p_i times a normal
        density."""
        total = self.variances + variance
        logs = self.logs + favoured - 0.5 * (np.log(total) + (mean - self.means) ** 2 / total)
        probabilities = np.exp(logs - logs.max(0))
        probabilities /= probabilities.sum(0)
        means = (mean * self.variances + self.means * variance) / total
        return probabilities, means, self.variances * variance / total
