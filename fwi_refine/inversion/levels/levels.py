"""Maps of few levels.

A layered map has a handful of integer velocities, shared by areas far apart, and along its faults
cells that lie between two of them. Once a map is almost right its levels can be read off.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt

from fwi_refine.objective.connected import connected_areas

AREA_TOLERANCE = 4.0  # m/s between neighbours of one layer
LEAST_AREA = 12  # cells; what is smaller are cells along an edge
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
SQUARE = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class Levels:
    """velocities: (K,) m/s, rising. near: (K, nz, nx) bool, the cells that may have each."""

    velocities: torch.Tensor
    near: torch.Tensor

    def distance(self, v):
        """(distance from the nearest level nearby, inf without one; its number), both (nz, nx)."""
        if not len(self.velocities):
            return torch.full_like(v, torch.inf), torch.zeros_like(v, dtype=torch.long)
        off = (v - self.velocities[:, None, None]).abs()
        return torch.where(self.near, off, torch.inf).min(0)


def find_levels(v) -> Levels:
    """The levels of a map v (nz, nx) m/s: the velocities of its areas, similar ones as one."""
    values = v.cpu().numpy()
    areas = connected_areas(values, AREA_TOLERANCE)
    sizes = np.bincount(areas.ravel())
    groups = {}  # areas by the median of the largest of them: a chain of small ones joins no two
    for area in np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes >= LEAST_AREA)]:
        median = np.median(values[areas == area])
        nearest = min(groups, key=lambda known: abs(known - median), default=np.inf)
        own = nearest if abs(nearest - median) <= SAME_LEVEL else median
        groups.setdefault(own, []).append(area)
    groups = [groups[median] for median in sorted(groups)]
    cells = _without_small_ones(values, [np.isin(areas, group) for group in groups])
    velocities = np.array([np.median(values[mask]) for mask in cells])
    return Levels(
        torch.from_numpy(velocities).to(v),
        torch.from_numpy(_near(values, velocities, cells)).to(v.device),
    )


def _without_small_ones(values, cells):
    """The masks of the levels' cells, without those of levels that are another one nearby."""
    kept, inside = list(cells), [int(binary_erosion(mask, SQUARE).sum()) for mask in cells]
    velocities = [np.median(values[mask]) for mask in cells]
    for k in np.argsort(inside):
        larger = [j for j in range(len(cells)) if inside[j] > inside[k] and kept[j] is not None]
        gaps = [abs(velocities[j] - velocities[k]) for j in larger]
        if inside[k] < LEAST_INSIDE and min(gaps, default=np.inf) < SAME_IF_SMALL:
            kept[k] = None
    return [mask for mask in kept if mask is not None]


def _near(values, velocities, cells):
    """(K, nz, nx) bool: cells within reach of one that is nearest to this level.

    Of levels that are about as near in velocity, that is the one whose areas are nearest in space.
    """
    off, cells = np.abs(values - velocities[:, None, None]), np.array(cells, dtype=bool)
    may = cells.reshape(off.shape) | (off <= off.min(0, initial=np.inf) + ALIKE)
    away = np.array([distance_transform_edt(~mask) for mask in cells]).reshape(off.shape)
    away[~may | (off >= SAME_IF_SMALL)] = np.inf
    own = np.isfinite(away) & (away == away.min(0, initial=np.inf))
    reach = np.ones((2 * REACH + 1,) * 2, dtype=bool)
    return np.array([binary_dilation(mask, reach) for mask in own]).reshape(own.shape)


def along_edges(labels):
    """Cells (nz, nx) bool with another label than a neighbour, or between levels (label -1)."""
    found = labels < 0
    down, across = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    found[1:] |= down
    found[:-1] |= down
    found[:, 1:] |= across
    found[:, :-1] |= across
    return found


def near_edges(v, levels, snap):
    """Cells (nz, nx) bool whose level is open: those along an edge, or further than snap (m/s)
    from a level, and the neighbours of these."""
    off, which = levels.distance(v)
    labels = torch.where(off < snap, which, -1).cpu().numpy()
    return torch.from_numpy(binary_dilation(along_edges(labels))).to(v.device)


def level_labels(v):
    """Labels (nz, nx): the number of its level for each cell, one of its own near an edge."""
    levels = find_levels(v)
    labels = levels.distance(v)[1]
    own = near_edges(v, levels, SNAP)
    labels[own] = len(levels.velocities) + torch.arange(int(own.sum()), device=v.device)
    return labels


def to_integers(v, snap=SNAP):
    """(the map (nz, nx) in integers, its minimum): cells within snap (m/s) of a level get it, none
    exceeds all."""
    levels = find_levels(v)
    rounded = v.round()
    if not len(levels.velocities):
        return rounded, rounded.min()
    velocities = levels.velocities.round()
    off, which = levels.distance(v)
    rounded = torch.where(off < snap, velocities[which], rounded)
    return rounded.clamp(velocities[0], velocities[-1]), velocities[0]
