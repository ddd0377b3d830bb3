"""Parameterisations: a vector of unknowns, and the velocity map that it stands for.

Every parameterisation is affine:

    x = [c, vmin]        v = offset + B c

with c the coefficients, one column of B for each, and vmin (m/s), the velocity that sets the
damping in the absorbing band, as the last unknown. The exact adjoint of x -> (v, vmin) turns a
gradient for the map into one for the unknowns.

To add one: subclass `Parameters`, give it `expand` (B c), `gather` (B^T g) and `fit` (the c whose
map is nearest to a given one), and let tests/test_parameterisation.py run over it.
"""

import abc
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fwi_refine.objective.connected import connected_areas
from fwi_refine.wave import add_at


class Parameters(abc.ABC):
    """Base of all parameterisations. Tensors are float64; leading dimensions of x are a batch.

    Parameters
    ----------
    shape : tuple of int
        (nz, nx) of the map.
    coefficients : int
        Number k of coefficients.

    Attributes
    ----------
    shape : tuple of int
        (nz, nx) of the map.
    size : int
        Number of unknowns k + 1, vmin included.
    offset : Tensor, shape (nz, nx), or float
        Map where all coefficients are zero, in m/s.
    prior_acts_on_map : bool
        Whether a prior acts on the map; otherwise on the coefficients, where they are the simpler
        description.
    """

    offset: Tensor | float = 0.0
    prior_acts_on_map: bool = True

    def __init__(self, shape: tuple[int, int], coefficients: int):
        nz, nx = shape
        self.shape = (nz, nx)
        self.size = coefficients + 1

    @abc.abstractmethod
    def expand(self, c: Tensor) -> Tensor:
        """B c.

        Parameters
        ----------
        c : Tensor, shape (..., k)
            Coefficients.

        Returns
        -------
        Tensor, shape (..., nz, nx)
            In m/s.
        """

    @abc.abstractmethod
    def gather(self, g: Tensor) -> Tensor:
        """B^T g, the adjoint of `expand`.

        Parameters
        ----------
        g : Tensor, shape (..., nz, nx)
            Gradient for the map.

        Returns
        -------
        Tensor, shape (..., k)
            Gradient for the coefficients.
        """

    @abc.abstractmethod
    def fit(self, v: Tensor) -> Tensor:
        """Coefficients of the map that is nearest in least squares.

        Parameters
        ----------
        v : Tensor, shape (nz, nx)
            Map in m/s.

        Returns
        -------
        Tensor, shape (k,)
        """

    def velocity(self, x: Tensor) -> Tensor:
        """Map of the unknowns.

        Parameters
        ----------
        x : Tensor, shape (..., size)
            Unknowns.

        Returns
        -------
        Tensor, shape (..., nz, nx)
            In m/s.
        """
        return self.offset + self.expand(x[..., :-1])

    def vmin(self, x: Tensor) -> Tensor:
        """Velocity that sets the damping of the absorbing band.

        Parameters
        ----------
        x : Tensor, shape (..., size)
            Unknowns.

        Returns
        -------
        Tensor, shape (...)
            In m/s.
        """
        return x[..., -1]

    def from_velocity(self, v: ArrayLike | Tensor, vmin: Tensor | float | None = None) -> Tensor:
        """Unknowns whose map is nearest to `v` in least squares.

        Parameters
        ----------
        v : array_like, shape (nz, nx)
            Map in m/s.
        vmin : float or Tensor of shape (), optional
            In m/s; by default the minimum of `v`.

        Returns
        -------
        Tensor, shape (size,)

        Raises
        ------
        ValueError
            If `v` has another shape.
        """
        v = torch.as_tensor(v, dtype=torch.float64)
        if tuple(v.shape) != self.shape:
            raise ValueError(f"the map has shape {tuple(v.shape)}, expected {self.shape}")
        vmin = torch.as_tensor(v.min() if vmin is None else vmin).to(v)
        return torch.cat((self.fit(v), vmin.reshape(1)))

    def tangent(self, dx: Tensor) -> tuple[Tensor, Tensor]:
        """Change of map and vmin for a change of the unknowns.

        Parameters
        ----------
        dx : Tensor, shape (..., size)
            Change of the unknowns.

        Returns
        -------
        dv : Tensor, shape (..., nz, nx)
            In m/s.
        dvmin : Tensor, shape (...)
            In m/s.
        """
        return self.expand(dx[..., :-1]), dx[..., -1]

    def matrix(self, device: torch.device | None = None) -> Tensor:
        """Matrix of `tangent`.

        Parameters
        ----------
        device : torch.device, optional
            Where the matrix is to be; by default the CPU.

        Returns
        -------
        Tensor, shape (nz * nx + 1, size)
            Cells in row order, then vmin; float64.
        """
        dv, dvmin = self.tangent(torch.eye(self.size, dtype=torch.float64, device=device))
        return torch.cat((dv.flatten(1), dvmin[:, None]), dim=1).T

    def jacobian_transform(self, like: Tensor) -> Callable[[Tensor], Tensor] | None:
        """Chain rule for rows of a Jacobian.

        Parameters
        ----------
        like : Tensor
            Has the type and the device of the rows.

        Returns
        -------
        callable or None
            Takes rows of derivatives by (v, vmin), of shape (m, nz * nx + 1), to derivatives by x,
            of shape (m, size); None where both are the same.
        """
        columns = self.matrix(like.device).to(like)
        return lambda rows: rows @ columns

    def pullback(self, grad_v: Tensor, grad_vmin: Tensor | float) -> Tensor:
        """Adjoint of `tangent`.

        Parameters
        ----------
        grad_v : Tensor, shape (..., nz, nx)
            Gradient for the map.
        grad_vmin : Tensor, shape (...), or float
            Gradient for vmin.

        Returns
        -------
        Tensor, shape (..., size)
            Gradient for the unknowns.
        """
        return _append(self.gather(grad_v), grad_vmin)

    def retract(self, x: Tensor, dx: Tensor) -> Tensor:
        """Unknowns after a step, x + dx to first order.

        Parameters
        ----------
        x : Tensor, shape (size,)
            Unknowns.
        dx : Tensor, shape (size,)
            Step.

        Returns
        -------
        Tensor, shape (size,)

        Notes
        -----
        Steps are taken in squared slowness,

            v <- (v^-2 - 2 v^-3 dv)^(-1/2),

        where the forward map is closest to linear: detail below a wavelength acts through the
        local mean of 1 / v^2. A step that is too long gives an infinite velocity, which no
        objective accepts.
        """
        v = self.velocity(x)
        dv, dvmin = self.tangent(dx)
        squared_slowness = v**-2 - 2 * v**-3 * dv
        stepped = torch.where(squared_slowness > 0, squared_slowness, 0.0) ** -0.5
        return self.from_velocity(stepped, self.vmin(x) + dvmin)

    def prior_coordinates(self, x: Tensor) -> Tensor:
        """What a prior acts on.

        Parameters
        ----------
        x : Tensor, shape (..., size)
            Unknowns.

        Returns
        -------
        Tensor, shape (..., nz, nx) or (..., size - 1)
            The map in m/s, or the coefficients.
        """
        return self.velocity(x) if self.prior_acts_on_map else x[..., :-1]

    def prior_pullback(self, g: Tensor) -> Tensor:
        """Adjoint of the linear part of `prior_coordinates`.

        Parameters
        ----------
        g : Tensor, shape (..., nz, nx) or (..., size - 1)
            Gradient for the prior's coordinates.

        Returns
        -------
        Tensor, shape (..., size)
            Gradient for the unknowns; 0 for vmin.
        """
        return _append(self.gather(g) if self.prior_acts_on_map else g, 0.0)


def _append(c: Tensor, last: Tensor | float) -> Tensor:
    """(..., k) and (...) -> (..., k + 1)."""
    last = torch.as_tensor(last).to(c).expand(c.shape[:-1])
    return torch.cat((c, last[..., None]), dim=-1)


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
        sums = g.new_zeros(*g.shape[:-2], self.size - 1)
        return add_at(sums, -1, self.labels.flatten(), g.flatten(-2))

    def fit(self, v: Tensor) -> Tensor:
        """As in `Parameters`."""
        return self.gather(v) / self.cells

    def jacobian_transform(self, like: Tensor) -> Callable[[Tensor], Tensor]:
        """As in `Parameters`."""
        return lambda rows: self.pullback(rows[:, :-1].unflatten(1, self.shape), rows[:, -1])
