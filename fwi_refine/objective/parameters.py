"""The base of parameterisations: a vector of unknowns stands for a velocity map."""

import abc
from collections.abc import Callable

import torch
from numpy.typing import ArrayLike
from torch import Tensor


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
        """B c: what coefficients c (..., k) add to the map, (..., nz, nx) in m/s."""

    @abc.abstractmethod
    def gather(self, g: Tensor) -> Tensor:
        """B^T g, the adjoint of `expand`: gradient (..., k) from that for the map (..., nz, nx)."""

    @abc.abstractmethod
    def fit(self, v: Tensor) -> Tensor:
        """Coefficients (k,) of the map nearest to `v`, (nz, nx) in m/s, in least squares."""

    def velocity(self, x: Tensor) -> Tensor:
        """Map (..., nz, nx) of the unknowns x (..., size), m/s."""
        return self.offset + self.expand(x[..., :-1])

    def vmin(self, x: Tensor) -> Tensor:
        """Velocity (...) that sets the damping of the absorbing band, m/s."""
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
        """Adjoint of `tangent`: (..., size) from gradients by map (..., nz, nx) and vmin (...)."""
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
        """Coordinates of a prior: the map (..., nz, nx) in m/s, or the coefficients (..., k)."""
        return self.velocity(x) if self.prior_acts_on_map else x[..., :-1]

    def map_covariance(self, covariance: Tensor) -> Tensor:
        """Covariance of the map in (m/s)^2, for unknowns (size, size) that are its cells."""
        return covariance[:-1, :-1]

    def prior_pullback(self, g: Tensor) -> Tensor:
        """Adjoint of the linear part of `prior_coordinates`; 0 for vmin."""
        return _append(self.gather(g) if self.prior_acts_on_map else g, 0.0)


def _append(c: Tensor, last: Tensor | float) -> Tensor:
    """(..., k) and (...) -> (..., k + 1)."""
    last = torch.as_tensor(last).to(c).expand(c.shape[:-1])
    return torch.cat((c, last[..., None]), dim=-1)
