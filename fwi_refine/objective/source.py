"""The source of a record: its wavelet, estimated together with the map.

A record is linear in the wavelet of its sources. With g the record of a single sample (an impulse)

    s(v, w) = w * g(v),     w = mean + B c,     c ~ N(0, 1),

where * is a convolution in time, one simulation tells s for all wavelets, and the best of them for
a map is the solution of a small linear system,

    c(v) = (Phi^T Phi + noise)^-1 Phi^T (Q^T d - Q^T mean * g),     Phi = Q^T B * g,

Q the basis of all records within the band (wave/jacobian/full.py). What is left of the record is a
function of the map alone: variable projection (G. Golub, V. Pereyra, Inverse Problems 19, 2003;
for wavelets A. Aravkin, T. van Leeuwen, Inverse Problems 28, 2012). B holds the modes of a Gaussian
process whose realisations are as smooth as the wavelet. With weights W of the samples, the same
holds of W d and W s, with U of weights.py in the place of Q.
"""

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fwi_refine.objective.noise import MIN_NOISE, noise_variance
from fwi_refine.objective.source_model import SourceModel
from fwi_refine.objective.weights import BandWeights, Weights
from fwi_refine.survey import Survey
from fwi_refine.wave import Simulator, record_basis

SOURCES = ("known", "fit", "fit-each")  # as `--source` takes them

NOISE_FLOOR = 0.01  # of the rounding of float32 records: least noise of a coefficient
NOISE_RENEWALS = 3  # times that the noise is taken from what is left


def impulse_record(simulator: Simulator, v: Tensor, vmin: Tensor) -> Tensor:
    """The record g of a source of a single sample.

    Parameters
    ----------
    simulator : Simulator
        Of the survey, whatever its wavelet.
    v : Tensor, shape (1, nz, nx)
        Map in m/s.
    vmin : Tensor, shape (1,)
        The velocity that scales the damping, m/s.

    Returns
    -------
    Tensor of float64, shape (shots, n_steps, receivers)
    """
    impulse = simulator.survey.with_wavelet((1.0,))
    return Simulator(impulse, torch.float64, **simulator.options).forward(v, vmin)[0].double()


@dataclass(frozen=True)
class Estimate:
    """The wavelets that explain a record best, with a map.

    Attributes
    ----------
    coefficients : Tensor (groups, m)
        c of each group of shots: all of them, or each its own.
    wavelets : Tensor (groups, n_steps)
    residual : Tensor (shots, n_steps, receivers)
        Q Q^T (s - d), or U U^T W (s - d).
    design : Tensor (groups, rows, m)
        Phi; rows: those of the group's shots, by receivers and modes.
    orthogonal : Tensor (groups, rows, m)
        Phi R^-1.
    triangle : Tensor (groups, m, m)
        R, R^T R = Phi^T Phi + noise.
    """

    coefficients: Tensor
    wavelets: Tensor
    residual: Tensor
    design: Tensor
    orthogonal: Tensor
    triangle: Tensor

    def mean_square(self) -> float:
        """Of the residual."""
        return float(self.residual.square().mean())


@dataclass(frozen=True)
class SourceFit:
    """Finds the wavelets for a map; made by `of`.

    Attributes
    ----------
    model : SourceModel
        What is expected of the wavelets.
    survey : Survey
        That of the records; its wavelet tells the band.
    noise : float
        Variance of a coefficient of the band.
    band : Tensor (n_steps, modes)
        Q.
    responses : Tensor (modes, m + 1, n_steps)
        Q^T of each of the model's modes, and of its mean, begun at each step.
    weights : Weights, optional
        Of the samples; by default all count the same. What has none may have any value.
    """

    model: SourceModel
    survey: Survey
    noise: float
    band: Tensor
    responses: Tensor
    weights: Weights | None = None

    @classmethod
    def of(
        cls, model: SourceModel, survey: Survey, noise: float, weights: Weights | None = None
    ) -> "SourceFit":
        """That of a model, a survey, a noise and weights."""
        band = record_basis(survey)
        return cls(model, survey, noise, band, _responses(band, model.columns), weights)

    @functools.cached_property
    def band_weights(self) -> BandWeights | None:
        """The weights within the band; None where all samples count the same."""
        return None if self.weights is None else BandWeights(self.weights, self.band)

    def with_noise_of(self, estimate: "Estimate", or_less: bool = False) -> "SourceFit":
        """The same with what an estimate leaves as the noise; or_less: only if it is less.

        It is not taken for less than `NOISE_FLOOR` of the rounding of float32 records, as it makes
        the linear system definite.
        """
        noise = noise_variance(estimate.mean_square(), self.survey) * self._samples_per_counted
        noise = max(noise, self._least)
        return replace(self, noise=min(noise, self.noise) if or_less else noise)

    @property
    def _samples_per_counted(self) -> float:
        """A mean square is by all samples, and that of those without weight is 0."""
        return 1.0 if self.weights is None else self.weights.samples.size / self.weights.count

    @property
    def _least(self) -> float:
        """Least variance that counts as noise."""
        return (NOISE_FLOOR * MIN_NOISE * self.survey.unit) ** 2

    def on(self, survey: Survey, weights: Weights | None = None) -> "SourceFit":
        """The same for some of the shots, receivers and steps, from the first on; weights: of
        their samples."""
        mean, basis = (w[: survey.n_steps] for w in (self.model.mean, self.model.basis))
        model = replace(self.model, mean=mean, basis=basis)
        return SourceFit.of(model, survey, self.noise, weights)

    def low_passed(self, factor: float, lower: Survey) -> "SourceFit":
        """The same for a survey whose frequency is lower by a factor."""
        whole = replace(lower, frequency=lower.frequency / factor)
        model = self.model.low_passed(factor, whole)
        return SourceFit.of(model, lower, self.noise, self.weights)

    def mean_square(self, impulse: Tensor, record: Tensor) -> float:
        """Mean square, by weight, that the best wavelets leave of all samples of a record.

        Parameters
        ----------
        impulse, record : Tensor, shape (shots, n_steps, receivers)
            As for `estimate`.

        Returns
        -------
        float
        """
        wavelets = self.all_of(impulse, record)
        left = convolve(impulse.cpu(), wavelets[..., None]) - record.cpu()
        if self.weights is not None:
            left = self.weights.root(left) * left
        return float(left.square().mean())

    def all_of(self, impulse: Tensor, record: Tensor) -> Tensor:
        """The best wavelets by all samples, outside the band as well: no map changes a record
        there, but a wavelet does.

        Parameters
        ----------
        impulse, record : Tensor, shape (shots, n_steps, receivers)
            As for `estimate`.

        Returns
        -------
        Tensor, shape (groups, n_steps)
        """
        both = self.model.columns
        record = record.cpu().double()
        root = None if self.weights is None else self.weights.root(record)
        triangles = []
        for shot, (own, measured) in enumerate(zip(impulse.cpu(), record, strict=True)):
            rows = convolve(own.T[..., None], both[None]).flatten(0, 1)
            rows[:, -1] = measured.T.flatten() - rows[:, -1]
            if root is not None:
                rows *= root[shot].T.reshape(-1, 1)
            triangles.append(_triangle(rows))
        systems = torch.stack(triangles if self.model.each else [_triangle(torch.cat(triangles))])
        designs, lefts = systems[..., :-1], systems[..., -1:]
        noise = self.noise
        for _ in range(NOISE_RENEWALS):  # what is left is the noise
            orthogonal, triangle = _damped_factor(designs, noise)
            coefficients = _solve(orthogonal, triangle, lefts)
            left_over = float((designs @ coefficients - lefts).square().sum())
            left_over *= self._samples_per_counted / record.numel()
            noise = min(noise, max(left_over, self._least))
        coefficients = coefficients[..., 0]
        return self.model.mean + coefficients @ self.model.basis.T

    def estimate(self, impulse: Tensor, record: Tensor) -> Estimate:
        """The best wavelets within the band.

        Parameters
        ----------
        impulse : Tensor, shape (shots, n_steps, receivers)
            As `impulse_record` returns it.
        record : Tensor, shape (shots, n_steps, receivers)
            Measured one.

        Returns
        -------
        Estimate
        """
        impulse, record = impulse.cpu(), record.cpu().double()
        shots, _, receivers = impulse.shape
        modes, columns, steps = self.responses.shape
        traces = impulse.transpose(1, 2).reshape(-1, steps)
        all_rows = (traces @ self.responses.reshape(-1, steps).T).view(-1, modes, columns)
        measured = torch.einsum("tk,str->srk", self.band, record)
        if self.band_weights is not None:
            all_rows, measured = self._weighted(all_rows, impulse, record)
        groups = shots if self.model.each else 1
        rows = all_rows.reshape(groups, -1, columns)
        design, mean = rows[..., :-1], rows[..., -1]
        left = measured.reshape(groups, -1) - mean
        orthogonal, triangle = _damped_factor(design, self.noise)
        coefficients = _solve(orthogonal, triangle, left[..., None])
        residual = (design @ coefficients)[..., 0] - left
        coefficients = coefficients[..., 0]
        residual = residual.view(shots, receivers, modes)
        return Estimate(
            coefficients,
            self.model.mean + coefficients @ self.model.basis.T,
            self._expand(residual),
            design,
            orthogonal,
            triangle,
        )

    def _weighted(self, rows: Tensor, impulse: Tensor, record: Tensor) -> tuple[Tensor, Tensor]:
        """U^T W of the records (shots * receivers, modes, m + 1) of all columns of the model, from
        their rows without weights, and of the measured one (shots, receivers, modes)."""
        bands = self.band_weights
        assert bands is not None
        if bands.by_trace:
            rows = rows * bands.root[:, 0].reshape(-1, 1, 1)
        else:
            records = (convolve(impulse, w[None, :, None]) for w in self.model.columns.T)
            rows = torch.stack([bands.project(bands.root * s).flatten(0, 1) for s in records], -1)
        return rows, bands.project(bands.root * record)

    def _expand(self, c: Tensor) -> Tensor:
        """Records (shots, n_steps, receivers) of coefficients (shots, receivers, modes)."""
        if self.band_weights is not None:
            return self.band_weights.expand(c)
        return torch.einsum("tk,srk->str", self.band, c)


def _triangle(rows: Tensor) -> Tensor:
    """R of rows = Q R."""
    return torch.linalg.qr(rows, mode="r").R


def _damped_factor(design: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Phi R^-1 and R, R^T R = Phi^T Phi + noise, of Phi (groups, rows, m).

    By orthogonal steps: the record's energy over the noise of clean records is more than float64
    has digits, so that Phi^T Phi would not know of what is just above the noise.
    """
    groups, rows, m = design.shape
    ridge = noise**0.5 * torch.eye(m).to(design)
    q, r = torch.linalg.qr(torch.cat([design, ridge.expand(groups, m, m)], dim=1))
    return q[:, :rows], r


def _solve(orthogonal: Tensor, triangle: Tensor, left: Tensor) -> Tensor:
    """c (groups, m, 1) with the least |Phi c - left|^2 + noise |c|^2, by `_damped_factor`."""
    return torch.linalg.solve_triangular(triangle, orthogonal.mT @ left, upper=True)


def convolve(impulse: Tensor, wavelets: Tensor) -> Tensor:
    """Records of wavelets.

    Parameters
    ----------
    impulse : Tensor, shape (shots, n_steps, receivers)
        As `impulse_record` returns it.
    wavelets : Tensor, shape (1 or shots, n_steps, 1)
        Shapes are broadcast, but for the steps.

    Returns
    -------
    Tensor of float64, shape (shots, n_steps, receivers)
    """
    steps = impulse.shape[1]
    spectra = torch.fft.rfft(impulse, 2 * steps, dim=1)
    spectra = spectra * torch.fft.rfft(wavelets, 2 * steps, dim=1)
    return torch.fft.irfft(spectra, 2 * steps, dim=1)[:, :steps]


def _responses(band: Tensor, wavelets: Tensor) -> Tensor:
    """Q^T of each wavelet, begun at each step: (modes, wavelets, n_steps) from (n_steps, modes)
    and (n_steps, wavelets)."""
    steps = len(band)
    spectra = torch.fft.rfft(band, 2 * steps, dim=0)[:, :, None]
    shifted = torch.fft.rfft(wavelets, 2 * steps, dim=0)[:, None]
    correlated = torch.fft.irfft(spectra * shifted.conj(), 2 * steps, dim=0)[:steps]
    return correlated.permute(1, 2, 0).contiguous()
