"""Whether the source of a record is that of the survey, by what arrives first near it.

Near the sources and early, a record is almost the wavelet alone: what comes back from below is
weaker and later. There the wavelet is estimated with a map, or with the constant one that explains
the record best, and it counts only where it explains the record well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_refine.objective.noise import noise_variance
from fwi_refine.objective.source import SourceFit, impulse_record
from fwi_refine.objective.source_model import SourceModel
from fwi_refine.objective.source_shape import (
    FIRST_NOISE,
    FIRST_SPREAD,
    SourceShape,
    compare_wavelet,
)
from fwi_refine.routing.checks.form import is_record
from fwi_refine.survey import Survey
from fwi_refine.wave import Simulator

MAX_OFFSET = 8  # cells from a source, within which a receiver counts
WINDOW = 1.6  # lengths of the wavelet: the steps that count
MIN_RECEIVERS = 3  # receivers near the sources
CONSTANT_MAPS = 12  # constant maps that are tried, m/s, between the bounds
MAX_RESIDUAL = 0.1  # of the record's rms, what may be left where the wavelet counts


@dataclass(frozen=True)
class Limits:
    """Largest differences of a wavelet that does not count as another."""

    amplitude: float  # factor off 1
    delay: float  # s
    frequency: float  # factor off 1
    shape: float  # of its rms

    def exceeded(self, shape: SourceShape, survey: Survey) -> bool:
        """Whether a wavelet is another than the survey's."""
        frequency = compare_wavelet(survey.whole_wavelet, survey).frequency
        return (
            abs(shape.amplitude - 1) > self.amplitude
            or abs(shape.delay) > self.delay
            or abs(shape.frequency / frequency - 1) > self.frequency
            or shape.difference > self.shape
        )


WITH_MAP = Limits(0.02, 1e-3, 0.05, 0.05)
WITHOUT_MAP = Limits(0.1, 1.5e-3, 0.1, 0.2)


def source_near(
    record: NDArray[np.floating], simulator: Simulator, v: NDArray[np.floating] | None = None
) -> SourceShape | None:
    """The wavelet of a record by its first arrivals.

    Parameters
    ----------
    record : ndarray, (shots, >= n_steps, receivers)
        Measured record.
    simulator : Simulator
        Of its survey.
    v : ndarray, (nz, nx), optional
        A map, m/s, whose upper rows are about right; default the best of some constant ones.

    Returns
    -------
    SourceShape or None
        None where too few receivers stand near the sources, or the wavelet explains too little of
        what they record.
    """
    survey = simulator.survey
    receivers = [k for k, r in enumerate(survey.receivers) if _is_near(r, survey.sources)]
    if len(receivers) < MIN_RECEIVERS:
        return None
    steps = min(survey.n_steps, int(WINDOW * survey.whole_wavelet.size))
    early = replace(
        survey,
        n_steps=steps,
        file_rows=steps,
        receivers=tuple(survey.receivers[k] for k in receivers),
    )
    d = torch.from_numpy(np.asarray(record, np.float64)[:, :steps][..., receivers])
    square = float(d.square().mean())
    if not 0 < square < np.inf:
        return None
    model = SourceModel.of(early)
    size = np.sqrt(square) * FIRST_SPREAD
    anything = SourceModel(torch.zeros_like(model.mean), size * model.basis)
    fit = SourceFit.of(anything, early, noise_variance(square * FIRST_NOISE**4, early))
    maps: Sequence[torch.Tensor]
    if v is None:
        speeds = np.geomspace(*survey.velocity_bounds, CONSTANT_MAPS + 2)[1:-1]
        maps = [torch.full(survey.shape, float(speed), dtype=torch.float64) for speed in speeds]
    else:
        maps = [torch.from_numpy(np.asarray(v, np.float64).clip(*survey.velocity_bounds))]
    near = simulator.on(early)
    maps = [m for m in maps if near.is_stable(m[None])]
    found = [fit.estimate(impulse_record(near, m[None], m.min()[None]), d) for m in maps]
    if not found:
        return None
    best = min(found, key=lambda estimate: estimate.mean_square())
    if best.mean_square() > MAX_RESIDUAL**2 * square:
        return None
    return compare_wavelet(best.wavelets[0].numpy(), survey)


def other_source(
    maps: Sequence[NDArray[np.floating]],
    records: Sequence[NDArray[np.floating]],
    simulator: Simulator,
) -> SourceShape | None:
    """A wavelet other than the survey's, if each of some records shows one with its map.

    Parameters
    ----------
    maps, records
        As of `source_near`.
    simulator : Simulator
        Of the survey.

    Returns
    -------
    SourceShape or None
        That of the first.
    """
    shapes = [source_near(d, simulator, v) for v, d in zip(maps, records, strict=True)]
    told = [s for s in shapes if s is not None and WITH_MAP.exceeded(s, simulator.survey)]
    return told[0] if told and len(told) == len(shapes) else None


def warning(
    maps: Sequence[NDArray[np.floating]],
    records: Sequence[NDArray[np.floating]],
    survey: Survey,
) -> str:
    """The warning before a run whose source is taken as known; empty where there is none.

    Parameters
    ----------
    maps, records
        A few starts, m/s, and their records; those of other shapes are left out.
    survey : Survey
        The survey.

    Returns
    -------
    str
    """
    pairs = [
        (v, d)
        for v, d in zip(maps, records, strict=False)
        if np.shape(v) == survey.shape
        and is_record(np.shape(d), survey)
        and np.isfinite(v).all()
        and np.isfinite(d[:, : survey.n_steps]).all()
    ]
    if not pairs:
        return ""
    simulator = Simulator(survey, device="cpu")
    found = other_source([v for v, _ in pairs], [d for _, d in pairs], simulator)
    if found is None:
        return ""
    return (
        f"the source looks different from the survey's: {found.describe()}; --source fit estimates "
        "it with each map"
    )


def _is_near(receiver: tuple[int, int], sources: Sequence[tuple[int, int]]) -> bool:
    return any(np.hypot(receiver[0] - z, receiver[1] - x) <= MAX_OFFSET for z, x in sources)
