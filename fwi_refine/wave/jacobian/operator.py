"""The derivative of a record as an operator of scipy, for solvers and libraries that take these."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator

from fwi_refine.errors import InputError
from fwi_refine.limits import truth_value
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.validate import to_maps
from fwi_refine.wave.arguments import warn_of_units
from fwi_refine.wave.jacobian.full import jacobian
from fwi_refine.wave.simulator import Simulator

Vector = NDArray[np.float64]


def jacobian_operator(
    v: torch.Tensor | NDArray[Any],
    vmin: float | None = None,
    *,
    survey: Survey = OPENFWI,
    assembled: bool = False,
    by_vmin: bool = False,
    threads: int | None = None,
    device: str | torch.device | None = None,
) -> LinearOperator:
    """The Jacobian J of the record of a map, as a scipy LinearOperator in float64.

    Parameters
    ----------
    v : Tensor or ndarray (nz, nx), m/s
        The map.
    vmin : float, optional
        The velocity that scales the damping, m/s; default the minimum of v. It stays what it is.
    survey : Survey
        Grid, time steps, sources and receivers.
    assembled : bool
        False: each product runs the tangent or the adjoint of the wave operator, which are exact
        and need no memory. True: the matrix is made once, see `jacobian`, within the wavelet's
        band; products then take milliseconds.
    by_vmin : bool
        Whether vmin is one more unknown, the last.
    threads, device
        As for `Simulator`.

    Returns
    -------
    LinearOperator (shots * n_steps * receivers, nz * nx [+ 1])
        Rows are samples of a record (shots, n_steps, receivers), columns cells row by row.
        ``pylops.aslinearoperator`` makes an operator of PyLops of it.

    Raises
    ------
    ValueError
        For what is no map, and for a map that cannot be simulated.

    Examples
    --------
    >>> from dataclasses import replace
    >>> import numpy as np
    >>> from scipy.sparse.linalg import lsqr
    >>> from fwi_refine import OPENFWI, jacobian_operator, simulate
    >>> tiny = replace(
    ...     OPENFWI, shape=(8, 12), n_steps=60, file_rows=60, absorbing_cells=8,
    ...     velocity_bounds=(1000.0, 4500.0),
    ...     sources=((1, 0), (1, 11)), receivers=tuple((1, x) for x in range(12)),
    ... )
    >>> v = np.full((8, 12), 2000.0)
    >>> J = jacobian_operator(v, survey=tiny)
    >>> J.shape
    (1440, 96)
    >>> change = np.zeros((8, 12))
    >>> change[3, 5] = 1.0  # m/s
    >>> steps = lsqr(J, J @ change.ravel(), iter_lim=100)[0]
    >>> bool(np.abs(J @ (steps - change.ravel())).max() < 1e-2 * np.abs(J @ change.ravel()).max())
    True
    """
    maps, shape_given = to_maps(v, survey, "velocity", kinds="fiu")
    if len(maps) != 1:
        raise InputError(f"velocity: found shape {shape_given}, expected one map {survey.shape}")
    v = torch.from_numpy(maps[0].astype(np.float64))
    warn_of_units(v, survey)
    cells, by_vmin = v.numel(), truth_value(by_vmin, "by_vmin")
    shape = (int(np.prod(survey.record_shape)), cells + by_vmin)
    products = _assembled if truth_value(assembled, "assembled") else _simulated
    forward, adjoint = products(v, vmin, survey, threads, device)

    def matvec(x: Vector) -> Vector:
        x = _real(x).ravel()
        change = torch.from_numpy(x[:cells]).reshape(v.shape)
        return forward(change, float(x[-1]) if by_vmin else 0.0).cpu().numpy().ravel()

    def rmatvec(y: Vector) -> Vector:
        record = torch.from_numpy(_real(y)).reshape(survey.record_shape)
        by_v, of_vmin = adjoint(record)
        found = by_v.cpu().numpy().ravel().astype(np.float64)
        return np.append(found, float(of_vmin)) if by_vmin else found

    return LinearOperator(shape, matvec=matvec, rmatvec=rmatvec, dtype=np.float64)


def _real(values: NDArray[Any]) -> Vector:
    """A copy in float64. Raises InputError for complex numbers, whose imaginary part would be
    dropped."""
    if np.iscomplexobj(values):
        raise InputError("found complex numbers: expected real ones; apply it to both parts")
    return np.array(values, np.float64)


Forward = Callable[[torch.Tensor, float], torch.Tensor]
Adjoint = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def _simulated(
    v: torch.Tensor,
    vmin: float | None,
    survey: Survey,
    threads: int | None,
    device: str | torch.device | None,
) -> tuple[Forward, Adjoint]:
    """Products by simulations of the tangent and of the adjoint."""
    simulator = Simulator(survey, torch.float64, threads=threads, imaging_step=1, device=device)
    scale = torch.tensor([float(v.min()) if vmin is None else vmin], dtype=torch.float64)
    simulator.forward(v[None], scale)  # refuses what cannot be simulated, before any product

    def forward(change: torch.Tensor, dvmin: float) -> torch.Tensor:
        return simulator.tangent(
            v[None], change[None], scale, torch.tensor([dvmin], dtype=torch.float64)
        )[0]

    def adjoint(record: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        by_v, by_vmin = simulator.adjoint(v[None], record[None].to(simulator.device), scale)
        return by_v[0], by_vmin[0]

    return forward, adjoint


def _assembled(
    v: torch.Tensor,
    vmin: float | None,
    survey: Survey,
    threads: int | None,
    device: str | torch.device | None,
) -> tuple[Forward, Adjoint]:
    """Products with the matrix."""
    full = jacobian(v, vmin, survey=survey, dtype=torch.float64, threads=threads, device=device)

    def adjoint(record: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return full.rmatvec(record.to(full.matrix.device))

    return lambda change, dvmin: full.matvec(change.to(full.matrix.device), dvmin), adjoint
