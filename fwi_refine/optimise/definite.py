"""The solution of A x = b for a positive definite A, in the arithmetic that a device is fast in.

In float64 by Cholesky's factor. On a device whose float64 is slow the factor, whose cost goes with
the cube of n, is that of A + shift in float32, and x comes from conjugate gradients in float64 that
it preconditions (N. J. Higham, Accuracy and Stability of Numerical Algorithms, chapter 12, for
refinement; R. Barrett et al., Templates for the Solution of Linear Systems, 1994, figure 2.5): each
costs two products of A or the factor with a vector.
"""

import math
from collections.abc import Callable

import torch

from fwi_refine.precision import Float64, float64

Solve = Callable[[torch.Tensor], torch.Tensor]

# Of the unit diagonal: rounding of a float32 factor of some thousand unknowns stays below it.
SHIFT = 1e-5
SHIFT_INCREASE = 10.0  # times, where that was too little
MAX_SHIFT = 1e-2
TOLERANCE = 1e-11  # of the residual, relative
MAX_PRODUCTS = 1000


def factorise(matrix: torch.Tensor) -> Solve | None:
    """The function b -> A^-1 b.

    Parameters
    ----------
    matrix : torch.Tensor of float64, (n, n)
        A, symmetric, with a diagonal of about 1.

    Returns
    -------
    callable or None
        Takes b (n,) to x (n,); None where A is not found positive definite. Where float64 is slow,
        that may come to light later: x is not a number then.
    """
    if float64(matrix.device) is Float64.SLOW:
        return _by_refinement(matrix)
    factor, info = torch.linalg.cholesky_ex(matrix)
    if int(info) != 0 or not math.isfinite(float(factor.diagonal().sum())):
        return None
    return by_factor(factor)


def by_factor(factor: torch.Tensor) -> Solve:
    """The function b -> A^-1 b.

    Parameters
    ----------
    factor : torch.Tensor, (n, n)
        Cholesky's, of A.

    Returns
    -------
    callable
        Takes b (n,) to x (n,).
    """
    return lambda b: torch.cholesky_solve(b[:, None], factor)[:, 0]


def to_unit_diagonal(matrix: torch.Tensor, damping: float) -> torch.Tensor:
    """Scales a matrix to a diagonal of 1, in place, and adds damping to that.

    Parameters
    ----------
    matrix : torch.Tensor of float64, (n, n)
        A; what comes of it is A / scale / scale[:, None] + damping.
    damping : float
        Relative to the diagonal.

    Returns
    -------
    torch.Tensor, (n,)
        The scale.
    """
    scale = matrix.diagonal().clamp_min(1e-300).sqrt()
    matrix.div_(scale).div_(scale[:, None]).diagonal().add_(damping)
    return scale


def scaled_back(solve: Solve, scale: torch.Tensor) -> Solve:
    """The solver of a matrix from that of the one which `to_unit_diagonal` made of it.

    Parameters
    ----------
    solve : callable
        Of the scaled matrix.
    scale : torch.Tensor, (n,)
        The scale.

    Returns
    -------
    callable
        Takes b (n,) to x (n,).
    """
    return lambda b: solve(b / scale) / scale


def _by_refinement(matrix: torch.Tensor) -> Solve | None:
    shift = SHIFT
    while True:
        single = matrix.float()
        single.diagonal().add_(shift)
        factor, info = torch.linalg.cholesky_ex(single)
        if int(info) == 0 and math.isfinite(float(factor.diagonal().sum())):
            break
        shift *= SHIFT_INCREASE
        if shift > MAX_SHIFT:
            return None

    def precondition(r: torch.Tensor) -> torch.Tensor:
        size = r.abs().max().clamp_min(1e-300)  # float32 has a smaller range
        return torch.cholesky_solve((r / size).float()[:, None], factor)[:, 0].double() * size

    return lambda b: _conjugate_gradients(matrix, b, precondition)


def _conjugate_gradients(
    matrix: torch.Tensor, b: torch.Tensor, precondition: Solve
) -> torch.Tensor:
    """x, not a number where a direction shows that A is not definite."""
    x, r = torch.zeros_like(b), b.clone()
    z = precondition(r)
    p, rz = z, torch.dot(r, z)
    enough, rounding = TOLERANCE * float(b.norm()), len(b) * torch.finfo(b.dtype).eps
    for _ in range(MAX_PRODUCTS):
        if float(r.norm()) <= max(enough, rounding * float(x.norm())):
            break
        product = matrix @ p
        curvature = float(torch.dot(p, product))
        if not curvature > 0:
            return torch.full_like(b, math.nan)
        step = float(rz) / curvature
        x, r = x + step * p, r - step * product
        z = precondition(r)
        before, rz = rz, torch.dot(r, z)
        p = z + (rz / before) * p
    return x
