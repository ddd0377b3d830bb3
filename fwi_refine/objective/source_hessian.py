"""The Hessian of a misfit with free wavelets: its blocks of the wavelets; see source_misfit.py."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SourceHessian:
    """How map and wavelets depend on each other, in the unit of the Hessian of the misfit.

    Attributes
    ----------
    shared : Tensor (k, n)
        sqrt(2 / N) R^-T C, by the coefficients of all groups and the unknowns.
    triangle : Tensor (k, k)
        sqrt(2 / N) R, R^T R = Phi^T Phi + noise, block by block.
    """

    shared: Tensor
    triangle: Tensor

    @property
    def cross(self) -> Tensor:
        """2 / N C."""
        return self.triangle.mT @ self.shared

    @property
    def own(self) -> Tensor:
        """2 / N (Phi^T Phi + noise)."""
        return self.triangle.mT @ self.triangle

    def reduce(self, hessian: Tensor) -> Tensor:
        """Take from the Hessian, in place, what the wavelets explain."""
        return hessian.sub_((self.shared.T @ self.shared).to(hessian))
