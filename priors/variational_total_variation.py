"""Variational total variation about a trend in depth: the prior of photograph-like maps.

Maps of the Style families are photographs in grey on a trend with depth: objects with sharp edges,
smooth shading and fine texture. A Gaussian process blurs the edges. Total variation keeps them,
and its most probable map is flat between them, where the texture was. The posterior mean under
total variation keeps both, and its variational approximation [1]_ [2]_ costs one inverse for each
iteration.

`VariationalTotalVariation` is the prior; `VariationalTotalVariation.update` gives the prior of the
next iteration from the posterior covariance of this one. With all posterior variances set to
epsilon^2 the iteration is that of lagged diffusivity [3]_.

References
----------
.. [1] M. Girolami, "A variational method for learning sparse and overcomplete representations",
   Neural Computation 13, 2517-2532, 2001.
.. [2] S. D. Babacan, R. Molina and A. K. Katsaggelos, "Variational Bayesian blind deconvolution
   using a total variation prior", IEEE Transactions on Image Processing 18, 12-26, 2009.
.. [3] C. R. Vogel and M. E. Oman, "Iterative methods for total variation denoising", SIAM Journal
   on Scientific Computing 17, 227-238, 1996.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fwi_refine.priors.base import ValueAndGradient

# A scale parameter over the mean size of its differences. By maximum likelihood it would be 1 if
# these were independent, but there are four of them for each cell; it is the ratio at which real
# Style_B maps are found best.
SHARED = 2.85

# Steps (down, right) from a cell to the neighbours that it is compared with. The other four
# neighbours compare themselves with it.
STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))


def _ends(cells: Tensor, step: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Views of the first and the second cells of all pairs that are one step apart."""
    down, right = step
    nz, nx = cells.shape
    first = cells[: nz - down, max(-right, 0) : nx - max(right, 0)]
    second = cells[down:, max(right, 0) : nx - max(-right, 0)]
    return first, second


@dataclass(frozen=True, eq=False)
class VariationalTotalVariation(ValueAndGradient):
    """Laplace density of the differences between neighbours, smoothed by their uncertainty.

    Parameters
    ----------
    variances : tuple of Tensor, optional
        Posterior variance (m/s)^2 of each difference, for the steps of `STEPS` in their order:
        along rows (nz, nx - 1), along columns (nz - 1, nx), and along both diagonals
        (nz - 1, nx - 1). By default that of the Laplace density itself, 2 b^2, with which
        iterations start: the data have told nothing yet.
    slope : float, optional
        Change of the trend with depth, in m/s per cell. By default that of the straight line in
        depth nearest to the map in least squares, which is then free of cost. The constant of
        the trend never counts, as differences do not see it.
    scale : float
        Scale parameter b of the Laplace density of differences along rows and columns, in m/s.
    diagonal_scale : float
        Scale parameter b along both diagonals, in m/s.
    spread : float
        Factor of the posterior's standard deviations that makes up for what the normal
        approximation leaves out; the prior itself does not depend on it.

    Raises
    ------
    ValueError
        If a scale or the spread is not positive, the slope is not finite, or variances are not
        positive.

    Notes
    -----
    Each difference d from the trend has the density exp(-abs(d) / b) / (2 b). Minus twice the
    logarithm of its product is replaced by an upper bound in terms of d^2,

        2 abs(d) / b <= d^2 / (b q) + q / b    for every q > 0,

    which makes the posterior normal where the data are. Averaged over that posterior, with mean m
    and variance s^2 of d, the bound is lowest at q = sqrt(m^2 + s^2). The minimum over q leaves

        value = 2 sum over differences of sqrt(d^2 + s^2) / b

    as the function of the map that the posterior mean minimises, for variances s^2 held fixed.
    That is smoothed total variation whose epsilon is the posterior standard deviation of each
    difference: a jump that the data tell apart keeps its height, and texture below the resolution
    of the data is smoothed as a normal prior would. An iteration is a minimisation, or one
    Gauss-Newton step of it, and `update` with the inverse of the posterior precision

        J^T J / noise variance + hessian / 2.

    The variances settle within a few iterations. `value` is minus twice a logarithm of a density,
    as is the energy of `GaussianProcess`, and takes the same weight in an objective.
    """

    variances: tuple[Tensor, ...] | None = None
    slope: float | None = None
    scale: float = 150.0
    diagonal_scale: float = 210.0
    spread: float = 1.0

    quadratic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("scale", "diagonal_scale"):
            number = getattr(self, name)
            if not 0 < number < float("inf"):
                raise ValueError(f"{name} is {number} m/s, expected a finite number above 0")
        if not 0 < self.spread < float("inf"):
            raise ValueError(f"spread is {self.spread}, expected a finite number above 0")
        if self.slope is not None and not abs(self.slope) < float("inf"):
            raise ValueError(f"slope is {self.slope} m/s per cell, expected a finite number")
        if self.variances is not None:
            if len(self.variances) != len(STEPS):
                raise ValueError(
                    f"found {len(self.variances)} arrays of variances, expected {len(STEPS)}"
                )
            if not all(bool((part > 0).all()) for part in self.variances):
                raise ValueError("found variances of differences that are not above 0")

    def value_and_gradient(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """As in `Prior`: minus twice the logarithm of the density, up to a constant."""
        differences = self._differences(v)
        value, gradient = v.new_zeros(()), torch.zeros_like(v)
        for step, d, s2, b in zip(STEPS, differences, self._spreads(v), self._scales, strict=True):
            length = torch.sqrt(d**2 + s2)
            value = value + 2 / b * length.sum()
            pull = 2 / b * d / length
            first, second = _ends(gradient, step)
            second += pull
            first -= pull
        if self.slope is None:
            line = _unit_line(v)
            gradient = gradient - (line * gradient).sum() * line
        return value, gradient

    def hessian(self, v: Tensor) -> Tensor:
        """As in `Prior`: the majoriser.

        Half of it is the precision of the normal prior that stands for the Laplace density at `v`.
        """
        differences = self._differences(v)
        matrix = v.new_zeros(v.numel(), v.numel())
        diagonal = torch.zeros_like(v)
        cells = torch.arange(v.numel(), device=v.device).reshape(v.shape)
        for step, d, s2, b in zip(STEPS, differences, self._spreads(v), self._scales, strict=True):
            weight = 2 / b / torch.sqrt(d**2 + s2)
            for part in _ends(diagonal, step):
                part += weight
            first, second = (part.flatten() for part in _ends(cells, step))
            matrix[first, second] = matrix[second, first] = -weight.flatten()
        matrix.diagonal().add_(diagonal.flatten())
        if self.slope is None:
            # P H P with P = I - l l^T, as two products of rank one
            line = _unit_line(v).flatten()
            pull = matrix @ line
            pull -= 0.5 * (line @ pull) * line
            matrix -= torch.outer(line, pull) + torch.outer(pull, line)
        return matrix

    def update(self, covariance: Tensor, shape: tuple[int, int]) -> Self:
        """The prior of the next iteration.

        Parameters
        ----------
        covariance : Tensor, shape (nz * nx, nz * nx)
            Posterior covariance of the map in (m/s)^2, cells in row order, at the latest map.
        shape : tuple of int
            (nz, nx) of the map.

        Returns
        -------
        VariationalTotalVariation
            The same prior with the posterior variances of the differences in place.

        Raises
        ------
        ValueError
            If the covariance has another shape, or gives a difference no positive variance.
        """
        cells = shape[0] * shape[1]
        if tuple(covariance.shape) != (cells, cells):
            raise ValueError(
                f"covariance of shape {tuple(covariance.shape)}, expected {(cells, cells)}"
            )
        own = covariance.diagonal().reshape(shape)
        index = torch.arange(cells, device=covariance.device).reshape(shape)
        if self.slope is None:
            line = _unit_line(own)
            rise = line[1, 0] - line[0, 0]  # of the line from row to row
            with_line = (covariance @ line.flatten()).reshape(shape)
            of_line = (line * with_line).sum()
        variances = []
        for step in STEPS:
            (first, second), (i, j) = _ends(own, step), _ends(index, step)
            part = first + second - 2 * covariance[i, j]
            if self.slope is None and step[0]:
                # var(d - rise c) with c = l . v, which is the slope of the nearest line
                first, second = _ends(with_line, step)
                part = part - 2 * rise * (second - first) + rise**2 * of_line
            variances.append(part)
        return replace(self, variances=tuple(variances))

    @classmethod
    def fit(cls, maps: ArrayLike) -> Self:
        """Scale parameters for labelled maps: `SHARED` times the mean size of their differences.

        Parameters
        ----------
        maps : array_like, shape (n, nz, nx)
            Maps in m/s.

        Returns
        -------
        VariationalTotalVariation

        Raises
        ------
        ValueError
            For maps without differences, and for values that are not finite.
        """
        stack = torch.as_tensor(np.asarray(maps, np.float64))
        if stack.dim() != 3 or min(stack.shape[1:]) < 2:
            raise ValueError(
                f"maps have shape {tuple(stack.shape)}, expected (n, nz >= 2, nx >= 2)"
            )
        if not bool(torch.isfinite(stack).all()):
            raise ValueError("the maps hold values that are not finite")
        prior = cls()
        sizes = [[float(d.abs().mean()) for d in prior._differences(v)] for v in stack]
        rows, columns, *diagonals = (sum(size) / len(stack) for size in zip(*sizes, strict=True))
        return cls(scale=SHARED * (rows + columns) / 2, diagonal_scale=SHARED * sum(diagonals) / 2)

    @property
    def _scales(self) -> tuple[float, float, float, float]:
        """b of each of `STEPS`."""
        return self.scale, self.scale, self.diagonal_scale, self.diagonal_scale

    def _spreads(self, v: Tensor) -> list[Tensor]:
        """Variances of the differences, one array or one number for each of `STEPS`."""
        if self.variances is None:
            return [v.new_tensor(2 * b**2) for b in self._scales]
        return [part.to(v) for part in self.variances]

    def _differences(self, v: Tensor) -> list[Tensor]:
        """Differences d of neighbours from those of the trend, for each of `STEPS`."""
        if v.dim() != 2 or min(v.shape) < 2:
            raise ValueError(f"map of shape {tuple(v.shape)}, expected at least 2 x 2 cells")
        if self.variances is not None and self.variances[2].shape != (
            v.shape[0] - 1,
            v.shape[1] - 1,
        ):
            nz, nx = self.variances[2].shape
            raise ValueError(f"map of shape {tuple(v.shape)}, expected {(nz + 1, nx + 1)}")
        if self.slope is None:
            line = _unit_line(v)
            rise = (line * v).sum() * (line[1, 0] - line[0, 0])
        else:
            rise = v.new_tensor(self.slope)
        found = []
        for step in STEPS:
            first, second = _ends(v, step)
            found.append(second - first - step[0] * rise)
        return found


def _unit_line(like: Tensor) -> Tensor:
    """The map (nz, nx) that rises linearly with depth, of mean 0 and norm 1."""
    nz, nx = like.shape
    depth = torch.arange(nz, dtype=like.dtype, device=like.device) - 0.5 * (nz - 1)
    return (depth / (depth @ depth * nx).sqrt())[:, None].expand(nz, nx)
