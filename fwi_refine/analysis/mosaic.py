"""A mosaic of parts of several maps, where the misfit of the record says so.

From the map that fits best, square areas are replaced by those of the other maps, larger areas
first. Which replacements are worth a simulation is told by the gradient of the misfit: to first
order, replacing an area changes the misfit by the sum of gradient times difference over it. One
is kept only if the simulated record then fits better; so the misfit never rises.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from fwi_refine.analysis.blend import misfits

if TYPE_CHECKING:
    from fwi_refine.wave import Simulator

AREA_SIDES = (35, 14, 7)  # cells on a side of the areas, in turn
LINE_SEARCH_SIMULATIONS = 4  # simulations for each gradient
GRADIENT_COST = 3  # a gradient costs as much as so many simulations


@dataclass(frozen=True)
class Mosaic:
    """A mosaic of several maps.

    Attributes
    ----------
    velocity : ndarray of float32, (nz, nx)
        The mosaic, m/s.
    start : int
        Which of the given maps fits best as it is.
    misfit_start, misfit : float
        Mean square misfits of that map and of the mosaic, in the record's units squared.
    origin : ndarray of int, (nz, nx)
        Which of the given maps each cell is from.
    simulations : int
        What it cost.
    """

    velocity: NDArray[np.float32]
    start: int
    misfit_start: float
    misfit: float
    origin: NDArray[np.int_]
    simulations: int


def make_mosaic(
    maps: Sequence[ArrayLike],
    record: NDArray[Any],
    simulator: "Simulator",
    *,
    max_simulations: int = 100,
    areas: Sequence[int] = AREA_SIDES,
) -> Mosaic:
    """A mosaic of what fits the record best from several maps.

    Maps are rounded to float32, and to the survey's velocity bounds, first: what is measured is
    what will be stored.

    Parameters
    ----------
    maps : sequence of array_like, (nz, nx)
        The maps, m/s.
    record : ndarray, (shots, >= n_steps, receivers)
        The record; rows from n_steps on are not used.
    simulator : Simulator
        Of the record's survey.
    max_simulations : int
        How many simulations may be spent; a gradient counts as `GRADIENT_COST` of them.
    areas : sequence of int
        Cells on a side of the areas, in turn.

    Returns
    -------
    Mosaic
    """
    bounds = simulator.survey.velocity_bounds
    rounded = [np.asarray(v, np.float64).clip(*bounds).astype(np.float32) for v in maps]
    state = _State(rounded, record, simulator, max_simulations)
    for size in areas:
        labels = tiles(simulator.survey.shape, size)
        while state.improve(labels):
            pass
    return state.result()


def tiles(shape: tuple[int, int], size: int) -> NDArray[np.int_]:
    """Squares that cover a map.

    Parameters
    ----------
    shape : tuple of int
        (nz, nx), cells of the map.
    size : int
        Cells on a side; squares at the end may be smaller.

    Returns
    -------
    ndarray of int, (nz, nx)
        The label of each cell's square, 0, 1, ...
    """
    row, column = (np.arange(n) // size for n in shape)
    return row[:, None] * (column[-1] + 1) + column


class _State:
    """The map as it is so far."""

    def __init__(
        self,
        maps: list[NDArray[np.float32]],
        record: NDArray[Any],
        simulator: "Simulator",
        max_simulations: int,
    ) -> None:
        self._maps, self._simulator = maps, simulator
        self._record = np.asarray(record[:, : simulator.survey.n_steps], np.float64)
        values = misfits(simulator, maps, self._record)
        self._max, self._spent = max_simulations, len(maps)
        self._start = int(np.argmin(values))
        self._misfit_start = self._misfit = float(values[self._start])
        self._v = maps[self._start].copy()
        self._origin = np.full(self._v.shape, self._start)
        self._known_gradient: NDArray[np.float64] | None = None

    def improve(self, labels: NDArray[np.int_]) -> bool:
        """Tries the most promising replacements of areas, and keeps the best if it is better."""
        if self._spent + GRADIENT_COST >= self._max:
            return False
        found = self._promising(labels)
        tried = found[: min(LINE_SEARCH_SIMULATIONS, self._max - self._spent)]
        if not tried:
            return False
        self._spent += len(tried)
        trials = [np.where(mask, self._maps[member], self._v) for member, mask in tried]
        values = misfits(self._simulator, trials, self._record)
        best = int(np.argmin(values))
        if not values[best] < self._misfit:
            return False
        member, mask = tried[best]
        self._v, self._misfit, self._known_gradient = trials[best], float(values[best]), None
        self._origin[mask] = member
        return True

    def _promising(self, labels: NDArray[np.int_]) -> list[tuple[int, NDArray[np.bool_]]]:
        """(member, mask) that should lower the misfit, the most promising first."""
        gradient = self._gradient()
        found: list[tuple[float, int, NDArray[np.bool_]]] = []
        for member, other in enumerate(self._maps):
            gain = -gradient * (other.astype(np.float64) - self._v)
            gains = np.bincount(labels.ravel(), gain.ravel())
            better = np.flatnonzero(gains > 0)
            found += [(gains[k], member, labels == k) for k in better]
            if better.size > 1:  # all of them at once
                found.append((gains[better].sum(), member, np.isin(labels, better)))
        found.sort(key=lambda item: -item[0])
        return [(member, mask) for _, member, mask in found]

    def _gradient(self) -> NDArray[np.float64]:
        if self._known_gradient is None:
            self._spent += GRADIENT_COST
            v = torch.as_tensor(self._v.astype(np.float64))[None]
            d = torch.as_tensor(self._record)[None]
            self._known_gradient = self._simulator.misfit_and_gradient(v, d)[1][0].numpy()
        return self._known_gradient

    def result(self) -> Mosaic:
        return Mosaic(
            self._v, self._start, self._misfit_start, self._misfit, self._origin,
            self._spent,
        )  # fmt: skip
