"""Constraints of single cells: a velocity that is fixed, or bounds.

Fixed cells are no unknowns: `WithFixedCells` takes them out of a parameterisation. Bounds of single
cells are a penalty, which rises with the distance beyond them; `Constraints.applied` moves what is
left beyond to the bounds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fwi_refine.errors import InputError
from fwi_refine.objective.base import AddedHessian
from fwi_refine.objective.parameterisation import Full, Parameters, Regions, Rows
from fwi_refine.survey import Survey

NOTHING_FREE = "every cell is fixed: there is nothing to refine"
FIT_ROUNDS = 20  # of fitting maps whose fixed cells are not those of the parameterisation
BOUND_WIDTH = 10.0  # m/s, standard deviation of a cell beyond its bound
FIXED_DEVIATION = 0.1  # m/s, standard deviation of a fixed cell, where a prior has to have one


class WithFixedCells(Parameters):
    """A parameterisation whose map has some cells fixed.

    Parameters
    ----------
    inner : Parameters
        Of all cells. Unknowns of fixed cells alone are left out.
    fixed : Tensor of bool, shape (nz, nx)
        Which cells.
    values : Tensor, shape (nz, nx)
        Their velocities in m/s; those of other cells do not matter.
    """

    def __init__(self, inner: Parameters, fixed: Tensor, values: Tensor):
        if isinstance(inner, Regions):  # the velocity of a region is that of its free cells
            labels = inner.labels
            inner = Regions(torch.where(fixed, int(labels.max()) + 1, labels))
        self.inner, self.fixed = inner, fixed
        self._free = (~fixed).to(torch.float64)
        self._values = values.double()
        seen = inner.gather(self._free)
        if not inner.prior_acts_on_map and not isinstance(inner, Rows):
            seen = torch.ones_like(seen)  # each mode reaches some free cell
        self._kept = torch.nonzero(seen)[:, 0]
        super().__init__(inner.shape, len(self._kept))
        self.offset = torch.where(fixed, self._values, inner.offset)
        self.prior_acts_on_map = inner.prior_acts_on_map
        self._rest = inner.fit(self._values)  # of unknowns that are left out

    def expand(self, c: Tensor) -> Tensor:
        """As in `Parameters`."""
        return self._free * self.inner.expand(self._scattered(c))

    def gather(self, g: Tensor) -> Tensor:
        """As in `Parameters`."""
        return self.inner.gather(self._free * g)[..., self._kept]

    def fit(self, v: Tensor) -> Tensor:
        """As in `Parameters`; by the free cells alone."""
        inner = self.inner
        c = inner.fit(v)
        if not isinstance(inner, Full | Regions):
            for _ in range(FIT_ROUNDS):
                c = inner.fit(torch.where(self.fixed, inner.offset + inner.expand(c), v))
        return c[..., self._kept]

    def jacobian_transform(self, like: Tensor) -> Callable[[Tensor], Tensor]:
        """As in `Parameters`."""
        free = torch.cat((self._free.flatten(), self._free.new_ones(1))).to(like)
        kept = torch.cat((self._kept, self._kept.new_tensor([self.inner.size - 1])))
        transform = self.inner.jacobian_transform(like)
        if transform is None:
            return lambda rows: rows[:, kept]
        return lambda rows: transform(rows * free)[:, kept]

    def prior_coordinates(self, x: Tensor) -> Tensor:
        """As in `Parameters`: of all unknowns, where a prior acts on these."""
        if self.prior_acts_on_map:
            return self.velocity(x)
        rest = self._rest.to(x).expand(*x.shape[:-1], -1).clone()
        rest[..., self._kept] = x[..., :-1]
        return rest

    def prior_pullback(self, g: Tensor) -> Tensor:
        """As in `Parameters`."""
        if self.prior_acts_on_map:
            return super().prior_pullback(g)
        return super().prior_pullback(g[..., self._kept])

    def map_covariance(self, covariance: Tensor) -> Tensor:
        """As in `Parameters`; a fixed cell has a standard deviation of `FIXED_DEVIATION`."""
        found = covariance.new_zeros(2 * (self.fixed.numel(),))
        found[self._kept[:, None], self._kept] = covariance[:-1, :-1]
        found.diagonal().add_(FIXED_DEVIATION**2 * self.fixed.flatten().to(found))
        return found

    def _scattered(self, c: Tensor) -> Tensor:
        """Of all unknowns (..., k), 0 where they are left out."""
        found = c.new_zeros(*c.shape[:-1], self.inner.size - 1)
        found[..., self._kept] = c
        return found


class BoundPenalty(AddedHessian):
    """Sum of ((v - nearest allowed) / width)^2 over cells beyond their bounds.

    Parameters
    ----------
    low, high : Tensor, shape (nz, nx)
        Bounds in m/s.
    parameters : Parameters
        Parameterisation of the unknowns.
    width : float
        Standard deviation of a cell beyond its bound in m/s.
    """

    def __init__(
        self, low: Tensor, high: Tensor, parameters: Parameters, width: float = BOUND_WIDTH
    ):
        self.low, self.high, self.parameters, self.width = low, high, parameters, width

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """As in `Objective`."""
        off = self._beyond(x) / self.width
        pull = self.parameters.pullback(2 * off / self.width, 0.0)
        return float(off.square().sum()), pull

    def add_hessian(self, matrix: Tensor, x: Tensor, weight: float = 1.0) -> None:
        """As in `Objective`: of the cells that are beyond their bounds."""
        beyond = torch.nonzero(self._beyond(x).flatten())[:, 0]
        units = x.new_zeros(len(beyond), self.low.numel())
        units[torch.arange(len(beyond), device=x.device), beyond] = 1 / self.width
        units = units.unflatten(1, self.parameters.shape)
        rows = self.parameters.pullback(units, x.new_zeros(len(beyond)))
        matrix.addmm_(rows.T, rows, alpha=2 * weight)

    def _beyond(self, x: Tensor) -> Tensor:
        """By how much each cell (nz, nx) is beyond its bounds, m/s."""
        v = self.parameters.velocity(x)
        return v - v.clamp(self.low, self.high)


@dataclass(frozen=True, eq=False)
class Constraints:
    """Cells that are fixed, and bounds of cells.

    Attributes
    ----------
    fixed : Tensor of bool, shape (nz, nx)
        Cells that are kept.
    values : Tensor of float64, shape (nz, nx)
        Their velocities in m/s.
    low, high : Tensor of float64, shape (nz, nx), or None
        Bounds of every cell in m/s; None where there are none but the survey's.
    """

    fixed: Tensor
    values: Tensor
    low: Tensor | None = None
    high: Tensor | None = None

    def of(self, start: Tensor) -> Self:
        """The same, with fixed cells as in a start (nz, nx), m/s, and on its device."""
        bounds = (None if x is None else x.to(start) for x in (self.low, self.high))
        return type(self)(self.fixed.to(start.device), start, *bounds)

    def without_bounds(self) -> "Constraints":
        """The same, without bounds of single cells."""
        return Constraints(self.fixed, self.values)

    def applied(self, v: Tensor) -> Tensor:
        """The map (nz, nx) nearest to one, in m/s, of those that are possible."""
        if self.low is not None and self.high is not None:
            v = v.clamp(self.low.to(v), self.high.to(v))
        return torch.where(self.fixed, self.values.to(v), v)

    def with_fixed_cells(self, parameters: Parameters) -> Parameters:
        """A parameterisation of the cells that are not fixed."""
        if not bool(self.fixed.any()):
            return parameters
        return WithFixedCells(parameters, self.fixed, self.values)

    def bound_penalty(self, parameters: Parameters) -> BoundPenalty | None:
        """The penalty of cells beyond their bounds; None where there are none."""
        if self.low is None or self.high is None:
            return None
        return BoundPenalty(self.low, self.high, parameters)


def check_fixed(fixed: ArrayLike, survey: Survey, where: str = "fixed") -> NDArray[np.bool_]:
    """A mask of cells.

    Parameters
    ----------
    fixed : array_like, shape (nz, nx)
        Of booleans, or of zeros and ones.
    survey : Survey
        That of the map.
    where : str
        Its name in a message.

    Returns
    -------
    ndarray of bool, shape (nz, nx)

    Raises
    ------
    InputError
        For another shape or other values, and where every cell is fixed.
    """
    found = np.asarray(fixed)
    if found.shape != survey.shape or not np.isin(found, (0, 1)).all():
        raise InputError(
            f"{where}: found type {found.dtype} of shape {found.shape}, expected a mask of shape "
            f"{survey.shape}: true, or 1, for cells that are kept"
        )
    if found.all():
        raise InputError(f"{where}: {NOTHING_FREE}")
    return np.asarray(found.astype(bool))


def check_bounds(
    low: ArrayLike, high: ArrayLike, survey: Survey, where: str = "bounds"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds of each cell.

    Parameters
    ----------
    low, high : array_like, shape (nz, nx)
        In m/s; NaN where a cell has none but the survey's.
    survey : Survey
        That of the map.
    where : str
        Their name in a message.

    Returns
    -------
    low, high : ndarray of float64, shape (nz, nx)
        Within the survey's velocity bounds.

    Raises
    ------
    InputError
        For another shape, and for cells that no velocity within the survey's bounds suits.
    """
    pair: list[NDArray[Any]] = [np.asarray(low), np.asarray(high)]
    for name, found in zip(("lower", "upper"), pair, strict=True):
        if found.shape != survey.shape or found.dtype.kind not in "fiu":
            raise InputError(
                f"{where}: found {name} bounds of type {found.dtype} and shape {found.shape}, "
                f"expected numbers of shape {survey.shape}, m/s"
            )
    slowest, fastest = survey.velocity_bounds
    least, most = (found.astype(np.float64) for found in pair)
    least = np.where(np.isnan(least), slowest, least)
    most = np.where(np.isnan(most), fastest, most)
    wrong = np.argwhere((least > most) | (least > fastest) | (most < slowest))
    if len(wrong):
        row, column = wrong[0]
        raise InputError(
            f"{where}: found {least[row, column]:g} to {most[row, column]:g} m/s at row {row}, "
            f"column {column}, expected a range that meets the survey's {slowest:g} to "
            f"{fastest:g} m/s"
        )
    return least.clip(slowest, fastest), most.clip(slowest, fastest)


def constraints_of(
    start: Tensor,
    survey: Survey,
    fixed: NDArray[np.bool_] | None = None,
    bounds: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> Constraints | None:
    """The constraints of the cells of a map.

    Parameters
    ----------
    start : Tensor, shape (nz, nx)
        The map to begin with, m/s.
    survey : Survey
        That of the map, with its water layer.
    fixed : ndarray of bool, shape (nz, nx), optional
        As `check_fixed` returns it.
    bounds : tuple of ndarray, optional
        As `check_bounds` returns them.

    Returns
    -------
    Constraints or None
        None where there are none. A cell of the water layer has its velocity, whatever else is
        said of it.

    Raises
    ------
    InputError
        Where water and mask leave no cell free.
    """
    if fixed is None and bounds is None and survey.water is None:
        return None
    mask, values = torch.zeros(survey.shape, dtype=torch.bool), start.double().clone()
    low = high = None
    if bounds is not None:
        low, high = (torch.from_numpy(part).double() for part in bounds)
    if fixed is not None:
        mask |= torch.from_numpy(fixed)
    if survey.water is not None:
        rows, velocity = survey.water
        mask[:rows], values[:rows] = True, velocity
    if bool(mask.all()):
        raise InputError(NOTHING_FREE)  # by the water layer and the mask together
    return Constraints(mask, values, low, high)
