"""A learned prior of photograph-like maps: samples of the posterior by a denoiser.

A denoiser that gives the mean of all maps that a noisy one may be (`denoiser.Denoiser`) knows the
density of these maps, blurred by that noise [1]_. Chains go from much noise to little. At each
level s the denoiser makes a normal prior about its own map, with its error t there as the standard
deviation; the data are added exactly, as they are a quadratic, and a draw from that posterior gets
noise of the next level:

    z = D(x, s)
    y ~ N((A + I / t^2)^-1 (b + z / t^2), (A + I / t^2)^-1)
    x = y + s' n,    n ~ N(0, I)

with exp(-v^T A v / 2 + b^T v) the likelihood [2]_ [3]_. The last y of each chain is its sample. The
eigenvectors of A serve all levels and chains.

White noise hides nothing of what extends over many cells, so no level moves it: it stays as the
chain began. Each begins with a draw from the posterior of a Gaussian process, whose long waves are
as uncertain as the data leave them, and the levels need no more noise than an edge's height.

The mean of some chains is an estimate, which their randomness must not blur: they come in pairs of
opposite random numbers [4]_. What a pair has in common stays, and what is odd in the numbers,
nearly all, cancels.

References
----------
.. [1] P. Vincent, "A connection between score matching and denoising autoencoders", Neural
   Computation 23, 1661-1674, 2011.
.. [2] Y. Zhu, K. Zhang, J. Liang, J. Cao and others, "Denoising diffusion models for plug-and-play
   image restoration", CVPR workshops, 2023.
.. [3] B. Zhang, W. Chu, J. Berner, C. Meng, A. Anandkumar and Y. Song, "Improving diffusion inverse
   problem solving with decoupled noise annealing", CVPR, 2025.
.. [4] J. M. Hammersley and K. W. Morton, "A new Monte Carlo technique: antithetic variates",
   Mathematical Proceedings of the Cambridge Philosophical Society 52, 449-475, 1956.
.. [5] T. P. Minka, "Expectation propagation for approximate Bayesian inference", UAI, 2001.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from .denoiser import Denoiser
from .gaussian_process import GaussianProcess

MOST, LEAST = 100.0, 1.5  # m/s, noise of the first and the last level
LEVELS = 60
CHAINS = 16
MIN_DEVIATION = 1.0  # m/s, of the normal prior that stands for the samples


@dataclass(frozen=True, eq=False)
class Likelihood:
    """exp(-d^T A d / 2 + b^T d) of maps v = centre + d, A by its eigenvectors.

    Parameters
    ----------
    centre : Tensor, shape (nz, nx)
        Map in m/s.
    matrix : Tensor, shape (nz * nx, nz * nx)
        A in (m/s)^-2.
    values : Tensor, shape (nz * nx,)
        Eigenvalues of A in (m/s)^-2, not negative.
    vectors : Tensor, shape (nz * nx, nz * nx)
        Eigenvectors of A, its columns.
    pull : Tensor, shape (nz * nx,)
        b by eigenvectors, in 1 / (m/s).
    """

    centre: Tensor
    matrix: Tensor
    values: Tensor
    vectors: Tensor
    pull: Tensor

    @classmethod
    def of(cls, matrix: Tensor, right: Tensor, centre: Tensor) -> Self:
        """From A (n, n) and b (n,), n = nz * nx, about a map (nz, nx)."""
        values, vectors = torch.linalg.eigh(matrix)
        return cls(centre, matrix, values.clamp_min(0.0), vectors, right @ vectors)

    def posterior(self, z: Tensor, spread: float, noise: Tensor | None = None) -> Tensor:
        """Draws from the posterior with normal priors of one standard deviation, or its means.

        Parameters
        ----------
        z : Tensor, shape (k, nz, nx)
            Means of the priors in m/s.
        spread : float
            Standard deviation of a cell in m/s.
        noise : Tensor, shape (k, nz, nx), optional
            Standard normal numbers; without them the means are returned.

        Returns
        -------
        Tensor, shape (k, nz, nx)
            In m/s.
        """
        precision = self.values + spread**-2
        found = (self.pull + ((z - self.centre).flatten(1) @ self.vectors) / spread**2) / precision
        if noise is not None:  # by the symmetric root, which no choice of eigenvectors changes
            found = found + (noise.flatten(1) @ self.vectors) / precision.sqrt()
        return self.centre + (found @ self.vectors.T).reshape(z.shape)

    def slope(self, v: Tensor) -> Tensor:
        """Gradient b - A d of its logarithm at a map v (nz, nx), in 1 / (m/s)."""
        along = self.pull - ((v - self.centre).flatten() @ self.vectors) * self.values
        return (self.vectors @ along).reshape(v.shape)

    def draws(self, process: GaussianProcess, noise: Tensor) -> Tensor:
        """Draws from the posterior with a Gaussian process as the prior.

        Parameters
        ----------
        process : GaussianProcess
            For maps (nz, nx).
        noise : Tensor, shape (k, nz, nx)
            Standard normal numbers.

        Returns
        -------
        Tensor, shape (k, nz, nx)
            In m/s.
        """
        factor = torch.linalg.cholesky(self.matrix + process.hessian(self.centre) / 2)
        slope = self.slope(self.centre) - process.gradient(self.centre) / 2
        halves = torch.linalg.solve_triangular(factor, slope.flatten()[:, None], upper=False)
        found = torch.linalg.solve_triangular(factor.T, halves + noise.flatten(1).T, upper=True)
        return self.centre + found.T.reshape(noise.shape)


@dataclass(frozen=True, eq=False)
class LearnedPrior:
    """A denoiser as a prior, and once data have been seen the normal density in its place.

    Parameters
    ----------
    denoiser : Denoiser
        The network.
    process : GaussianProcess
        Of the same maps; chains begin with draws from its posterior.
    chains : int
        Samples of which the posterior is estimated, in pairs.
    spread : float
        Factor of the deviations: what the chains leave out.
    likelihood : Likelihood, optional
        What the data say; see `update`.
    mean, deviation : Tensor, shape (nz, nx), optional
        Estimate, by the mean of the samples, and their rms distance from it, m/s; see `update`.
    site : Tensor, shape (nz, nx), optional
        Mean of the normal prior that stands for the denoiser, m/s; see `update`.

    Notes
    -----
    A denoiser has no value. Before `update`, `value` is 0 everywhere. After it, it is minus twice
    the logarithm of a normal density that stands for the prior, a site of expectation propagation
    [5]_: with its mean u and the deviation d of each cell, at least `MIN_DEVIATION`,

        value = sum over cells of ((v - u) / d)^2,    u = m - d^2 (b - A m).

    m is the estimate, `mean`, and b - A m what the likelihood pulls at it. The samples have seen
    the data, so a density about m would count these twice. With u the likelihood's own quadratic
    has its posterior mean at m: only what a record changes against that quadratic, its
    nonlinearity, moves the map from m, by (A + d^-2)^-1 times the change of the pull. The mean of a
    posterior follows a change of b by its covariance, whatever the prior.
    """

    denoiser: Denoiser
    process: GaussianProcess
    chains: int = CHAINS
    spread: float = 1.0
    likelihood: Likelihood | None = None
    mean: Tensor | None = None
    deviation: Tensor | None = None
    site: Tensor | None = None

    quadratic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.chains < 2 or self.chains % 2:
            raise ValueError(f"chains is {self.chains}, expected an even number of at least 2")
        if not 0 < self.spread < float("inf"):
            raise ValueError(f"spread is {self.spread}, expected a finite number above 0")

    def value_and_gradient(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """As in `Prior`."""
        if self.site is None:
            return v.new_zeros(()), torch.zeros_like(v)
        off = v - self.site
        precision = self._precision(v)
        return (precision * off**2).sum(), 2 * precision * off

    def hessian(self, v: Tensor) -> Tensor:
        """As in `Prior`; diagonal."""
        return torch.diag(2 * self._precision(v).flatten())

    def update(self, likelihood: Likelihood) -> Self:
        """The prior that stands for the posterior of some data.

        Parameters
        ----------
        likelihood : Likelihood
            Of the data, about a map that is near the solution.

        Returns
        -------
        LearnedPrior
            The same with the likelihood, and with the estimate and the rms distance of `chains`
            samples from it. The same likelihood gives the same.
        """
        seen = replace(self, likelihood=likelihood)
        samples = seen._ends(likelihood, self.chains, 0, opposed=True)
        mean = samples.mean(0)
        deviation = (samples - mean).square().mean(0).sqrt()
        site = mean - deviation.clamp_min(MIN_DEVIATION) ** 2 * likelihood.slope(mean)
        return replace(seen, mean=mean, deviation=deviation, site=site)

    def samples(self, count: int, seed: int) -> Tensor:
        """Maps drawn from the posterior, each by itself.

        Parameters
        ----------
        count : int
            Chains.
        seed : int
            Of the random numbers.

        Returns
        -------
        Tensor, shape (count, nz, nx)
            In m/s.

        Raises
        ------
        ValueError
            Before `update`.
        """
        if self.likelihood is None:
            raise ValueError("found no likelihood, expected that of `update`")
        return self._ends(self.likelihood, count, seed)

    def _ends(self, data: Likelihood, count: int, seed: int, opposed: bool = False) -> Tensor:
        """Last maps of chains; opposed: the numbers of the second half are minus the first's."""
        rng = np.random.default_rng(seed)
        drawn = count // 2 if opposed else count

        def noise() -> Tensor:
            numbers = rng.standard_normal((drawn, *data.centre.shape), np.float32)
            found = torch.from_numpy(numbers).to(data.centre)
            return torch.cat((found, -found)) if opposed else found

        denoiser = self.denoiser.to(data.centre.device)
        levels = np.geomspace(MOST, LEAST, LEVELS)
        x = data.draws(self.process, noise()) + MOST * noise()
        for level, following in zip(levels, (*levels[1:], 0.0), strict=True):
            z = denoiser(x.float(), torch.full((count,), level).to(x.device)).to(x)
            y = data.posterior(z, denoiser.error(level), noise())
            x = y + following * noise()
        return x

    def _precision(self, v: Tensor) -> Tensor:
        """Of each cell, (nz, nx), in (m/s)^-2."""
        if self.deviation is None:
            return torch.zeros_like(v)
        return self.deviation.clamp_min(MIN_DEVIATION) ** -2
