"""The candidate start of a sample that fits its record best."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.model import Model
from fwi_refine.io.samples import Sample
from fwi_refine.runs.settings import Settings, simulator_for
from fwi_refine.survey.weights import sample_weights
from fwi_refine.wave import Simulator


def best_start(
    sample: Sample, record: NDArray[np.float64], settings: Settings
) -> tuple[str, NDArray[np.float64]]:
    """The candidate of a sample whose simulated record fits best.

    Parameters
    ----------
    sample : Sample
        Its candidates.
    record : ndarray (shots, rows, receivers)
        Its record.
    settings : Settings
        How it is simulated.

    Returns
    -------
    (str, ndarray (nz, nx))
        Name and map, m/s; the first among equals.
    """
    if len(sample.starts) == 1:
        return sample.starts[0]
    fits = mean_squares([v for _, v in sample.starts], record, settings)
    return sample.starts[int(np.nanargmin(fits))]


def mean_squares(
    velocities: Sequence[NDArray[np.float64]], record: NDArray[np.float64], settings: Settings
) -> list[float]:
    """Mean square misfits of some maps to one record.

    Parameters
    ----------
    velocities : sequence of ndarray, shape (nz, nx)
        Maps in m/s.
    record : ndarray, shape (shots, >= n_steps, receivers)
        The measured record.
    settings : Settings
        Survey, kernel, source and weights.

    Returns
    -------
    list of float
        inf where a map cannot be simulated.
    """
    survey = settings.survey
    maps = np.stack(velocities).clip(*survey.velocity_bounds)
    simulator = simulator_for(settings)
    counts = sample_weights(record, survey, settings.weights)
    if settings.source != "known":
        starts = torch.as_tensor(maps, dtype=torch.float64)
        return [_free_misfit(v, record, simulator, counts) for v in starts]
    if counts is not None:
        data = Data.of_sample(record, torch.as_tensor(maps[0]), simulator, counts)
        models = [Model.of(v.to(simulator.device)) for v in torch.as_tensor(maps)]
        return [data.misfit(model, Budget()) for model in models]
    measured = torch.as_tensor(record[:, : survey.n_steps], dtype=torch.float64)
    return [
        simulator.misfit(v, measured[None]).item() if simulator.is_stable(v) else np.inf
        for v in torch.as_tensor(maps).split(1)
    ]


def _free_misfit(
    v: torch.Tensor,
    record: NDArray[np.float64],
    simulator: Simulator,
    weights: NDArray[np.float64] | None,
) -> float:
    """Mean square misfit of a map (nz, nx) with the wavelet that explains the record best."""
    if not simulator.is_stable(v[None]):
        return np.inf
    v = v.to(simulator.device)
    data, amplitude = Data.with_free_source(record, v, simulator, weights=weights)
    return amplitude**2 * data.misfit(Model.of(v), Budget())
