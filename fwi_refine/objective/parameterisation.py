"""Parameterisations: a vector of unknowns, and the velocity map that it stands for.

Every parameterisation is affine:

    x = [c, vmin]        v = offset + B c

with c the coefficients, one column of B for each, and vmin (m/s), the velocity that sets the
damping in the absorbing band, as the last unknown. The exact adjoint of x -> (v, vmin) turns a
gradient for the map into one for the unknowns.

To add one: subclass `Parameters`, give it `expand` (B c), `gather` (B^T g) and `fit` (the c whose
map is nearest to a given one), and let tests/test_parameterisation.py run over it.
"""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fwi_refine.objective.connected import connected_areas
from fwi_refine.objective.parameters import Parameters
from fwi_refine.wave import add_at

__all__ = ["Full", "Modes", "Parameters", "Regions", "Rows"]


class Full(Parameters):
    """One unknown for each cell.

    Parameters
    ----------
    shape : tuple of int
        (nz, nx) of the map.
    """

    def __init__(self, shape: tuple[int, int]):
        super().__init__(shape, shape[0] * shape[1])

    def expand(self, c: Tensor) -> Tensor:
        """As in `Parameters`."""
        return c.unflatten(-1, self.shape)

    def gather(self, g: Tensor) -> Tensor:
        """As in `Parameters`."""
        return g.flatten(-2)

    def fit(self, v: Tensor) -> Tensor:
        """As in `Parameters`."""
        return v.flatten()

    def jacobian_transform(self, like: Tensor) -> None:
        """As in `Parameters`: nothing to transform."""


class Rows(Parameters):
    """One unknown for each row: flat layers. A prior acts on the vector of rows.

    Parameters
    ----------
    shape : tuple of int
        (nz, nx) of the map.
    """

    prior_acts_on_map = False

    def __init__(self, shape: tuple[int, int]):
        super().__init__(shape, shape[0])

    def expand(self, c: Tensor) -> Tensor:
        """As in `Parameters`."""
        return c[..., None].expand(*c.shape, self.shape[1]).contiguous()

    def gather(self, g: Tensor) -> Tensor:
        """As in `Parameters`."""
        return g.sum(-1)

    def fit(self, v: Tensor) -> Tensor:
        """As in `Parameters`."""
        return v.mean(-1)


class Modes(Parameters):
    """Coefficients z of the modes of a Gaussian process: v = mean + U (s * z).

    A prior acts on z.

    Parameters
    ----------
    mean : Tensor, shape (nz, nx)
        Map in m/s.
    basis : Tensor, shape (nz * nx, k)
        U, with orthonormal columns.
    scales : Tensor, shape (k,)
        s in m/s, positive.

    Raises
    ------
    ValueError
        If the shapes do not fit, or the columns are not orthonormal.

    Notes
    -----
    For modes from the singular value decomposition U diag(s) W^T of a square root of the
    covariance, truncated or not, the energy of the process is z . z, the prior
    `objective.SumOfSquares`.
    """

    prior_acts_on_map = False

    def __init__(self, mean: Tensor, basis: Tensor, scales: Tensor):
        cells, k = mean.numel(), scales.numel()
        if mean.ndim != 2 or tuple(basis.shape) != (cells, k):
            raise ValueError(
                f"mean {tuple(mean.shape)}, basis {tuple(basis.shape)} and scales "
                f"{tuple(scales.shape)} do not fit: expected (nz, nx), (nz * nx, k) and (k,)"
            )
        if not bool((scales > 0).all()):
            raise ValueError(f"scales reach down to {float(scales.min())}, expected all positive")
        # One product instead of the k x k Gram matrix: it misses no error that would matter.
        probe = torch.linspace(1.0, 2.0, k, dtype=basis.dtype, device=basis.device)
        if not torch.allclose(basis.T @ (basis @ probe), probe, rtol=1e-4, atol=0.0):
            raise ValueError("the columns of basis are not orthonormal: pass U of an SVD")
        super().__init__((mean.shape[0], mean.shape[1]), k)
        self.offset = mean.to(torch.float64)
        self.basis = basis.to(torch.float64)
        self.scales = scales.to(torch.float64)

    def expand(self, c: Tensor) -> Tensor:
        """As in `Parameters`."""
        return ((c * self.scales) @ self.basis.T).unflatten(-1, self.shape)

    def gather(self, g: Tensor) -> Tensor:
        """As in `Parameters`."""
        return (g.flatten(-2) @ self.basis) * self.scales

    def fit(self, v: Tensor) -> Tensor:
        """As in `Parameters`."""
        return ((v - self.offset).flatten() @ self.basis) / self.scales


class Regions(Parameters):
    """One unknown for each region of equal velocity.

    Parameters
    ----------
    labels : array_like of int, shape (nz, nx)
        Cells of the same label share their velocity.

    Raises
    ------
    ValueError
        If `labels` are no integers or no map.
    """

    def __init__(self, labels: Tensor | NDArray[Any]):
        labels = torch.as_tensor(labels)
        if labels.ndim != 2 or labels.is_floating_point():
            raise ValueError(
                f"labels are {labels.dtype} of shape {tuple(labels.shape)}, "
                "expected integers of shape (nz, nx)"
            )
        found, self.labels, self.cells = torch.unique(
            labels, return_inverse=True, return_counts=True
        )
        super().__init__((labels.shape[0], labels.shape[1]), found.numel())

    @classmethod
    def from_map(cls, v: Tensor | NDArray[Any], tolerance: float) -> Self:
        """Regions in which each cell is tied to the neighbours that hardly differ from it.

        Neighbours are the four cells above, below, left and right. A chain of small differences
        ties its ends, however much these differ.

        Parameters
        ----------
        v : array_like, shape (nz, nx)
            Map in m/s.
        tolerance : float
            Neighbours that differ by less are tied, in m/s.

        Returns
        -------
        Regions
        """
        device = v.device if isinstance(v, Tensor) else None
        v = torch.as_tensor(v).detach().cpu().numpy()
        # "less than": at most the largest number below the tolerance
        labels = connected_areas(v, np.nextafter(np.float64(tolerance), -np.inf))
        return cls(torch.as_tensor(labels, device=device))

    def expand(self, c: Tensor) -> Tensor:
        """As in `Parameters`."""
        return c[..., self.labels]

    def gather(self, g: Tensor) -> Tensor:
        """As in `Parameters`."""
        total = g.new_zeros(*g.shape[:-2], self.size - 1)
        return add_at(total, -1, self.labels.flatten(), g.flatten(-2))

    def fit(self, v: Tensor) -> Tensor:
        """As in `Parameters`."""
        return self.gather(v) / self.cells

    def jacobian_transform(self, like: Tensor) -> Callable[[Tensor], Tensor]:
        """As in `Parameters`."""
        return lambda rows: self.pullback(rows[:, :-1].unflatten(1, self.shape), rows[:, -1])
