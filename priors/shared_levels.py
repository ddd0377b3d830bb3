"""Few velocities, shared: the prior of a map made of layers whose velocities are almost known.

Total variation compares neighbours only, and its cost grows with the height of a step: it cannot
tell a cell of one of two layers from a cell between them. Here the velocity of a cell is expected
at one of the levels of the layers near it, or elsewhere, at a cost that hardly grows with the
distance:

    value = -2 sum over cells of log sum over levels near the cell of 1 / (1 + (d / width)^2)

d = distance of the cell from the level: -2 log density, up to a constant, of a mixture of Cauchy
distributions. A cell that has no level near it is free. The levels say nothing about the edges
between layers, which count in a second term:

    value += 2 / variation * sum over neighbouring cells of sqrt(d^2 + epsilon^2)

with d their difference: -2 log density of total variation, one e-fold for every `variation` m/s.

`hessian` is not the second derivative, which is negative away from a level, but that of the
quadratic which touches the prior at the map and lies above it everywhere, as for total variation:
a step of expectation maximisation [1]_, with each Cauchy distribution as a scale mixture of normal
ones [2]_.

References
----------
.. [1] A. P. Dempster, N. M. Laird and D. B. Rubin, "Maximum likelihood from incomplete data via
   the EM algorithm", Journal of the Royal Statistical Society B 39, 1-38, 1977.
.. [2] K. L. Lange, R. J. A. Little and J. M. G. Taylor, "Robust statistical modeling using the t
   distribution", Journal of the American Statistical Association 84, 881-896, 1989.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fwi_refine.priors.base import ValueAndGradient

from .total_variation import TotalVariation2D


@dataclass(frozen=True, eq=False)
class SharedLevels(ValueAndGradient):
    """Mixture of Cauchy densities about the levels of a map's layers, and total variation.

    Parameters
    ----------
    levels : Tensor, shape (K,)
        Velocities of the layers in m/s.
    allowed : Tensor of bool, shape (K, nz, nx)
        Cells that may have each level.
    width : float or Tensor of shape (nz, nx)
        Width of the Cauchy densities in m/s.
    variation : float, optional
        Scale of the total variation in m/s; by default there is no such term.
    epsilon : float, optional
        Differences in m/s over which the total variation is smoothed.

    Raises
    ------
    ValueError
        If the shapes do not fit, or a width, the variation or epsilon is not positive.
    """

    levels: Tensor
    allowed: Tensor
    width: float | Tensor
    variation: float | None = None
    epsilon: float = 1.0

    quadratic: ClassVar[bool] = False
    # Factor of expected errors: a normal approximation takes each edge and each cell's level as
    # told. On real FlatFault_A and CurveFault_A maps errors were 2.4 and 2.9 times as large.
    spread: ClassVar[float] = 2.5

    def __post_init__(self) -> None:
        if self.levels.dim() != 1 or self.allowed.shape[:-2] != self.levels.shape:
            raise ValueError(
                f"levels {tuple(self.levels.shape)} and allowed {tuple(self.allowed.shape)} do not "
                "fit: expected (K,) and (K, nz, nx)"
            )
        for name in ("width", "variation", "epsilon"):
            number = getattr(self, name)
            least = number.min() if isinstance(number, Tensor) else number
            if least is not None and not least > 0:
                raise ValueError(f"{name} is {float(least)} m/s, expected more than 0")

    def _edges(self, v: Tensor) -> tuple[TotalVariation2D, float] | None:
        """The total variation, which is a mean, and its factor; None where it does not count."""
        if self.variation is None:
            return None
        pairs = 2 * v.numel() - sum(v.shape)
        return TotalVariation2D(self.epsilon), 2 * pairs / self.variation

    def _responsibilities(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distances d and q_k / (1 + (d / width)^2), (K, nz, nx), and the sum (nz, nx).

        q_k is the probability that the cell belongs to level k.
        """
        d = v - self.levels[:, None, None].to(v)
        density = self.allowed.to(v) / (1 + (d / self.width) ** 2)
        # a cell without a level has no density anywhere, and no cost
        total = torch.where(self.allowed.any(0), density.sum(0), 1.0)
        return d, density**2 / total, total

    def value_and_gradient(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """As in `Prior`: minus twice the logarithm of the density, up to a constant."""
        d, responsibilities, total = self._responsibilities(v)
        value, gradient = -2 * total.log().sum(), 4 / self.width**2 * (responsibilities * d).sum(0)
        if edges := self._edges(v):
            variation, factor = edges
            length, pull = variation.value_and_gradient(v)
            value, gradient = value + factor * length, gradient + factor * pull
        return value, gradient

    def hessian(self, v: Tensor) -> Tensor:
        """As in `Prior`: the majoriser, diagonal but for the variation."""
        _, responsibilities, _ = self._responsibilities(v)
        diagonal = (4 / self.width**2 * responsibilities.sum(0)).flatten()
        if edges := self._edges(v):
            variation, factor = edges
            matrix = variation.hessian(v).mul_(factor)
            matrix.diagonal().add_(diagonal)
            return matrix
        return torch.diag(diagonal)
