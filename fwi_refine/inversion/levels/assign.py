"""Assigns a level to each cell of a layered map.

One cell more or less of a layer changes a record by more than its rounding does, but neighbours
stand in for each other, so that no gradient leads to the right ones. So all cells near edges are
assigned at once, by `optimise.expectation_propagation`, on the quadratic that the full Jacobian
gives.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import convolve

from fwi_refine.inversion.levels.levels import find_levels, near_edges
from fwi_refine.optimise import LevelProblem, expectation_propagation

BETWEEN = 0.3  # fraction of the open cells that lie between levels, as where a fault cuts a cell
# A neighbour with a level makes it likelier by a factor of e: edges are short.
FAVOUR = 1.0
SETTLED = 5.0  # m/s from a level within which a cell away from edges is taken to have it
LEVEL_WIDTH = 10.0  # m/s, standard deviation of a level as it was read off the map
SURE = 0.9  # probability from which on a cell is given its level
SAME_LEVEL = 4.0  # m/s: levels that differ by less are one when it is asked how sure a cell is
AROUND = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])  # the four neighbours


@dataclass(frozen=True)
class AssignedLevels:
    """What was assigned; steps (n,) are from the map where the Jacobian is from.

    step: to a map with the open cells at a level where that is sure, and where they are expected
    otherwise; sure (nz, nx) bool: which are at a level. levels: (K,) m/s, and level_variance.
    probabilities: (K + 1, nz, nx), of having each, the last of lying between; between: the step to
    a map of open cells that all lie between, and between_variance (nz, nx) of them.
    """

    step: torch.Tensor
    sure: torch.Tensor
    levels: torch.Tensor
    level_variance: torch.Tensor
    probabilities: torch.Tensor
    between: torch.Tensor
    between_variance: torch.Tensor


class EdgeCells:
    """A map of levels whose cells near edges are open, and where the levels lie exactly.

    v (nz, nx), vmin m/s: the map where the Jacobian J is from, whose n = nz * nx + 1 columns are
    for steps from v with the retraction in squared slowness, vmin last. On the CPU.

    found: whether there are levels.
    """

    def __init__(self, v, vmin):
        levels = find_levels(v)
        self.found = bool(len(levels.velocities))
        if not self.found:
            return
        self.shape, self.base = v.shape, v.flatten().numpy()
        self.levels = levels.velocities.numpy()
        self.which = levels.distance(v)[1].flatten().numpy()
        open_ = near_edges(v, levels, SETTLED).flatten().numpy()
        self.cells, self.settled = np.flatnonzero(open_), np.flatnonzero(~open_)
        self.near = levels.near.flatten(1).numpy()[:, self.cells]
        # the step that puts the settled cells at their levels, and vmin at the lowest
        self.step = np.zeros(len(self.base) + 1)
        self.step[self.settled] = self._step_to(self.levels[self.which], self.base)[self.settled]
        self.step[-1] = self.levels[0] - float(vmin)
        # (n, K): how it changes with the levels
        self.along = np.zeros((len(self.step), len(self.levels)))
        own = self.which[self.settled]
        self.along[self.settled, own] = (self.base[self.settled] / self.levels[own]) ** 3
        self.along[-1, 0] = 1.0

    def columns(self, rows):
        """Rows of J (m, n) to those of J C (m, open cells + K + 1): by the open cells, by the
        levels, and along the step to them."""
        dense = torch.from_numpy(np.column_stack([self.along, self.step])).to(rows.device)
        cells = torch.from_numpy(self.cells).to(rows.device)
        return torch.cat([rows[:, cells].double(), rows.double() @ dense], dim=1)

    def assign(self, normal, gradient, variance, should_stop):
        """`AssignedLevels`, or None where there are none.

        normal: (J C)^T J C, C as in `columns`, on any device; gradient: J^T r (n,), r the residual
        at v, on the CPU; variance: of its noise
        """
        gradient = gradient.numpy()
        by_unknown = np.concatenate([gradient[self.cells], self.along.T @ gradient])
        slope = by_unknown + normal[:-1, -1].cpu().numpy()
        problem = LevelProblem(
            matrix=normal[:-1, :-1] / variance,
            gradient=slope / variance,
            others=len(self.levels),
            width=LEVEL_WIDTH,
            levels=self._choices,
            near=self.near,
            between=BETWEEN,
            favour=self._favour,
        )
        found = expectation_propagation(problem, should_stop=should_stop)
        if found is None:
            return None
        count = len(self.cells)
        # beyond its levels a cell makes up for others that are wrong
        inside = np.clip(found.mean[:count], found.low, found.high)
        best = found.probabilities[:-1].argmax(0)
        level = found.levels[best, np.arange(count)]
        alike = np.abs(found.levels - level) < SAME_LEVEL
        sure = (found.probabilities[:-1] * alike).sum(0) > SURE
        shift = found.mean[count:]
        at_levels = self.step + self.along @ shift
        probabilities = np.vstack([self._settled_at(), np.zeros(len(self.base))])
        probabilities[:, self.cells] = found.probabilities
        between, variance = found.between
        settled, none = np.ones(len(self.base), dtype=bool), np.zeros(len(self.base))
        return AssignedLevels(
            step=self._with_cells(at_levels, np.where(sure, level, inside)),
            sure=self._with_cells(settled, sure).reshape(self.shape),
            levels=torch.from_numpy(self.levels + shift),
            level_variance=torch.from_numpy(found.variance),
            probabilities=torch.from_numpy(probabilities).reshape(-1, *self.shape),
            between=self._with_cells(at_levels, between.clip(found.low, found.high)),
            between_variance=self._with_cells(none, variance).reshape(self.shape),
        )

    def _with_cells(self, whole, cells):
        whole = whole.copy()
        whole[self.cells] = cells
        return torch.from_numpy(whole)

    def _settled_at(self):
        """(K, all cells): 1 at the level that a settled cell has, else 0."""
        held = np.zeros((len(self.levels), len(self.base)))
        held[self.which[self.settled], self.settled] = 1.0
        return held

    def _choices(self, shift):
        """The step (K, cells) of each cell to each level, shifted by (K,)."""
        return self._step_to((self.levels + shift)[:, None], self.base[self.cells])

    def _favour(self, probabilities):
        """What the four neighbours add to the log probabilities (K + 1, cells)."""
        held = self._settled_at()
        if probabilities is not None:
            held[:, self.cells] = probabilities[:-1]
        total = convolve(held.reshape(-1, *self.shape), AROUND[None], mode="constant")
        around = total.reshape(held.shape)[:, self.cells]
        return np.vstack([FAVOUR * around, np.zeros(len(self.cells))])

    @staticmethod
    def _step_to(levels, base):
        return (base - base**3 * levels**-2.0) / 2
