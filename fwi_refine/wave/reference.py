"""The wave operator in plain torch: slow, short, and the specification of the compiled kernels.

::

    p[n+1] = (2 - kappa + 2 c1 alpha) p[n] - (1 - kappa) p[n-1] + alpha (c2 N1 + c3 N2)
    p[n+1] at the source += (v_source dt)^2 w[n] = alpha_source dx^2 w[n]

alpha = (v dt / dx)^2 on the padded grid, kappa = vmin * damping, c1 = -5/2, c2 = 4/3,
c3 = -1/12, N1 and N2 the sums of the four neighbours at distance 1 and 2 (KAUST a2d_mod_abc24).
The grid wraps around at its border, as the original does (np.roll): with zero outside instead,
records of maps that are fast near the surface differ by up to 0.1 rms, because the damping of
the side bands is that of the column alone and leaves an almost undamped way to the top.

The adjoint: with mu = alpha * lambda the adjoint recursion is the same update run backwards::

    mu[m] = step(mu[m+1], mu[m+2]) + alpha u[m-1] at the receivers,        m = n_steps .. 1
    dJ/dalpha = (sum_n mu[n+1] L p[n]) / alpha + at the source sum_n dx^2 w[n] mu[n+1] / alpha
    dJ/dvmin  = sum_x damping sum_n mu[n+1] (p[n-1] - p[n]) / alpha
              = sum_x damping sum_n p[n] (mu[n+2] - mu[n+1]) / alpha

J = sum(u * record). The sums over n may take every k-th step only (times k), as the fields are
band-limited (`every`).
"""

import torch

from fwi_refine.survey import Survey
from fwi_refine.wave import released_arithmetic
from fwi_refine.wave.grid import C1, C2, C3, damping
from fwi_refine.wave.kernel import check_call, check_kernel, check_out


def laplacian(p: torch.Tensor) -> torch.Tensor:
    """L p = 2 c1 p + c2 N1 + c3 N2 over the last two dimensions, which wrap around.

    Parameters
    ----------
    p : torch.Tensor, (..., rows, cols)
        A field.

    Returns
    -------
    torch.Tensor, (..., rows, cols)
        Its Laplacian, times the spacing squared.
    """
    near, far = (
        sum(
            (torch.roll(p, shift, dims=dim) for shift in (-k, k) for dim in (-2, -1)),
            start=torch.zeros((), dtype=p.dtype, device=p.device),
        )
        for k in (1, 2)
    )
    return 2 * C1 * p + C2 * near + C3 * far


class ReferenceKernel:
    """A `kernel.Kernel` with a loop over the steps in Python.

    Parameters
    ----------
    survey : Survey
        The survey.
    dtype : torch.dtype
        float32 or float64.
    threads : int
        Not used: torch uses its own.
    every : int
        Steps between two wavefields that a gradient correlates.
    narrow : bool
        Not used: every cell is always computed.
    """

    def __init__(
        self, survey: Survey, dtype: torch.dtype, threads: int, every: int, narrow: bool = True
    ):
        check_kernel(dtype, every)
        del threads, narrow  # torch uses its own threads, and every cell is always computed
        self.name = "reference"
        self._dtype = dtype
        self._every = every
        self._survey = survey
        self._n_steps = survey.n_steps
        self._sources = torch.from_numpy(survey.padded_index(survey.sources)).long()
        self._receivers = torch.from_numpy(survey.padded_index(survey.receivers)).long()
        self._wavelet = (survey.wavelet * survey.spacing**2).tolist()
        self._damping = damping(survey)

    def forward(self, alpha: torch.Tensor, vmin: torch.Tensor) -> torch.Tensor:
        """Records, (B, shots, n_steps, receivers)."""
        check_call(self._survey, alpha, vmin)
        record, _ = self._propagate(alpha, vmin, store=False)
        return record

    def wavefields(
        self, alpha: torch.Tensor, vmin: torch.Tensor, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """p[every], p[2 every], ... before the last step, (B, shots, frames, rows, cols)."""
        check_call(self._survey, alpha, vmin, every=self._every)
        _, frames = self._propagate(alpha, vmin, store=True)
        shape = (len(alpha), len(self._sources), len(frames), *self._survey.padded_shape)
        check_out(out, shape, self._dtype, torch.device("cpu"))
        if not frames:
            return torch.empty(shape, dtype=self._dtype)
        return torch.stack(list(frames.values()), dim=2)

    def tangent(
        self, alpha: torch.Tensor, vmin: torch.Tensor, dalpha: torch.Tensor, dvmin: torch.Tensor
    ) -> torch.Tensor:
        """Change of the records, to first order, for a change of alpha and of vmin."""
        check_call(self._survey, alpha, vmin, dalpha=dalpha, dvmin=dvmin)
        alpha, kappa = self._coefficients(alpha, vmin)
        dalpha = dalpha.to(alpha)[:, None]
        dkappa = self._damping.to(alpha) * dvmin.to(alpha)[:, None, None, None]
        shots, (rows, cols) = range(len(self._sources)), self._sources.T
        p = old = dp = dold = torch.zeros_like(alpha).repeat(1, len(self._sources), 1, 1)
        traces = []
        for w in self._wavelet:
            driving = laplacian(p)
            dnext = dp + (1 - kappa) * (dp - dold) + alpha * laplacian(dp)
            dnext = dnext + dalpha * driving + dkappa * (old - p)
            following = p + (1 - kappa) * (p - old) + alpha * driving
            following[:, shots, rows, cols] += alpha[:, 0, rows, cols] * w
            dnext[:, shots, rows, cols] += dalpha[:, 0, rows, cols] * w
            p, old, dp, dold = following, p, dnext, dp
            traces.append(self._at_receivers(dp))
        return torch.stack(traces, dim=2)

    def adjoint(
        self, alpha: torch.Tensor, vmin: torch.Tensor, u: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient of sum(u * record) by alpha, (B, rows, cols), and by vmin, (B,) float64."""
        check_call(self._survey, alpha, vmin, data=u, every=self._every)
        _, frames = self._propagate(alpha, vmin, store=True)
        return self._backpropagate(alpha, vmin, u, frames)

    def misfit(
        self, alpha: torch.Tensor, vmin: torch.Tensor, data: torch.Tensor, gradient: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """sum((record - data)^2), (B,) float64, and its gradients where gradient is true."""
        check_call(self._survey, alpha, vmin, data=data, every=self._every if gradient else None)
        record, frames = self._propagate(alpha, vmin, store=gradient)
        residual = record - data.to(record)
        value = residual.double().square().sum(dim=(1, 2, 3))
        if not gradient:
            return value, None, None
        return value, *self._backpropagate(alpha, vmin, 2 * residual, frames)

    def released(
        self, alpha: torch.Tensor, vmin: torch.Tensor, strength: torch.Tensor
    ) -> torch.Tensor:
        """Records in released arithmetic; strength: (B, shots), of the sources."""
        check_call(self._survey, alpha, vmin, strength=strength, single=self._dtype)
        return released_arithmetic.propagate(alpha, vmin, strength, self._survey)

    def first_differences(
        self,
        alpha: torch.Tensor,
        vmin: torch.Tensor,
        strength: torch.Tensor,
        data: torch.Tensor,
        stop: bool,
    ) -> torch.Tensor:
        """(B, shots, receivers) first step in which such a record is not the data."""
        check_call(self._survey, alpha, vmin, data=data)
        del stop
        return released_arithmetic.first_unequal(
            self.released(alpha, vmin, strength), data.to(alpha)
        )

    def _coefficients(
        self, alpha: torch.Tensor, vmin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """alpha and kappa with a dimension for the shots."""
        alpha = alpha.detach().to(self._dtype)[:, None]
        kappa = self._damping.to(alpha) * vmin.detach().to(alpha)[:, None, None, None]
        return alpha, kappa

    def _at_receivers(self, p: torch.Tensor) -> torch.Tensor:
        return p[:, :, self._receivers[:, 0], self._receivers[:, 1]]

    def _propagate(
        self, alpha: torch.Tensor, vmin: torch.Tensor, store: bool
    ) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        """Records, and p[n] for n = every, 2 every, ... < n_steps where store is true."""
        alpha, kappa = self._coefficients(alpha, vmin)
        shots, (rows, cols) = range(len(self._sources)), self._sources.T
        p = old = torch.zeros_like(alpha).repeat(1, len(self._sources), 1, 1)
        traces: list[torch.Tensor] = []
        frames: dict[int, torch.Tensor] = {}
        for n, w in enumerate(self._wavelet):
            if store and n and n % self._every == 0:
                frames[n] = p
            following = p + (1 - kappa) * (p - old) + alpha * laplacian(p)
            following[:, shots, rows, cols] += alpha[:, 0, rows, cols] * w
            p, old = following, p
            traces.append(self._at_receivers(p))
        return torch.stack(traces, dim=2), frames

    def _backpropagate(
        self,
        alpha: torch.Tensor,
        vmin: torch.Tensor,
        u: torch.Tensor,
        frames: dict[int, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The gradients by alpha and vmin from the stored wavefields."""
        alpha, kappa = self._coefficients(alpha, vmin)
        u = u.detach().to(alpha)
        shots, (rows, cols) = range(len(self._sources)), self._sources.T
        at_receivers = self._receivers[:, 0] * alpha.shape[-1] + self._receivers[:, 1]
        at_receivers_alpha = alpha.flatten(2)[:, :, at_receivers]
        mu = following = torch.zeros_like(alpha).repeat(1, len(self._sources), 1, 1)
        image, by_damping = torch.zeros_like(alpha), torch.zeros_like(alpha)
        for n in reversed(range(self._n_steps)):
            before = mu + (1 - kappa) * (mu - following) + alpha * laplacian(mu)
            # receivers may stand at the same place: their parts add up
            before.flatten(2).index_add_(2, at_receivers, at_receivers_alpha * u[:, :, n])
            mu, following = before, mu  # mu[n+1] and mu[n+2]
            for_sources = self._wavelet[n] * mu[:, shots, rows, cols]
            image[:, 0].index_put_(
                (torch.arange(len(mu))[:, None], rows, cols), for_sources, accumulate=True
            )
            if n in frames:
                p = frames[n]
                image += self._every * (mu * laplacian(p)).sum(1, keepdim=True)
                by_damping += self._every * (p * (following - mu)).sum(1, keepdim=True)
        by_vmin = (self._damping.to(alpha) * by_damping / alpha).double().sum(dim=(1, 2, 3))
        return (image / alpha)[:, 0], by_vmin
