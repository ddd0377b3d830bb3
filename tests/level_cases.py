"""Choices between levels, for the tests of marginals."""

import numpy as np
import torch

from fwi_refine.optimise import LevelProblem

BETWEEN = 0.2


def alone(probabilities):
    """Neighbours that do not matter."""
    return np.zeros(1)


def problem(matrix, gradient, levels, allowed=None):
    allowed = np.ones(levels.shape, dtype=bool) if allowed is None else allowed
    return LevelProblem(
        matrix=torch.from_numpy(matrix),
        gradient=gradient,
        others=0,
        width=1.0,
        levels=lambda others: levels,
        allowed=allowed,
        between=BETWEEN,
        neighbour_term=alone,
    )


def blurred(n, seed, spread=0.12, noise=0.01):
    """Neighbours hard to tell apart, some between their two levels; and the answer."""
    rng = np.random.default_rng(seed)
    levels = np.sort(rng.uniform(-300, 300, (2, n)), axis=0) + np.array([[-20.0], [20.0]])
    answer = levels[rng.integers(0, 2, n), np.arange(n)]
    between = rng.random(n) < 0.15
    answer[between] = rng.uniform(*levels[:, between])
    blur = np.exp(-((np.arange(n) - np.arange(n)[:, None]) ** 2) * spread) / 2.0
    gradient = -blur.T @ (blur @ answer + noise * rng.standard_normal(n))
    return problem(blur.T @ blur / noise**2, gradient / noise**2, levels), levels, answer
