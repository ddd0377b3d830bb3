"""Smoothed total variation: the prior of maps made of few layers.

    value = mean over neighbouring cells of sqrt(d^2 + epsilon^2),  d = difference of the two

Total variation lets a map jump where the data ask for it and keeps it flat elsewhere (Rudin, Osher
and Fatemi, Physica D 60, 1992). The variation is anisotropic: every vertical and every horizontal
difference is a term of its own. It is a mean, not a sum, so that the weights 1e-7 to 1e-8 of the
published recipe apply as they stand: there are 69 differences between 70 rows, and 9660 in a map of
70 x 70 cells.

Gauss-Newton needs a quadratic where the prior is not one. `hessian` gives the lagged-diffusivity
matrix D^T W D / n, W = 1 / sqrt(d^2 + epsilon^2) at the map (Vogel and Oman, SIAM J. Sci. Comput.
17, 1996), not the second derivative. As sqrt is concave, the quadratic with this matrix touches the
prior at the map and lies above it everywhere else: a step that lowers it lowers the prior too. It
is positive semidefinite, and finite on a constant map (W = 1 / epsilon).

`TotalVariation1D` is for maps whose rows are constant (FlatVel), on one velocity for each row.
`TotalVariation2D` is for the layered families, on the whole map.
"""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor


@cache
def _neighbours(shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Flat indices (first, second), each (n,), of all pairs of cells next to each other."""
    index = torch.arange(shape.numel()).reshape(shape)
    first, second = [], []
    for axis, size in enumerate(shape):
        first.append(index.narrow(axis, 0, size - 1).flatten())
        second.append(index.narrow(axis, 1, size - 1).flatten())
    return torch.cat(first), torch.cat(second)


@dataclass(frozen=True)
class _TotalVariation:
    epsilon: float = 0.1  # m/s: differences well below it are penalised as their square

    dimensions: ClassVar[int]
    quadratic: ClassVar[bool] = False

    def __post_init__(self):
        if not self.epsilon > 0:
            raise ValueError(
                f"epsilon must be positive, not {self.epsilon}: with 0 the gradient of a constant "
                "map does not exist"
            )

    def _differences(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pairs of neighbours (first, second), their differences d and sqrt(d^2 + epsilon^2)."""
        if v.dim() != self.dimensions or v.numel() < 2:
            raise ValueError(
                f"{type(self).__name__} takes a tensor of {self.dimensions} dimension(s) with at "
                f"least two cells, not one of shape {tuple(v.shape)}"
            )
        first, second = (index.to(v.device) for index in _neighbours(v.shape))
        flat = v.flatten()
        d = flat[second] - flat[first]
        return first, second, d, torch.sqrt(d**2 + self.epsilon**2)

    def value(self, v: Tensor) -> Tensor:
        """Mean smoothed variation of `v`, 0-d, m/s; at least epsilon."""
        return self._differences(v)[3].mean()

    def gradient(self, v: Tensor) -> Tensor:
        """Gradient of `value`, of the shape of `v`."""
        return self.value_and_gradient(v)[1]

    def value_and_gradient(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Value and gradient in one pass."""
        first, second, d, length = self._differences(v)
        pull = d / length / d.numel()
        gradient = torch.zeros_like(v).flatten()
        gradient.index_add_(0, second, pull).index_add_(0, first, -pull)
        return length.mean(), gradient.reshape(v.shape)

    def hessian(self, v: Tensor) -> Tensor:
        """Lagged-diffusivity matrix D^T W D / n at `v`, (cells, cells), cells in row order.

        Its product with `v` is the gradient.
        """
        first, second, d, length = self._differences(v)
        weight = 1.0 / (length * d.numel())
        cells = v.numel()
        matrix = v.new_zeros(cells * cells)
        matrix.index_add_(0, first * (cells + 1), weight)
        matrix.index_add_(0, second * (cells + 1), weight)
        matrix.index_add_(0, first * cells + second, -weight)
        matrix.index_add_(0, second * cells + first, -weight)
        return matrix.reshape(cells, cells)


class TotalVariation1D(_TotalVariation):
    """Mean of sqrt(d^2 + epsilon^2) over the steps from row to row of a (rows,) vector in m/s."""

    dimensions = 1


class TotalVariation2D(_TotalVariation):
    """Mean of sqrt(d^2 + epsilon^2) over all vertical and horizontal steps of a (nz, nx) map."""

    dimensions = 2
