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

import numpy as np
import torch

from fwi_refine.objective.connected import connected_areas
from fwi_refine.wave import add_at


class Parameters(abc.ABC):
    """Base of all parameterisations. Tensors are float64; leading dimensions of x are a batch.

    shape: (nz, nx) of the map
    size: number of unknowns, vmin included
    """

    offset: torch.Tensor | float = 0.0  # (nz, nx) m/s: the map where all coefficients are zero
    # What a prior acts on: the map, or the coefficients where they are the simpler description.
    prior_acts_on_map = True

    def __init__(self, shape: tuple[int, int], coefficients: int):
        self.shape = tuple(shape)
        self.size = coefficients + 1

    @abc.abstractmethod
    def expand(self, c: torch.Tensor) -> torch.Tensor:
        """B c: (..., k) -> (..., nz, nx)."""

    @abc.abstractmethod
    def gather(self, g: torch.Tensor) -> torch.Tensor:
        """B^T g: (..., nz, nx) -> (..., k)."""

    @abc.abstractmethod
    def fit(self, v: torch.Tensor) -> torch.Tensor:
        """The c that minimises |offset + B c - v|: (nz, nx) -> (k,)."""

    def velocity(self, x: torch.Tensor) -> torch.Tensor:
        """The map of x: (..., size) -> (..., nz, nx) m/s."""
        return self.offset + self.expand(x[..., :-1])

    def vmin(self, x: torch.Tensor) -> torch.Tensor:
        """The velocity of the absorbing band of x: (..., size) -> (...) m/s."""
        return x[..., -1]

    def from_velocity(self, v: torch.Tensor, vmin: torch.Tensor | float | None = None):
        """The x (size,) whose map is nearest to v (nz, nx) in least squares.

        vmin: None takes the minimum of v. Raises ValueError for a v of another shape.
        """
        v = torch.as_tensor(v, dtype=torch.float64)
        if tuple(v.shape) != self.shape:
            raise ValueError(f"the map has shape {tuple(v.shape)}, expected {self.shape}")
        vmin = torch.as_tensor(v.min() if vmin is None else vmin).to(v)
        return torch.cat((self.fit(v), vmin.reshape(1)))

    def tangent(self, dx: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Change of map and vmin for a change of x: (..., size) -> (..., nz, nx), (...)."""
        return self.expand(dx[..., :-1]), dx[..., -1]

    def matrix(self, device: torch.device | None = None) -> torch.Tensor:
        """The linear map x -> (v, vmin) as a matrix, (nz * nx + 1, size) float64."""
        dv, dvmin = self.tangent(torch.eye(self.size, dtype=torch.float64, device=device))
        return torch.cat((dv.flatten(1), dvmin[:, None]), dim=1).T

    def along(self, like: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Takes rows of a Jacobian by (v, vmin) to rows by x: (m, nz * nx + 1) -> (m, size), of the
        type and on the device of `like`. None: they are the same."""
        columns = self.matrix(like.device).to(like)
        return lambda rows: rows @ columns

    def pullback(self, grad_v: torch.Tensor, grad_vmin: torch.Tensor | float) -> torch.Tensor:
        """Adjoint of `tangent`: gradients for v (..., nz, nx) and vmin (...) -> (..., size)."""
        return append(self.gather(grad_v), grad_vmin)

    def retract(self, x: torch.Tensor, dx: torch.Tensor) -> torch.Tensor:
        """Where a step dx from x leads: (size,) -> (size,), x + dx to first order.

        The step is straight in squared slowness,

            v <- (v^-2 - 2 v^-3 dv)^(-1/2),

        in which the record is closer to linear: detail below a wavelength acts through the local
        mean of 1 / v^2. A step too long for that gives infinite velocity, which no objective
        accepts.
        """
        v = self.velocity(x)
        dv, dvmin = self.tangent(dx)
        squared_slowness = v**-2 - 2 * v**-3 * dv
        stepped = torch.where(squared_slowness > 0, squared_slowness, 0.0) ** -0.5
        return self.from_velocity(stepped, self.vmin(x) + dvmin)

    def prior_coordinates(self, x: torch.Tensor) -> torch.Tensor:
        """What a prior acts on: the map (..., nz, nx), or the coefficients (..., size - 1)."""
        return self.velocity(x) if self.prior_acts_on_map else x[..., :-1]

    def prior_pullback(self, g: torch.Tensor) -> torch.Tensor:
        """Gradient for x (..., size) of one for the prior's coordinates. That for vmin is 0."""
        return append(self.gather(g) if self.prior_acts_on_map else g, 0.0)


def append(c: torch.Tensor, last: torch.Tensor | float) -> torch.Tensor:
    """(..., k) and (...) -> (..., k + 1)."""
    last = torch.as_tensor(last).to(c).expand(c.shape[:-1])
    return torch.cat((c, last[..., None]), dim=-1)


class Full(Parameters):
    """One unknown for each cell."""

    def __init__(self, shape: tuple[int, int]):
        super().__init__(shape, shape[0] * shape[1])

    def expand(self, c):
        return c.unflatten(-1, self.shape)

    def gather(self, g):
        return g.flatten(-2)

    def fit(self, v):
        return v.flatten()

    def along(self, like):
        return None


class Rows(Parameters):
    """One unknown for each row: flat layers. A prior acts on the vector of rows."""

    prior_acts_on_map = False

    def __init__(self, shape: tuple[int, int]):
        super().__init__(shape, shape[0])

    def expand(self, c):
        return c[..., None].expand(*c.shape, self.shape[1]).contiguous()

    def gather(self, g):
        return g.sum(-1)

    def fit(self, v):
        return v.mean(-1)


class Modes(Parameters):
    """Coefficients z of the modes of a Gaussian process: v = mean + U (s * z).

    For modes from the singular value decomposition U diag(s) W^T of a square root of the
    covariance, truncated or not, the energy of the process is z . z: the prior to go with these
    is `objective.SumOfSquares`, and a prior acts on z.

    mean: (nz, nx) m/s; basis: U (nz * nx, k), orthonormal columns; scales: s (k,) m/s, positive
    Raises ValueError if their shapes do not fit, or the columns are not orthonormal.
    """

    prior_acts_on_map = False

    def __init__(self, mean: torch.Tensor, basis: torch.Tensor, scales: torch.Tensor):
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
        super().__init__(mean.shape, k)
        self.offset, self.basis, self.scales = (
            tensor.to(torch.float64) for tensor in (mean, basis, scales)
        )

    def expand(self, c):
        return ((c * self.scales) @ self.basis.T).unflatten(-1, self.shape)

    def gather(self, g):
        return (g.flatten(-2) @ self.basis) * self.scales

    def fit(self, v):
        return ((v - self.offset).flatten() @ self.basis) / self.scales


class Regions(Parameters):
    """One unknown for each region of equal velocity.

    labels: (nz, nx) integers; cells of the same label share their velocity
    """

    def __init__(self, labels: torch.Tensor | np.ndarray):
        labels = torch.as_tensor(labels)
        if labels.ndim != 2 or labels.is_floating_point():
            raise ValueError(
                f"labels are {labels.dtype} of shape {tuple(labels.shape)}, "
                "expected integers of shape (nz, nx)"
            )
        found, self.labels, self.cells = torch.unique(
            labels, return_inverse=True, return_counts=True
        )
        super().__init__(labels.shape, found.numel())

    @classmethod
    def from_map(cls, v: torch.Tensor | np.ndarray, tolerance: float) -> "Regions":
        """Tie cells of v (nz, nx) to each neighbour that differs by less than tolerance (m/s).

        Neighbours are the four cells above, below, left and right. A chain of small differences
        ties its ends, however far these are apart.
        """
        device = v.device if isinstance(v, torch.Tensor) else None
        v = torch.as_tensor(v).detach().cpu().numpy()
        # "less than": at most the largest number below the tolerance
        labels = connected_areas(v, np.nextafter(np.float64(tolerance), -np.inf))
        return cls(torch.as_tensor(labels, device=device))

    def expand(self, c):
        return c[..., self.labels]

    def gather(self, g):
        sums = g.new_zeros(*g.shape[:-2], self.size - 1)
        return add_at(sums, -1, self.labels.flatten(), g.flatten(-2))

    def fit(self, v):
        return self.gather(v) / self.cells

    def along(self, like):
        return lambda rows: self.pullback(rows[:, :-1].unflatten(1, self.shape), rows[:, -1])
