"""The velocities at the sources, which the first row of a record tells exactly."""

import numpy as np
import torch

from fwi_refine.objective.base import AddedHessian
from fwi_refine.survey import OPENFWI

WIDTH = 0.1  # m/s, how closely a known cell is kept
# A cell is taken as known where the prediction is within this fraction of it: a record of another
# amplitude or wavelet would give numbers without meaning.
AGREEMENT = 0.2


def source_velocities(record, survey=OPENFWI) -> np.ndarray:
    """Velocity of the map at each source that stands at a receiver, m/s; NaN where it does not.

    The first row of a record there is (v dt)^2 w[0], and no wave has come back yet. NaN as well
    where the sign of that row is not the sign of w[0].
    """
    ratio = np.full(len(survey.sources), np.nan)
    for shot, source in enumerate(survey.sources):
        if source in survey.receivers:
            trace = record[shot, :, survey.receivers.index(source)]
            ratio[shot] = float(trace[0]) / survey.wavelet[0]
    with np.errstate(invalid="ignore"):
        return np.sqrt(ratio) / survey.dt


def source_cells(record, v, survey=OPENFWI):
    """(rows, columns, velocities) of the cells of the map v (nz, nx) that the record tells, on
    the device of v."""
    nz, nx = survey.shape
    cells = [
        (row, column, velocity)
        for (row, column), velocity in zip(
            survey.sources, source_velocities(record, survey), strict=True
        )
        if 0 <= row < nz
        and 0 <= column < nx
        and survey.velocity_bounds[0] <= velocity <= survey.velocity_bounds[1]
        and abs(velocity / float(v[row, column]) - 1) < AGREEMENT
    ]
    rows, columns, velocities = zip(*cells, strict=True) if cells else ((), (), ())
    return (
        torch.tensor(rows).long().to(v.device),
        torch.tensor(columns).long().to(v.device),
        torch.tensor(velocities).double().to(v.device),
    )


class SourceCells(AddedHessian):
    """Sum of ((v - known) / width)^2 over known cells, for a parameterisation.

    cells: (rows, columns, velocities), as `source_cells` gives them
    """

    quadratic = True

    def __init__(self, cells, parameters, width=WIDTH):
        self.rows, self.columns, self.velocities = cells
        self.parameters, self.width = parameters, width

    def value_and_gradient(self, x):
        v = self.parameters.velocity(x)
        off = (v[self.rows, self.columns] - self.velocities) / self.width
        by_v = torch.zeros_like(v)
        by_v.index_put_((self.rows, self.columns), 2 * off / self.width, accumulate=True)
        return float(off @ off), self.parameters.pullback(by_v, 0.0)

    def add_hessian(self, matrix, x, weight=1.0):
        units = torch.zeros(len(self.rows), *self.parameters.shape).to(x)
        units[torch.arange(len(self.rows)).to(self.rows), self.rows, self.columns] = 1 / self.width
        rows = self.parameters.pullback(units, torch.zeros(len(units)).to(x))
        matrix.addmm_(rows.T, rows, alpha=2 * weight)
