"""Smooth random fields on the grid of a map."""

import numpy as np

from fwi_refine.survey import OPENFWI


def smooth_field(length: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a stationary field with a squared-exponential covariance.

    Parameters
    ----------
    length : float
        Correlation length in cells: the covariance is exp(-r^2 / (2 length^2)).
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray
        (70, 70) float64, mean 0, variance 1.

    Notes
    -----
    White noise blurred by exp(-r^2 / length^2), whose self-convolution is that covariance. The
    noise reaches three lengths beyond the map, so that the variance is 1 up to its edges.
    """
    margin = int(np.ceil(3 * length))
    noise = rng.standard_normal([n + 2 * margin for n in OPENFWI.shape])
    blurs = []
    for n in OPENFWI.shape:
        distance = np.arange(n)[:, None] + margin - np.arange(n + 2 * margin)
        blur = np.exp(-((distance / length) ** 2))
        blurs.append(blur / np.linalg.norm(blur, axis=1, keepdims=True))
    return blurs[0] @ noise @ blurs[1].T
