"""Connected areas of a velocity map."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def connected_areas(velocity: np.ndarray, tolerance: float) -> np.ndarray:
    """Labels 0, 1, ... (nz, nx) of areas in which neighbours differ by at most `tolerance` m/s.

    Neighbours share an edge. Cells far apart in one area may differ by more.
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
