"""Maps of few levels.

A layered map has a handful of integer velocities, shared by areas far apart, and along its faults
cells that lie between two of them. Once a map is nearly right its levels can be read off.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_dilation

from fwi_refine.areas import connected_areas

AREA_TOLERANCE = 4.0  # m/s between neighbours of one layer
LEAST_AREA = 12  # cells; what is smaller are cells along an edge
SAME_LEVEL = 2.0  # m/s: areas that differ by less share their level
REACH = 3  # cells from an area within which a cell may have its level
SNAP = 1.5  # m/s from a level within which a cell is taken to have it


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
    large = np.flatnonzero(np.bincount(areas.ravel()) >= LEAST_AREA)
    medians = np.array([np.median(values[areas == area]) for area in large])
    order = np.argsort(medians)
    large, medians = large[order], medians[order]
    groups = np.split(large, np.flatnonzero(np.diff(medians) > SAME_LEVEL) + 1)
    cells = [np.isin(areas, group) for group in groups if group.size]
    square = np.ones((2 * REACH + 1,) * 2, dtype=bool)
    near = [binary_dilation(mask, square) for mask in cells]
    return Levels(
        torch.tensor([np.median(values[mask]) for mask in cells], dtype=torch.float64).to(v),
        torch.from_numpy(np.array(near, dtype=bool).reshape(-1, *values.shape)).to(v.device),
    )


def to_integers(v):
    """(the map (nz, nx) in integers, its minimum): cells near a level get it, none exceeds all."""
    levels = find_levels(v)
    rounded = v.round()
    if not len(levels.velocities):
        return rounded, rounded.min()
    velocities = levels.velocities.round()
    off, which = levels.distance(v)
    rounded = torch.where(off < SNAP, velocities[which], rounded)
    return rounded.clamp(velocities[0], velocities[-1]), velocities[0]
