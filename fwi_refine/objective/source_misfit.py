"""The misfit of a map with the wavelets that explain the record best (source.py).

With P = 1 - Phi (Phi^T Phi + noise)^-1 Phi^T, which takes what the wavelets explain out of a
record, the change of the residual with the map is P J, up to a term with the residual itself (L.
Kaufman, BIT 15, 1975). So the gradient is J^T P r and the Gauss-Newton matrix

    2 / N (J^T J - C^T (Phi^T Phi + noise)^-1 C),     C = Phi^T J,

the Schur complement of that of map and wavelets: what it leaves uncertain of a map includes what
the wavelets are uncertain by. With weights W, U^T W J takes the place of Q^T J (weights.py).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fwi_refine.objective.misfit import COLUMNS, FEW_UNKNOWNS, BandMisfit
from fwi_refine.objective.parameterisation import Parameters
from fwi_refine.objective.source import Estimate, SourceFit, impulse_record
from fwi_refine.objective.source_hessian import SourceHessian
from fwi_refine.objective.weights import BandWeights
from fwi_refine.precision import widened
from fwi_refine.survey import Survey
from fwi_refine.wave import Jacobian, Simulator, gram, jacobian

CACHED_POINTS = 2  # points whose wavelets are kept
ROWS = 4096  # of the Jacobian in one product
WATER_LEVEL = 1e-4  # of a spectrum's largest power, below which two wavelets count as the same


@dataclass(frozen=True)
class _Point:
    """Unknowns and the wavelets there."""

    x: Tensor
    estimate: Estimate
    noise: float

    def project(self, rows: Tensor) -> Tensor:
        """P r of coefficients r (shots * receivers * modes,) of the band."""
        orthogonal = self.estimate.orthogonal
        r = rows.reshape(len(orthogonal), -1, 1)
        return (r - orthogonal @ (orthogonal.mT @ r)).flatten()


class FreeSourceMisfit(BandMisfit):
    """The misfit within the band, with the best wavelets for each map.

    Parameters
    ----------
    simulator : Simulator
        Wave operator; its wavelet is not used.
    parameters : Parameters
        Parameterisation of the unknowns.
    record : array_like, shape (shots, >= n_steps, receivers)
        Measured record d. Rows from n_steps on are not used.
    fit : SourceFit
        What finds the wavelets.

    Attributes
    ----------
    last_source : SourceHessian or None
        Of the latest result of `hessian`.
    """

    def __init__(
        self,
        simulator: Simulator,
        parameters: Parameters,
        record: ArrayLike | Tensor,
        fit: SourceFit,
    ):
        super().__init__(simulator, parameters, record, fit.weights)
        self._fit = fit
        self._basis = fit.band.to(simulator.device)
        if fit.weights is not None:
            self._band = BandWeights(fit.weights, self._basis)
        self._points: list[_Point] = []
        self.last_source: SourceHessian | None = None

    def estimate(self, x: Tensor) -> Estimate | None:
        """The wavelets for the unknowns x (n,); None outside the velocity bounds."""
        point = self._point(x)
        return None if point is None else point.estimate

    def residual(self, x: Tensor) -> Tensor | None:
        """As in `BandMisfit`, with the best wavelets."""
        point = self._point(x)
        return None if point is None else point.estimate.residual[None].to(self._record)

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """As in `Objective`: 1 / N (r . r + noise c . c), which the wavelets make least, so that
        its gradient is 2 / N J^T r, however large the noise is."""
        point = self._point(x)
        if point is None:
            return torch.inf, torch.zeros_like(x)
        r = point.estimate.residual[None].to(self._record)
        return self._value(point), self._adjoint(point, r, self.simulator)

    def __call__(self, x: Tensor) -> float:
        """As in `value_and_gradient`."""
        point = self._point(x)
        return torch.inf if point is None else self._value(point)

    def _value(self, point: _Point) -> float:
        penalty = point.noise * float(point.estimate.coefficients.square().sum())
        return point.estimate.mean_square() + penalty / self._record.numel()

    def pull_back(self, x: Tensor, r: Tensor) -> Tensor:
        """As in `SumOfSquaredResiduals`: 2 / N J^T P r, or 2 / N J^T W P r."""
        return self._back(self._known_point(x), r, self.simulator)

    def _back(self, point: _Point, r: Tensor, like: Simulator) -> Tensor:
        """The same; like: a simulator like those that are used."""
        return self._adjoint(point, self._projected(point, r), like)

    def _adjoint(self, point: _Point, r: Tensor, like: Simulator) -> Tensor:
        """2 / N J^T r, or 2 / N J^T W r."""
        v, vmin = self._medium(point.x)
        if self._root is not None:  # W takes it out of the band again
            r = self._in_band(self._root * r)
        gradient = torch.zeros_like(point.x)
        for simulator, shots in self._simulators(point, like):
            by_v, by_vmin = simulator.adjoint(v, r[:, shots], vmin)
            gradient += self.parameters.pullback(by_v[0].to(gradient), by_vmin[0].to(gradient))
        return gradient * (2.0 / r.numel())

    def hessian_product(self, x: Tensor, dx: Tensor) -> Tensor:
        """2 / N J^T P J dx, by one tangent and one adjoint run."""
        return self._product(self._known_point(x), dx, self.simulator)

    def _product(self, point: _Point, dx: Tensor, like: Simulator) -> Tensor:
        """The same; like: a simulator like those that are used."""
        change = self._tangent(point, *self._medium(point.x), dx[None], like).to(self._basis)
        change = self._in_band(change)
        return self._back(point, change if self._root is None else self._root * change, like)

    def hessian(self, x: Tensor, weight: float | None = None) -> Tensor:
        """As in `BandMisfit`, less what the wavelets explain."""
        point, scale = self._renewed(x), 2.0 / self._record.numel()
        if x.numel() > FEW_UNKNOWNS:
            full = self._jacobian_at(point)
            self.last_source = self._shared(full, point)
            self.last_hessian = self.last_source.reduce(self._normal_matrix(full))
            return self.last_hessian
        v, vmin = self._medium(x)
        single = self.simulator.on(self.simulator.survey, torch.float32)
        changes = [
            self._tangent(point, v, vmin, some, single).double()
            for some in torch.eye(len(x), dtype=x.dtype, device=x.device).split(COLUMNS)
        ]
        if self._band is None or self._root is None:
            columns = torch.einsum("tk,nstr->nsrk", self._basis, torch.cat(changes)).flatten(1)
        else:
            weighted = self._root * self._in_band(torch.cat(changes))
            columns = torch.stack([self._band.project(change) for change in weighted]).flatten(1)
        orthogonal = point.estimate.orthogonal.to(columns)
        by_group = columns.view(len(columns), len(orthogonal), -1)
        shared = torch.einsum("ngr,grm->gmn", by_group, orthogonal).flatten(0, 1)
        triangle = torch.block_diag(*point.estimate.triangle.to(columns))
        self.last_source = SourceHessian(shared * scale**0.5, triangle * scale**0.5)
        self.last_hessian = self.last_source.reduce(gram(columns) * scale)
        return self.last_hessian

    def linearise(
        self, x: Tensor, columns: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """As in `BandMisfit`, less what the wavelets explain."""
        point = self._known_point(x)
        full = self._jacobian_at(point)
        source = self._shared(full, point, columns)

        def pull_back(r: Tensor) -> Tensor:
            r = self._projected(point, r)
            if self._band is not None:  # the rows have their weights
                rows = self._band.project(r[0]).flatten().to(full.matrix)
                return widened(full.matrix.T @ rows) * (2.0 / r.numel())
            by_v, by_vmin = full.rmatvec(r[0])
            return torch.cat((by_v.flatten(), by_vmin.reshape(1))) * (2.0 / r.numel())

        return source.reduce(self._normal_matrix(full, columns)), pull_back

    def _point(self, x: Tensor) -> _Point | None:
        for point in self._points:
            if torch.equal(point.x, x):
                return point
        medium = self._checked_medium(x)
        if medium is None:
            return None
        impulse = impulse_record(self.simulator, *medium)
        estimate = self._fit.estimate(impulse, self._record[0])
        point = _Point(x.clone(), estimate, self._fit.noise)
        self._points = [point, *self._points][:CACHED_POINTS]
        return point

    def _known_point(self, x: Tensor) -> _Point:
        point = self._point(x)
        if point is None:
            raise ValueError("the unknowns are outside the velocity bounds")
        # the latest that was asked for stays
        self._points = [point, *(other for other in self._points if other is not point)]
        return point

    def _renewed(self, x: Tensor) -> _Point:
        """The point, with what is left of the record there as the noise, if that is less."""
        point = self._known_point(x)
        self._fit = self._fit.with_noise_of(point.estimate, or_less=True)
        if self._fit.noise < point.noise:
            self._points = []
        return self._known_point(x)

    def _projected(self, point: _Point, r: Tensor) -> Tensor:
        """Q P Q^T r, or U P U^T r, of records (1, shots, steps, receivers)."""
        if self._band is not None:
            rows = self._band.project(r[0].to(self._basis))
            left = point.project(rows.flatten().to(point.estimate.design)).view(rows.shape)
            return self._band.expand(left.to(self._basis))[None]
        rows = torch.einsum("tk,bstr->bsrk", self._basis, r.to(self._basis))
        left = point.project(rows.flatten().to(point.estimate.design)).view(rows.shape)
        return torch.einsum("tk,bsrk->bstr", self._basis, left.to(self._basis))

    def _survey(self, wavelet: Tensor) -> Survey:
        return self.simulator.survey.with_wavelet(wavelet.numpy())

    def _simulators(self, point: _Point, like: Simulator) -> list[tuple[Simulator, slice]]:
        """Simulators with the wavelets of a point, and the shots of each."""
        wavelets, sources = point.estimate.wavelets, self.simulator.survey.sources
        if len(wavelets) == 1:
            return [(like.on(self._survey(wavelets[0])), slice(None))]
        surveys = (
            replace(self._survey(wavelet), sources=(source,))
            for wavelet, source in zip(wavelets, sources, strict=True)
        )
        return [(like.on(survey), slice(shot, shot + 1)) for shot, survey in enumerate(surveys)]

    def _tangent(
        self, point: _Point, v: Tensor, vmin: Tensor, dx: Tensor, like: Simulator
    ) -> Tensor:
        """J dx for each row of dx (k, n): (k, shots, steps, receivers)."""
        dv, dvmin = self.parameters.tangent(dx.to(v))
        shape = (len(dx), *v.shape[1:])
        return torch.cat(
            [
                simulator.tangent(v.expand(shape), dv, vmin.expand(len(dx)), dvmin)
                for simulator, _ in self._simulators(point, like)
            ],
            dim=1,
        )

    def _jacobian_at(self, point: _Point) -> Jacobian:
        """The full Jacobian with the wavelets of a point; its rows have their weights."""
        v, vmin = self._medium(point.x)
        wavelets = point.estimate.wavelets
        mean = wavelets.mean(0)
        full = jacobian(v[0], vmin[0], survey=self._survey(mean), **self.simulator.options)
        if len(wavelets) > 1:
            by_shot = full.matrix.unflatten(0, (len(wavelets), -1, full.basis.shape[1]))
            for rows, wavelet in zip(by_shot, wavelets, strict=True):
                turn = _filter_in_band(full.basis.cpu(), mean, wavelet).to(rows)
                for trace in rows:
                    trace.copy_(turn @ trace)
        return full if self._band is None else self._weighed(full, self._band)

    def _weighed(self, full: Jacobian, band: BandWeights) -> Jacobian:
        """U^T W J, from J by its own basis."""
        turn = (self._basis.T @ full.basis.to(self._basis)).to(full.matrix)
        traces = full.matrix.unflatten(0, (-1, turn.shape[1]))
        matrix = traces.new_empty(len(traces), len(turn), traces.shape[2])
        for own, out in zip(traces, matrix, strict=True):
            torch.matmul(turn, own, out=out)
        return Jacobian(band.weigh(matrix.flatten(0, 1)), self._basis, full.survey)

    def _shared(
        self,
        full: Jacobian,
        point: _Point,
        columns: Callable[[Tensor], Tensor] | None = None,
    ) -> SourceHessian:
        """Cross terms of wavelets and unknowns."""
        scale = (2.0 / self._record.numel()) ** 0.5
        turn = full.basis.T @ self._basis.to(full.basis)
        orthogonal = point.estimate.orthogonal.to(full.basis)
        groups, _, m = orthogonal.shape
        traces = orthogonal.view(groups, -1, self._basis.shape[1], m)
        orthogonal = torch.einsum("jk,gtkm->gtjm", turn, traces).flatten(1, 2)
        parts = []
        for own, rows in zip(orthogonal, full.matrix.chunk(groups), strict=True):
            part = own.new_zeros(m, rows.shape[1])
            for some, of_rows in zip(own.split(ROWS), rows.split(ROWS), strict=True):
                part += some.T @ of_rows.double()
            parts.append(part)
        shared = torch.cat(parts)
        along = columns or self.parameters.jacobian_transform(shared)
        shared = shared if along is None else along(shared)
        triangle = torch.block_diag(*point.estimate.triangle.to(shared))
        return SourceHessian(shared.double() * scale, triangle.double() * scale)


def _filter_in_band(basis: Tensor, given: Tensor, wanted: Tensor) -> Tensor:
    """The filter from traces of one wavelet to those of another, (modes, modes), for coefficients
    of a basis (n_steps, modes)."""
    length = 2 * len(basis)
    a, b = (np.fft.rfft(w.numpy(), length) for w in (given, wanted))
    power = np.abs(a) ** 2
    filter_ = torch.from_numpy(1 + (b - a) * a.conj() / (power + WATER_LEVEL * power.max()))
    spectra = torch.fft.rfft(basis, length, dim=0)
    moved = torch.fft.irfft(filter_[:, None] * spectra, length, dim=0)[: len(basis)]
    return basis.T @ moved
