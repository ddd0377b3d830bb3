"""The levels of a layered map.

A layered map has a handful of integer velocities, its levels, shared by areas far apart, and cells
between two of them along its faults. The levels can be read off once the map is almost right.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt

from fwi_refine.inversion.levels.settings import READING, LevelReading
from fwi_refine.objective.connected import connected_areas

MIN_AREA = READING.min_area
SQUARE = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class Levels:
    """K levels of a map.

    Attributes
    ----------
    velocities : Tensor, shape (K,)
        In m/s, rising.
    allowed : Tensor of bool, shape (K, nz, nx)
        Whether a cell may have each level.
    """

    velocities: torch.Tensor
    allowed: torch.Tensor

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
        return torch.where(self.allowed, off, torch.inf).min(0)


def find_levels(v: torch.Tensor, reading: LevelReading = READING) -> Levels:
    """Levels of a map: the velocities of its areas, similar ones as one.

    Parameters
    ----------
    v : Tensor, shape (nz, nx)
        Map in m/s.
    reading : LevelReading
        How they are read.

    Returns
    -------
    Levels
        On the device of `v`.
    """
    values = v.cpu().numpy()
    areas = connected_areas(values, reading.area_tolerance)
    sizes = np.bincount(areas.ravel())
    # areas by the median of the largest of them: a chain of small ones joins no two
    groups: dict[float, list[int]] = {}
    least = np.full(len(sizes), reading.min_area)
    least[np.unique(areas[0])] = reading.min_cut_area
    for area in np.argsort(-sizes, kind="stable"):
        if sizes[area] < least[area]:
            continue
        median = np.median(values[areas == area])
        nearest = min(groups, key=lambda known: abs(known - median), default=np.inf)
        own = nearest if abs(nearest - median) <= reading.same_level else median
        groups.setdefault(own, []).append(area)
    masks = [np.isin(areas, groups[median]) for median in sorted(groups)]
    masks += _uneven_areas(values, masks, reading)
    cells = _without_small_levels(values, masks, reading)
    cells += _thin_layers(values, cells, reading)
    cells.sort(key=lambda mask: float(np.median(values[mask])))
    velocities = _velocities(values, cells)
    return Levels(
        torch.from_numpy(velocities).to(v),
        torch.from_numpy(_allowed(values, velocities, cells, reading)).to(v.device),
    )


def _velocities(values: np.ndarray, cells: list[np.ndarray]) -> np.ndarray:
    """(K,) m/s: the velocity of the level of each mask."""
    return np.array([np.median(values[mask]) for mask in cells])


def _distance_from_levels(values: np.ndarray, cells: list[np.ndarray]) -> np.ndarray:
    """(nz, nx): distance of each cell from the nearest of the levels of these masks, m/s."""
    return np.abs(values - _velocities(values, cells)[:, None, None]).min(0, initial=np.inf)


def _uneven_areas(
    values: np.ndarray, cells: list[np.ndarray], reading: LevelReading
) -> list[np.ndarray]:
    """The masks of areas apart from all levels, whose cells are less alike: deep ones."""
    apart = _distance_from_levels(values, cells) > reading.same_level_if_small
    areas = connected_areas(np.where(apart, values, 0.0), 2 * reading.area_tolerance)
    sizes = np.bincount(areas[apart], minlength=areas.max() + 1)
    found = [areas == area for area in np.flatnonzero(sizes >= reading.min_area)]
    return [mask for mask in found if _about_one_velocity(values[mask], reading)]


def _about_one_velocity(values: np.ndarray, reading: LevelReading) -> bool:
    """Whether most of these are close to their median: a slope is no level."""
    return bool(np.mean(np.abs(values - np.median(values)) <= reading.level_tolerance) > 0.5)


def _thin_layers(
    values: np.ndarray, cells: list[np.ndarray], reading: LevelReading
) -> list[np.ndarray]:
    """The masks of levels without an area of their own: velocities that many cells are close to.

    Asked where few cells are off all levels, as before that any velocity between two levels may be
    an edge's. A layer that is three cells thick and 10 m/s off another is one of them.
    """
    off = _distance_from_levels(values, cells) > reading.snap_tolerance
    found: list[np.ndarray] = []
    while cells and off.sum() < reading.max_fraction_off * values.size:
        left = np.sort(values[off])
        last = np.searchsorted(left, left + 2 * reading.level_tolerance, side="right")
        count = last - np.arange(len(left))
        if count.max(initial=0) < reading.min_area:
            break
        centre = left[count.argmax()] + reading.level_tolerance
        around = np.count_nonzero(np.abs(left - centre) <= reading.same_level_if_small)
        mask = off & (np.abs(values - centre) <= reading.level_tolerance)
        if 2 * mask.sum() < around:
            break
        found.append(mask)
        off &= ~mask
    return found


def _without_small_levels(
    values: np.ndarray, cells: list[np.ndarray], reading: LevelReading
) -> list[np.ndarray]:
    """The masks of the levels' cells, without those of small levels that are another one nearby.

    At the surface cells are well known, so that a small level there is one.
    """
    kept: list[np.ndarray | None] = list(cells)
    inside = [int(binary_erosion(mask, SQUARE).sum()) for mask in cells]
    velocities = _velocities(values, cells)
    for k in np.argsort(inside):
        larger = [j for j in range(len(cells)) if inside[j] > inside[k] and kept[j] is not None]
        gaps = [abs(velocities[j] - velocities[k]) for j in larger]
        nearest = min(gaps, default=np.inf)
        small = inside[k] < reading.min_inside and not cells[k][0].any()
        if small and nearest < reading.same_level_if_small:
            kept[k] = None
    return [mask for mask in kept if mask is not None]


def _allowed(
    values: np.ndarray, velocities: np.ndarray, cells: list[np.ndarray], reading: LevelReading
) -> np.ndarray:
    """(K, nz, nx) bool: cells within reach of one that is nearest to this level.

    Of levels that are about as near in velocity, that is the one whose areas are nearest in space.
    """
    off = np.abs(values - velocities[:, None, None])
    may = np.array(cells, dtype=bool).reshape(off.shape) | (
        off <= off.min(0, initial=np.inf) + reading.interchangeable
    )
    away = np.array([distance_transform_edt(~mask) for mask in cells]).reshape(off.shape)
    away[~may | (off >= reading.same_level_if_small)] = np.inf
    own = np.isfinite(away) & (away == away.min(0, initial=np.inf))
    reach = np.ones((2 * reading.reach + 1,) * 2, dtype=bool)
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
    own = near_edges(v, levels, READING.snap_tolerance)
    labels[own] = len(levels.velocities) + torch.arange(int(own.sum()), device=v.device)
    return labels
