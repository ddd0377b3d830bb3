"""Maps of the Style families: draws from Gaussian processes on a trend that grows with depth.

The correlation length, the standard deviation and the white noise are those that the 2nd place
of the Yale/UNC-CH benchmark fitted to the released Style maps. Their "constant" and "slope" are
wide standard deviations around 3000 m/s (520 and 31 per cell for Style A, 1239 and 92 for
Style B), and most draws from them leave the range of the data. So the trend is drawn from
bounded ranges instead: velocity increases with depth, and the whole map stays within
`VELOCITY_RANGE`.
"""

from dataclasses import dataclass

import numpy as np

from fwi_refine.survey import OPENFWI

SHAPE = OPENFWI.shape
VELOCITY_RANGE = (1450.0, 4550.0)  # m/s: the Style families go a little beyond 1500..4500


@dataclass(frozen=True)
class Texture:
    """What distinguishes the Style families."""

    length: float  # cells, of the squared-exponential kernel
    sigma: float  # m/s
    noise: float  # m/s, white


TEXTURES = {
    "Style_A": Texture(length=3.48, sigma=183.4, noise=0.0),
    "Style_B": Texture(length=1.96, sigma=158.0, noise=58.0),
}
TREND_TOP = (1750.0, 2600.0)  # m/s, range that the trend at row 0 is drawn from
TREND_BOTTOM = (2900.0, 4250.0)  # m/s, the same at the last row


def style_map(family: str, rng: np.random.Generator) -> np.ndarray:
    """Draw a map of Style_A or Style_B: (70, 70) float64 m/s, not integers.

    A map is drawn anew until it lies within `VELOCITY_RANGE`. Raises KeyError for any other family.
    """
    texture = TEXTURES[family]
    while True:
        trend = np.linspace(rng.uniform(*TREND_TOP), rng.uniform(*TREND_BOTTOM), SHAPE[0])
        velocity = trend[:, None] + texture.sigma * smooth_field(texture.length, rng)
        velocity += texture.noise * rng.standard_normal(SHAPE)
        if velocity.min() >= VELOCITY_RANGE[0] and velocity.max() <= VELOCITY_RANGE[1]:
            return velocity


def smooth_field(length: float, rng: np.random.Generator) -> np.ndarray:
    """A draw with covariance exp(-r^2 / (2 length^2)): (70, 70), mean 0, variance 1.

    White noise blurred by exp(-r^2 / length^2), whose self-convolution is that covariance.
    The noise reaches `margin` cells beyond the map, so that the variance is 1 up to its edges.
    """
    margin = int(np.ceil(3 * length))
    noise = rng.standard_normal([n + 2 * margin for n in SHAPE])
    blurs = []
    for n in SHAPE:
        distance = np.arange(n)[:, None] + margin - np.arange(n + 2 * margin)
        blur = np.exp(-((distance / length) ** 2))
        blurs.append(blur / np.linalg.norm(blur, axis=1, keepdims=True))
    return blurs[0] @ noise @ blurs[1].T
