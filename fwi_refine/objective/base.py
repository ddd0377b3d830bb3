"""Objectives, which add up and take weights, so that code reads like the formula:

    objective = misfit + 1e-8 * PriorTerm(TotalVariation2D(), parameters)

An objective is a function of one vector of unknowns x (n,) float64 with a value and a gradient,
and a Hessian where it has one.
"""

import abc

import torch

from fwi_refine.objective.parameterisation import Full, Parameters


class Objective(abc.ABC):
    """A function to minimise. A subclass gives `value_and_gradient`, and `hessian` if it can.

    quadratic: whether the Hessian is the same everywhere
    """

    quadratic = False

    @abc.abstractmethod
    def value_and_gradient(self, x: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Value and gradient (n,) at x (n,)."""

    def hessian(self, x: torch.Tensor) -> torch.Tensor:
        """Hessian at x, or what stands for it in a Newton step, (n, n)."""
        raise NotImplementedError(
            f"{type(self).__name__} has no Hessian: use an optimiser that needs the gradient alone"
        )

    def add_hessian(self, matrix: torch.Tensor, x: torch.Tensor, weight: float = 1.0):
        """Adds weight times the Hessian at x to a matrix (n, n), in place."""
        matrix.add_(self.hessian(x), alpha=weight)

    def hessian_product(self, x: torch.Tensor, dx: torch.Tensor) -> torch.Tensor:
        """Hessian at x times dx (n,); to be overridden where it is cheaper than the Hessian."""
        return self.hessian(x) @ dx

    def __call__(self, x: torch.Tensor) -> float:
        return self.value_and_gradient(x)[0]

    def gradient(self, x: torch.Tensor) -> torch.Tensor:
        return self.value_and_gradient(x)[1]

    @property
    def terms(self) -> tuple[tuple[float, "Objective"], ...]:
        """The (weight, objective) pairs that this objective is the sum of."""
        return ((1.0, self),)

    def __add__(self, other: "Objective") -> "Objective":
        if not isinstance(other, Objective):
            return NotImplemented
        return WeightedSum(self.terms + other.terms)

    def __mul__(self, factor: float) -> "Objective":
        if isinstance(factor, Objective):
            return NotImplemented
        return WeightedSum((float(factor) * weight, term) for weight, term in self.terms)

    __rmul__ = __mul__


class SumOfSquaredResiduals(Objective):
    """mean(r(x)^2), for optimisers that use its structure.

    A subclass gives `residual`, `pull_back` and `hessian`, the Gauss-Newton matrix 2 / N J^T J.
    """

    @abc.abstractmethod
    def residual(self, x: torch.Tensor) -> torch.Tensor | None:
        """r, N numbers of any shape; None where x is not allowed."""

    @abc.abstractmethod
    def pull_back(self, x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        """2 / N J(x)^T r, (n,): the gradient if the residual at x were r."""

    def __call__(self, x):
        residual = self.residual(x)
        return torch.inf if residual is None else float(residual.square().mean())

    def value_and_gradient(self, x):
        residual = self.residual(x)
        if residual is None:
            return torch.inf, torch.zeros_like(x)
        return float(residual.square().mean()), self.pull_back(x, residual)


class AddedHessian(Objective):
    """An objective that gives `add_hessian`, as most of its Hessian is zero or a sum."""

    @abc.abstractmethod
    def add_hessian(self, matrix, x, weight=1.0):
        """As in `Objective`."""

    def hessian(self, x):
        matrix = x.new_zeros(len(x), len(x))
        self.add_hessian(matrix, x)
        return matrix


class WeightedSum(AddedHessian):
    """The sum of weight * term. Each term is evaluated once for both value and gradient."""

    def __init__(self, terms):
        self._terms = tuple(terms)

    @property
    def terms(self):
        return self._terms

    @property
    def quadratic(self):
        return all(term.quadratic for _, term in self.terms)

    def __call__(self, x):
        return sum(weight * term(x) for weight, term in self.terms)

    def value_and_gradient(self, x):
        value, gradient = 0.0, torch.zeros_like(x)
        for weight, term in self.terms:
            term_value, term_gradient = term.value_and_gradient(x)
            value += weight * term_value
            gradient += weight * term_gradient
        return value, gradient

    def add_hessian(self, matrix, x, weight=1.0):
        for factor, term in self.terms:
            term.add_hessian(matrix, x, weight * factor)

    def hessian_product(self, x, dx):
        return sum(weight * term.hessian_product(x, dx) for weight, term in self.terms)


class PriorTerm(AddedHessian):
    """A prior as a function of the unknowns of a parameterisation.

    The parameterisation says what its prior acts on (`Parameters.prior_coordinates`): the map in
    `Full` and `Regions`, the vector of rows in `Rows`, the coefficients z in `Modes`. That is
    affine in x, so the chain rule is one product with its adjoint, `Parameters.prior_pullback`,
    for the gradient, and two for the Hessian. vmin is not penalised.

    prior: has value_and_gradient(u) -> (value, gradient like u), hessian(u) -> (n, n), and says
        whether it is `quadratic`
    """

    def __init__(self, prior, parameters: Parameters):
        self.prior = prior
        self.parameters = parameters
        self.quadratic = prior.quadratic

    def value_and_gradient(self, x):
        value, gradient = self.prior.value_and_gradient(self.parameters.prior_coordinates(x))
        return float(value), self.parameters.prior_pullback(gradient)

    def add_hessian(self, matrix, x, weight=1.0):
        u = self.parameters.prior_coordinates(x)
        hessian = self.prior.hessian(u)
        if isinstance(self.parameters, Full) or not self.parameters.prior_acts_on_map:
            # what the prior acts on are the unknowns themselves
            matrix[:-1, :-1].add_(hessian, alpha=weight)
            return
        pullback = self.parameters.prior_pullback
        rows = pullback(hessian.reshape(-1, *u.shape))  # (u.numel(), n)
        matrix.add_(pullback(rows.T.reshape(-1, *u.shape)), alpha=weight)


class SumOfSquares:
    """The prior z . z: minus twice the log density of independent standard normal z (k,).

    On `Modes` it is the energy of the Gaussian process that the modes come from.
    """

    quadratic = True

    def value_and_gradient(self, z):
        return torch.dot(z, z), 2.0 * z

    def value(self, z):
        return torch.dot(z, z)

    def gradient(self, z):
        return 2.0 * z

    def hessian(self, z):
        return 2.0 * torch.eye(z.numel()).to(z)
