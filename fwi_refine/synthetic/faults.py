"""Faults through a layered section: sharp ones (B families) and blended ones (A families).

How the cells of the A families are blended was measured on 300 exact FlatFault_A maps:

    f(row) on half rows: 0, w, 1/2, 1 - w, 1          w = 0.0535

is the step across an interface, half a row apart, and linear between. An interface that no fault
has moved is sampled at w and 1 - w, on 1,676 of the columns looked at without exception. In a
block that a fault has moved all interfaces are sampled at one other place: with c for the fraction
of a row, the cells hold (w max(2c - 1, 0), w + (1 - 2w) c, 1 - w + w min(2c, 1)). So w is what a
Gaussian blur of 0.4214 cells gives, cut off after one cell. Along a fault's trace, cells are some
percent below both sides, in dashes.

The B families have no blended cells, and their 12 levels are two stacks of six, each increasing
with depth: in the five exact CurveFault_B maps one fault parts two sections with different
velocities, thicknesses and bends, and the other faults repeat layers of either.
"""

from dataclasses import dataclass

import numpy as np

from fwi_refine.survey import OPENFWI

SHAPE = OPENFWI.shape
BLUR = 0.0535  # weight of each neighbouring row
# Fractions of a row by which blocks were seen to be displaced
DISPLACED_FRACTIONS = ((0.08, 0.35), (0.63, 0.85))
THROWS = (5, 9)  # whole rows that a block of the A families is moved by
SUBCELLS = 4  # the part of a cell in a block is counted on SUBCELLS x SUBCELLS points


@dataclass(frozen=True)
class Section:
    """Layers before any fault.

    Attributes
    ----------
    bottoms : numpy.ndarray
        (n - 1,) rows of the interfaces, increasing.
    velocities : numpy.ndarray
        (n,) m/s, from top to bottom.
    bend : numpy.ndarray
        (nx,) whole rows by which the interfaces lie deeper, by column.
    """

    bottoms: np.ndarray
    velocities: np.ndarray
    bend: np.ndarray

    def at(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Velocity in m/s of whole rows and columns, also outside the map."""
        depth = row - self.bend[np.clip(column, 0, SHAPE[1] - 1)]
        return self.velocities[np.searchsorted(self.bottoms, depth, side="right")]


@dataclass(frozen=True)
class Fault:
    """A straight fault and the block on one side of it.

    Attributes
    ----------
    row, column : float
        A point of the fault.
    tangent : float
        Columns per row of depth.
    side : int
        1: the block lies to the right, -1: to the left.
    throw : float
        Rows that the block has moved by, downwards.
    tip : tuple of float
        First and last row of the visible trace; the block reaches as far.
    far : float or None
        Column of the steep fault that bounds the block on its other side.
    """

    row: float
    column: float
    tangent: float
    side: int
    throw: float = 0.0
    tip: tuple[float, float] = (-np.inf, np.inf)
    far: float | None = None

    def holds(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Whether points lie in the block."""
        inside = self.distance(row, column) * self.side > 0
        inside &= (row >= self.tip[0]) & (row <= self.tip[1])
        if self.far is not None:
            inside &= (self.far - column) * self.side > 0
        return inside

    def distance(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Columns from the fault, positive to the right."""
        return column - self.column - (row - self.row) * self.tangent


@dataclass(frozen=True)
class Joined:
    """Two sections, the second in the block of a fault."""

    first: Section
    second: Section
    fault: "Fault"

    @property
    def bottoms(self) -> np.ndarray:
        """Interfaces of the first section."""
        return self.first.bottoms

    @property
    def velocities(self) -> np.ndarray:
        """Velocities of both, (n,) m/s."""
        return np.concatenate([self.first.velocities, self.second.velocities])

    def at(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Velocity in m/s of whole rows and columns, also outside the map."""
        second = self.fault.holds(row, column)
        return np.where(second, self.second.at(row, column), self.first.at(row, column))


def master_fault(rng: np.random.Generator) -> Fault:
    """Draw the fault of the B families that parts two sections."""
    nz, nx = SHAPE
    tangent = np.tan(np.deg2rad(rng.uniform(5, 35))) * rng.choice([-1, 1])
    return Fault(0.5 * nz, rng.uniform(0.25, 0.75) * nx, float(tangent), int(rng.choice([-1, 1])))


def block_fault(section: Section, rng: np.random.Generator) -> Fault:
    """Draw the fault of a map of the A families, with the block that it has moved."""
    nx = SHAPE[1]
    side = int(rng.choice([-1, 1]))
    tangent = np.tan(np.deg2rad(rng.uniform(3, 55))) * rng.choice([-1, 1])
    fraction = rng.uniform(*DISPLACED_FRACTIONS[int(rng.random() < 0.3)])
    throw = rng.choice([-1, 1]) * (rng.integers(THROWS[0], THROWS[1] + 1) + fraction)
    column = rng.uniform(0.15, 0.85) * nx
    row = rng.choice(section.bottoms) + section.bend[int(column)]
    far = None
    if rng.random() < 0.6:
        far = rng.uniform(62.5, 66.5)
        far = far if side > 0 else nx - far
    top = -np.inf if rng.random() < 0.35 else rng.uniform(0, section.bottoms[0])
    return Fault(float(row), float(column), tangent, side, float(throw), (top, np.inf), far)


def small_faults(rng: np.random.Generator) -> tuple[Fault, ...]:
    """Draw one to four faults of the B families: the first through the map, the others slivers."""
    nz, nx = SHAPE
    faults = []
    for number in range(int(rng.integers(1, 5))):
        tangent = np.tan(np.deg2rad(rng.uniform(10, 50))) * rng.choice([-1, 1])
        throw = float(rng.integers(3, 15) * rng.choice([-1, 1]))
        side = int(rng.choice([-1, 1]))
        row, column = rng.uniform(0.3, 0.9) * nz, rng.uniform(0.1, 0.9) * nx
        reach = rng.uniform(10, 25, 2)
        tip = (-np.inf, np.inf) if not number else (row - reach[0], row + reach[1])
        far = None if not number else column + side * rng.uniform(5, 18)
        faults.append(Fault(row, column, float(tangent), side, throw, tip, far))
    return tuple(faults)


def _cells() -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the cells, each (70, 70) int."""
    row, column = np.indices(SHAPE)
    return row, column


def sharp_faults(section: Joined, faults: tuple[Fault, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Cut a section by faults, each cell of one layer.

    Parameters
    ----------
    section : Joined
    faults : tuple of Fault
        The last has cut what the earlier ones left. Rows and columns slip along the fault.

    Returns
    -------
    velocity : numpy.ndarray
        (70, 70) float64, m/s, integers.
    blocks : numpy.ndarray
        (70, 70) int, one number for each block; 0 where nothing has moved.
    """
    row, column = _cells()
    from_row, from_column = row.astype(float), column.astype(float)
    blocks = np.zeros(SHAPE, int)
    for number, fault in enumerate(reversed(faults)):
        held = fault.holds(from_row, from_column)
        from_row = from_row - held * fault.throw
        from_column = from_column - held * fault.throw * fault.tangent
        blocks += held * 2 ** (number + 1)
    from_row, from_column = (np.round(a).astype(int) for a in (from_row, from_column))
    blocks += section.fault.holds(from_row, from_column)
    return section.at(from_row, from_column), blocks


def blended_faults(
    section: Section, faults: tuple[Fault, ...], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a section by a fault as the A families have it, interfaces and traces blended.

    Parameters
    ----------
    section : Section
    faults : tuple of Fault
    rng : numpy.random.Generator
        Draws the dashes of the traces.

    Returns
    -------
    velocity : numpy.ndarray
        (70, 70) float64, m/s.
    blocks : numpy.ndarray
        (70, 70) int, 0 where nothing has moved.
    """
    velocity = displaced(section, 0.0)
    blocks = np.zeros(SHAPE, int)
    row, column = _cells()
    for number, fault in enumerate(faults, 1):
        part = _part(fault)
        velocity += part * (displaced(section, fault.throw) - velocity)
        blocks[part > 0.5] = number
        velocity *= 1 - _trace(fault.distance(row, column), fault.tip, 0.03, rng)
    for side in (-1, 1):  # the steep faults near both sides of the map, mostly without a throw
        place = [fault.far for fault in faults if fault.side == side and fault.far is not None]
        at = place[0] if place else (rng.uniform(3.5, 7.5) if side < 0 else rng.uniform(62.5, 66.5))
        distance = column - at - rng.normal(0, 0.04) * (row - SHAPE[0] / 2)
        velocity *= 1 - _trace(distance, (section.bottoms[0] - 5, np.inf), 0.008, rng)
    return velocity, blocks


def displaced(section: Section, throw: float) -> np.ndarray:
    """A section with blended interfaces, moved down by any number of rows: (70, 70) m/s."""
    _, column = _cells()

    def node(half: np.ndarray) -> np.ndarray:
        """The value at a number of half rows, whole."""
        row = half // 2
        here, below = section.at(row, column), section.at(row + 1, column)
        above = section.at(row - 1, column)
        blurred = here + BLUR * (above - 2 * here + below)
        for shift in (-1, 1):  # and across, where interfaces are bent
            beside = np.clip(column + shift, 0, SHAPE[1] - 1)
            blurred = blurred + BLUR * (section.at(row, beside) - here)
        return np.where(half % 2 == 0, blurred, (here + below) / 2)

    half = 2 * (np.arange(SHAPE[0]) - throw)[:, None] + np.zeros(SHAPE)
    first = np.floor(half).astype(int)
    low, high = node(first), node(first + 1)
    return low + (half - first) * (high - low)


def _part(fault: Fault) -> np.ndarray:
    """The part of each cell that lies in a block: (70, 70) in [0, 1]."""
    row, column = _cells()
    offsets = (np.arange(SUBCELLS) + 0.5) / SUBCELLS - 0.5
    held = [fault.holds(row + dz, column + dx) for dz in offsets for dx in offsets]
    return np.mean(held, axis=0)


def _trace(
    distance: np.ndarray, tip: tuple[float, float], depth: float, rng: np.random.Generator
) -> np.ndarray:
    """The part by which velocity is lower along a fault: (70, 70), dashes of one to four rows."""
    rows = np.arange(SHAPE[0])
    lengths = rng.integers(1, 5, SHAPE[0])
    dash = np.repeat(rng.random(SHAPE[0]) ** 2, lengths)[: SHAPE[0]]
    dash[(rows < tip[0]) | (rows > min(tip[1], rng.uniform(58, 70)))] = 0
    weight = 0.5 * (np.abs(distance) < 0.8) + 0.5 * (np.abs(distance) < 1.7)
    return depth * dash[:, None] * weight
