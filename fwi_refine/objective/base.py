"""Objectives, which add up and take weights, so that code reads like the formula:

    objective = misfit + 1e-8 * PriorTerm(TotalVariation2D(), parameters)

An objective is a function of one vector of unknowns x (n,) float64 with a value and a gradient,
and a Hessian where it has one.
"""

import abc
from collections.abc import Iterable

import torch
from scipy import sparse
from torch import Tensor

from fwi_refine.objective.parameterisation import Full, Parameters
from fwi_refine.priors.base import Prior


class Objective(abc.ABC):
    """A function to minimise.

    A subclass defines `value_and_gradient`, and `hessian` or `AddedHessian.add_hessian` if it has
    a Hessian.

    Attributes
    ----------
    quadratic : bool
        Whether the Hessian is the same everywhere.
    """

    quadratic: bool = False

    @abc.abstractmethod
    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """Value and gradient in one pass.

        Returns
        -------
        value : float
            Infinite where `x` is not allowed.
        gradient : Tensor, shape (n,)
        """

    def hessian(self, x: Tensor) -> Tensor:
        """Hessian, or its substitute in a Newton step.

        Returns
        -------
        Tensor, shape (n, n)

        Raises
        ------
        NotImplementedError
            If the objective has no Hessian.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no Hessian: use an optimiser that needs the gradient alone"
        )

    def add_hessian(self, matrix: Tensor, x: Tensor, weight: float = 1.0) -> None:
        """Add weight times the Hessian to a matrix (n, n), in place."""
        matrix.add_(self.hessian(x), alpha=weight)

    def sparse_hessian(self, x: Tensor) -> sparse.csr_array:
        """The Hessian without its zeros, in float64; overridden where it has many."""
        return sparse.csr_array(self.hessian(x).cpu().double().numpy())

    def hessian_product(self, x: Tensor, dx: Tensor) -> Tensor:
        """Hessian times dx (n,); overridden where that is cheaper than the Hessian."""
        return self.hessian(x) @ dx

    def __call__(self, x: Tensor) -> float:
        """Value at the unknowns x (n,)."""
        return self.value_and_gradient(x)[0]

    def gradient(self, x: Tensor) -> Tensor:
        """The gradient (n,) alone."""
        return self.value_and_gradient(x)[1]

    @property
    def terms(self) -> tuple[tuple[float, "Objective"], ...]:
        """The (weight, objective) pairs that add up to this objective."""
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

    A subclass defines `residual`, `pull_back` and `hessian`, the Gauss-Newton matrix 2 / N J^T J;
    and `mean_square` as well where residuals are weighted.
    """

    @abc.abstractmethod
    def residual(self, x: Tensor) -> Tensor | None:
        """Residual r: N numbers of any shape; None where `x` is not allowed."""

    @abc.abstractmethod
    def pull_back(self, x: Tensor, r: Tensor) -> Tensor:
        """Gradient (n,) at `x` if the residual there were `r`: 2 / N J(x)^T r."""

    def mean_square(self, r: Tensor) -> float:
        """The value for a residual `r`, of the shape of `residual`."""
        return float(r.square().mean())

    def __call__(self, x: Tensor) -> float:
        """Value at the unknowns x (n,)."""
        residual = self.residual(x)
        return torch.inf if residual is None else self.mean_square(residual)

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """As in `Objective`."""
        residual = self.residual(x)
        if residual is None:
            return torch.inf, torch.zeros_like(x)
        return self.mean_square(residual), self.pull_back(x, residual)


class AddedHessian(Objective):
    """An objective that defines `add_hessian`, as most of its Hessian is zero or a sum."""

    @abc.abstractmethod
    def add_hessian(self, matrix: Tensor, x: Tensor, weight: float = 1.0) -> None:
        """As in `Objective`."""

    def hessian(self, x: Tensor) -> Tensor:
        """As in `Objective`."""
        matrix = x.new_zeros(len(x), len(x))
        self.add_hessian(matrix, x)
        return matrix


class WeightedSum(AddedHessian):
    """The sum of weight * term. Each term is evaluated once for both value and gradient.

    Parameters
    ----------
    terms : iterable of (float, Objective)
        Weights and what they are of.
    """

    def __init__(self, terms: Iterable[tuple[float, Objective]]):
        self._terms = tuple(terms)
        self.quadratic = all(term.quadratic for _, term in self._terms)

    @property
    def terms(self) -> tuple[tuple[float, Objective], ...]:
        """As in `Objective`."""
        return self._terms

    def __call__(self, x: Tensor) -> float:
        """Value at the unknowns x (n,)."""
        return sum(weight * term(x) for weight, term in self.terms)

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """As in `Objective`."""
        value, gradient = 0.0, torch.zeros_like(x)
        for weight, term in self.terms:
            term_value, term_gradient = term.value_and_gradient(x)
            value += weight * term_value
            gradient += weight * term_gradient
        return value, gradient

    def add_hessian(self, matrix: Tensor, x: Tensor, weight: float = 1.0) -> None:
        """As in `Objective`."""
        for factor, term in self.terms:
            term.add_hessian(matrix, x, weight * factor)

    def sparse_hessian(self, x: Tensor) -> sparse.csr_array:
        """As in `Objective`."""
        terms = (weight * term.sparse_hessian(x) for weight, term in self.terms)
        return sum(terms, sparse.csr_array((len(x), len(x))))

    def hessian_product(self, x: Tensor, dx: Tensor) -> Tensor:
        """As in `Objective`."""
        products = (weight * term.hessian_product(x, dx) for weight, term in self.terms)
        return sum(products, torch.zeros_like(dx))


class PriorTerm(AddedHessian):
    """A prior as a function of the unknowns of a parameterisation.

    Parameters
    ----------
    prior : Prior
        Function of the coordinates that the parameterisation gives it
        (`Parameters.prior_coordinates`).
    parameters : Parameters
        Parameterisation of the unknowns.

    Notes
    -----
    The coordinates are the map in `Full` and `Regions`, the vector of rows in `Rows`, and the
    coefficients z in `Modes`. They are affine in x, so the chain rule is one product with the
    adjoint, `Parameters.prior_pullback`, for the gradient, and two for the Hessian. vmin is not
    penalised.
    """

    def __init__(self, prior: Prior, parameters: Parameters):
        self.prior = prior
        self.parameters = parameters
        self.quadratic = prior.quadratic

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """As in `Objective`."""
        value, gradient = self.prior.value_and_gradient(self.parameters.prior_coordinates(x))
        return float(value), self.parameters.prior_pullback(gradient)

    def add_hessian(self, matrix: Tensor, x: Tensor, weight: float = 1.0) -> None:
        """As in `Objective`."""
        u = self.parameters.prior_coordinates(x)
        sparsely = getattr(self.prior, "add_hessian", None)
        if sparsely is not None and isinstance(self.parameters, Full):
            sparsely(matrix[:-1, :-1], u, weight)
            return
        hessian = self.prior.hessian(u)
        same = isinstance(self.parameters, Full) or not self.parameters.prior_acts_on_map
        if same and u.numel() == len(x) - 1:
            # the coordinates of the prior are the unknowns themselves
            matrix[:-1, :-1].add_(hessian, alpha=weight)
            return
        pullback = self.parameters.prior_pullback
        rows = pullback(hessian.reshape(-1, *u.shape))  # (u.numel(), n)
        matrix.add_(pullback(rows.T.reshape(-1, *u.shape)), alpha=weight)

    def sparse_hessian(self, x: Tensor) -> sparse.csr_array:
        """As in `Objective`."""
        of_map = getattr(self.prior, "sparse_hessian", None)
        if of_map is None or not isinstance(self.parameters, Full):
            return super().sparse_hessian(x)
        cells = of_map(self.parameters.prior_coordinates(x))
        return sparse.csr_array(sparse.block_diag((cells, sparse.csr_array((1, 1)))))


class SumOfSquares:
    """The prior z . z: minus twice the log density of independent standard normal z (k,).

    On `Modes` it is the energy of the Gaussian process that the modes come from.
    """

    quadratic = True

    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """As in `Prior`: z . z and 2 z, without unit."""
        return torch.dot(z, z), 2.0 * z

    def value(self, z: Tensor) -> Tensor:
        """z . z, shape (), of coefficients z (k,)."""
        return torch.dot(z, z)

    def gradient(self, z: Tensor) -> Tensor:
        """2 z, shape (k,), of coefficients z (k,)."""
        return 2.0 * z

    def hessian(self, z: Tensor) -> Tensor:
        """2 I, shape (k, k), of coefficients z (k,)."""
        return 2.0 * torch.eye(z.numel()).to(z)
