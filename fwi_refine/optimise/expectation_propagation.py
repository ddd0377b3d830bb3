"""Which unknowns stand at one of a few levels, and at which: their marginal probabilities.

    p(u) ~ exp(-(g.u + u.G u / 2)) * product over the unknowns i of p_i(u_i)
    p_i  = sum over its levels k of (1 - b) / K_i N(level_ki, SHARP^2) + b N(centre_i, spread_i^2)

with the quadratic a minus log likelihood, and b the fraction of unknowns that lie between levels.
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

SHARP = 0.5  # m/s, standard deviation of an unknown about its level
LEAST_SPREAD = 50.0  # m/s, of an unknown between levels
# Times the standard deviation of a uniform density between the outermost levels: some lie beyond.
STRETCH = 1.5
DAMPING = 0.3  # fraction of a renewed site that is taken: all are renewed at once
FLAT, LESS = 16.0, 0.8  # the variances of the likelihood at first, and from renewal to renewal
LEAST_PRECISION = 1e-12  # of a site: what is less would widen what it stands for
LEAST_OF_CAVITY = 1e-9  # (m/s)^-2, its precision, where rounding has left less


@dataclass(frozen=True)
class LevelProblem:
    """The density above. n unknowns of at most K levels, and m on which these depend.

    matrix: G (n + m, n + m), positive semidefinite, torch float64 on any device, which does what
    goes with the cube of n; gradient: g (n + m,), at u = 0, numpy float64, as all else.
    others: m; they are normal about 0 with standard deviation `width`
    levels: from the m others, (m,) -> (K, n); near: (K, n) bool, which an unknown may have. What
    lies between levels does so between those that it may have, or all where that is less than two.
    between: the fraction b. favour: from the probabilities (K + 1, n), the last of lying between,
    to what neighbours add to their logarithms, of the same shape; called with None at first
    """

    matrix: torch.Tensor
    gradient: np.ndarray
    others: int
    width: float
    levels: Callable[[np.ndarray], np.ndarray]
    near: np.ndarray
    between: float
    favour: Callable[[np.ndarray | None], np.ndarray]


@dataclass(frozen=True)
class Marginals:
    """mean: (n + m,). levels: (K, n). probabilities: (K + 1, n), the last of lying between.
    low, high: (n,), between what that is. between: (mean, variance) (n,) if an unknown does.
    variance: of the others (m,)."""

    mean: np.ndarray
    levels: np.ndarray
    low: np.ndarray
    high: np.ndarray
    probabilities: np.ndarray
    between: tuple[np.ndarray, np.ndarray]
    variance: np.ndarray


def expectation_propagation(
    problem: LevelProblem,
    iterations: int = 25,
    should_stop: Callable[[], bool] = lambda: False,
) -> Marginals | None:
    """The marginals after so many renewals of all sites; None where the matrix is not positive
    definite, or when it is to stop, which is asked before each."""
    total = len(problem.gradient)
    n = total - problem.others
    precision = slope = probabilities = None
    mean = np.zeros(total)
    others = np.full(problem.others, problem.width**-2.0)
    for number in range(iterations):
        power = min(1.0, LESS**-number / FLAT)  # of the likelihood
        levels = problem.levels(mean[n:])
        mixture = _Mixture(levels, problem.near, problem.between)
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
        cavity = 1 / np.maximum(1 / variance[:n] - precision, LEAST_OF_CAVITY)
        centre = cavity * (mean[:n] / variance[:n] - slope)
        probabilities, means, variances = mixture.times_normal(
            centre, cavity, problem.favour(probabilities)
        )
        expected = (probabilities * means).sum(0)
        width = (probabilities * (variances + (means - expected) ** 2)).sum(0)
        renewed = 1 / width - 1 / cavity, expected / width - centre / cavity
        useful = renewed[0] > LEAST_PRECISION
        precision = precision + DAMPING * np.where(useful, renewed[0] - precision, 0.0)
        slope = slope + DAMPING * np.where(useful, renewed[1] - slope, 0.0)
    between = means[-1], variances[-1]
    bounds = mixture.low, mixture.high
    return Marginals(mean, levels, *bounds, probabilities, between, variance[n:])


class _Mixture:
    """p_i of every unknown. centre, spread: mean and variance of the part between levels (n,)."""

    def __init__(self, levels, near, between):
        choices = near.sum(0)
        counts = near | (choices < 2)
        self.low = np.where(counts, levels, np.inf).min(0)
        self.high = np.where(counts, levels, -np.inf).max(0)
        self.centre = (self.low + self.high) / 2
        uniform = (self.high - self.low) / math.sqrt(12)
        self.spread = np.maximum(STRETCH * uniform, LEAST_SPREAD) ** 2
        self.means = np.vstack([levels, self.centre])
        self.variances = np.vstack([np.full(levels.shape, SHARP**2), self.spread])
        each = (1 - between) / np.maximum(choices, 1)
        self.logs = np.vstack(
            [np.where(near, np.log(each), -np.inf), np.full(levels.shape[1], math.log(between))]
        )

    def times_normal(self, mean, variance, favoured):
        """(probabilities, means, variances), (K + 1, n) each, of the parts of p_i times a normal
        density."""
        total = self.variances + variance
        logs = self.logs + favoured - 0.5 * (np.log(total) + (mean - self.means) ** 2 / total)
        probabilities = np.exp(logs - logs.max(0))
        probabilities /= probabilities.sum(0)
        means = (mean * self.variances + self.means * variance) / total
        return probabilities, means, self.variances * variance / total
