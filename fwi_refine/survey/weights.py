"""Which samples of a record count, and how much: missing ones, and weights that a user gives.

A weight is one over the variance of a sample's noise, up to a common factor. A sample that was not
recorded has the weight 0. Missing samples are NaN, or zeros where a wave must have arrived.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fwi_refine.errors import InputError
from fwi_refine.survey.geometry import Survey

Mask = NDArray[np.bool_]
MIN_ZERO_STEPS = 10  # steps: zeros at the end of a trace; fewer may be values that were rounded


def missing_samples(record: NDArray[np.floating], survey: Survey) -> Mask:
    """Samples of a record that were not recorded.

    Parameters
    ----------
    record : ndarray, (shots, >= n_steps, receivers)
        The record; rows from n_steps on are not looked at.
    survey : Survey
        That of the record.

    Returns
    -------
    ndarray of bool, (shots, n_steps, receivers)
        True for NaN; for a trace of zeros only, where others are not and a wave as slow as the
        survey's slowest velocity has arrived; for zeros at the end of such a trace; and for rows
        of zeros after the first that is none.
    """
    used = record[:, : survey.n_steps]
    missing = np.isnan(used)
    filled = (used != 0) & ~missing
    if not filled.any():
        return missing
    row = np.arange(survey.n_steps)[:, None]
    last = np.where(filled.any(1), survey.n_steps - 1 - np.argmax(filled[:, ::-1], 1), -1)
    last = np.where(last < survey.n_steps - MIN_ZERO_STEPS, last, survey.n_steps)
    silent = row > last[:, None, :]
    missing |= silent & (row[-1] >= _latest_arrival(survey)[:, None, :])
    rows = filled.any((0, 2))
    missing[:, ~rows & (row[:, 0] > int(np.argmax(rows)))] = True
    return np.asarray(missing)


def _latest_arrival(survey: Survey) -> NDArray[np.float64]:
    """Step (shots, receivers) by which the peak of the slowest direct wave has come."""
    away = distances(survey) / survey.velocity_bounds[0] / survey.dt
    return away + survey.wavelet_centre


def distances(survey: Survey) -> NDArray[np.float64]:
    """From each source to each receiver (shots, receivers), m."""
    sources, receivers = (np.array(p, float) for p in (survey.sources, survey.receivers))
    found = np.linalg.norm(sources[:, None] - receivers[None], axis=-1) * survey.spacing
    return np.asarray(found)


def check_weights(
    weights: ArrayLike, survey: Survey, where: str = "weights"
) -> NDArray[np.float64]:
    """Weights for shots, receivers or samples as an array that broadcasts over a record.

    Parameters
    ----------
    weights : array_like
        (shots,), (receivers,), (shots, receivers), or three axes that broadcast to
        (shots, n_steps or more rows, receivers): at least 0.
    survey : Survey
        That of the records.
    where : str
        Its name in a message.

    Returns
    -------
    ndarray of float64
        Of three axes: (shots or 1, n_steps or 1, receivers or 1); the largest is 0.5 to 1, as
        only their ratios count, and sums of very large or small ones would lose them.

    Raises
    ------
    InputError
        For another shape, one that may be meant in two ways, and for weights that are negative,
        not finite or all 0.
    """
    found = np.asarray(weights)
    if found.dtype.kind not in "fiub":
        raise InputError(f"{where}: found type {found.dtype}, expected numbers")
    found = found.astype(np.float64)
    shots, steps, receivers = survey.record_shape
    shape = found.shape
    if len(shape) == 1 and shots == receivers:
        raise InputError(
            f"{where}: found shape {shape}, which may be of shots or of receivers; expected "
            f"({shots}, 1) for shots or (1, {receivers}) for receivers"
        )
    if shape == (shots,):
        found = found[:, None, None]
    elif shape == (receivers,):
        found = found[None, None, :]
    elif len(shape) == 2:
        found = found[:, None, :]
    if (
        found.ndim != 3
        or found.shape[0] not in (1, shots)
        or found.shape[2] not in (1, receivers)
        or 1 < found.shape[1] < steps
        or not found.size
    ):
        raise InputError(
            f"{where}: found shape {shape}, expected ({shots},) for shots, ({receivers},) for "
            f"receivers, ({shots}, {receivers}) for traces, or ({shots}, {survey.file_rows}, "
            f"{receivers}) for samples"
        )
    found = found[:, :steps]
    if not (np.isfinite(found).all() and (found >= 0).all() and found.any()):
        raise InputError(f"{where}: expected finite numbers of at least 0, not all of them 0")
    return np.asarray(np.ldexp(found, -int(np.frexp(found.max())[1])))  # bits of a mean stay


def sample_weights(
    record: NDArray[np.floating], survey: Survey, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64] | None:
    """Weight of each sample of a record.

    Parameters
    ----------
    record : ndarray, (shots, >= n_steps, receivers)
        The record, NaN where samples are missing.
    survey : Survey
        That of the record.
    weights : ndarray, optional
        As `check_weights` returns them; by default all the same.

    Returns
    -------
    ndarray of float64, (shots, n_steps, receivers), or None
        0 for missing samples; the others have the mean 1. None where all samples count the same.
    """
    counts = (~missing_samples(record, survey)).astype(np.float64)
    found = counts if weights is None else counts * weights
    present = found > 0
    if not present.any():
        return found
    found /= found[present].mean()
    return None if present.all() and np.ptp(found) == 0 else found
