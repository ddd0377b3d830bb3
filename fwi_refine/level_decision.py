"""Deciding which level each cell of a layered map has.

One cell more or less of a layer changes a record by more than its rounding does, but neighbours
stand in for each other, so that no gradient leads to the right ones. So cells along edges are
decided on by `optimise.level_search`, on the quadratic that the full Jacobian gives, and what is
continuous, the levels and the cells between them, is fitted to that.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_dilation

from fwi_refine.levels import SNAP, find_levels
from fwi_refine.optimise import LevelProblem, level_search

WINDOW = 2  # cells to each side of the middle of a window
# Minus log of how much less likely a velocity between the levels is than a level, per m/s: some
# 10 % of the cells, anywhere in some 500 m/s.
PRICE = 8.5
LEAST_WIDTH = 100.0  # m/s, least standard deviation of a cell between levels
LEVEL_WIDTH = 10.0  # m/s, standard deviation of a level as it was read off the map


@dataclass(frozen=True)
class Decision:
    """A map with every cell at a level or, along edges, between levels.

    v (nz, nx) and vmin, m/s; saved: by how much the cells between levels have less cost, in units
    of minus log likelihood; moves: windows of cells that were decided anew
    """

    v: torch.Tensor
    vmin: torch.Tensor
    saved: float = 0.0
    moves: int = 0


def decide_levels(
    v, vmin, base, pull, hessian, variance, most=math.inf, seed=0, should_stop=None
) -> Decision:
    """The decision on a map v (nz, nx) and vmin, of `most` moves, tried in the order of the seed.

    base: the map where the Jacobian J is from; pull: J^T r (n,) for the residual r of v; hessian:
    J^T J (n, n), n = nz * nx + 1 with vmin last, for steps from base with the retraction in squared
    slowness; variance: of the residual's noise. Before and after it the levels, vmin with the
    lowest of them, and the cells between are fitted: a layer that is 0.1 m/s off changes the
    record by more than any cell, and cells would be set free to make up for it. Returns v and vmin
    if there are no levels.
    """
    device = v.device  # the search has many small steps: they are the CPU's
    v, vmin, base, pull, hessian = (x.cpu() for x in (v, vmin, base, pull, hessian))
    levels = find_levels(v)
    if not len(levels.velocities):
        return Decision(v.to(device), vmin.to(device))
    layers = _Layers(levels, v, vmin, base, pull / variance, hessian / variance)
    cost = layers.cost_of_free()
    layers.fit()
    moves = layers.search(most, seed, should_stop)
    layers.fit()
    saved = cost - layers.cost_of_free()
    return Decision(layers.velocity().to(device), layers.vmin.to(device), saved, moves)


class _Layers:
    """A map of levels and of cells between them, with the quadratic that it stands on.

    steps: (cells,) from base, in squared slowness; gradient: (n,) there
    """

    def __init__(self, levels, v, vmin, base, gradient, hessian):
        self.shape, self.vmin, self.base, self.hessian = v.shape, vmin, base.flatten(), hessian
        self.velocities, self.near = levels.velocities, levels.near.flatten(1)
        off, which = levels.distance(v)
        self.free, self.which = (off > SNAP).flatten(), which.flatten()
        self.steps, self.gradient = _step_to(v.flatten(), self.base), gradient
        # a cell that has no level nearby stays about where it is
        some = self.near.any(0)
        choices = self._choices()
        low = torch.where(some, choices.amin(0), 0.0)
        high = torch.where(some, torch.where(self.near, choices, -torch.inf).amax(0), 0.0)
        self.centre = (low + high) / 2
        # a uniform distribution has 1 / sqrt(12) of its range as standard deviation
        self.width = ((high - low) / math.sqrt(12)).clamp_min(LEAST_WIDTH)
        self._stand()

    def _choices(self):
        """The step (K, cells) to each level, inf where it is not near."""
        return torch.where(self.near, _step_to(self.velocities[:, None], self.base), torch.inf)

    def _stand(self):
        """Puts every cell that is not free, or not between its levels any more, at its level."""
        choices = self._choices()
        low, high = choices.amin(0), torch.where(self.near, choices, -torch.inf).amax(0)
        left = self.free & self.near.any(0) & ((self.steps < low) | (self.steps > high))
        self.which = torch.where(left, (choices - self.steps).abs().argmin(0), self.which)
        self.free = self.free & ~left
        self._move(torch.where(self.free, self.steps, self._at_levels()))
        return bool(left.any())

    def _at_levels(self):
        return _step_to(self.velocities[self.which], self.base)

    def _move(self, steps):
        self.gradient = self.gradient + self.hessian[:, :-1] @ (steps - self.steps)
        self.steps = steps

    def cost_of_free(self):
        off = ((self.steps - self.centre) / self.width)[self.free]
        return PRICE * len(off) + 0.5 * float(off @ off)

    def fit(self):
        """Levels, vmin and the cells between them at the minimum of the quadratic; who has to
        leave its levels for it stands at one of them."""
        levels, own = len(self.velocities), self.free.nonzero()[:, 0]
        cells, unknowns = torch.arange(len(self.base)), levels + torch.arange(len(own))
        columns = self.hessian.new_zeros(len(self.hessian), levels + len(own))
        columns[cells, self.which] = self.base**3 * self.velocities[self.which] ** -3
        columns[own] = 0.0
        columns[own, unknowns] = 1.0
        columns[-1, 0] = 1.0  # vmin goes with the lowest level
        precision = self.width[own] ** -2.0
        matrix = columns.T @ (self.hessian @ columns)
        matrix.diagonal()[:levels] += LEVEL_WIDTH**-2
        matrix.diagonal()[levels:] += precision
        slope = columns.T @ self.gradient
        slope[levels:] += precision * (self.steps - self.centre)[own]
        change = -torch.linalg.solve(matrix, slope)
        self.velocities = self.velocities + change[:levels]
        self.vmin = self.vmin + change[0]
        self.gradient = self.gradient + self.hessian[:, -1] * change[0]
        self._move(self.steps.index_add(0, own, change[levels:]))
        if self._stand():
            self.fit()

    def search(self, most, seed, should_stop):
        """Decides on the cells along edges; the number of windows that were decided anew."""
        edges = _along_edges(torch.where(self.free, -1, self.which).reshape(self.shape).numpy())
        open_ = binary_dilation(edges)
        cells = torch.from_numpy(np.flatnonzero(open_))
        matrix = self.hessian[cells][:, cells]
        problem = LevelProblem(
            matrix=matrix.numpy(),
            gradient=(self.gradient[cells] - matrix @ self.steps[cells]).numpy(),
            levels=self._choices()[:, cells].numpy(),
            centre=self.centre[cells].numpy(),
            width=self.width[cells].numpy(),
            price=PRICE,
        )
        found, between, moves = level_search(
            problem,
            self.steps[cells].numpy(),
            self.free[cells].numpy(),
            list(_windows(edges, open_, seed)),
            most=most,
            should_stop=should_stop,
        )
        self._move(self.steps.index_copy(0, cells, torch.from_numpy(found)))
        self.free[cells] = torch.from_numpy(between)
        self.which[cells] = torch.from_numpy(np.abs(problem.levels - found).argmin(0))
        return moves

    def velocity(self):
        v = torch.where(self.free, _after_step(self.steps, self.base), self.velocities[self.which])
        return v.reshape(self.shape)


def _step_to(target, base):
    """The step from base whose retraction in squared slowness is target; see `Parameters`."""
    return (base - base**3 * target**-2) / 2


def _after_step(u, base):
    """Where the step u from base leads; below no squared slowness there is the highest velocity."""
    return (base**-2 - 2 * base**-3 * u).clamp_min(1e-9) ** -0.5


def _along_edges(labels):
    """Cells (nz, nx) bool with another label than a neighbour, or between levels (label -1)."""
    found = labels < 0
    down, across = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    found[1:] |= down
    found[:-1] |= down
    found[:, 1:] |= across
    found[:, :-1] |= across
    return found


def _windows(centres, open_, seed):
    """Around each of the cells `centres`: the open cells of a square, numbered among all open."""
    number = np.cumsum(open_).reshape(open_.shape) - 1
    order = np.random.default_rng(seed).permutation(np.argwhere(centres))
    for row, column in order:
        square = np.s_[
            max(0, row - WINDOW) : row + WINDOW + 1, max(0, column - WINDOW) : column + WINDOW + 1
        ]
        yield number[square][open_[square]]
