"""What the released data's arithmetic added to the record of a map of integers.

Most of that is due to its coefficients (wave/released_arithmetic.py), which are rounded by as much
in every cell of a layer and at every step, like a change of the medium. It is known once the
integers are; where all of them are right, nothing of the record is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data, Model
from fwi_refine.wave import first_unequal

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
    agreement
        Mean time of the first difference from the measured record, in steps: the later, the more
        of the map is right from the top down, and with it the rounding.
    """

    shift: np.ndarray
    misfit_with: float
    misfit_without: float
    agreement: float

    @property
    def misfit(self) -> float:
        """The smaller of both: other software's records have no such rounding."""
        return min(self.misfit_with, self.misfit_without)


def rounding_of(integers: Model, data: Data, budget: Budget) -> Rounding:
    """The rounding in the record of a map of integers; two simulations."""
    budget.charge(COST * data.cost)
    simulator, v, vmin = data.simulator, integers.v[None], integers.vmin[None]
    exact = simulator.forward(v, vmin)[0].double()
    released = simulator.released(v, vmin)[0]
    shift = released.double() - exact
    measured = torch.from_numpy(data.record)[:, : exact.shape[1]].to(exact.device)
    residual = exact - measured
    of_rows = np.zeros(data.record.shape)
    of_rows[:, : exact.shape[1]] = shift.cpu().numpy()
    kept, taken = (float(r.square().mean()) for r in (residual, residual + shift))
    agreement = float(first_unequal(released, measured.to(released)).double().mean())
    return Rounding(of_rows, kept, taken, agreement)


def roundings_of(
    maps: Sequence[Model], data: Data, budget: Budget
) -> tuple[Model, Rounding, np.ndarray]:
    """The map of integers that fits best, its rounding, and what is taken for that of the record.

    Returns
    -------
    Model, Rounding, ndarray
        The last is the shift of the map whose record agrees longest with the measured one: some
        wrong cells far down spoil the misfit of a map, not its rounding.
    """
    found = [(integers, rounding_of(integers, data, budget)) for integers in maps]
    best, rounding = min(found, key=lambda pair: pair[1].misfit)
    return best, rounding, max(found, key=lambda pair: pair[1].agreement)[1].shift
