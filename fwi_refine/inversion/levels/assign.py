"""Assigns a level to each cell of a layered map.

One cell more or less of a layer changes a record by more than its rounding, but neighbours stand in
for each other, so that no gradient leads to the right cells. All cells near edges are therefore
assigned at once, by `optimise.expectation_propagation`, on the quadratic of the full Jacobian.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import convolve

from fwi_refine.inversion.levels.levels import find_levels, near_edges
from fwi_refine.inversion.levels.settings import SETTINGS, LevelSettings
from fwi_refine.optimise import LevelProblem, Marginals, expectation_propagation

FOUR_NEIGHBOURS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])


@dataclass(frozen=True)
class AssignedLevels:
    """Levels of the cells, as steps from the map of the Jacobian, with their probabilities.

    Attributes
    ----------
    step : Tensor, shape (n,)
        Step to the map with each open cell at a level if that is sure, or else at its expectation.
    sure : Tensor of bool, shape (nz, nx)
        Whether a cell is at a level.
    levels : Tensor, shape (K,)
        Mean velocity of each level, m/s.
    level_variance : Tensor, shape (K,)
        Variance of each, (m/s)^2.
    probabilities : Tensor, shape (K + 1, nz, nx)
        Of each cell having each level; the last of lying between levels.
    between : Tensor, shape (n,)
        Step to the map whose open cells all lie between levels.
    between_variance : Tensor, shape (nz, nx)
        Variance of the steps of these cells, (m/s)^2; 0 for settled ones.
    """

    step: torch.Tensor
    sure: torch.Tensor
    levels: torch.Tensor
    level_variance: torch.Tensor
    probabilities: torch.Tensor
    between: torch.Tensor
    between_variance: torch.Tensor


class EdgeCells:
    """A map of K levels: the levels of the cells near edges are open, and so are their velocities.

    Parameters
    ----------
    v : Tensor, shape (nz, nx)
        Map of the Jacobian J, m/s, on the CPU. J has n = nz * nx + 1 columns, vmin last, for steps
        from `v` in squared slowness (`Parameters.retract`).
    vmin : Tensor, shape ()
        Velocity that scales the damping, m/s.
    settings : LevelSettings
        How levels are assigned.
    fixed : Tensor of bool, shape (nz, nx), optional
        Cells that are kept as they are.

    Attributes
    ----------
    found : bool
        Whether the map has levels; without any there is nothing to assign.
    """

    def __init__(
        self,
        v: torch.Tensor,
        vmin: torch.Tensor,
        settings: LevelSettings = SETTINGS,
        fixed: torch.Tensor | None = None,
    ) -> None:
        self.settings = settings
        levels = find_levels(v, settings.reading)
        self.found = bool(len(levels.velocities))
        if not self.found:
            return
        self.shape, self.base = v.shape, v.flatten().numpy()
        self.levels = levels.velocities.numpy()
        self.label = levels.distance(v)[1].flatten().numpy()
        open_ = near_edges(v, levels, settings.settled_distance).flatten().numpy()
        kept = np.zeros_like(open_) if fixed is None else fixed.flatten().numpy()
        open_ &= ~kept
        self.open_cells, self.settled_cells = np.flatnonzero(open_), np.flatnonzero(~open_)
        moved = np.flatnonzero(~open_ & ~kept)
        self.allowed = levels.allowed.flatten(1).numpy()[:, self.open_cells]
        # the step that puts the settled cells at their levels, and vmin at the lowest
        self.step = np.zeros(len(self.base) + 1)
        self.step[moved] = self._step_to(self.levels[self.label], self.base)[moved]
        self.step[-1] = self.levels[0] - float(vmin)
        # (n, K): its derivative with respect to the levels
        self.step_by_level = np.zeros((len(self.step), len(self.levels)))
        own = self.label[moved]
        self.step_by_level[moved, own] = (self.base[moved] / self.levels[own]) ** 3
        self.step_by_level[-1, 0] = 1.0

    def columns(self, rows: torch.Tensor) -> torch.Tensor:
        """Chain rule for rows of the Jacobian.

        Parameters
        ----------
        rows : Tensor, shape (m, n)
            Rows of J.

        Returns
        -------
        Tensor, shape (m, open cells + K + 1)
            Rows of J C, float64: by the open cells, by the levels, and along the step that takes
            the settled cells to their levels.
        """
        dense = torch.from_numpy(np.column_stack([self.step_by_level, self.step])).to(rows.device)
        cells = torch.from_numpy(self.open_cells).to(rows.device)
        return torch.cat([rows[:, cells].double(), rows.double() @ dense], dim=1)

    def assign(
        self,
        normal: torch.Tensor,
        gradient: torch.Tensor,
        variance: float,
        should_stop: Callable[[], bool],
    ) -> AssignedLevels | None:
        """Assign a level to each cell.

        Parameters
        ----------
        normal : Tensor, shape (open cells + K + 1, open cells + K + 1)
            (J C)^T J C, C as in `columns`, on any device.
        gradient : Tensor, shape (n,)
            J^T r, r the residual at the map, on the CPU.
        variance : float
            Variance of the noise of the residual, in the squared unit of the record.
        should_stop : callable
            Asked before each iteration; True ends the assignment without a result.

        Returns
        -------
        AssignedLevels or None
            None where it was stopped, or where the matrix is not positive definite.
        """
        problem = self._problem(normal, gradient.numpy(), variance)
        found = expectation_propagation(problem, should_stop=should_stop)
        return None if found is None else self._assigned(found)

    def _problem(self, normal: torch.Tensor, by_x: np.ndarray, variance: float) -> LevelProblem:
        """The choices of `assign`, in the unknowns of `columns`."""
        by_unknown = np.concatenate([by_x[self.open_cells], self.step_by_level.T @ by_x])
        slope = by_unknown + normal[:-1, -1].cpu().numpy()
        return LevelProblem(
            matrix=normal[:-1, :-1] / variance,
            gradient=slope / variance,
            others=len(self.levels),
            width=self.settings.level_width,
            levels=self._choices,
            allowed=self.allowed,
            between=self.settings.between_fraction,
            neighbour_term=self._potts_term,
        )

    def _assigned(self, found: Marginals) -> AssignedLevels:
        """Levels and probabilities of all cells, from the marginals of the open ones."""
        count = len(self.open_cells)
        # beyond its levels a cell makes up for others that are wrong, and far from where it is,
        # too; one that is known may have a level of too few cells to be found
        most = self.settings.unsure_step
        between, between_variance = found.between
        known = between_variance < self.settings.settled_distance**2
        low = np.where(known, np.minimum(found.low, 0.0), found.low)
        high = np.where(known, np.maximum(found.high, 0.0), found.high)
        inside = np.clip(found.mean[:count], low, high).clip(-most, most)
        best = found.probabilities[:-1].argmax(0)
        level = found.levels[best, np.arange(count)]
        alike = np.abs(found.levels - level) < self.settings.same_level
        sure = (found.probabilities[:-1] * alike).sum(0) > self.settings.sure_probability
        shift = found.mean[count:]
        at_levels = self.step + self.step_by_level @ shift
        probabilities = np.vstack([self._one_hot(), np.zeros(len(self.base))])
        probabilities[:, self.open_cells] = found.probabilities
        settled, none = np.ones(len(self.base), dtype=bool), np.zeros(len(self.base))
        return AssignedLevels(
            step=self._with_cells(at_levels, np.where(sure, level, inside)),
            sure=self._with_cells(settled, sure).reshape(self.shape),
            levels=torch.from_numpy(self.levels + shift),
            level_variance=torch.from_numpy(found.variance),
            probabilities=torch.from_numpy(probabilities).reshape(-1, *self.shape),
            between=self._with_cells(at_levels, between.clip(low, high)),
            between_variance=self._with_cells(none, between_variance).reshape(self.shape),
        )

    def _with_cells(self, whole: np.ndarray, cells: np.ndarray) -> torch.Tensor:
        """A copy of an array of all cells with these values of the open ones."""
        whole = whole.copy()
        whole[self.open_cells] = cells
        return torch.from_numpy(whole)

    def _one_hot(self) -> np.ndarray:
        """(K, all cells): 1 at the level that a settled cell has, else 0."""
        one_hot = np.zeros((len(self.levels), len(self.base)))
        one_hot[self.label[self.settled_cells], self.settled_cells] = 1.0
        return one_hot

    def _choices(self, shift: np.ndarray) -> np.ndarray:
        """The step (K, open cells) of each cell to each level, shifted by (K,), m/s."""
        return self._step_to((self.levels + shift)[:, None], self.base[self.open_cells])

    def _potts_term(self, probabilities: np.ndarray | None) -> np.ndarray:
        """Term of the four neighbours in the log probabilities (K + 1, open cells)."""
        one_hot = self._one_hot()
        if probabilities is not None:
            one_hot[:, self.open_cells] = probabilities[:-1]
        total = convolve(one_hot.reshape(-1, *self.shape), FOUR_NEIGHBOURS[None], mode="constant")
        around = total.reshape(one_hot.shape)[:, self.open_cells]
        return np.vstack([self.settings.potts_coupling * around, np.zeros(len(self.open_cells))])

    @staticmethod
    def _step_to(levels: np.ndarray, base: np.ndarray) -> np.ndarray:
        """Steps that take velocities `base` to `levels`, m/s, in squared slowness."""
        return (base - base**3 * levels**-2.0) / 2
