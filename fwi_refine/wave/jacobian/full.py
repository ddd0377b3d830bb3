"""The full Jacobian of a record, from one simulation for each source and receiver.

How it is assembled stands in reciprocity.py. Its rows are not samples but coefficients of an
orthonormal basis Q of all records that the wavelet's frequencies can make: J = Q matrix. So
J^T J = matrix^T matrix and J^T u = matrix^T Q^T u without weights, and with a tenth of the rows
that the samples would be.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from fwi_refine.precision import Float64, float64, widened
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave.jacobian.assemble import assemble
from fwi_refine.wave.jacobian.exact_products import sum_of_exact_products
from fwi_refine.wave.jacobian.normal_matrix import MODES, ROWS, sum_of_products, sum_without_hidden
from fwi_refine.wave.jacobian.plan import Plan
from fwi_refine.wave.jacobian.reciprocity import Assembly
from fwi_refine.wave.paths import MakeKernel
from fwi_refine.wave.threads import workers


@dataclass(frozen=True)
class Jacobian:
    """Derivative of one record by the velocity of each cell and by vmin.

    Parameters
    ----------
    matrix : torch.Tensor, (shots * receivers * modes, nz * nx + 1)
        Cells row by row, vmin last.
    basis : torch.Tensor of float64, (n_steps, modes)
        Q, orthonormal; the derivative of the record is Q matrix.
    survey : Survey
        The survey.
    """

    matrix: torch.Tensor
    basis: torch.Tensor
    survey: Survey

    def project(self, record: torch.Tensor) -> torch.Tensor:
        """Q^T record.

        Parameters
        ----------
        record : torch.Tensor, (shots, n_steps, receivers)
            A record.

        Returns
        -------
        torch.Tensor of float64, (rows,)
            In the order of the matrix.
        """
        expected = self.survey.record_shape
        if tuple(record.shape) != expected:
            raise ValueError(f"record of shape {tuple(record.shape)}: expected {expected}")
        return torch.einsum("str,tk->srk", record.to(self.basis), self.basis).flatten()

    def expand(self, rows: torch.Tensor) -> torch.Tensor:
        """Q rows.

        Parameters
        ----------
        rows : torch.Tensor, (rows,)
            In the order of the matrix.

        Returns
        -------
        torch.Tensor of float64, (shots, n_steps, receivers)
            The record.
        """
        shots, _, receivers = self.survey.record_shape
        rows = rows.to(self.basis).reshape(shots, receivers, -1)
        return torch.einsum("srk,tk->str", rows, self.basis)

    def matvec(self, dv: torch.Tensor, dvmin: float | torch.Tensor = 0.0) -> torch.Tensor:
        """J (dv, dvmin).

        Parameters
        ----------
        dv : torch.Tensor, (nz, nx)
            Change of the map, m/s.
        dvmin : float or torch.Tensor
            Change of vmin, m/s.

        Returns
        -------
        torch.Tensor of float64, (shots, n_steps, receivers)
            Change of the record.
        """
        dvmin = torch.as_tensor(dvmin, dtype=torch.float64).to(dv.device).reshape(1)
        change = torch.cat([dv.detach().flatten().to(dvmin), dvmin])
        return self.expand(self.matrix @ change.to(self.matrix))

    def rmatvec(self, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """J^T u.

        Parameters
        ----------
        u : torch.Tensor, (shots, n_steps, receivers)
            A record.

        Returns
        -------
        by_v : torch.Tensor of float64, (nz, nx)
            By the cells.
        by_vmin : torch.Tensor of float64, ()
            By vmin.
        """
        gradient = widened(self.matrix.T @ self.project(u).to(self.matrix))
        return gradient[:-1].reshape(self.survey.shape), gradient[-1]

    def normal_matrix(
        self,
        along: Callable[[torch.Tensor], torch.Tensor] | None = None,
        threads: int | None = None,
        hidden: float = 0.0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """J^T J = D N D with a unit diagonal of N.

        Products and sums are in float64: in float32 the matrix would not be definite. Where a
        device is slow in float64, or has none, they are exact sums of float32 products
        (exact_products.py) of a float32 J. A column of J that is zero has D = 1 and stays zero.

        Parameters
        ----------
        along : callable, optional
            Takes rows (m, nz * nx + 1) of J to derivatives (m, n) by other unknowns; default every
            cell and vmin.
        threads : int, optional
            Of the CPU; default as many as torch uses.
        hidden : float
            Without `along`: what in a row of J, by cells from some depth on, has no larger norm
            than this may be left out; see normal_matrix.py. A GPU multiplies all, as its products
            are fast and its eigenvectors of many small matrices are not.

        Returns
        -------
        N : torch.Tensor of float64, (n, n)
            Of unit diagonal.
        D : torch.Tensor of float64, (n,)
            The diagonal of D.
        """
        with workers(self.matrix.device, threads) as pool:
            quick = float64(self.matrix.device) is Float64.FAST
            if not quick:
                rows = self.matrix.split(ROWS)
                normal = sum_of_exact_products([*rows] if along is None else [*map(along, rows)])
            elif along is None and hidden and self.matrix.device.type == "cpu":
                shots, _, receivers = self.survey.record_shape
                matrix = self.matrix.unflatten(0, (shots, receivers, -1))
                parts = matrix.split(MODES, dim=2)
                normal = sum_without_hidden(parts, self.survey.shape, hidden, pool)
            else:
                parts = self.matrix.split(ROWS)
                normal = sum_of_products(parts if along is None else pool.map(along, parts), pool)
        return scaled(normal)


def scaled(normal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """N and D of a normal matrix of which the upper triangle is filled; see `normal_matrix`."""
    squares = normal.diagonal()
    scale = torch.where(squares > 0, squares, 1.0).sqrt()
    normal.div_(scale).div_(scale[:, None])
    return normal.triu_().add_(normal.triu(1).T), scale


def jacobian(
    v: torch.Tensor,
    vmin: float | torch.Tensor | None = None,
    *,
    survey: Survey = OPENFWI,
    dtype: torch.dtype = torch.float32,
    kernel: str | MakeKernel = "auto",
    threads: int | None = None,
    every: int | None = None,
    device: str | torch.device | None = None,
) -> Jacobian:
    """The Jacobian of the record of a map, by its cells and by vmin, an unknown apart.

    Costs one shot for each distinct position of a source or receiver and, for the survey of
    OpenFWI, 3 GB of memory in float32 and 5 GB in float64.

    Parameters
    ----------
    v : torch.Tensor, (nz, nx)
        The map, m/s.
    vmin : float or torch.Tensor, optional
        The velocity that scales the damping, m/s; default the minimum of v.
    survey : Survey
        The survey.
    dtype : torch.dtype
        Of the matrix.
    kernel, threads, device
        As for `Simulator`; on a GPU all points are simulated at once, or as many as memory allows,
        and the result stays there.
    every : int, optional
        Steps between two kept wavefields; default as many as the wavelet allows.

    Returns
    -------
    Jacobian
        At v.

    Raises
    ------
    ValueError
        For a v that the simulator refuses and for an `every` that is too large.

    Notes
    -----
    Measured on eight maps, relative: single cells and vmin differ from the tangent by up to 3e-3,
    smooth changes by 1e-3, J^T u from the adjoint by 5e-5 for a residual u. What differs is above
    the frequencies kept, where the cut ends of the wavelet ring, and, in rows that are early, what
    comes round from beyond the transform's period: 2e-3 of the largest row for deep cells. In
    float32 the last ninth of the rows is off by 1e-3 of itself. On white noise from 1500 to 4500
    m/s the wavelet's ends ring most, and a source's cell is 1.6e-2 and a smooth change 5e-3 off.
    """
    work = assemble(MatrixAssembly, v, vmin, survey, dtype, kernel, threads, every, device)
    basis, device = work.plan.basis, work.result.device
    basis = basis if float64(device) is Float64.NONE else basis.to(device)
    return Jacobian(work.result.flatten(0, 2), basis, survey)


class MatrixAssembly(Assembly):
    """Puts the rows of all receivers into one matrix."""

    def prepare(self, plan: Plan) -> None:
        """As in `Assembly`."""
        self.result = self._scale.new_empty(self.shape)

    def put(self, point: tuple[int, int], own: torch.Tensor, extra: torch.Tensor) -> None:
        """As in `Assembly`."""
        for i, receiver in enumerate(self._survey.receivers):
            if receiver == point:
                self.rows(own, extra, slice(None), self.result[:, i])
