"""Starts that err the way a network's predictions do.

A network's errors grow with depth. It blurs interfaces but keeps travel times, leaves layers
almost flat but off by some m/s to tens of m/s, and misses thin layers at depth. Blocks between
faults are some part of a cell off, and cells along interfaces on the wrong side. These two make the
misfit: on the fault families a real network's prediction has two to three times that of a blurred
map of the same mean absolute error. On the Style families it is right at the long wavelengths, so
its misfit is a half of a blurred map's.

So 1/v^2, the quantity that travel times follow at long wavelengths, is what is moved and blurred.
`ERRORS` is calibrated in both: the mean absolute errors of the families are `NETWORK_MAE`, and the
misfit of the records for each m/s of it is `MISFIT_PER_MAE`. scripts/compare_made.py measures both.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import (
    distance_transform_edt,
    gaussian_filter,
    maximum_filter,
    mean,
    median_filter,
    minimum_filter,
)
from scipy.special import ndtr

from fwi_refine.objective import connected_areas
from fwi_refine.survey import OPENFWI
from fwi_refine.synthetic.fields import smooth_field

# m/s, mean absolute error by family of the network that the published method started from.
NETWORK_MAE = {
    "FlatVel_A": 1.3,
    "FlatVel_B": 7.2,
    "CurveVel_A": 9.2,
    "CurveVel_B": 39.0,
    "FlatFault_A": 2.6,
    "FlatFault_B": 24.0,
    "CurveFault_A": 4.0,
    "CurveFault_B": 71.0,
    "Style_A": 34.0,
    "Style_B": 49.0,
}
# Rms of the record's misfit for each m/s of mean absolute error, as 16 predictions of a network
# (mean errors above) and 25 of a weaker one (3 to 200 m/s) have it.
MISFIT_PER_MAE = {
    "FlatVel_A": 1.2e-3,
    "FlatVel_B": 3.3e-4,
    "CurveVel_A": 1.5e-3,
    "CurveVel_B": 1.1e-3,
    "FlatFault_A": 2.0e-3,
    "FlatFault_B": 2.0e-3,
    "CurveFault_A": 1.9e-3,
    "CurveFault_B": 1.4e-3,
    "Style_A": 3.8e-4,
    "Style_B": 4.4e-4,
}


@dataclass(frozen=True)
class StartError:
    """How large the errors of a family's starts are. All of them scale with the hardness.

    Attributes
    ----------
    blur : float
        Cells, standard deviation at the bottom of the map.
    bias : float
        m/s at the bottom, standard deviation of a layer's bias (Style: of a smooth field).
    texture : float
        m/s, rms of short-wavelength texture at the bottom.
    moved : float
        Cells by which parts of a block between faults are off, up or down.
    part : float
        Of the block, that is off.
    flipped : float
        Cells by which short pieces of an interface are off at the bottom, up or down.
    missed : int
        Cells, half the window of the median filter that thin deep layers fall through.
    growth : float
        The power of depth that blur, bias and flips grow with.
    """

    blur: float
    bias: float
    texture: float
    moved: float = 0.0
    part: float = 1.0
    flipped: float = 0.0
    missed: int = 0
    growth: float = 2.0


ERRORS = {
    "FlatVel_A": StartError(blur=0.08, bias=0.65, texture=0.2, growth=1),
    "FlatVel_B": StartError(blur=0.08, bias=45, texture=0.5, growth=6),
    "CurveVel_A": StartError(blur=0.2, bias=5, texture=0.5, flipped=1.8),
    "CurveVel_B": StartError(blur=0.65, bias=30, texture=1.0, flipped=2.7),
    "FlatFault_A": StartError(blur=0.15, bias=4, texture=0.2, moved=1, part=0.08),
    "FlatFault_B": StartError(blur=0.2, bias=35, texture=1, moved=1, part=0.45, flipped=1.2),
    "CurveFault_A": StartError(blur=0.2, bias=8, texture=0.3, moved=1, part=0.08),
    "CurveFault_B": StartError(
        blur=1.9, bias=120, texture=1.0, moved=1, part=0.75, flipped=1, missed=3
    ),
    "Style_A": StartError(blur=3.8, bias=130, texture=0.5, growth=2.5),
    "Style_B": StartError(blur=1.9, bias=45, texture=15, growth=1.0),
}
UNEVENNESS = 0.3  # relative rms by which the blurred-away detail varies from place to place
BIAS_DRIFT = 0.1  # relative rms by which a layer's bias varies along the layer
PATCH_LENGTH = 6.0  # cells, of the parts of a block that are off
FLIP_LENGTH = 1.5  # cells, of the pieces of interfaces that are off
FLIPPED_FRACTION = 0.4  # of the cells of the map in such pieces


def make_start(
    velocity: np.ndarray,
    family: str,
    rng: np.random.Generator,
    hardness: float = 1.0,
    blocks: np.ndarray | None = None,
) -> np.ndarray:
    """Make a network-like prediction of a map.

    Parameters
    ----------
    velocity : numpy.ndarray
        (nz, nx), m/s.
    family : str
        A key of `ERRORS`.
    rng : numpy.random.Generator
        The same state gives the same pattern of errors at any hardness.
    hardness : float
        Scales the error; at 2 to 3 the starts are the hard set, in which thin deep layers and small
        faults are lost.
    blocks : numpy.ndarray, optional
        (nz, nx) int, the fault block of each cell; where it is not known, two lines part the map.

    Returns
    -------
    numpy.ndarray
        (nz, nx) float64, m/s.

    Raises
    ------
    KeyError
        For an unknown family.
    ValueError
        For a negative or infinite hardness.
    """
    if not 0 <= hardness < np.inf:
        raise ValueError(f"hardness is {hardness}, expected 0 (no error) or more; 1 is a network's")
    error = ERRORS[family]
    nz = velocity.shape[0]
    growth = np.linspace(0.0, 1.0, nz)[:, None] ** error.growth
    unevenness = smooth_field(4.0, rng)
    drift = smooth_field(10.0, rng)
    texture = smooth_field(1.0, rng)
    offset = error.moved * _block_offsets(velocity.shape, blocks, error.part, rng)
    offset += error.flipped * growth * _flips(rng)
    if family.startswith("Style"):
        bias = smooth_field(8.0, rng) * growth
    else:
        bias = _layer_biases(velocity, error.growth, rng) * (1 + BIAS_DRIFT * drift)

    start = np.clip(velocity + hardness * error.bias * bias, *OPENFWI.velocity_bounds)
    squared_slowness = _moved(start**-2, hardness * offset)
    half_window = round(error.missed * hardness)
    if half_window:
        squared_slowness = _lose_thin_layers(squared_slowness, half_window)
    widths = hardness * error.blur * growth[:, 0]
    lost = squared_slowness - blur(squared_slowness, widths)
    squared_slowness -= lost * np.maximum(1 + UNEVENNESS * unevenness, 0)
    # thin layers that are lost by more than there is of them
    slowest, fastest = OPENFWI.velocity_bounds
    velocity = np.clip(squared_slowness, fastest**-2, slowest**-2) ** -0.5
    return velocity + hardness * error.texture * growth * texture


def _block_offsets(
    shape: tuple[int, int], blocks: np.ndarray | None, part: float, rng: np.random.Generator
) -> np.ndarray:
    """Error of each cell of the blocks, of unit size: (nz, nx), 0.7 to 1.3 up or down.

    The largest block is a network's frame; it stays. In the others, patches that make up a part of
    all blocks' area are off.
    """
    patches = smooth_field(PATCH_LENGTH, rng)
    patches += 2 * np.linspace(0, 1, shape[0])[:, None]  # deep ones first
    if blocks is None:
        row, column = np.indices(shape)
        columns = rng.uniform(0.15, 0.85, 2) * shape[1]
        tangents = rng.uniform(-0.6, 0.6, 2)
        blocks = sum(
            (column > at + (row - shape[0] / 2) * tangent).astype(int)
            for at, tangent in zip(columns, tangents, strict=True)
        )
    _, blocks, counts = np.unique(blocks, return_inverse=True, return_counts=True)
    offsets = rng.choice([-1, 1], len(counts)) * rng.uniform(0.7, 1.3, len(counts))
    offsets[counts.argmax()] = 0
    offsets = offsets[blocks.reshape(shape)]
    if (offsets != 0).any():
        offsets *= patches >= np.quantile(patches[offsets != 0], 1 - part)
    return offsets


def _flips(rng: np.random.Generator) -> np.ndarray:
    """Short pieces up, down or right: (nz, nx), one of -1, 1, 0."""
    field = smooth_field(FLIP_LENGTH, rng)
    return np.sign(field) * (np.abs(field) > np.quantile(np.abs(field), 1 - FLIPPED_FRACTION))


def _moved(field: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A field (nz, nx) moved down by some rows, by cell; linear between rows, constant outside."""
    nz, nx = field.shape
    at = np.clip(np.arange(nz)[:, None] - rows, 0, nz - 1)
    first = np.minimum(at.astype(int), nz - 2)
    columns = np.arange(nx)
    low, high = field[first, columns], field[first + 1, columns]
    return low + (at - first) * (high - low)


def blur(field: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Blur a (nz, nx) field by a Gaussian whose standard deviation (nz,), in cells, is by row.

    The field is taken as constant in each cell, and the result is its mean over each cell: so
    the error at an interface is proportional to the width, down to widths below one cell.
    """
    nz, nx = field.shape
    field = _blur_weights(nz, widths[:, None]) @ field
    return np.einsum("zj,zij->zi", field, _blur_weights(nx, widths[:, None, None]))


def _blur_weights(n: int, width: np.ndarray) -> np.ndarray:
    """Weights (..., n, n) of cell j in blurred cell i, each row summing to 1."""
    lag = np.arange(n) - np.arange(n)[:, None]
    width = np.maximum(width, 1e-9)

    def ramp(x: np.ndarray) -> np.ndarray:  # a unit slope from 0 on, blurred
        gauss = np.exp(-0.5 * (x / width) ** 2) / np.sqrt(2 * np.pi)
        return x * ndtr(x / width) + width * gauss

    weights = ramp(lag + 1.0) - 2 * ramp(lag + 0.0) + ramp(lag - 1.0)
    return weights / weights.sum(axis=-1, keepdims=True)


def _layer_biases(velocity: np.ndarray, growth: float, rng: np.random.Generator) -> np.ndarray:
    """One normal draw for each connected area of one velocity, growing with its mean depth.

    Cells with another velocity beside them belong to the nearest area that has any inside.
    """
    areas = _areas_of_one_velocity(velocity.astype(int))
    inside = maximum_filter(areas, 3, mode="nearest") == minimum_filter(areas, 3, mode="nearest")
    nearest = distance_transform_edt(~inside, return_distances=False, return_indices=True)
    names, areas = np.unique(areas[tuple(nearest)], return_inverse=True)
    areas = areas.reshape(velocity.shape)
    rows = np.broadcast_to(np.linspace(0, 1, velocity.shape[0])[:, None], velocity.shape)
    depths = mean(rows, areas, np.arange(names.size))
    return (rng.standard_normal(names.size) * depths**growth)[areas]


def _areas_of_one_velocity(velocity: np.ndarray) -> np.ndarray:
    """Labels 0, 1, ... (nz, nx) of areas of equal velocity, in the order of their first cells."""
    labels = connected_areas(velocity, 0)
    _, first, areas = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[areas].reshape(velocity.shape)


def _lose_thin_layers(squared_slowness: np.ndarray, half_window: int) -> np.ndarray:
    """Take out of the lower half what is thinner than `half_window`, keeping the mean of 1/v^2.

    A median filter keeps plateaus and edges; what it takes out comes back spread over the
    surroundings, so that travel times stay.
    """
    size = 2 * half_window + 1
    lost = squared_slowness - median_filter(squared_slowness, size=size, mode="nearest")
    lost *= np.clip(2 * np.linspace(0, 1, squared_slowness.shape[0])[:, None] - 0.5, 0, 1)
    return squared_slowness - lost + gaussian_filter(lost, half_window, mode="nearest")
