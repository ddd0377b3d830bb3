"""Objectives with known minima, and what can go wrong with them, for the tests of optimisers."""

import itertools
import math

import torch


def vector(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Rosenbrock:
    """sum of 100 (x[i+1] - x[i]^2)^2 + (1 - x[i])^2; the minimum is 0 at x = 1."""

    def value_and_gradient(self, x):
        a, b = x[1:] - x[:-1] ** 2, 1 - x[:-1]
        gradient = torch.zeros_like(x)
        gradient[1:] = 200 * a
        gradient[:-1] -= 400 * a * x[:-1] + 2 * b
        return float(100 * (a @ a) + b @ b), gradient

    @staticmethod
    def start(n):
        return torch.where(torch.arange(n) % 2 == 0, -1.2, 1.0).double()


class Quadratic:
    """|x - centre|^2 / 2 in the norm of a matrix with eigenvalues 1 to `condition`."""

    def __init__(self, n, condition, seed=0, level=0.0):
        generator = torch.Generator().manual_seed(seed)
        random = torch.randn(n, n, generator=generator, dtype=torch.float64)
        axes = torch.linalg.qr(random).Q
        self.matrix = (
            axes @ torch.diag(torch.logspace(0, math.log10(condition), n).double()) @ axes.T
        )
        self.centre = torch.randn(n, generator=generator, dtype=torch.float64)
        self.level = level

    def value_and_gradient(self, x):
        gradient = self.matrix @ (x - self.centre)
        return self.level + float((x - self.centre) @ gradient / 2), gradient


class Counted:
    """Counts the evaluations of an objective and keeps what it was asked and what it answered."""

    def __init__(self, objective):
        self.objective, self.asked, self.answered = objective, [], []

    def value_and_gradient(self, x):
        value, gradient = self.objective.value_and_gradient(x)
        self.asked.append(x.clone())
        self.answered.append(value)
        return value, gradient


class Changed:
    """An objective changed by a function (count, x, value, gradient) -> (value, gradient)."""

    def __init__(self, objective, change):
        self.objective, self.change, self.count = objective, change, itertools.count()

    def value_and_gradient(self, x):
        return self.change(next(self.count), x, *self.objective.value_and_gradient(x))


FAULTS = {
    "nan value": lambda x, value, g: (math.nan, g),
    "inf value": lambda x, value, g: (math.inf, g),
    "minus inf value": lambda x, value, g: (-math.inf, g),
    "nan gradient": lambda x, value, g: (value, g * math.nan),
    "inf in gradient": lambda x, value, g: (value, g.index_fill(0, torch.tensor([0]), math.inf)),
    "wrong sign": lambda x, value, g: (value, -g),
    "zero gradient": lambda x, value, g: (value, 0 * g),
    "huge gradient": lambda x, value, g: (value, 1e200 * g),
}
