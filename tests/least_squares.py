"""Sums of squared residuals with known minima, for the tests of optimisers."""

from dataclasses import fields

import torch

from fwi_refine.objective.base import Objective, SumOfSquaredResiduals
from fwi_refine.optimise import DescentSettings


class Rosenbrock(SumOfSquaredResiduals):
    """r = (10 (y - x^2), 1 - x): a narrow curved valley, minimum 0 at (1, 1)."""

    def residual(self, x):
        return torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])

    def jacobian(self, x):
        return torch.tensor([[-20 * float(x[0]), 10.0], [-1.0, 0.0]], dtype=torch.float64)

    def pull_back(self, x, r):
        return self.jacobian(x).T @ r

    def hessian(self, x):
        return self.jacobian(x).T @ self.jacobian(x)


class Energy(Objective):
    """x . x, as a prior."""

    quadratic = True

    def value_and_gradient(self, x):
        return float(x @ x), 2 * x

    def hessian(self, x):
        return 2 * torch.eye(len(x), dtype=torch.float64)


START = torch.tensor([-1.2, 1.0], dtype=torch.float64)


class Quadratic(SumOfSquaredResiduals):
    scale = torch.tensor([1e-3, 1.0, 1e3], dtype=torch.float64)

    def residual(self, x):
        return self.scale * (x - 3)

    def pull_back(self, x, r):
        return 2 / 3 * self.scale * r

    def hessian(self, x):
        return 2 / 3 * torch.diag(self.scale**2)


def descent(options):
    """The options of a method as its settings of descents and the rest; weight: a number."""
    names = {field.name for field in fields(DescentSettings)}
    weight = options.get("weight", 0.0)
    shared = {name: value for name, value in options.items() if name in names}
    settings = DescentSettings(**{**shared, "weight": lambda misfit, prior: weight})
    return settings, {name: value for name, value in options.items() if name not in names}
