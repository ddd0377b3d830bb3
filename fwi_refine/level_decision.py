"""Deciding which level each cell of a layered map has.

One cell more or less of a layer changes a record by more than its rounding does, but neighbours
stand in for each other, so that no gradient leads to the right ones. So cells near edges are
decided on by `optimise.level_search`, on the quadratic that the full Jacobian gives.

The search must begin where the data are, not at a map of levels: at a map whose cells fit the
record to its noise, each where the data want it, between levels or beyond. Then a few cells at a
time are given a level, and all that are still free follow, so that the record fits at every step.
Put at their nearest levels all at once, the cells miss the record a hundred times as badly, and no
window of cells leads back.
"""

import numpy as np
import torch

from fwi_refine.levels import along_edges, find_levels, near_edges
from fwi_refine.optimise import LevelProblem, level_search

# Windows: cells to each side of the middle, and which of the cells along edges are one, every so
# many. In small ones the choice is better; large ones hold a wrong cell with all that make up for
# it, which stay on as a checkerboard otherwise.
WINDOWS = ((2, 1), (4, 4))
# Minus log of how much less likely a velocity between the levels is than a level, per m/s: some
# 10 % of the cells, anywhere in some 500 m/s.
PRICE = 8.5
WIDTH = 100.0  # m/s, standard deviation of a free cell about where it is
# m/s from a level within which a cell has it at first: with 0.1 three times as many are free, the
# search takes six times as long and is no better (CurveFault_B, two samples)
SETTLED = 0.5
# Windows decided on in one search: where more would change, the residual is worth renewing, and
# with a thousand free cells each takes a tenth of a second.
MOST_MOVES = 400
LEVEL_WIDTH = 10.0  # m/s, standard deviation of a level as it was read off the map
CERTAIN = 5.0  # standard deviations that a level must be off to be taken as another integer


class EdgeCells:
    """A map of integer levels whose cells near edges are open, and the search among these.

    v (nz, nx) m/s: the map where the Jacobian J is from, to which its cells fit the record;
    hessian: J^T J (n, n), n = nz * nx + 1 with vmin last, for steps from v with the retraction in
    squared slowness. On the CPU, as the search has many small steps.

    velocity (nz, nx), vmin: the present map; at first the cells away from edges, and those within
    SETTLED of a level, have it, and the others are as they were. found: whether there are levels.
    """

    def __init__(self, v, hessian):
        levels = find_levels(v)
        self.found = bool(len(levels.velocities))
        self.velocity, self.vmin = v, v.min()
        if not self.found:
            return
        self.shape, self.base, self.hessian = v.shape, v.flatten(), hessian
        self.levels = levels.velocities.round()
        off, which = (x.flatten() for x in levels.distance(v))
        open_ = near_edges(v, levels, SETTLED)
        self.cells = open_.flatten().nonzero()[:, 0]
        self.number = np.full(v.shape, -1)
        self.number[open_.numpy()] = np.arange(len(self.cells))
        self.near = levels.near.flatten(1)[:, self.cells]
        self.matrix = hessian[self.cells][:, self.cells].numpy()
        self.free = (off > SETTLED)[self.cells].numpy()
        self.which = which
        self.steps = np.zeros(len(self.cells))
        self._update()

    def search(self, gradient, variance, seed, should_stop=None):
        """Decides on the open cells, the windows in the order of the seed; how many changed.

        gradient: J^T r (n,), r the residual of `velocity`; variance: of the residual's noise
        """
        choices = self._choices()
        problem = LevelProblem(
            matrix=self.matrix / variance,
            gradient=(gradient[self.cells].numpy() - self.matrix @ self.steps) / variance,
            levels=choices,
            centre=self.steps,
            width=np.full(len(self.cells), WIDTH),
            price=PRICE,
            loose=self._beyond(choices),
        )
        self.steps, self.free, moves = level_search(
            problem,
            self.steps,
            self.free,
            list(self._windows(seed)),
            sweeps=2,
            most=MOST_MOVES,
            should_stop=should_stop,
        )
        self._update()
        return moves

    def unexplained(self, gradient, misfit, variance):
        """How much of the misfit r.r / 2 remains where the open cells take any values at all."""
        matrix = torch.from_numpy(self.matrix) + variance * WIDTH**-2 * torch.eye(len(self.cells))
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if int(failed):
            return misfit
        slope = gradient[self.cells][:, None]
        return max(misfit - 0.5 * float(slope.T @ torch.cholesky_solve(slope, factor)), 0.0)

    def fit_levels(self, gradient, variance):
        """Takes other integers as levels where the data say so; whether any changed.

        The free cells go along: what they leave of the levels' part of the quadratic counts.
        """
        free = self.cells[torch.from_numpy(self.free)]
        columns = self.hessian.new_zeros(len(self.hessian), len(self.levels))
        cells = torch.arange(len(self.base))
        columns[cells, self.which] = self.base**3 * self.levels[self.which] ** -3
        columns[free] = 0.0
        columns[-1, 0] = 1.0  # vmin goes with the lowest level
        sloped = self.hessian @ columns
        own = self.hessian[free][:, free] / variance
        own.diagonal().add_(WIDTH**-2)
        cross = sloped[free] / variance
        eliminated = torch.linalg.solve(own, cross)
        matrix = columns.T @ sloped / variance - cross.T @ eliminated
        slope = (columns.T @ gradient - eliminated.T @ gradient[free]) / variance
        matrix.diagonal().add_(LEVEL_WIDTH**-2)
        covariance = torch.linalg.inv(matrix)
        change = -covariance @ slope
        other = change.abs() > CERTAIN * covariance.diagonal().sqrt()
        rounded = torch.where(other, (self.levels + change).round(), self.levels)
        if torch.equal(rounded, self.levels):
            return False
        self.levels = rounded
        self._update()
        return True

    def cost(self):
        """What the cells between levels cost, in units of minus log likelihood."""
        return PRICE * int(self.free.sum())

    def _choices(self):
        """The step (K, cells) to each level, inf where it is not near."""
        base = self.base[self.cells]
        steps = (base - base**3 * self.levels[:, None] ** -2) / 2
        return torch.where(self.near, steps, torch.inf).numpy()

    def _beyond(self, choices):
        """Free cells beyond their levels: they make up for others that are wrong, and may do so
        until these are decided on."""
        highest = np.where(np.isfinite(choices), choices, -np.inf).max(0)
        return self.free & ((self.steps < choices.min(0)) | (self.steps > highest))

    def _update(self):
        """The map: open cells that are not free go to the level that is nearest to them."""
        nearest = torch.from_numpy(np.abs(self._choices() - self.steps).argmin(0))
        held = torch.from_numpy(~self.free)
        self.which[self.cells[held]] = nearest[held]
        base = self.base[self.cells]
        at_level = (base - base**3 * self.levels[nearest] ** -2) / 2
        self.steps = np.where(self.free, self.steps, at_level.numpy())
        v = self.levels[self.which]
        # below no squared slowness there is the highest velocity
        stepped = (base**-2 - 2 * base**-3 * torch.from_numpy(self.steps)).clamp_min(1e-9) ** -0.5
        v[self.cells] = torch.where(held, v[self.cells], stepped)
        self.velocity, self.vmin = v.reshape(self.shape), self.levels[0]

    def _windows(self, seed):
        """Around cells along edges: the open cells of squares, by their number."""
        labels = self.which.reshape(self.shape).numpy().copy()
        labels[self.number >= 0] = np.where(self.free, -1, labels[self.number >= 0])
        order = np.random.default_rng(seed).permutation(np.argwhere(along_edges(labels)))
        for reach, step in WINDOWS:
            for row, column in order[::step]:
                square = self.number[
                    max(0, row - reach) : row + reach + 1,
                    max(0, column - reach) : column + reach + 1,
                ]
                yield square[square >= 0]
