"""A map whose minimum is its vmin, from one whose vmin was free.

The record tells vmin, the minimum of the true map, to a fraction of 1 m/s, but of most cells only
what waves average. So a free map ends with cells below vmin that the data hardly see. Lifted one by
one they would be wrong for the data; here they are lifted so that all others make up for it: the
step dx that costs least, dx^T P dx, P the posterior precision of the Gauss-Newton stage, among
those that bring these cells to vmin,

    dx = -P^-1 A (A^T P^-1 A)^-1 (A^T x),      A^T x = v_i - vmin for the cells i below it.

This is the conditional mean of a Gaussian posterior (Tarantola, "Inverse Problem Theory", 2005).
"""

import torch

from fwi_refine.inversion.model import Model
from fwi_refine.inversion.uncertainty import Solution, scaled_factor

MAX_ROUNDS = 6  # of lifting: the others may fall below vmin in turn
MAX_CELLS = 1000  # cells below vmin, of a map that is far from its end
TOLERANCE = 1e-3  # m/s
MIN_EIGENVALUE = 1e-12  # of the largest eigenvalue, from which on a direction counts


def with_minimum(model: Model, solution: Solution) -> Model | None:
    """The likeliest map near a model whose minimum is its vmin.

    Parameters
    ----------
    model
        Where the stage ended.
    solution
        Of that stage.

    Returns
    -------
    Model or None
        None where the precision is not definite, or the minimum was not reached.
    """
    parameters = solution.parameters
    factored = scaled_factor(solution.precision())
    if factored is None:
        return None
    factor, scale = factored
    x = parameters.from_velocity(model.v, model.vmin)
    columns = parameters.matrix(x.device)
    rows, last = columns[:-1], columns[-1]
    held = torch.zeros(len(rows), dtype=torch.bool, device=x.device)
    for _ in range(MAX_ROUNDS):
        v, vmin = parameters.velocity(x).flatten(), parameters.vmin(x)
        off = v - vmin
        if bool(held.any()) and float(off.min().abs()) < TOLERANCE:
            return Model(parameters.velocity(x), vmin)
        held |= off < 0
        held[int(off.argmin())] = True
        if int(held.sum()) > MAX_CELLS:
            return None
        a = (rows[held] - last) / scale  # in the scaled unknowns
        solved = torch.cholesky_solve(a.T.contiguous(), factor)
        gram = a @ solved
        if not bool(torch.isfinite(gram).all()):
            return None
        size, directions = torch.linalg.eigh(gram)
        seen = size > MIN_EIGENVALUE * size[-1]  # modes do not tell all neighbours apart
        directions = directions[:, seen]
        multipliers = directions @ ((directions.T @ off[held]) / size[seen])
        x = parameters.retract(x, -(solved @ multipliers) / scale)
    return None
