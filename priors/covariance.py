"""The covariance of a Gaussian process on a grid, by its structure: a Kronecker product, a diagonal
and two terms of rank one."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Covariance:
    """K = (Qz x Qx) diag(d) (Qz x Qx)^T + F F^T, and what follows from it.

    Qz, Qx are eigenbases of the one-dimensional kernels, "x" is the Kronecker product,
    d = sigma^2 lz lx + noise^2, and F has the columns `constant` and `slope` times depth.
    Maps are arrays (..., nz, nx); "coordinates" are their components in the eigenbases.
    """

    def __init__(
        self,
        length: float,
        sigma: float,
        noise: float,
        constant: float,
        slope: float,
        shape: tuple[int, int],
    ):
        self.sigma, self.noise = sigma, noise
        self.bases: list[Array] = []
        self.spectra: list[Array] = []
        self.derivatives: list[Array] = []
        for n in shape:
            distances = np.subtract.outer(centred(n), centred(n)) / length
            kernel = np.exp(-(distances**2) / 2)
            spectrum, basis = np.linalg.eigh(kernel)
            self.bases.append(basis)
            self.spectra.append(np.maximum(spectrum, 0.0))  # rounding leaves some at -1e-16
            self.derivatives.append(basis.T @ (distances**2 * kernel) @ basis)  # by log(length)
        self.d = sigma**2 * np.outer(*self.spectra) + noise**2
        depth = np.repeat(centred(shape[0])[:, None], shape[1], axis=1)
        self.trends = np.stack([np.full(shape, float(constant)), slope * depth])  # F
        self.f = self.coordinates(self.trends)
        self.weighted = self.f / self.d
        capacitance = np.eye(2) + np.einsum("aij,bij->ab", self.f, self.weighted)
        self.inverse = np.linalg.inv(capacitance)
        self.log_determinant = np.log(self.d).sum() + np.linalg.slogdet(capacitance)[1]

    def coordinates(self, maps: Array) -> Array:
        """Maps (..., nz, nx) in the eigenbases: Qz^T X Qx."""
        return self.bases[0].T @ maps @ self.bases[1]

    def maps(self, coordinates: Array) -> Array:
        """Maps (..., nz, nx) of coordinates: Qz C Qx^T."""
        return self.bases[0] @ coordinates @ self.bases[1].T

    def solve_coordinates(self, coordinates: Array) -> Array:
        """K^-1 in coordinates, by Woodbury's identity."""
        along = np.einsum("...ij,aij->...a", coordinates, self.weighted) @ self.inverse
        return coordinates / self.d - np.tensordot(along, self.weighted, axes=1)

    def solve(self, maps: Array) -> Array:
        """K^-1 maps."""
        return self.maps(self.solve_coordinates(self.coordinates(maps)))

    def draw(self, rng: np.random.Generator) -> Array:
        """A draw of the process, without its mean."""
        texture = self.maps(np.sqrt(self.d) * rng.standard_normal(self.d.shape))
        return texture + np.tensordot(rng.standard_normal(2), self.trends, axes=1)

    def log_likelihood(self, maps: Array) -> tuple[float, Array]:
        """Log-likelihood of maps (n, nz, nx), and its gradient in the logarithms of
        (length, sigma, noise, constant, slope):

            1/2 sum over maps of a^T K' a  -  n/2 tr(K^-1 K'),  a = K^-1 x,  K' = dK / d log
        """
        y = self.coordinates(maps)
        a = self.solve_coordinates(y)
        n = len(maps)
        value = -0.5 * (np.vdot(y, a) + n * (self.log_determinant + y[0].size * np.log(2 * np.pi)))
        gradient = []
        for product, diagonal in self._covariance_derivatives():
            coupling = np.einsum("aij,bij->ab", self.weighted, product(self.weighted))
            trace = (diagonal / self.d).sum() - np.sum(self.inverse * coupling)
            gradient.append(0.5 * (np.vdot(a, product(a)) - n * trace))
        return value, np.array(gradient)

    def _covariance_derivatives(self) -> Iterator[tuple[Callable[[Array], Array], Array]]:
        """For each logarithm: the product of K' with coordinates, and the diagonal of K'."""
        (lz, lx), (dz, dx) = self.spectra, self.derivatives
        variance = self.sigma**2
        yield (
            lambda y: variance * (dz @ (y * lx) + (lz[:, None] * y) @ dx),
            variance * (np.outer(dz.diagonal(), lx) + np.outer(lz, dx.diagonal())),
        )
        smooth = 2.0 * (self.d - self.noise**2)
        yield lambda y: smooth * y, smooth
        white = np.full_like(self.d, 2.0 * self.noise**2)
        yield lambda y: white * y, white
        for f in self.f:
            yield partial(_along, f), 2.0 * f**2


def _along(f: Array, y: Array) -> Array:
    """2 f f^T y in coordinates."""
    return 2.0 * np.einsum("...ij,ij->...", y, f)[..., None, None] * f


def centred(n: int) -> Array:
    """Positions of n cells about their middle."""
    return np.arange(n, dtype=np.float64) - 0.5 * (n - 1)
