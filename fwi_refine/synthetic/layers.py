"""Maps of the eight layered OpenFWI families: flat or bent layers, with and without faults.

What the families look like follows the description of the data sets in Deng et al., "OpenFWI"
(NeurIPS 2022), and statistics of released training maps: 100 of FlatVel_A, 200 of CurveVel_A, 300
of FlatFault_A and 15 of CurveFault_B. Only the statistics stand here; every map is drawn.
"""

from dataclasses import dataclass, replace

import numpy as np

from fwi_refine.survey import OPENFWI
from fwi_refine.synthetic.faults import (
    Joined,
    Section,
    blended_faults,
    block_fault,
    master_fault,
    sharp_faults,
    small_faults,
)

SHAPE = OPENFWI.shape
VELOCITY_RANGE = (1500, 4500)  # m/s, both included; uniform draws have the released quartiles
# Thickness in cells of the inner layers of one map: 9 to 25, median 12, equal within a cell.
THICKNESSES = (10, 10, 12, 12, 14, 17, 24)
TOP_LAYER = (0.5, 1.5)  # of the others' thickness (quartiles 10 and 18 cells)
BEND_PERIODS = {False: (0.25, 1.0), True: (0.15, 0.5)}  # of the map's width; True: steep bends
MIN_AREA = 25  # cells; the smallest level of the 15 CurveFault_B maps has 29


@dataclass(frozen=True)
class Layering:
    """The numbers of a layered family.

    Attributes
    ----------
    counts : tuple of int
        Numbers of layers to choose from; a number may stand there twice. Empty: as many as the
        thickness gives.
    increasing : bool
        Velocity increases with depth.
    bend : tuple of float
        Least and largest bend of the interfaces, crest to trough, in cells.
    blended : bool
        Faults have blended cells, as in the A families; else each cell is of one layer.
    """

    counts: tuple[int, ...] = ()
    increasing: bool = True
    bend: tuple[float, float] = (0.0, 0.0)
    blended: bool = False

    @property
    def faulted(self) -> bool:
        """Whether faults cut the layers."""
        return bool(self.counts)


LAYERINGS = {
    "FlatVel_A": Layering(),
    "FlatVel_B": Layering(increasing=False),
    "CurveVel_A": Layering(bend=(8.0, 38.0)),
    "CurveVel_B": Layering(increasing=False, bend=(8.0, 38.0)),
    "FlatFault_A": Layering((3, 4, 4, 4, 5, 6), blended=True),
    "FlatFault_B": Layering((6,)),
    "CurveFault_A": Layering((3, 4, 4, 4, 5, 6), bend=(8.0, 22.0), blended=True),
    "CurveFault_B": Layering((6,), bend=(12.0, 45.0)),
}


def layered_map(
    family: str, rng: np.random.Generator, layers: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a map of one of the layered families.

    Parameters
    ----------
    family : str
        A key of `LAYERINGS`.
    rng : numpy.random.Generator
    layers : int, optional
        Number of layers in a section of a faulted family, in place of a number of the family's.

    Returns
    -------
    velocity : numpy.ndarray
        (70, 70) float64, m/s; integers, except along the blended interfaces and faults of
        FlatFault_A and CurveFault_A.
    blocks : numpy.ndarray
        (70, 70) int: the fault block of each cell, 0 where nothing has moved.

    Raises
    ------
    KeyError
        For a family that has no layers.
    """
    layering = LAYERINGS[family]
    if layers is not None:
        layering = replace(layering, counts=(layers,))
    while True:
        section = draw_section(layering, rng)
        velocities = section.velocities
        if not layering.faulted:
            velocity = section.at(*np.indices(SHAPE))
            blocks = np.zeros(SHAPE, int)
        elif layering.blended:
            velocity, blocks = blended_faults(section, (block_fault(section, rng),), rng)
        else:
            joined = Joined(section, draw_section(layering, rng), master_fault(rng))
            velocity, blocks = sharp_faults(joined, small_faults(rng))
            velocities = joined.velocities
        if _is_complete(velocity, velocities, layering):
            return velocity, blocks


def draw_section(layering: Layering, rng: np.random.Generator) -> Section:
    """Draw the layers before any fault.

    Parameters
    ----------
    layering : Layering
    rng : numpy.random.Generator

    Returns
    -------
    Section
    """
    count = int(rng.choice(layering.counts)) if layering.counts else 0
    bend = draw_bend(layering, rng)
    bottoms = draw_bottoms(count, layering, rng)
    number = len(bottoms) + 1
    velocities = rng.choice(np.arange(VELOCITY_RANGE[0], VELOCITY_RANGE[1] + 1), number, False)
    if layering.increasing:
        velocities = np.sort(velocities)
    return Section(bottoms, velocities.astype(float), bend)


def draw_bottoms(count: int, layering: Layering, rng: np.random.Generator) -> np.ndarray:
    """Draw the interfaces of an undisturbed section.

    The inner layers have one thickness within a cell, and the bottom of the map cuts the last.
    In the B families they have 7 to 10 cells, save for a thick one in some.

    Parameters
    ----------
    count : int
        Layers; 0: as many as fit.
    layering : Layering
        Of the family.
    rng : Generator
        Source of randomness.

    Returns
    -------
    ndarray of int, shape (n - 1,)
        Rows at which layers end.
    """
    nz = SHAPE[0]
    if layering.faulted and not layering.blended:
        inner = rng.integers(7, 11, count - 2)
        if rng.random() < 0.6:
            inner[rng.integers(count - 2)] = rng.integers(12, 31)
        spare = nz - inner.sum()
        return np.cumsum([int(rng.integers(4, max(5, spare - 6))), *inner])
    thickness = round(nz / (count + 0.2)) if count else int(rng.choice(THICKNESSES))
    top = max(4, round(thickness * rng.uniform(*TOP_LAYER)))
    inner = thickness + rng.integers(-1, 2, (count or nz) - 2)
    bottoms = np.cumsum([top, *inner])
    return bottoms if count else bottoms[bottoms < nz - 1]


def draw_bend(layering: Layering, rng: np.random.Generator) -> np.ndarray:
    """Rows by which all interfaces lie below their flat place, by column: (nx,) int.

    A sum of one to three sines with a tilt; in CurveFault_B on a part of the map, in others on all
    of it.
    """
    least, most = layering.bend
    nx = SHAPE[1]
    if most == 0:
        return np.zeros(nx, int)
    x = np.arange(nx)
    count = int(rng.integers(2, 4))
    steep = bool(layering.counts) and not layering.blended
    periods = nx * rng.uniform(*BEND_PERIODS[steep], count)
    phases = 2 * np.pi * rng.random(count)
    bend = np.sin(2 * np.pi * x[:, None] / periods + phases) @ rng.uniform(0.3, 1.0, count)
    bend += rng.normal(0, 0.4) * x / nx
    if steep:
        bend *= 1 / (1 + np.exp(rng.choice([-1, 1]) * (x - rng.uniform(0.4, 1.2) * nx) / 4))
    bend -= bend.mean()
    size = np.exp(rng.uniform(np.log(least), np.log(most)))
    return np.round(bend * size / max(np.ptp(bend), 1e-9)).astype(int)


def _is_complete(velocity: np.ndarray, velocities: np.ndarray, layering: Layering) -> bool:
    """Whether the layers show in the map, and the number of them is the family's."""
    shown = [int((velocity == level).sum()) for level in velocities]
    if layering.faulted:
        return min(shown) >= (200 if layering.blended else MIN_AREA)
    return min(shown) > 0 and (3 if layering.bend == (0, 0) else 4) <= len(shown) <= 8
