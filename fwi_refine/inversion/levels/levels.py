"""The levels of a layered map.

A layered map has a handful of integer velocities, its levels, shared by areas far apart, and cells
between two of them along its faults. The levels can be read off once the map is almost right.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt

from fwi_refine.objective.connected import connected_areas

AREA_TOLERANCE = 4.0  # m/s between neighbours of one layer
LEAST_AREA = 12  # cells; smaller areas are cells along an edge
LEAST_CUT_AREA = 3  # cells; of a layer that the surface cuts, where edges are sharp
# m/s: areas that differ by less share their level. Two layers may differ by 1 m/s, and taken as one
# the cells along their edges make up for it and are wrong; pieces of one layer that seem to differ
# have two levels until they are better known.
SAME_LEVEL = 0.7
# A level that hardly has a cell away from edges is not known to better than tens of m/s, as its
# cells and those along the edge make up for each other: one within this reach is the same level.
LEAST_INSIDE = 12  # cells
SAME_IF_SMALL = 60.0  # m/s
ALIKE = 10.0  # m/s: a cell may as well have one as the other of levels that differ by less
REACH = 3  # cells from one at a level within which a cell may have it
SNAP = 1.5  # m/s from a level within which a cell is taken to have it
# Deep areas of a few dozen cells are hardly seen: their cells scatter about their velocity by as
# much, m/s.
SCATTER = 40.0
SQUARE = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class Levels:
    """K levels of a map.

    Attributes
    ----------
    velocities : Tensor, shape (K,)
        In m/s, rising.
    near : Tensor of bool, shape (K, nz, nx)
        Whether a cell may have each level.
    """

    velocities: torch.Tensor
    near: torch.Tensor

    def distance(self, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Distance of each cell from the nearest of the levels that it may have.

        Parameters
        ----------
        v : Tensor, shape (nz, nx)
            Map in m/s.

        Returns
        -------
        distance : Tensor, shape (nz, nx)
            In m/s; infinite for a cell without a level.
        number : Tensor of int64, shape (nz, nx)
            Of that level, from 0 on.
        """
        if not len(self.velocities):
            return torch.full_like(v, torch.inf), torch.zeros_like(v, dtype=torch.long)
        off = (v - self.velocities[:, None, None]).abs()
        return torch.where(self.near, off, torch.inf).min(0)


def find_levels(v: torch.Tensor) -> Levels:
    """Levels of a map: the velocities of its areas, similar ones as one.

    Parameters
    ----------
    v : Tensor, shape (nz, nx)
        Map in m/s.

    Returns
    -------
    Levels
        On the device of `v`.
    """
    values = v.cpu().numpy()
    areas = connected_areas(values, AREA_TOLERANCE)
    sizes = np.bincount(areas.ravel())
    # areas by the median of the largest of them: a chain of small ones joins no two
    groups: dict[float, list[int]] = {}
    least = np.full(len(sizes), LEAST_AREA)
    least[np.unique(areas[0])] = LEAST_CUT_AREA
    for area in np.argsort(-sizes, kind="stable"):
        if sizes[area] < least[area]:
            continue
        median = np.median(values[areas == area])
        nearest = min(groups, key=lambda known: abs(known - median), default=np.inf)
        own = nearest if abs(nearest - median) <= SAME_LEVEL else median
        groups.setdefault(own, []).append(area)
    masks = [np.isin(areas, groups[median]) for median in sorted(groups)]
    cells = _without_small_ones(values, masks)
    velocities = np.array([np.median(values[mask]) for mask in cells])
    return Levels(
        torch.from_numpy(velocities).to(v),
        torch.from_numpy(_near(values, velocities, cells)).to(v.device),
    )


def _without_small_ones(values: np.ndarray, cells: list[np.ndarray]) -> list[np.ndarray]:
    """The masks of the levels' cells, without those of small levels that are another one nearby."""
    kept: list[np.ndarray | None] = list(cells)
    inside = [int(binary_erosion(mask, SQUARE).sum()) for mask in cells]
    velocities = [np.median(values[mask]) for mask in cells]
    for k in np.argsort(inside):
        larger = [j for j in range(len(cells)) if inside[j] > inside[k] and kept[j] is not None]
        gaps = [abs(velocities[j] - velocities[k]) for j in larger]
        if inside[k] < LEAST_INSIDE and min(gaps, default=np.inf) < SAME_IF_SMALL:
            kept[k] = None
    return [mask for mask in kept if mask is not None]


def _near(values: np.ndarray, velocities: np.ndarray, cells: list[np.ndarray]) -> np.ndarray:
    """(K, nz, nx) bool: cells within reach of one that is nearest to this level.

    Of levels that are about as near in velocity, that is the one whose areas are nearest in space.
    """
    off = np.abs(values - velocities[:, None, None])
    may = np.array(cells, dtype=bool).reshape(off.shape) | (
        off <= off.min(0, initial=np.inf) + ALIKE
    )
    away = np.array([distance_transform_edt(~mask) for mask in cells]).reshape(off.shape)
    away[~may | (off >= SAME_IF_SMALL)] = np.inf
    own = np.isfinite(away) & (away == away.min(0, initial=np.inf))
    reach = np.ones((2 * REACH + 1,) * 2, dtype=bool)
    return np.array([binary_dilation(mask, reach) for mask in own]).reshape(own.shape)


def along_edges(labels: np.ndarray) -> np.ndarray:
    """Cells along edges.

    Parameters
    ----------
    labels : ndarray of int, shape (nz, nx)
        Number of the level of each cell; -1 between levels.

    Returns
    -------
    ndarray of bool, shape (nz, nx)
        Cells with another label than a neighbour, and those between levels.
    """
    found: np.ndarray = labels < 0
    down, across = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    found[1:] |= down
    found[:-1] |= down
    found[:, 1:] |= across
    found[:, :-1] |= across
    return found


def near_edges(v: torch.Tensor, levels: Levels, snap: float) -> torch.Tensor:
    """Cells whose level is open.

    Parameters
    ----------
    v : Tensor, shape (nz, nx)
        Map in m/s.
    levels : Levels
        Levels of the map.
    snap : float
        Distance from a level, m/s, within which a cell has it.

    Returns
    -------
    Tensor of bool, shape (nz, nx)
        Cells along an edge or without a level, and the neighbours of these.
    """
    off, which = levels.distance(v)
    labels = torch.where(off < snap, which, -1).cpu().numpy()
    return torch.from_numpy(binary_dilation(along_edges(labels))).to(v.device)


def level_labels(v: torch.Tensor) -> torch.Tensor:
    """Labels of the unknowns of a map of levels, for `Regions`.

    Parameters
    ----------
    v : Tensor, shape (nz, nx)
        Map in m/s.

    Returns
    -------
    Tensor of int64, shape (nz, nx)
        Number of its level for each cell; a number of its own for each cell near an edge.
    """
    levels = find_levels(v)
    labels = levels.distance(v)[1]
    own = near_edges(v, levels, SNAP)
    labels[own] = len(levels.velocities) + torch.arange(int(own.sum()), device=v.device)
    return labels


def to_integers(v: torch.Tensor, snap: float = SNAP) -> tuple[torch.Tensor, torch.Tensor]:
    """Round a map of levels to integers.

    Parameters
    ----------
    v : Tensor, shape (nz, nx)
        Map in m/s.
    snap : float
        Distance from a level, m/s, within which a cell takes its velocity.

    Returns
    -------
    integers : Tensor, shape (nz, nx)
        Map in m/s, between the lowest and the highest level.
    vmin : Tensor, shape ()
        The lowest level, m/s; the minimum of the map where there are no levels.
    """
    levels = find_levels(v)
    rounded = v.round()
    if not len(levels.velocities):
        return rounded, rounded.min()
    velocities = levels.velocities.round()
    off, which = levels.distance(v)
    rounded = torch.where(off < snap, velocities[which], rounded)
    return rounded.clamp(velocities[0], velocities[-1]), velocities[0]


def merge_scattered(v: torch.Tensor) -> torch.Tensor:
    """Give cells that scatter about one velocity that velocity.

    Parameters
    ----------
    v : Tensor, shape (nz, nx)
        Map in m/s.

    Returns
    -------
    Tensor, shape (nz, nx)
        Map in m/s. Cells near a level have it; an area without one has its median, in integers.
    """
    levels = find_levels(v)
    off, which = levels.distance(v)
    near = off < SCATTER
    merged = torch.where(near, levels.velocities[which], v) if len(levels.velocities) else v
    settled, values = near.cpu().numpy(), merged.cpu().numpy().copy()
    areas = connected_areas(np.where(settled, 0.0, values), SCATTER)
    for area in np.unique(areas[~settled]):
        cells = areas == area
        if cells.sum() >= LEAST_AREA:
            median = np.median(values[cells]).round()
            values[cells & (np.abs(values - median) < SCATTER)] = median
    return torch.from_numpy(values).to(v)
