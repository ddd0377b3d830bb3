"""The rounding that the released data's arithmetic added to a record.

Most of that is due to its coefficients (wave/released_arithmetic.py), which are rounded by as much
at every step, like a change of the medium. In a map of integers they are so in every cell of a
layer: it is known once the integers are, and where all of them are right, nothing of the record is
left.

In other maps the rounding of a cell depends on the last digits of its velocity, and only its mean
can be known. That of the absorbing band is not zero: there kappa is subtracted from 2 - 5 alpha, a
multiple of the last digit, so that what is cut off is the same whatever alpha is. On a released
Style_B map the mean is most of it: of 5.3e-5 rms of a coefficient of the band 2.4e-5 are left.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.levels.integers import merge_scattered, to_integers
from fwi_refine.inversion.levels.levels import find_levels
from fwi_refine.inversion.levels.settings import SETTINGS, LevelSettings
from fwi_refine.inversion.model import Model
from fwi_refine.wave import first_unequal

EVALUATIONS = 2  # of `rounding_of`
# Draws of the last digits, m/s, of which the mean is taken: one leaves 3.1e-5 rms of a coefficient
# on a released Style_B map, four 2.4e-5, sixteen as much.
DRAWS, DIGITS, SEED = 4, 0.01, 0
# Rows from the top in which a cell of a map that fits is known to some hundredths of a m/s.
SHALLOW_ROWS = 3


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
    budget.charge(EVALUATIONS * data.cost)
    data = data.with_wavelets_of(integers, budget)
    simulator, v, vmin = data.simulator, integers.v[None], integers.vmin[None]
    exact = simulator.forward(v, vmin)[0].double()
    released = simulator.released(v, vmin)[0]
    shift = released.double() - exact
    measured = torch.from_numpy(data.record)[:, : exact.shape[1]].to(exact.device)
    residual = exact - measured
    of_rows = np.zeros(data.record.shape)
    of_rows[:, : exact.shape[1]] = shift.cpu().numpy()
    kept, taken = (data.mean_square(r) for r in (residual, residual + shift))
    compared = measured.to(released)
    if data.missing is not None:
        missing = torch.from_numpy(data.missing).to(compared.device)
        compared = torch.where(missing, released, compared)
    agreement = float(first_unequal(released, compared).double().mean())
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


def without_rounding_of_levels(
    model: Model, data: Data, budget: Budget, settings: LevelSettings = SETTINGS
) -> Data:
    """The data without the rounding of a map of levels with blended cells between them.

    The rounding is that of the map whose cells near a level have it in integers. It is right where
    the levels are, though blended cells are not: on a released CurveFault_A map it falls from
    2.5e-5 to 4e-6 rms.

    Parameters
    ----------
    model
        The map; its misfit, with and without the rounding, decides whether that is taken out.
    data, budget
        As for `run_stage`. Nothing is done where the budget does not afford all of it.
    settings
        How levels are read, and what tells that they are wrong.

    Returns
    -------
    Data
        The same where the map has no levels, or the record is of another arithmetic.
    """
    maps = _with_integers(model.v, settings)
    if not maps or not budget.affords((EVALUATIONS * len(maps) + 2) * data.cost):
        return data
    cleared = data.without(roundings_of(maps, data, budget)[2])
    before, after = data.misfit(model, budget), cleared.misfit(model, budget)
    return cleared if after < settings.max_rms_rise**2 * before else data


def _with_integers(v: torch.Tensor, settings: LevelSettings) -> list[Model]:
    """Maps whose cells near a level have it in integers: within two distances, as far as cells
    scatter, and with levels in doubt as either of their neighbours."""
    levels = find_levels(v, settings.reading)
    off, which = levels.distance(v)
    rounded = levels.velocities.round()
    if not len(rounded):
        return []
    snaps = settings.reading.snap_tolerance, settings.snap_tolerance
    maps = [torch.where(off < snap, rounded[which], v) for snap in snaps]
    maps.append(to_integers(merge_scattered(v, settings.reading), reading=settings.reading)[0])
    doubtful = (levels.velocities - rounded).abs() > settings.integer_doubt
    if 0 < int(doubtful.sum()) <= settings.max_in_doubt:
        either = zip(
            levels.velocities[doubtful].floor(), levels.velocities[doubtful].ceil(), strict=True
        )
        for choice in itertools.product(*either):
            tried = rounded.clone()
            tried[doubtful] = torch.stack(choice)
            maps.append(torch.where(off < settings.snap_tolerance, tried[which], v))
    return [Model.of(v) for v in maps]


def without_expected_rounding(model: Model, data: Data, budget: Budget) -> Data:
    """The data without the mean rounding of maps whose last digits are not known.

    Parameters
    ----------
    model
        The map, near the true one. Its least velocity counts as vmin: where that is 0.1 m/s off,
        the last digits of the band's coefficients are others, and little is gained.
    data, budget
        As for `run_stage`. Nothing is done where the budget does not afford all of it.

    Returns
    -------
    Data
        The same where the record is of another arithmetic, or the least velocity lies deep and is
        not known closely.
    """
    model = Model.of(model.v)
    row = int(model.v.argmin()) // model.shape[1]
    if (
        not data.released
        or row >= SHALLOW_ROWS
        or not budget.affords(DRAWS * EVALUATIONS * data.cost)
    ):
        return data
    rng = np.random.default_rng(SEED)
    total = np.zeros(data.record.shape)
    for _ in range(DRAWS):
        v, vmin = (
            part + torch.from_numpy(rng.uniform(-DIGITS, DIGITS, tuple(part.shape))).to(part)
            for part in (model.v, model.vmin)
        )
        drawn = Model(torch.maximum(v, vmin).float().double(), vmin.float().double())
        total += rounding_of(drawn, data, budget).shift
    return data.without(total / DRAWS)
