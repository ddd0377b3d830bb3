"""Maps of levels in integers, as layered maps of the released data are."""

import numpy as np
import torch

from fwi_refine.inversion.levels.levels import find_levels
from fwi_refine.inversion.levels.settings import READING, LevelReading
from fwi_refine.objective.connected import connected_areas


def to_integers(
    v: torch.Tensor,
    snap: float | None = None,
    reading: LevelReading = READING,
    *,
    above: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Round a map of levels to integers.

    Parameters
    ----------
    v : Tensor, shape (nz, nx)
        Map in m/s.
    snap : float, optional
        Distance from a level, m/s, within which a cell takes its velocity; default as read.
    reading : LevelReading
        How levels are read.
    above : bool
        Whether cells may stay above the highest level: the fastest may be too few to be found as
        one.

    Returns
    -------
    integers : Tensor, shape (nz, nx)
        Map in m/s, between the lowest and the highest level.
    vmin : Tensor, shape ()
        The lowest level, m/s; the minimum of the map where there are no levels.
    """
    levels = find_levels(v, reading)
    rounded = v.round()
    if not len(levels.velocities):
        return rounded, rounded.min()
    velocities = levels.velocities.round()
    off, which = levels.distance(v)
    rounded = torch.where(
        off < (reading.snap_tolerance if snap is None else snap), velocities[which], rounded
    )
    highest = None if above else velocities[-1]
    return rounded.clamp(velocities[0], highest), velocities[0]


def merge_scattered(v: torch.Tensor, reading: LevelReading = READING) -> torch.Tensor:
    """Give cells that scatter about one velocity that velocity.

    Parameters
    ----------
    v : Tensor, shape (nz, nx)
        Map in m/s.
    reading : LevelReading
        How levels are read.

    Returns
    -------
    Tensor, shape (nz, nx)
        Map in m/s. Cells near a level have it; an area without one has its median, in integers.
    """
    levels = find_levels(v, reading)
    off, which = levels.distance(v)
    near = off < reading.scatter
    merged = torch.where(near, levels.velocities[which], v) if len(levels.velocities) else v
    settled, values = near.cpu().numpy(), merged.cpu().numpy().copy()
    areas = connected_areas(np.where(settled, 0.0, values), reading.scatter)
    for area in np.unique(areas[~settled]):
        cells = areas == area
        if cells.sum() >= reading.min_area:
            median = np.median(values[cells]).round()
            values[cells & (np.abs(values - median) < reading.scatter)] = median
    return torch.from_numpy(values).to(v)


def without_rare(
    integers: torch.Tensor, within: float, reading: LevelReading = READING
) -> torch.Tensor:
    """Give cells of rare velocities the most frequent of the similar velocities around them.

    Parameters
    ----------
    integers : Tensor, shape (nz, nx)
        Map in m/s.
    within : float
        Largest change of a cell, m/s.
    reading : LevelReading
        How levels are read: fewer cells than an area's are rare, and `reach` is how far around a
        cell is looked.

    Returns
    -------
    Tensor, shape (nz, nx)
        Map in m/s.
    """
    v = integers.cpu().numpy()
    velocities, number, count = np.unique(v, return_inverse=True, return_counts=True)
    rare = (count < reading.min_area)[number.reshape(v.shape)]
    found = v.copy()
    for row, column in np.argwhere(rare):
        around = v[
            max(row - reading.reach, 0) : row + reading.reach + 1,
            max(column - reading.reach, 0) : column + reading.reach + 1,
        ]
        similar = np.flatnonzero(np.abs(velocities - v[row, column]) <= within)
        seen = [int((around == velocities[k]).sum()) for k in similar]
        found[row, column] = velocities[similar[int(np.argmax(seen))]]
    return torch.from_numpy(found).to(integers)
