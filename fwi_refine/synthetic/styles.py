"""Maps of the Style families: made photographs on a trend that grows with depth.

The released ones are photographs in grey on a trend with depth: objects with sharp edges that
cover each other, smooth shading, fine texture. "Dead leaves" (Matheron, 1968; Lee, Mumford and
Huang, "Occlusion models for natural images", 2001) have the same spectra and the same heavy tails
of the gradients: random shapes that fall upon one another, here each shaded and textured. Style_A
is the same, blurred. The numbers are those of 7 and 8 released training maps.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from fwi_refine.survey import OPENFWI

SHAPE = OPENFWI.shape
VELOCITY_RANGE = (1450.0, 4550.0)  # m/s: the Style families go a little beyond 1500..4500
POINTS_PER_CELL = 3  # points of a picture on the side of a cell
LEAF_RADII = (3.0, 14.0)  # cells; the number of leaves falls with the square of the radius
GRAIN = 0.02  # grey levels, rms of the noise in a cell


@dataclass(frozen=True)
class Photograph:
    """The numbers of a Style family.

    Attributes
    ----------
    blur : float
        Standard deviation in cells of the Gaussian that the picture is blurred by.
    spread : tuple of float
        Range of the standard deviation about the linear trend, in m/s.
    leaves : tuple of int
        Range of the number of objects.
    """

    blur: float
    spread: tuple[float, float]
    leaves: tuple[int, int]


PHOTOGRAPHS = {
    "Style_A": Photograph(blur=2.5, spread=(215.0, 400.0), leaves=(10, 30)),
    "Style_B": Photograph(blur=0.0, spread=(198.0, 233.0), leaves=(25, 55)),
}
SLOWEST = (1560.0, 1650.0)  # m/s, of a map
FASTEST = (3800.0, 4380.0)


def style_map(family: str, rng: np.random.Generator) -> np.ndarray:
    """Draw a map of Style_A or Style_B.

    Parameters
    ----------
    family : str
        A key of `PHOTOGRAPHS`.
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray
        (70, 70) float64, m/s, not integers, within `VELOCITY_RANGE`.

    Raises
    ------
    KeyError
        For any other family.
    """
    kind = PHOTOGRAPHS[family]
    count = int(rng.integers(kind.leaves[0], kind.leaves[1] + 1))
    picture = photograph(count, rng)
    if kind.blur:
        picture = gaussian_filter(picture, kind.blur, mode="nearest")
    picture -= picture.mean()
    depth = np.linspace(0, 1, SHAPE[0])[:, None]
    slowest, fastest = rng.uniform(*SLOWEST), rng.uniform(*FASTEST)
    spread = rng.uniform(*kind.spread)
    strength = spread / (fastest - slowest) / picture.std()
    for _ in range(4):  # the stronger the picture, the flatter the trend under it in this range
        velocity = depth + strength * picture
        velocity -= velocity.min()
        velocity = slowest + (fastest - slowest) * velocity / velocity.max()
        strength *= spread / _about_trend(velocity).std()
    return velocity


def _about_trend(velocity: np.ndarray) -> np.ndarray:
    """A map without its linear trend with depth."""
    depth = np.arange(len(velocity))
    return velocity - np.polyval(np.polyfit(depth, velocity.mean(axis=1), 1), depth)[:, None]


def photograph(count: int, rng: np.random.Generator) -> np.ndarray:
    """A made photograph: (70, 70), grey levels of about 0 (the ground) to 1.

    Parameters
    ----------
    count : int
        Number of leaves that fall.
    rng : numpy.random.Generator
    """
    nz, nx = SHAPE
    z, x = (a / POINTS_PER_CELL for a in np.indices((nz * POINTS_PER_CELL, nx * POINTS_PER_CELL)))
    picture = np.zeros((nz * POINTS_PER_CELL, nx * POINTS_PER_CELL))
    low, high = LEAF_RADII
    for _ in range(count):
        radius = 1 / (1 / low - rng.random() * (1 / low - 1 / high))
        row, column = nz * rng.random() ** 0.7, nx * rng.random()
        outline = _draw_outline(radius, rng)
        box = np.s_[
            _span(row, outline.reach, nz * POINTS_PER_CELL),
            _span(column, outline.reach, nx * POINTS_PER_CELL),
        ]
        down, right = z[box] - row, x[box] - column
        rim = outline.rim(down, right)
        inside = rim < 1
        slope = rng.normal(0, 0.25, 2)
        leaf = rng.uniform(0.25, 1.0) + slope[0] * down / radius + slope[1] * right / 8
        # A dark interior with a bright rim, or the other way round.
        leaf += rng.normal(0.1, 0.25) * np.clip(rim, 0, 1) ** 3
        angle, period = rng.uniform(0, np.pi), rng.uniform(2.2, 5.0)
        phase = 2 * np.pi * (z[box] * np.cos(angle) + x[box] * np.sin(angle)) / period
        leaf += abs(rng.normal(0, 0.12)) * np.sign(np.sin(phase + 2 * np.pi * rng.random()))
        picture[box][inside] = leaf[inside]
    picture = picture.reshape(nz, POINTS_PER_CELL, nx, POINTS_PER_CELL).mean(axis=(1, 3))
    return picture + GRAIN * rng.standard_normal(SHAPE)


@dataclass(frozen=True)
class _Outline:
    """The outline of a leaf about its middle."""

    radius: float  # cells
    stretch: float
    turn: float
    waves: tuple[tuple[int, float, float], ...]  # number around the leaf, height, phase

    @property
    def reach(self) -> float:
        """No part of the leaf is farther from its middle, in cells."""
        highest = np.prod([1 + abs(height) for _, height, _ in self.waves])
        return self.radius * max(self.stretch, 1 / self.stretch) * max(float(highest), 0.2)

    def rim(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Distance from the middle over that of the outline in the same direction."""
        angle = np.arctan2(z, x)
        outline = 1 / np.hypot(
            np.cos(angle - self.turn) / self.stretch, np.sin(angle - self.turn) * self.stretch
        )
        for number, height, phase in self.waves:
            outline = outline * (1 + height * np.cos(number * angle + phase))
        return np.hypot(z, x) / (self.radius * np.maximum(outline, 0.2))


def _draw_outline(radius: float, rng: np.random.Generator) -> _Outline:
    stretch, turn = np.exp(rng.normal(0, 0.35)), rng.uniform(0, np.pi)
    waves = tuple((k, rng.normal(0, 0.25 / k), 6.3 * rng.random()) for k in range(2, 6))
    return _Outline(radius, stretch, turn, waves)


def _span(middle: float, reach: float, points: int) -> slice:
    """The points of an axis within reach of a leaf's middle, and one more at each end."""
    first, last = (middle - reach) * POINTS_PER_CELL, (middle + reach) * POINTS_PER_CELL
    return slice(max(int(first) - 1, 0), min(max(int(last) + 3, 0), points))
