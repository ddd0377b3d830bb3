"""The velocities at the sources, which follow exactly from the first row of a record."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from fwi_refine.objective.base import AddedHessian
from fwi_refine.objective.noise import CLEAN, Noise
from fwi_refine.objective.parameterisation import Parameters
from fwi_refine.survey import OPENFWI, Survey

WIDTH = 0.1  # m/s, standard deviation of the velocity of a known cell
# A cell is taken as known where the prediction is within this fraction of it: a record of another
# amplitude or wavelet would give numbers without meaning.
AGREEMENT = 0.2
MAX_VELOCITY_ERROR = 1.0  # m/s, by which noise may put such a velocity off

Cells = tuple[Tensor, Tensor, Tensor]  # rows, columns and velocities (m/s) of cells


def source_velocities(record: NDArray[Any] | Tensor, survey: Survey = OPENFWI) -> NDArray[Any]:
    """Velocity of the map at each source.

    Parameters
    ----------
    record : ndarray or Tensor, shape (shots, rows, receivers)
        Measured record.
    survey : Survey
        Survey of the record.

    Returns
    -------
    ndarray, shape (shots,)
        In m/s. NaN where no receiver stands at the source, and where the signs of the record's
        first row and of w[0] differ.

    Notes
    -----
    The first row of a record at the source is (v dt)^2 w[0], w the wavelet: no wave has come back
    yet.
    """
    ratio = np.full(len(survey.sources), np.nan)
    for shot, source in enumerate(survey.sources):
        if source in survey.receivers:
            trace = record[shot, :, survey.receivers.index(source)]
            ratio[shot] = float(trace[0]) / survey.wavelet[0]
    with np.errstate(invalid="ignore"):
        return np.sqrt(ratio) / survey.dt


def source_velocity_error(velocities: NDArray[Any], noise: Noise, survey: Survey) -> NDArray[Any]:
    """How far noise puts the velocities at the sources off.

    Parameters
    ----------
    velocities : ndarray
        As `source_velocities` returns them, m/s.
    noise : Noise
        Of the record.
    survey : Survey
        Survey of the record.

    Returns
    -------
    ndarray
        Standard deviations in m/s: noise / (2 v dt^2 w[0]).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        per_velocity = 2 * velocities * survey.dt**2 * abs(float(survey.wavelet[0]))
        return np.asarray(noise.sample / per_velocity)


def source_cells(
    record: NDArray[Any] | Tensor, v: Tensor, survey: Survey = OPENFWI, noise: Noise = CLEAN
) -> Cells:
    """Cells whose velocity follows from the first row of a record.

    Parameters
    ----------
    record : ndarray or Tensor, shape (shots, rows, receivers)
        Measured record.
    v : Tensor, shape (nz, nx)
        Predicted map in m/s.
    survey : Survey
        Survey of the record.
    noise : Noise
        Of the record. Velocities that it puts off by more than `MAX_VELOCITY_ERROR` are left out.

    Returns
    -------
    rows, columns : Tensor of int64, shape (k,)
        Positions of the cells in the map, on the device of `v`.
    velocities : Tensor of float64, shape (k,)
        In m/s.
    """
    nz, nx = survey.shape
    found = source_velocities(record, survey)
    cells = [
        (row, column, velocity)
        for (row, column), velocity, error in zip(
            survey.sources, found, source_velocity_error(found, noise, survey), strict=True
        )
        if error <= MAX_VELOCITY_ERROR
        and 0 <= row < nz
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
    """Sum of ((v - known) / width)^2 over known cells.

    Parameters
    ----------
    cells : tuple of Tensor
        (rows, columns, velocities), as `source_cells` returns them.
    parameters : Parameters
        Parameterisation of the unknowns.
    width : float
        Standard deviation of the known velocities in m/s.
    """

    quadratic = True

    def __init__(self, cells: Cells, parameters: Parameters, width: float = WIDTH):
        self.rows, self.columns, self.velocities = cells
        self.parameters, self.width = parameters, width

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """As in `Objective`."""
        v = self.parameters.velocity(x)
        off = (v[self.rows, self.columns] - self.velocities) / self.width
        by_v = torch.zeros_like(v)
        by_v.index_put_((self.rows, self.columns), 2 * off / self.width, accumulate=True)
        return float(off @ off), self.parameters.pullback(by_v, 0.0)

    def add_hessian(self, matrix: Tensor, x: Tensor, weight: float = 1.0) -> None:
        """As in `Objective`."""
        rows = self._rows(x)
        matrix.addmm_(rows.T, rows, alpha=2 * weight)

    def sparse_hessian(self, x: Tensor) -> sparse.csr_array:
        """As in `Objective`."""
        rows = sparse.csr_array(self._rows(x).cpu().numpy())
        return sparse.csr_array(2 * rows.T @ rows)

    def _rows(self, x: Tensor) -> Tensor:
        """Derivative of each known cell by the unknowns, in its standard deviations."""
        units = torch.zeros(len(self.rows), *self.parameters.shape).to(x)
        units[torch.arange(len(self.rows)).to(self.rows), self.rows, self.columns] = 1 / self.width
        return self.parameters.pullback(units, torch.zeros(len(units)).to(x))
