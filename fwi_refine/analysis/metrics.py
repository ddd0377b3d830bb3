"""How far a map `v` is from the `truth`, both (nz, nx) in m/s, in the measures of the field."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import correlate1d

from fwi_refine.io.report import mean_absolute_error

__all__ = [
    "VELOCITY_RANGE",
    "error_by_depth",
    "leaderboard_error",
    "mean_absolute_error",
    "root_mean_square_error",
    "similarity",
    "structural_similarity",
]

# OpenFWI scales velocities from this range before it measures SSIM (its dataset_config.json).
VELOCITY_RANGE = (1500.0, 4500.0)
_WINDOW = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
_WINDOW /= _WINDOW.sum()


def root_mean_square_error(v: ArrayLike, truth: ArrayLike) -> float:
    """Root of the mean of (v - truth)^2, m/s."""
    return float(np.sqrt(np.square(_double(v) - _double(truth)).mean()))


def leaderboard_error(v: NDArray[Any], truth: NDArray[Any]) -> float:
    """Mean of `|v - truth|` over the odd columns, m/s: all that a submission holds of a map."""
    return mean_absolute_error(v[:, 1::2], truth[:, 1::2])


def error_by_depth(v: ArrayLike, truth: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Errors of each row of a map.

    Returns
    -------
    dict of ndarray, (nz,)
        Mean of `|v - truth|` ("mae", m/s), of (v - truth)^2 ("mse", (m/s)^2) and of v - truth
        ("bias", m/s; positive where the map is too fast).
    """
    error = _double(v) - _double(truth)
    return {
        "mae": np.abs(error).mean(axis=1),
        "mse": np.square(error).mean(axis=1),
        "bias": error.mean(axis=1),
    }


def structural_similarity(v: ArrayLike, truth: ArrayLike) -> float:
    """SSIM of two maps as OpenFWI reports it: the mean of `similarity`."""
    return float(similarity(v, truth).mean())


def similarity(v: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """SSIM at each cell of two maps: 1 where they are equal.

    Notes
    -----
    Velocities are scaled from 1500..4500 m/s to 0..1; Gaussian window of 11 cells and 1.5 cells
    standard deviation (Wang et al., 2004). As in OpenFWI's test.py there are zeros outside the
    map and all cells count, where scikit-image mirrors the map and leaves its borders out.
    """
    low, high = VELOCITY_RANGE
    a, b = ((_double(m) - low) / (high - low) for m in (v, truth))
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mean_a**2
    var_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    result = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    result /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return result


def _blur(m: NDArray[np.float64]) -> NDArray[np.float64]:
    for axis in (0, 1):
        m = correlate1d(m, _WINDOW, axis=axis, mode="constant")
    return m


def _double(m: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(m, dtype=np.float64)
