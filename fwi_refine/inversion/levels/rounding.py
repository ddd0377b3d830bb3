"""What the released data's arithmetic added to the record of a map of integers.

Most of that is due to its coefficients (wave/released_arithmetic.py), which are rounded by as much
in every cell of a layer and at every step, like a change of the medium. It is known once the
integers are; where all of them are right, nothing of the record is left.
"""

from dataclasses import dataclass

import numpy as np
import torch

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data, Model

COST = 2  # simulations


@dataclass(frozen=True)
class Rounding:
    """The rounding in the record of a map of integers.

    Attributes
    ----------
    shift
        What it adds to the record of the map, of the measured record's shape.
    misfit_with
        Mean square misfit of the map, the rounding left in the record.
    misfit_without
        The same where the rounding was taken out.
    """

    shift: np.ndarray
    misfit_with: float
    misfit_without: float

    @property
    def misfit(self) -> float:
        """The smaller of both: other software's records have no such rounding."""
        return min(self.misfit_with, self.misfit_without)


def rounding_of(integers: Model, data: Data, budget: Budget) -> Rounding:
    """The rounding in the record of a map of integers; two simulations."""
    budget.charge(COST * data.cost)
    simulator, v, vmin = data.simulator, integers.v[None], integers.vmin[None]
    exact = simulator.forward(v, vmin)[0].double()
    shift = simulator.released(v, vmin)[0].double() - exact
    residual = exact - torch.from_numpy(data.record)[:, : exact.shape[1]].to(exact.device)
    of_rows = np.zeros(data.record.shape)
    of_rows[:, : exact.shape[1]] = shift.cpu().numpy()
    kept, taken = (float(r.square().mean()) for r in (residual, residual + shift))
    return Rounding(of_rows, kept, taken)
