"""Maps of the eight layered OpenFWI families: flat or bent layers, with and without faults.

What the families look like follows the description of the data sets in Deng et al., "OpenFWI"
(NeurIPS 2022). The released maps are not used: everything here is drawn.
"""

from dataclasses import dataclass

import numpy as np

from fwi_refine.survey import OPENFWI

SHAPE = OPENFWI.shape
VELOCITY_RANGE = (1500, 4500)  # m/s, both included
THICKNESS_RANGE = (5, 30)  # cells; in maps of two layers the upper limit is what is left
LEAST_CONTRAST = 150  # m/s between neighbouring layers
THROW_RANGE = (3, 15)  # cells that a fault shifts the layers by
SUBCELLS = 4  # a cell on a fault is the mean of SUBCELLS x SUBCELLS points


@dataclass(frozen=True)
class Layering:
    """What distinguishes one layered family from another."""

    layers: tuple[int, int]  # least and largest number of layers
    increasing: bool  # velocity increases with depth (the A families)
    bent: bool = False
    faults: tuple[int, int] = (0, 0)  # least and largest number of faults


LAYERINGS = {
    "FlatVel_A": Layering((2, 6), True),
    "FlatVel_B": Layering((2, 6), False),
    "CurveVel_A": Layering((3, 6), True, bent=True),
    "CurveVel_B": Layering((3, 6), False, bent=True),
    "FlatFault_A": Layering((2, 2), True, faults=(1, 2)),
    "FlatFault_B": Layering((5, 9), False, faults=(2, 3)),
    "CurveFault_A": Layering((2, 2), True, bent=True, faults=(1, 2)),
    "CurveFault_B": Layering((5, 9), False, bent=True, faults=(2, 3)),
}


def layered_map(family: str, rng: np.random.Generator) -> np.ndarray:
    """Draw a map of one of the layered families: (70, 70) float64, integer m/s.

    A map is drawn anew until every layer shows in it, and in the two-velocity families until the
    interface stays inside the map. Raises KeyError for a family that has no layers.
    """
    layering = LAYERINGS[family]
    while True:
        count = int(rng.integers(layering.layers[0], layering.layers[1] + 1))
        bottoms = np.cumsum(draw_thicknesses(count, rng))[:-1]
        velocities = draw_velocities(count, layering.increasing, rng)
        bend = Bend.draw(rng) if layering.bent else None
        cuts = int(rng.integers(layering.faults[0], layering.faults[1] + 1))
        faults = [Fault.draw(bottoms, bend, rng) for _ in range(cuts)]
        velocity = _paint(bottoms, velocities, bend, faults)
        if _is_complete(velocity, velocities):
            return velocity


def draw_thicknesses(count: int, rng: np.random.Generator) -> np.ndarray:
    """Thicknesses of `count` layers that fill the map: (count,) int cells."""
    least, most = THICKNESS_RANGE
    spare = SHAPE[0] - count * least
    if count == 2:
        most = SHAPE[0] - least
    while True:
        cuts = np.sort(rng.integers(0, spare + 1, count - 1))
        thicknesses = least + np.diff(np.concatenate([[0], cuts, [spare]]))
        if thicknesses.max() <= most:
            return thicknesses


def draw_velocities(count: int, increasing: bool, rng: np.random.Generator) -> np.ndarray:
    """Velocities of `count` layers from top to bottom: (count,) int, m/s."""
    while True:
        velocities = rng.integers(VELOCITY_RANGE[0], VELOCITY_RANGE[1] + 1, count)
        if increasing:
            velocities = np.sort(velocities)
        if np.abs(np.diff(velocities)).min() >= LEAST_CONTRAST:
            return velocities


@dataclass(frozen=True)
class Bend:
    """How far all interfaces are bent at a position: a sum of sines that may fade with depth."""

    amplitudes: np.ndarray  # cells
    wavenumbers: np.ndarray  # radians per cell
    phases: np.ndarray
    fading: float  # part of the bend that is lost at the bottom of the map

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Bend":
        """Between one and three sines; their sum bends by a few to some 15 cells."""
        count = int(rng.integers(1, 4))
        amplitudes = rng.uniform(0.3, 1.0, count)
        amplitudes *= rng.uniform(3.0, 15.0) / amplitudes.sum()
        periods = rng.uniform(0.4, 2.0, count) * SHAPE[1]
        fading = rng.uniform(0.3, 0.9) if rng.random() < 0.4 else 0.0
        return cls(amplitudes, 2 * np.pi / periods, rng.uniform(0, 2 * np.pi, count), fading)

    def __call__(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Depth in cells by which the layer at row z, column x lies below its flat place."""
        waves = np.sin(x[..., None] * self.wavenumbers + self.phases) @ self.amplitudes
        return waves * (1 - self.fading * np.clip(z / SHAPE[0], 0, 1))


@dataclass(frozen=True)
class Fault:
    """A straight oblique fault: the side right of it has slipped along it by `throw` rows."""

    row: float  # of a point on the fault
    column: float
    tangent: float  # columns per row of depth
    throw: int  # rows, positive downwards

    @classmethod
    def draw(cls, bottoms: np.ndarray, bend: Bend | None, rng: np.random.Generator) -> "Fault":
        """A fault 10 to 50 degrees off the vertical that cuts one of the interfaces."""
        column = rng.uniform(0.15, 0.85) * SHAPE[1]
        row = float(rng.choice(bottoms))
        if bend is not None:
            row += float(bend(np.array(row), np.array(column)))
        tangent = np.tan(np.deg2rad(rng.uniform(10, 50))) * rng.choice([-1, 1])
        throw = rng.integers(THROW_RANGE[0], THROW_RANGE[1] + 1) * rng.choice([-1, 1])
        return cls(row, column, float(tangent), int(throw))

    def slipped(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Whether points lie on the side that has slipped."""
        return x - self.column > (z - self.row) * self.tangent


def _paint(bottoms, velocities, bend, faults) -> np.ndarray:
    """The map: (70, 70) integer m/s in float64.

    The points inside a cell decide only on which side of the faults they lie; the layer is the
    one at the centre of the cell. So cells along a fault take values in between, and
    interfaces that no fault has cut stay sharp.
    """
    z, x = np.meshgrid(*(np.arange(n) + 0.5 for n in SHAPE), indexing="ij")
    offsets = (np.arange(SUBCELLS) + 0.5) / SUBCELLS - 0.5
    total = np.zeros(SHAPE)
    for dz in offsets:
        for dx in offsets:
            shift_z, shift_x = np.zeros(SHAPE), np.zeros(SHAPE)
            for fault in faults:
                # The last fault has cut what the earlier ones left, so it is undone first.
                slipped = fault.slipped(z + dz - shift_z, x + dx - shift_x)
                shift_z += slipped * fault.throw
                shift_x += slipped * fault.throw * fault.tangent
            depth, column = z - shift_z, x - shift_x
            if bend is not None:
                depth = depth - bend(depth, column)
            total += velocities[np.searchsorted(bottoms, depth, side="right")]
    return np.round(total / SUBCELLS**2)


def _is_complete(velocity: np.ndarray, velocities: np.ndarray) -> bool:
    """Whether every layer shows in the map; with two, whether they are the top and the bottom."""
    if len(velocities) == 2:
        return bool(
            (velocity[:4] == velocities[0]).all() and (velocity[-4:] == velocities[1]).all()
        )
    shown = [(velocity == layer).sum() for layer in velocities]
    return min(shown) >= THICKNESS_RANGE[0] * SHAPE[1] // 2
