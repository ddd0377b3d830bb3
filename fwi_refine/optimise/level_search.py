"""Which unknowns stand at a level, at which, and which lie between: a mixed-integer least squares.

    minimise  g.u + u.G u / 2 + sum over the free unknowns of price + ((u - centre) / width)^2 / 2

over u and over the set of free unknowns, which lie between the lowest and the highest of their own
few levels; every other stands at one of them. With a minus log likelihood as the quadratic this is
the most probable u where an unknown is free with a small probability, which is what the price
says, and then about normal.

Trying all choices is out of question, and choosing unknown by unknown gets stuck, because
neighbours stand in for each other. So windows of neighbours are set free together, one window
after the other, and what comes out is kept where the whole is lower: a large neighbourhood search
(Shaw, CP 1998). Within a window the unknowns are decided one at a time, the surest first, each
given those decided before, as integer ambiguities are in satellite navigation (bootstrapping:
Teunissen, J. Geodesy 72, 1998).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

LEAST_GAIN = 1e-6  # less than this, in the units of the objective, is no gain
LEAST_OUTSIDE = 1e-6  # less than this beyond the outermost level is not outside


@dataclass
class LevelProblem:
    """The minimisation above, n unknowns and K levels. All arrays float64.

    matrix: G (n, n), positive semidefinite; gradient: g (n,), at u = 0; levels: (K, n) the values
    that each unknown may stand at, inf where it may not; centre, width: (n,) of a free unknown;
    price: of being free; loose: (n,) bool, which may be beyond their levels while they are free
    """

    matrix: np.ndarray
    gradient: np.ndarray
    levels: np.ndarray
    centre: np.ndarray
    width: np.ndarray
    price: float
    loose: np.ndarray | bool = False

    @cached_property
    def bounds(self):
        """(lowest, highest), each (n,): between what a free unknown lies."""
        known = np.isfinite(self.levels)
        bound = known.any(0) & ~np.asarray(self.loose)
        low = np.where(bound, self.levels.min(0), -np.inf)
        return low, np.where(bound, np.where(known, self.levels, -np.inf).max(0), np.inf)

    def outside(self, u, which=slice(None)):
        """How far the values u of all unknowns, or of `which`, are from lying between levels."""
        low, high = (bound[which] for bound in self.bounds)
        return np.maximum(low - u, 0) + np.maximum(u - high, 0)

    def value(self, u, free) -> float:
        """The objective at u (n,) with the unknowns `free` (n,) bool free."""
        quadratic = self.gradient @ u + 0.5 * u @ self.matrix @ u
        return float(quadratic + self.cost_of_free(np.flatnonzero(free), u[free]))

    def cost_of_free(self, which, values):
        """What is paid for these unknowns being free at these values."""
        off = (values - self.centre[which]) / self.width[which]
        return self.price * len(which) + 0.5 * float(off @ off)


def level_search(
    problem: LevelProblem, u, free, windows, sweeps=4, most=math.inf, should_stop=None
):
    """(u (n,), free (n,) bool, moves): not higher than the given ones with their free unknowns
    at rest.

    windows: index arrays. moves: windows in which something was changed; `most` of them end the
    search. should_stop: asked before each window; True ends the search.
    """
    state = _State(problem, np.array(u, dtype=np.float64), np.array(free, dtype=bool))
    moves = 0
    for _ in range(sweeps):
        before = moves
        for window in windows:
            if moves >= most or (should_stop is not None and should_stop()):
                return state.u, state.free, moves
            moves += state.improve(window)
        if moves == before:
            break
    return state.u, state.free, moves


class _State:
    def __init__(self, problem, u, free):
        self.problem, self.u, self.free = problem, u, free
        self.settle()

    def settle(self):
        """Moves the free unknowns to their minimum, given the others; who leaves the bounds for
        it stands at the level there, and is free no more."""
        p = self.problem
        while True:
            F = self.which = np.flatnonzero(self.free)
            self.slope = p.gradient + p.matrix @ self.u
            precision = p.matrix[np.ix_(F, F)] + np.diag(p.width[F] ** -2.0)
            self.covariance = _inverse(precision, np.linalg.inv)
            pull = self.slope[F] + (self.u[F] - p.centre[F]) / p.width[F] ** 2
            change = -self.covariance @ pull
            self.u[F] += change
            left = self.free & (p.outside(self.u) > LEAST_OUTSIDE)
            if not left.any():
                break
            self.u[left] = np.clip(self.u, *p.bounds)[left]
            self.free[left] = False
        self.slope += p.matrix[:, F] @ change
        self.value = p.value(self.u, self.free)

    def improve(self, W) -> bool:
        """Sets the unknowns W free, decides on them anew, and keeps what is lower."""
        p = self.problem
        # the quadratic in W alone, with the unknowns that stay free at their minimum
        cross = p.matrix[np.ix_(self.which, W)]
        follow = self.follow(W, cross)
        reduced = p.matrix[np.ix_(W, W)] - cross.T @ follow
        slope = self.slope[W]
        inside = p.width[W] ** -2.0
        pull = slope + (self.u[W] - p.centre[W]) * inside
        spread = _inverse(reduced + np.diag(inside), None)
        if spread is None:  # rounding hides what the quadratic says of these
            return False
        values, free = self.decide(W, self.u[W] - spread @ pull, spread)
        change = values - self.u[W]
        gain = -(slope @ change + 0.5 * change @ reduced @ change)
        was = self.free[W]
        gain += p.cost_of_free(W[was], self.u[W][was]) - p.cost_of_free(W[free], values[free])
        if not gain > LEAST_GAIN:
            return False
        before = dict(vars(self), u=self.u.copy(), free=self.free.copy())
        self.u[self.which] -= follow @ change
        self.u[W], self.free[W] = values, free
        self.settle()
        if not self.value < before["value"] - LEAST_GAIN:  # others had to leave the bounds for it
            vars(self).update(before)
            return False
        return True

    def follow(self, W, cross):
        """How far the free unknowns move back for a unit of each of W (free, W): the product of
        their covariance with `cross`, their part of the matrix; those in W are fixed."""
        inside = np.flatnonzero(np.isin(self.which, W))
        pull = cross.copy()
        pull[inside] = 0.0
        follow = self.covariance @ pull
        if len(inside):
            own = self.covariance[np.ix_(inside, inside)]
            follow -= self.covariance[:, inside] @ np.linalg.solve(own, follow[inside])
            follow[inside] = 0.0
        return follow

    def decide(self, W, mean, covariance):
        """Values (len(W),) and which are free: the surest first, each given those before."""
        levels = self.problem.levels[:, W]
        open_ = np.ones(len(W), dtype=bool)
        for _ in W:
            variance = np.maximum(covariance.diagonal(), 1e-12)
            costs = (levels - mean) ** 2 / (2 * variance) + 0.5 * np.log(2 * math.pi * variance)
            choice = costs.argmin(0)
            unknowns = np.arange(len(W))
            best = costs[choice, unknowns]
            costs[choice, unknowns] = np.inf
            second = np.minimum(costs.min(0), self.problem.price)
            margin = np.where(open_ & (best < self.problem.price), second - best, -np.inf)
            i = int(margin.argmax())
            if margin[i] == -np.inf:
                # no level is likely enough, but a bound is also one
                off = np.where(open_, self.problem.outside(mean, W), 0) / np.sqrt(variance)
                i = int(off.argmax())
                if not off[i] > LEAST_OUTSIDE:
                    break
                choice[i] = np.abs(levels[:, i] - mean[i]).argmin()
            column = covariance[:, i] / variance[i]
            mean = mean + column * (levels[choice[i], i] - mean[i])
            mean[i] = levels[choice[i], i]
            covariance = covariance - np.outer(column, covariance[i])
            open_[i] = False
        return mean, open_


def _inverse(matrix, otherwise):
    """Inverse of a symmetric positive definite matrix, in a third of the time of a general one;
    otherwise(matrix), or None, for one that is not."""
    factor, failed = torch.linalg.cholesky_ex(torch.from_numpy(matrix))
    if int(failed):
        return otherwise and otherwise(matrix)
    return torch.cholesky_inverse(factor).numpy()
