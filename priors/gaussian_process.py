"""Gaussian-process prior of the Style families.

A map is a draw from a normal distribution around `mean` with the covariance, between cells at
(row z, column x) and (z', x'),

    K = sigma^2 exp(-((z - z')^2 + (x - x')^2) / (2 length^2)) + noise^2 [same cell]
        + constant^2 + slope^2 (z - middle)(z' - middle)

so `constant` (m/s) is the standard deviation of a velocity common to all cells, and `slope` (m/s
per cell) that of a linear change with depth about the middle of the map. The formulas are those of
[1]_, chapters 2, 4 and 5.

`kernel` is this covariance as scikit-learn's kernels, and `covariance` evaluates it, as a check of
all other methods, which use its structure. On a grid the first term is a Kronecker product, with
noise it is diagonal in the product of two 70 x 70 eigenbases, and the last two terms have rank one
each (Woodbury's identity). A solve takes some 0.1 ms instead of the second of a dense 4900 x 4900
factorisation.

References
----------
.. [1] C. E. Rasmussen and C. K. I. Williams, "Gaussian Processes for Machine Learning", MIT Press,
   2006.
"""

from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fwi_refine.priors.base import ValueAndGradient
from fwi_refine.priors.covariance import Array, Covariance, centred

if TYPE_CHECKING:
    from sklearn.gaussian_process.kernels import Kernel

# Coordinates in which the two rank-one terms are smaller than this part of their norm are not
# coupled by them: the error of the modes is of this size, and they take 1 s instead of 10 s.
UNCOUPLED = 1e-8


@dataclass(frozen=True)
class GaussianProcess(ValueAndGradient):
    """Normal distribution of maps; `value` is the energy x^T K^-1 x of x = v - mean.

    Parameters
    ----------
    length : float
        Correlation length in cells.
    sigma : float
        Standard deviation of the texture in m/s.
    noise : float
        Standard deviation of the noise of each cell in m/s.
    constant : float
        Standard deviation of a velocity common to all cells in m/s; may be 0.
    slope : float
        Standard deviation of the linear change with depth in m/s per cell; may be 0.
    mean : float
        Mean velocity in m/s.
    shape : tuple of int
        (nz, nx) cells of a map.

    Raises
    ------
    ValueError
        For hyper-parameters that are not possible; from every method, for maps of another shape.
    """

    length: float
    sigma: float
    noise: float
    constant: float
    slope: float
    mean: float
    shape: tuple[int, int] = (70, 70)

    quadratic: ClassVar[bool] = True  # the Hessian is the same for every map

    def __post_init__(self) -> None:
        for name in ("length", "sigma", "noise", "constant", "slope"):
            value = getattr(self, name)
            least = "at least 0" if name in ("constant", "slope") else "above 0"
            if not np.isfinite(value) or value < 0 or (value == 0 and least == "above 0"):
                raise ValueError(f"{name} is {value}, expected a finite number {least}")
        if not np.isfinite(self.mean):
            raise ValueError(f"mean is {self.mean}, expected a finite velocity in m/s")

    def __reduce__(self) -> tuple[Any, ...]:  # without what was computed from the numbers
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    @property
    def kernel(self) -> "Kernel":
        """The covariance as a scikit-learn kernel on points (z - middle, x - middle) in cells."""
        from fwi_refine.priors.kernels import kernel  # see there why here

        return kernel(self.length, self.sigma, self.noise, self.constant, self.slope)

    def covariance(self) -> Tensor:
        """Covariance matrix K.

        Returns
        -------
        Tensor, shape (nz * nx, nz * nx)
            In (m/s)^2, cells in row order.
        """
        z, x = np.meshgrid(*(centred(n) for n in self.shape), indexing="ij")
        return torch.from_numpy(self.kernel(np.column_stack([z.ravel(), x.ravel()])))

    def value_and_gradient(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """As in `Prior`: energy x^T K^-1 x and gradient 2 K^-1 x.

        For draws the energy is chi-squared with one degree for each cell. Both come from one solve,
        on a GPU from one product with K^-1.
        """
        centred = self._centred_map(v)
        if v.device.type != "cpu":
            product = (self._precision_on(v.device) @ centred.flatten()).reshape(v.shape)
            return torch.vdot(centred.flatten(), product.flatten()).to(v), (2.0 * product).to(v)
        x = centred.numpy()
        solved = self._structure.solve(x)
        return v.new_tensor(np.vdot(x, solved)), torch.from_numpy(2.0 * solved).to(v)

    def hessian(self, v: Tensor) -> Tensor:
        """As in `Prior`: 2 K^-1, exact and the same for every map."""
        self._centred_map(v)
        return (2.0 * self._precision_on(v.device)).to(v)

    def log_likelihood(self, v: Tensor) -> Tensor:
        """Logarithm of the probability density of a map (nz, nx) in m/s."""
        constant = self._structure.log_determinant + v.numel() * np.log(2.0 * np.pi)
        return -0.5 * (self.value(v) + constant)

    def sample(self, rng: np.random.Generator | int) -> Tensor:
        """Draw a map.

        Parameters
        ----------
        rng : numpy.random.Generator or int
            Generator, or a seed.

        Returns
        -------
        Tensor, shape (nz, nx)
            In m/s, float64.
        """
        return torch.from_numpy(self.mean + self._structure.draw(np.random.default_rng(rng)))

    def modes(self, threshold: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """Truncated singular value decomposition of the square root of the covariance.

        A map is mean + modes @ (singular values * z), and z^T z is its energy. Of Style A's 4900
        modes 1072 are above 1 m/s; with vmin that makes the 1073 unknowns of the published recipe.

        Parameters
        ----------
        threshold : float
            Modes with singular values above it are kept, in m/s.

        Returns
        -------
        mean : Tensor, shape (nz, nx)
            In m/s.
        modes : Tensor, shape (nz * nx, k)
            Orthonormal columns.
        scales : Tensor, shape (k,)
            Singular values in m/s, falling.
        """
        vectors, scales = _modes(self, float(threshold))
        mean = torch.full(self.shape, self.mean, dtype=torch.float64)
        return mean, torch.from_numpy(vectors.copy()), torch.from_numpy(scales.copy())

    @classmethod
    def fit(cls, maps: ArrayLike, mean: float | None = None) -> Self:
        """Hyper-parameters of greatest likelihood for labelled maps.

        L-BFGS-B over the logarithms of the five, none below 0.01, with the analytic gradient
        (Rasmussen and Williams, equation 5.9). A map is one sample of `constant` and of `slope`,
        which are therefore found to a relative precision of 1 / sqrt(2 n).

        Parameters
        ----------
        maps : array_like, shape (n, nz, nx)
            Maps in m/s.
        mean : float, optional
            Mean velocity in m/s; by default the mean of all cells.

        Returns
        -------
        GaussianProcess

        Raises
        ------
        ValueError
            For fewer than two maps, constant maps and values that are not finite.
        """
        from scipy.optimize import minimize  # takes a tenth of a second to load

        maps = np.asarray(maps, dtype=np.float64)
        if maps.ndim != 3 or len(maps) < 2 or min(maps.shape[1:]) < 4:
            raise ValueError(f"maps have shape {maps.shape}, expected (n >= 2, nz >= 4, nx >= 4)")
        if not np.isfinite(maps).all():
            raise ValueError(f"{(~np.isfinite(maps)).sum()} values of the maps are not finite")
        mean = float(maps.mean() if mean is None else mean)
        x, shape = maps - mean, (maps.shape[1], maps.shape[2])

        def objective(logs: Array) -> tuple[float, Array]:
            length, sigma, noise, constant, slope = np.exp(logs)
            structure = Covariance(length, sigma, noise, constant, slope, shape)
            value, gradient = structure.log_likelihood(x)
            return -value / x.size, -gradient / x.size

        start = _rough_hyper_parameters(x)
        bounds = [(np.log(0.3), np.log(max(shape))), *[(np.log(1e-2), np.log(1e5))] * 4]
        best = minimize(objective, np.log(start), jac=True, method="L-BFGS-B", bounds=bounds)
        length, sigma, noise, constant, slope = (float(value) for value in np.exp(best.x))
        return cls(length, sigma, noise, constant, slope, mean, shape)

    def _centred_map(self, v: Tensor) -> Tensor:
        if tuple(v.shape) != tuple(self.shape):
            raise ValueError(f"map of shape {tuple(v.shape)}, expected {tuple(self.shape)}")
        return v.detach().to(torch.float64) - self.mean

    @cached_property
    def _structure(self) -> "Covariance":
        return Covariance(
            self.length, self.sigma, self.noise, self.constant, self.slope, self.shape
        )

    @cached_property
    def _precisions(self) -> dict[torch.device, Tensor]:
        """K^-1, (cells, cells), on each device that it was asked for."""
        cells = self.shape[0] * self.shape[1]
        solved = self._structure.solve(np.eye(cells).reshape(-1, *self.shape))
        return {torch.device("cpu"): torch.from_numpy(solved.reshape(cells, cells))}

    def _precision_on(self, device: torch.device) -> Tensor:
        precisions = self._precisions
        if device not in precisions:
            precisions[device] = precisions[torch.device("cpu")].to(device)
        return precisions[device]


@lru_cache(maxsize=4)
def _modes(process: GaussianProcess, threshold: float) -> tuple[Array, Array]:
    """Modes (cells, k) and singular values (k,) above `threshold`, falling.

    F F^T couples few of the coordinates: the others are modes as they are, and the coupled
    ones are those of a dense matrix a fifth of the size.
    """
    structure = process._structure
    d, f = structure.d.ravel(), structure.f.reshape(2, -1)
    floor = UNCOUPLED * np.linalg.norm(f, axis=1, keepdims=True)
    coupled = (np.abs(f) > floor).any(axis=0)
    g = f[:, coupled]
    variances, vectors = np.linalg.eigh(np.diag(d[coupled]) + g.T @ g)
    kept, alone = variances > threshold**2, np.flatnonzero(~coupled & (d > threshold**2))
    coordinates = np.zeros((kept.sum() + alone.size, d.size))
    coordinates[: kept.sum(), coupled] = vectors[:, kept].T
    coordinates[kept.sum() + np.arange(alone.size), alone] = 1.0
    variances = np.concatenate([variances[kept], d[alone]])
    order = np.argsort(variances)[::-1]
    modes = structure.maps(coordinates[order].reshape(-1, *process.shape))
    return modes.reshape(len(order), -1).T, np.sqrt(variances[order])


def _rough_hyper_parameters(x: Array) -> list[float]:
    """Where the fit starts: (length, sigma, noise, constant, slope) of maps (n, nz, nx).

    Constant and slope by least squares on each map; sigma from what they leave; noise from second
    differences, in which a smooth field is small; first differences vary by (sigma / length)^2.
    """
    depth = centred(x.shape[1])
    constants = x.mean(axis=(1, 2))
    slopes = np.tensordot(x.mean(axis=2), depth, axes=1) / (depth @ depth)
    rest = x - constants[:, None, None] - slopes[:, None, None] * depth[:, None]
    variance = rest.var()
    if variance == 0:
        raise ValueError("the maps are constant or straight lines in depth: nothing to fit")
    white = min(np.diff(rest, 2, axis=2).var() / 6.0, 0.5 * variance)  # 1, -2, 1: 6 noise^2
    steps = max(np.diff(rest, axis=2).var() - 2.0 * white, 0.01 * variance)
    smooth = variance - white
    length = np.clip(np.sqrt(smooth / steps), 0.5, 0.25 * min(x.shape[1:]))
    scale = [np.sqrt(smooth), np.sqrt(white), np.sqrt(np.mean(constants**2))]
    return [float(length), *np.maximum([*scale, np.sqrt(np.mean(slopes**2))], 1e-2)]
