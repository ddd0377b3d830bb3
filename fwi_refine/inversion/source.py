"""A source whose wavelets were estimated with the map, and the expected error that this adds."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from fwi_refine.inversion.data import Data
from fwi_refine.inversion.model import Model
from fwi_refine.inversion.stage_result import Curvature
from fwi_refine.inversion.uncertainty import MEAN_OF_NORMAL, Solution, scaled_factor
from fwi_refine.objective.source import Estimate, impulse_record
from fwi_refine.objective.source_model import SourceModel
from fwi_refine.objective.source_shape import SourceShape, compare_wavelet
from fwi_refine.survey import Survey


@dataclass(frozen=True)
class FoundSource:
    """The wavelets that were estimated with a map.

    Attributes
    ----------
    wavelets : ndarray (groups, n_steps)
        In the unit of the record as it was given; one for all shots, or one for each.
    shape : SourceShape
        How their mean differs from the survey's.
    amplitude_deviation : float
        Standard deviation of the amplitude, as a factor of the survey's.
    delay_deviation : float
        Of the delay, s.
    added_error : float or None
        By how much the expected error of the map would be less with the wavelets known, m/s; None
        where it is not known.
    """

    wavelets: np.ndarray
    shape: SourceShape
    amplitude_deviation: float
    delay_deviation: float
    added_error: float | None = None

    def describe(self) -> str:
        """For a report."""
        shape = self.shape
        added = "" if self.added_error is None else f"; adds {self.added_error:.2g} m/s"
        return (
            f"amplitude {shape.amplitude:.5g} +- {self.amplitude_deviation:.1g}, delay "
            f"{1e3 * shape.delay:+.4g} +- {1e3 * self.delay_deviation:.1g} ms, peak at "
            f"{shape.frequency:.3g} Hz, shape off by {shape.difference:.2%}{added}"
        )


def found_source(
    data: Data, model: Model, curvature: Curvature, amplitude: float, survey: Survey
) -> FoundSource | None:
    """The source of a record, with a map that explains it.

    Parameters
    ----------
    data
        The record, divided by `amplitude`.
    model
        The map. Simulated once.
    curvature
        After the last stage.
    amplitude
        That was divided out of the record.
    survey
        The one that was given, with its wavelet.

    Returns
    -------
    FoundSource or None
        None where the wavelets were known.
    """
    if data.source is None:
        return None
    impulse = impulse_record(data.simulator, model.v[None], model.vmin[None])
    record = torch.from_numpy(data.record)[:, : survey.n_steps]
    estimate = data.source.estimate(impulse, record)
    wavelets = amplitude * data.source.all_of(impulse, record).numpy()
    covariance, added = _covariance(data, estimate, curvature)
    amplitude_variance, delay_variance = (
        float(d @ covariance @ d) for d in _directions(data.source.model, len(wavelets))
    )
    return FoundSource(
        wavelets,
        compare_wavelet(wavelets.mean(0), survey),
        abs(amplitude) * math.sqrt(amplitude_variance),
        math.sqrt(delay_variance) * survey.dt,
        added,
    )


def _directions(model: SourceModel, groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Derivatives of amplitude and delay, in steps, of the mean wavelet, by the coefficients."""
    mean = model.mean
    slope = torch.gradient(mean)[0]
    by_amplitude = model.basis.T @ mean / mean.square().sum()
    by_delay = -(model.basis.T @ slope) / slope.square().sum()
    return by_amplitude.repeat(groups) / groups, by_delay.repeat(groups) / groups


def _covariance(
    data: Data, estimate: Estimate, curvature: Curvature
) -> tuple[torch.Tensor, float | None]:
    """Of the coefficients (k, k), and by how much they raise the expected error of the map, m/s.

    With the posterior precision P of the map, its wavelets not known, and C and O those of
    `SourceHessian` in its unit, that of map and wavelets is [[P + C^T O^-1 C, C^T], [C, O]], so
    that the covariance of the wavelets is O^-1 + O^-1 C P^-1 C^T O^-1, and that of the map with
    known ones P^-1 - P^-1 C^T (O + C P^-1 C^T)^-1 C P^-1. Where P is not known, the map counts as
    right.
    """
    assert data.source is not None
    variance = data.source.noise
    inverse_triangle = torch.linalg.inv(torch.block_diag(*estimate.triangle))
    alone = variance * inverse_triangle @ inverse_triangle.mT
    known = curvature.uncertainty
    if not isinstance(known, Solution) or known.source is None:
        return alone, None
    factored = scaled_factor(known.precision())
    if factored is None:
        return alone, None
    factor, scale = factored
    unit = data.count / (2 * known.variance)
    own, cross = known.source.own * unit, known.source.cross * unit
    columns = known.parameters.matrix(scale.device)[:-1] / scale
    halves, shared = (
        torch.linalg.solve_triangular(factor, rows.T.to(factor), upper=False)
        for rows in (columns, cross / scale)
    )
    fit = halves.square().sum(0)
    both = shared.T @ shared
    between = halves.T @ shared
    known_variance = fit - (between * torch.linalg.solve(own.to(both) + both, between.T).T).sum(1)
    added = fit.sqrt().mean() - known_variance.clamp_min(0).sqrt().mean()
    inverse = torch.linalg.inv(own.to(both))
    covariance = (inverse + inverse @ both @ inverse).cpu()
    return covariance, MEAN_OF_NORMAL * known.spread * float(added)
