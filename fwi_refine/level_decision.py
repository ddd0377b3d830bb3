"""Deciding which level each cell of a layered map has.

One cell more or less of a layer changes a record by more than its rounding does, but neighbours
stand in for each other, so that no gradient leads to the right ones. So cells along edges are
decided on by `optimise.level_search`, on the quadratic that the full Jacobian gives, and what is
continuous, the levels and the cells between them, is fitted to that.
"""

import math

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


def decide_levels(v, vmin, base, pull, hessian, variance, should_stop=None):
    """(map (nz, nx), vmin) with every cell at a level or, along edges, between levels.

    v, vmin: the present ones. base: the map where the Jacobian J is from; pull: J^T r (n,) for the
    residual r of v; hessian: J^T J (n, n), n = nz * nx + 1 with vmin last, for steps from base with
    the retraction in squared slowness; variance: of the residual's noise. The levels, and vmin
    with the lowest of them, are fitted anew. Returns v and vmin if there are no levels.
    """
    device = v.device  # the search has many small steps: they are the CPU's
    v, vmin, base, pull, hessian = (x.cpu() for x in (v, vmin, base, pull, hessian))
    levels = find_levels(v)
    if not len(levels.velocities):
        return v.to(device), vmin.to(device)
    off, which = levels.distance(v)
    free, which, base = (off > SNAP).flatten(), which.flatten(), base.flatten()
    edges = _along_edges(torch.where(free, -1, which).reshape(v.shape).numpy())
    open_ = binary_dilation(edges)
    cells = torch.from_numpy(np.flatnonzero(open_))

    # minus log likelihood as a function of the steps from base
    present = _step_to(v.flatten(), base)
    steps = torch.where(free, present, _step_to(levels.velocities[which], base))
    hessian = hessian / variance
    gradient = pull / variance + hessian[:, :-1] @ (steps - present)
    problem = _problem(levels, cells, base, steps, gradient, hessian)
    found, between = level_search(
        problem,
        steps[cells].numpy(),
        free[cells].numpy(),
        list(_windows(edges, open_)),
        should_stop=should_stop,
    )
    gradient += hessian[:, cells] @ (torch.from_numpy(found) - steps[cells])
    steps[cells], free[cells] = torch.from_numpy(found), torch.from_numpy(between)
    which[cells] = torch.from_numpy(np.abs(problem.levels - found).argmin(0))

    own = cells[between]
    off = torch.from_numpy((found - problem.centre)[between])
    precision = torch.from_numpy(problem.width[between] ** -2.0)
    rise, move = _fit(levels.velocities, which, own, base, gradient, hessian, off, precision)
    steps[own] += move
    velocities = levels.velocities + rise
    result = torch.where(free, _after_step(steps, base), velocities[which])
    result = result.clamp(velocities.min(), velocities.max()).reshape(v.shape)
    return result.to(device), (vmin + rise[0]).to(device)


def _problem(levels, cells, base, steps, gradient, hessian):
    """The choice of levels for the open cells, in steps from base."""
    near = levels.near.flatten(1)[:, cells]
    choices = _step_to(levels.velocities[:, None], base[cells])
    # a cell that has no level nearby stays about where it is
    low, high = (
        torch.where(near.any(0), bound, 0.0).numpy()
        for bound in (
            torch.where(near, choices, torch.inf).amin(0),
            torch.where(near, choices, -torch.inf).amax(0),
        )
    )
    matrix = hessian[cells][:, cells]
    return LevelProblem(
        matrix=matrix.numpy(),
        gradient=(gradient[cells] - matrix @ steps[cells]).numpy(),
        levels=torch.where(near, choices, torch.inf).numpy(),
        centre=(low + high) / 2,
        # a uniform distribution has 1 / sqrt(12) of its range as standard deviation
        width=np.maximum((high - low) / math.sqrt(12), LEAST_WIDTH),
        price=PRICE,
    )


def _fit(velocities, which, own, base, gradient, hessian, off, precision):
    """Changes of the levels (K,) m/s, and of the steps of the cells `own` between levels.

    which: level of every other cell. off, precision: of the normal prior of the cells between.
    """
    levels = len(velocities)
    columns = hessian.new_zeros(len(hessian), levels + len(own))
    columns[torch.arange(len(base)), which] = base**3 * velocities[which] ** -3  # step by level
    columns[own] = 0.0
    columns[own, levels + torch.arange(len(own))] = 1.0
    columns[-1, 0] = 1.0  # vmin goes with the lowest level
    matrix = columns.T @ (hessian @ columns)
    matrix.diagonal()[:levels] += LEVEL_WIDTH**-2
    matrix.diagonal()[levels:] += precision
    slope = columns.T @ gradient
    slope[levels:] += precision * off
    change = -torch.linalg.solve(matrix, slope)
    return change[:levels], change[levels:]


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


def _windows(centres, open_):
    """Around each of the cells `centres`: the open cells of a square, numbered among all open."""
    number = np.cumsum(open_).reshape(open_.shape) - 1
    order = np.random.default_rng(0).permutation(np.argwhere(centres))
    for row, column in order:
        square = np.s_[
            max(0, row - WINDOW) : row + WINDOW + 1, max(0, column - WINDOW) : column + WINDOW + 1
        ]
        yield number[square][open_[square]]
