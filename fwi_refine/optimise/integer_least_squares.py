"""Least squares with unknowns that are zero or one of a few values each.

    minimise norm(y - A u)^2 over u, with u_i in {0, x_i1, x_i2, ...} and few u_i other than 0

Picking one unknown after the other goes wrong where columns are alike: of 28 changes to a map it
found 2. Expectation propagation (Minka, UAI 2001) weighs all at once. Each unknown has a prior of
peaks at its values, and a normal density, its site, that stands in for it; a cavity, the posterior
without this site, times the prior gives the moments that renew the site. The likelihood is flat at
first and sharpens from renewal to renewal. What is likeliest in the end is improved by exchanges
of one or two unknowns until none lowers the cost. Exchanges from zero come first, as they are
fast: where they explain most of y, they are right.
"""

from dataclasses import dataclass

import numpy as np

ENOUGH_RESIDUAL = 0.1  # fraction of |y|^2 that exchanges may leave to be enough
NONZERO_PROBABILITY = 0.02  # probability that an unknown is not zero
MAX_RENEWALS, DAMPING = 40, 0.4
FIRST_VARIANCE, VARIANCE_DECREASE = 100.0, 0.85  # of the noise, and its factor per renewal
MIN_VARIANCE = 4.0  # of the noise in the end: columns are wrong by more than white noise
PEAK_DEVIATION = 0.02  # standard deviation of a peak, of an unknown's largest value
FIRST_DEVIATION = 0.3  # standard deviation of the first sites, likewise
MIN_PRECISION = 1e-9  # of a site or a cavity, times the square of the largest value
MAX_EXCHANGES = 600  # moves of which pairs are tried
MIN_GAIN = 1e-9  # of |y|^2, by an exchange


@dataclass(frozen=True)
class IntegerProblem:
    """The problem above in terms of products, for y and A in units of the noise.

    Parameters
    ----------
    normal
        A^T A, (n, n).
    pulled
        A^T y, (n,).
    energy
        ``y . y``.
    unknown, value
        (M,) each: unknown number `unknown[m]` may be `value[m]`, besides 0.
    """

    normal: np.ndarray
    pulled: np.ndarray
    energy: float
    unknown: np.ndarray
    value: np.ndarray

    def misfit(self, u: np.ndarray) -> float:
        """The square of the norm of y - A u."""
        return float(self.energy - 2 * self.pulled @ u + u @ self.normal @ u)


def integer_least_squares(problem: IntegerProblem, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """The values of the unknowns, and the probability of each.

    Parameters
    ----------
    problem
        At least one unknown, each with one value or more.
    penalty
        What an unknown other than 0 costs, as a fraction of ``y . y``.

    Returns
    -------
    u, probability
        (n,) each. u has the least norm(y - A u)^2 + penalty y . y (number of u_i other than 0) that
        was found; `probability` is that of u_i by expectation propagation, 1 where there was no
        need for it.
    """
    cost = penalty * problem.energy
    u = _exchange(problem, np.zeros(len(problem.pulled)), cost)
    if problem.misfit(u) < ENOUGH_RESIDUAL * problem.energy:
        return u, np.ones(len(u))
    values, probabilities = _expectation_propagation(problem)
    rows = np.arange(len(values))
    other = _exchange(problem, values[rows, probabilities.argmax(1)], cost)
    u = min(u, other, key=lambda u: problem.misfit(u) + cost * np.count_nonzero(u))
    which = np.abs(values - u[:, None]).argmin(1)
    return u, probabilities[rows, which]


def _expectation_propagation(problem: IntegerProblem) -> tuple[np.ndarray, np.ndarray]:
    """Values (n, K), the first of each 0, and their probabilities."""
    values, log_prior = _peaks(problem)
    scale = np.abs(values).max(1)
    scale[scale == 0] = 1.0  # no choice
    peak = (PEAK_DEVIATION * scale)[:, None] ** 2
    least = MIN_PRECISION / scale**2
    precision, shift = 1 / (FIRST_DEVIATION * scale) ** 2, np.zeros(len(scale))
    variance = FIRST_VARIANCE
    for _ in range(MAX_RENEWALS):
        covariance = np.linalg.inv(problem.normal / variance + np.diag(precision))
        mean, own = covariance @ (problem.pulled / variance + shift), covariance.diagonal()
        cavity = np.maximum(1 / own - precision, least)
        centre = ((mean / own - shift) / cavity)[:, None]
        total = 1 / cavity[:, None] + peak
        log = log_prior - (centre - values) ** 2 / (2 * total) - np.log(total) / 2
        probabilities = np.exp(log - log.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
        at_peak = values + (centre - values) * peak / total
        expected = (probabilities * at_peak).sum(1)
        spread = peak / total / cavity[:, None] + (at_peak - expected[:, None]) ** 2
        moment = (probabilities * spread).sum(1)
        renewed = np.maximum(1 / moment - cavity, least)
        precision += DAMPING * (renewed - precision)
        shift += DAMPING * (expected / moment - centre[:, 0] * cavity - shift)
        variance = max(MIN_VARIANCE, variance * VARIANCE_DECREASE)
    return values, probabilities


def _peaks(problem: IntegerProblem) -> tuple[np.ndarray, np.ndarray]:
    """Values (n, K), the first of each 0, and the logarithms of their prior probabilities."""
    count = np.bincount(problem.unknown, minlength=len(problem.pulled))
    order = np.argsort(problem.unknown, kind="stable")
    unknown = problem.unknown[order]
    position = 1 + np.arange(len(order)) - (np.cumsum(count) - count)[unknown]
    shape = len(count), 1 + count.max()
    values, log_prior = np.zeros(shape), np.full(shape, -np.inf)
    values[unknown, position] = problem.value[order]
    log_prior[:, 0] = np.log(1 - NONZERO_PROBABILITY)
    log_prior[unknown, position] = np.log(NONZERO_PROBABILITY / count[unknown])
    return values, log_prior


def _exchange(problem: IntegerProblem, u: np.ndarray, penalty: float) -> np.ndarray:
    """u after changes of one or two unknowns, as long as any lowers the cost."""
    u, normal = u.copy(), problem.normal
    unknown = np.concatenate([problem.unknown, np.arange(len(u))])
    value = np.concatenate([problem.value, np.zeros(len(u))])
    while True:
        by = value - u[unknown]
        gradient = problem.pulled - normal @ u
        change = by**2 * normal[unknown, unknown] - 2 * by * gradient[unknown]
        change += penalty * ((value != 0).astype(float) - (u[unknown] != 0))
        best = np.argsort(change, kind="stable")[:MAX_EXCHANGES]
        first, step = unknown[best], by[best]
        pairs = (
            change[best, None]
            + change[best]
            + 2 * np.outer(step, step) * normal[np.ix_(first, first)]
        )
        pairs[first[:, None] == first] = np.inf
        one, other = divmod(int(pairs.argmin()), len(best))
        single = change[best[0]]
        chosen = best[:1] if single <= pairs[one, other] else best[[one, other]]
        if min(single, pairs[one, other]) > -MIN_GAIN * problem.energy:
            return u
        u[unknown[chosen]] = value[chosen]
