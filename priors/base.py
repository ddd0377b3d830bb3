"""The interface of a prior, and what priors have in common."""

import abc
from typing import Protocol

from torch import Tensor


class Prior(Protocol):
    """A function of a velocity map, or of the coefficients of one, that is low for likely ones.

    `fwi_refine.objective.PriorTerm` makes an objective of it. A prior that is minus twice the
    logarithm of a density takes the weight (noise variance) / (number of samples) beside a mean
    squared residual.
    """

    @property
    def quadratic(self) -> bool:
        """Whether the Hessian is the same everywhere."""
        ...

    def value_and_gradient(self, u: Tensor, /) -> tuple[Tensor, Tensor]:
        """Value and gradient in one pass.

        Parameters
        ----------
        u : Tensor, shape (nz, nx), (rows,) or (k,)
            Map or rows in m/s, or coefficients without unit.

        Returns
        -------
        value : Tensor, shape ()
        gradient : Tensor, of the shape of `u`
            In the unit of the value, per m/s of a map.
        """
        ...

    def hessian(self, u: Tensor, /) -> Tensor:
        """Hessian, or that of a quadratic which touches the prior at `u` and lies above it.

        Parameters
        ----------
        u : Tensor
            As in `value_and_gradient`.

        Returns
        -------
        Tensor, shape (n, n)
            For the n numbers of `u`, in row order; positive semidefinite.
        """
        ...


class ValueAndGradient(abc.ABC):
    """Value and gradient alone, from `value_and_gradient`, of velocities in m/s."""

    @abc.abstractmethod
    def value_and_gradient(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """As in `Prior`."""

    def value(self, v: Tensor) -> Tensor:
        """The value alone."""
        return self.value_and_gradient(v)[0]

    def gradient(self, v: Tensor) -> Tensor:
        """The gradient alone."""
        return self.value_and_gradient(v)[1]
