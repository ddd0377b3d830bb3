"""Smoothed total variation: the prior of maps made of few layers.

    value = mean over neighbouring cells of sqrt(d^2 + epsilon^2),  d = difference of the two

Total variation lets a map jump where the data ask for it and keeps it flat elsewhere [1]_. The
variation is anisotropic: every vertical and every horizontal difference is a term of its own. It is
a mean, not a sum, so that the weights 1e-7 to 1e-8 of the published recipe apply as they stand:
there are 69 differences between 70 rows, and 9660 in a map of 70 x 70 cells.

Gauss-Newton needs a quadratic, and the prior is none. `hessian` gives the lagged-diffusivity matrix
D^T W D / n, W = 1 / sqrt(d^2 + epsilon^2) at the map [2]_, not the second derivative. As sqrt is
concave, the quadratic with this matrix touches the prior at the map and lies above it everywhere
else: a step that lowers it lowers the prior too. It is positive semidefinite, and finite on a
constant map (W = 1 / epsilon).

`TotalVariation1D` is for maps whose rows are constant (FlatVel), on one velocity for each row.
`TotalVariation2D` is for the layered families, on the whole map.

References
----------
.. [1] L. I. Rudin, S. Osher and E. Fatemi, "Nonlinear total variation based noise removal
   algorithms", Physica D 60, 259-268, 1992.
.. [2] C. R. Vogel and M. E. Oman, "Iterative methods for total variation denoising", SIAM Journal
   on Scientific Computing 17, 227-238, 1996.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from fwi_refine.priors.base import ValueAndGradient


def _at_ends(like: Tensor, pairs: list[Tensor], end: int, sign: int = 1) -> Tensor:
    """Add sign times a number for each pair of neighbours, given axis by axis, to the pair's first
    (end = 0) or second (end = 1) cell. `index_add_` would add in any order on a GPU."""
    for axis, numbers in enumerate(pairs):
        like.narrow(axis, end, numbers.shape[axis]).add_(numbers, alpha=sign)
    return like


@dataclass(frozen=True)
class _TotalVariation(ValueAndGradient):
    """Common part of both kinds."""

    epsilon: float = 0.1  # m/s: differences well below it are penalised as their square

    dimensions: ClassVar[int]
    quadratic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ValueError(
                f"epsilon must be positive, not {self.epsilon}: with 0 the gradient of a constant "
                "map does not exist"
            )

    def _differences(self, v: Tensor) -> tuple[list[Tensor], list[Tensor], int]:
        """Axis by axis, differences d of neighbours and sqrt(d^2 + epsilon^2); and how many."""
        if v.dim() != self.dimensions or v.numel() < 2:
            raise ValueError(
                f"{type(self).__name__} takes a tensor of {self.dimensions} dimension(s) with at "
                f"least two cells, not one of shape {tuple(v.shape)}"
            )
        d = [v.diff(dim=axis) for axis in range(v.dim())]
        lengths = [torch.sqrt(part**2 + self.epsilon**2) for part in d]
        return d, lengths, sum(part.numel() for part in d)

    def value_and_gradient(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """As in `Prior`: the mean smoothed variation, in m/s."""
        d, lengths, n = self._differences(v)
        pull = [part / length / n for part, length in zip(d, lengths, strict=True)]
        gradient = _at_ends(_at_ends(torch.zeros_like(v), pull, 1), pull, 0, sign=-1)
        return torch.cat([length.flatten() for length in lengths]).mean(), gradient

    def hessian(self, v: Tensor) -> Tensor:
        """As in `Prior`: the lagged-diffusivity matrix D^T W D / n, in 1 / (m/s).

        Its product with `v` is the gradient.
        """
        matrix = v.new_zeros(v.numel(), v.numel())
        self.add_hessian(matrix, v)
        return matrix

    def add_hessian(self, matrix: Tensor, v: Tensor, weight: float = 1.0) -> None:
        """Add weight times the matrix of `hessian` to another (cells, cells), in place."""
        diffusivities = self._weights(v)
        zero = torch.zeros_like(v)
        sums = _at_ends(_at_ends(zero, diffusivities, 0), diffusivities, 1).flatten()
        matrix.diagonal().add_(sums, alpha=weight)
        cells = torch.arange(v.numel(), device=v.device).reshape(v.shape)
        for axis, w in enumerate(diffusivities):
            first, second = (cells.narrow(axis, end, w.shape[axis]).flatten() for end in (0, 1))
            for pair in ((first, second), (second, first)):
                matrix[pair] = matrix[pair].add_(w.flatten(), alpha=-weight)

    def sparse_hessian(self, v: Tensor) -> sparse.csr_array:
        """The matrix of `hessian` without its zeros: at most five entries in a row, float64."""
        cells = np.arange(v.numel()).reshape(v.shape)
        matrix = sparse.csr_array((v.numel(), v.numel()))
        for axis, weight in enumerate(self._weights(v)):
            w = weight.detach().cpu().double().numpy().ravel()
            ends = [np.take(cells, range(end, end + weight.shape[axis]), axis) for end in (0, 1)]
            rows = np.repeat(np.arange(w.size), 2)
            columns = np.stack([end.ravel() for end in ends], axis=1).ravel()
            signs = np.tile([-1.0, 1.0], w.size)
            difference = sparse.csr_array((signs, (rows, columns)), shape=(w.size, v.numel()))
            matrix = matrix + difference.T @ sparse.diags_array(w) @ difference
        return sparse.csr_array(matrix)

    def _weights(self, v: Tensor) -> list[Tensor]:
        """Axis by axis, the diagonal of W / n."""
        _, lengths, n = self._differences(v)
        return [1.0 / (length * n) for length in lengths]


class TotalVariation1D(_TotalVariation):
    """Mean of sqrt(d^2 + epsilon^2) over the steps from row to row of a (rows,) vector in m/s.

    Parameters
    ----------
    epsilon : float
        In m/s. Differences well below it are penalised as their square.

    Raises
    ------
    ValueError
        If epsilon is not positive; from every method, for a tensor of other dimensions.
    """

    dimensions = 1


class TotalVariation2D(_TotalVariation):
    """Mean of sqrt(d^2 + epsilon^2) over all vertical and horizontal steps of a (nz, nx) map.

    Parameters
    ----------
    epsilon : float
        In m/s. Differences well below it are penalised as their square.

    Raises
    ------
    ValueError
        If epsilon is not positive; from every method, for a tensor of other dimensions.
    """

    dimensions = 2
