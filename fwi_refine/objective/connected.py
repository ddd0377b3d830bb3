"""Connected areas of a velocity map."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def connected_areas(velocity: NDArray[np.floating[Any]], tolerance: float) -> NDArray[np.int32]:
    """Areas in which neighbours differ by at most `tolerance`.

    Neighbours share an edge. Cells far apart in one area may differ by more.

    Parameters
    ----------
    velocity : ndarray, shape (nz, nx)
        Velocity map in m/s.
    tolerance : float
        Largest difference of neighbours in m/s.

    Returns
    -------
    ndarray of int, shape (nz, nx)
        Labels 0, 1, ... of the areas.
    """
    index = np.arange(velocity.size).reshape(velocity.shape)
    pairs = []
    for axis in (0, 1):
        near = np.abs(np.diff(velocity, axis=axis)) <= tolerance
        first = np.take(index, range(velocity.shape[axis] - 1), axis=axis)
        second = np.take(index, range(1, velocity.shape[axis]), axis=axis)
        pairs.append(np.stack([first[near], second[near]]))
    first, second = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(first.size, bool), (first, second)), shape=(velocity.size,) * 2)
    return connected_components(graph, directed=False)[1].reshape(velocity.shape)
