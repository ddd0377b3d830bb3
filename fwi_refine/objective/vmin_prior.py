"""A prior of vmin, the velocity that scales the damping of the absorbing band."""

import torch
from scipy import sparse
from torch import Tensor

from fwi_refine.objective.base import AddedHessian


class VminPrior(AddedHessian):
    """((vmin - centre) / width)^2: keeps vmin near the minimum that the map had.

    The damping of the absorbing band depends on vmin alone, weakly, so that a long step leaves it
    anywhere.

    Parameters
    ----------
    centre : float
        Expected vmin in m/s.
    width : float
        Its standard deviation in m/s. 30 m/s is the error of the minimum of a map as a guess of it.
    """

    quadratic = True

    def __init__(self, centre: float | Tensor, width: float = 30.0):
        self.centre, self.width = float(centre), width

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """As in `Objective`."""
        off = (float(x[-1]) - self.centre) / self.width
        gradient = torch.zeros_like(x)
        gradient[-1] = 2 * off / self.width
        return off**2, gradient

    def add_hessian(self, matrix: Tensor, x: Tensor, weight: float = 1.0) -> None:
        """As in `Objective`."""
        matrix[-1, -1] += 2 * weight / self.width**2

    def sparse_hessian(self, x: Tensor) -> sparse.csr_array:
        """As in `Objective`."""
        last = len(x) - 1
        return sparse.csr_array(([2 / self.width**2], ([last], [last])), shape=(len(x), len(x)))
