"""Edges of layers along the columns of a map: sharp, or blended over a few cells."""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

EDGES_COMPARED = 50  # edges that are looked at: networks and records know the deep ones less well
MIN_STEP = 60.0  # m/s, of an edge
SAME_VELOCITY = 1.0  # m/s: neighbours in a column that differ by more are on an edge
MIN_BLEND = 0.04  # of an edge's step: cells that are nearer to either side belong to it
MAX_CELLS_BETWEEN = 4  # cells in between; more are a gradient, as a blurred start has it


def blended_edges(v: NDArray[Any]) -> float:
    """Fraction of a map's shallowest edges that are blended over one to four cells.

    Resized maps have one or two cells in between on every edge, maps of whole cells on none.

    Parameters
    ----------
    v : ndarray, shape (nz, nx)
        Velocities, m/s.

    Returns
    -------
    float
        0 for a map without edges.
    """
    widths = [width for _, width in sorted(_edges(np.asarray(v, np.float64)))[:EDGES_COMPARED]]
    return float(np.mean([1 <= width <= MAX_CELLS_BETWEEN for width in widths])) if widths else 0.0


def _edges(v: NDArray[np.float64]) -> list[tuple[int, int]]:
    """(row, cells in between) of each edge, a run of steps in one direction down a column."""
    edges = []
    for column in v.T:
        signs = np.sign(np.where(np.abs(np.diff(column)) > SAME_VELOCITY, np.diff(column), 0.0))
        bounds = np.flatnonzero(np.diff(signs, prepend=np.nan, append=np.nan))
        for first, last in pairwise(bounds):
            step = column[last] - column[first]
            if signs[first] and abs(step) > MIN_STEP:
                way = (column[first + 1 : last] - column[first]) / step
                between = (way > MIN_BLEND) & (way < 1 - MIN_BLEND)
                edges.append((int(first), int(between.sum())))
    return edges
