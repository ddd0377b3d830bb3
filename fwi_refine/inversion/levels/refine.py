"""Levels of the cells of a layered map, round by round, without the released data's rounding."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fwi_refine.inversion.levels.assign import EdgeCells
from fwi_refine.inversion.levels.levels import to_integers
from fwi_refine.inversion.levels.rounding import EXPLAINED
from fwi_refine.inversion.stages import StageRunner
from fwi_refine.inversion.uncertainty import LevelBelief
from fwi_refine.objective.misfit import BandMisfit
from fwi_refine.objective.noise import noise_variance
from fwi_refine.objective.parameterisation import Full
from fwi_refine.optimise import Status

# m/s from a level within which a cell is taken to have it before any assignment
SNAP_TOLERANCE = 5.0
# What float32 arithmetic leaves of a record, rms, once its effect on a map with some wrong cells is
# taken out: 2.7e-6 to 3.9e-6 where the coefficients agree, 0 for the right map.
NOISE_FLOOR_RMS = 4e-6
# Rms misfit of integers below which it tells whether there is rounding: above, too much is wrong.
MAX_RMS_FOR_ROUNDING = 1e-4
# This fraction of a round's rms misfit counts as noise in the next: the Jacobian and the rounding
# are wrong by as much as the map.
NOISE = 0.3
CONVERGED_CHANGE = 0.03  # m/s, mean change from round to round: what is less is the last
# m/s, mean change by a round: after more, a map that fits to the floor may not be the only one
SURE = 0.3
# A map that fits worse than this multiple of the rms misfit before all rounds, or of that of the
# likeliest fit between them if it is less, has diverged. On the one sample where that was seen
# (CurveFault_B) no later round found back, and maps became worse and worse.
DIVERGENCE_FACTOR = 10.0
ROUND_COST = 18  # records that a round costs, besides two Jacobians
# An assignment is tried with these multiples of the noise.
MORE_NOISE = (1.0, 4.0, 16.0)
# More noise is taken where the rms misfit falls below this fraction of that with less.
BETTER = 0.5
# No more noise is tried where the rms misfit is below this multiple of it: one wrong cell is that.
EXPECTED = 10.0
# m/s about its level where a cell is expected in the fit between rounds, if that is sure, or not
WIDTHS = (1.0, 100.0)


@dataclass(frozen=True)
class _Candidate:
    """A map (nz, nx) and vmin that may be the result; misfit: mean square, for integers without
    what their rounding adds; belief: of the assignment that led to it, None before any."""

    v: torch.Tensor
    vmin: torch.Tensor
    misfit: float
    belief: LevelBelief | None = None


@dataclass(frozen=True)
class _Linear:
    """A record to first order about a map, by what is assigned; see `BandMisfit.linearise`. It
    holds the whole Jacobian.

    cells: with nothing found there is nothing to assign, and no matrix
    """

    x: torch.Tensor
    parameters: Full
    cells: EdgeCells
    normal: torch.Tensor | None = None
    pull_back: Callable | None = None


@dataclass(frozen=True)
class _Round:
    """v, vmin, sure, belief: as from `assign_cells`; integers: map and vmin; misfit: of these,
    mean square, without what their rounding adds; record: the measured one without that."""

    v: torch.Tensor
    vmin: torch.Tensor
    sure: torch.Tensor
    belief: LevelBelief | None
    integers: tuple[torch.Tensor, torch.Tensor]
    misfit: float
    record: np.ndarray

    def noise_within(self, assignment):
        """What counts as noise in the next."""
        least, most = assignment.noise
        return min(most, max(least, NOISE * math.sqrt(self.misfit)))

    def better_than(self, best, floor):
        """The likelier of it and a `_Candidate`: of two that fit to the floor the later."""
        if self.misfit < max(best.misfit, floor):
            return _Candidate(*self.integers, self.misfit, self.belief)
        return best


class LevelRefiner(StageRunner):
    """The end of a recipe for maps of few levels."""

    @property
    def rounding_limit(self):
        """`MAX_RMS_FOR_ROUNDING` as a mean square, in the unit of the record."""
        return (MAX_RMS_FOR_ROUNDING * self.simulator.survey.unit) ** 2

    def assign_levels(self, v, vmin, assignment):
        """Map and vmin with each cell at a level, in integers where these explain the record.

        In each round the cells are given their levels, and the rounding is computed from the
        integers that come out and taken out of the record, on which they are assigned once more
        if that leaves less noise. Cells assigned wrongly leave a map that does not fit; from there
        the stage in between finds one that does, with fewer wrong cells, as those assigned rightly
        stay. Where no map of integers explains the record, the likeliest of the fits between rounds
        is returned, or v and vmin if these explain it as well, unless the assigned integers are
        better than those.
        """
        misfit = self.misfit(v, vmin)
        unit = self.simulator.survey.unit
        floor = (NOISE_FLOOR_RMS * unit) ** 2
        jacobian = BandMisfit(self.simulator, Full(v.shape), self.record).hessian_cost()
        before = self.solution
        least, most = assignment.noise
        noise = max(most, NOISE * math.sqrt(misfit))
        final = assignment.between(WIDTHS[0], 1.0)
        present, assigned = (v, vmin), None
        closest, least_value = _Candidate(v, vmin, misfit), math.inf
        integers = to_integers(v, SNAP_TOLERANCE)
        shift, plain, unrounded = self.rounding_of_coefficients(*integers)
        best = _Candidate(*integers, min(plain, unrounded))
        record = self.record - shift
        for _ in range(0 if best.misfit < floor else assignment.rounds):
            if self.left < 2 * jacobian + ROUND_COST or self.should_stop():
                self.note_stop()
                break
            made, beyond_doubt = self.assign_twice(*present, record, noise, assignment, floor)
            for found in made:
                best = found.better_than(best, floor)
            if not made or self.should_stop():
                break
            found = min(reversed(made), key=lambda found: max(found.misfit, floor))
            converged = assigned is not None and _mean_change(found.v, assigned) < CONVERGED_CHANGE
            if converged or (beyond_doubt and best.misfit < floor):
                break
            assigned, record, noise = found.v, found.record, found.noise_within(assignment)
            width = torch.where(found.sure, *WIDTHS).to(v)
            with self.on(record):
                between = assignment.between(width, noise / least)
                *present, status = self.minimise(between, found.v, found.vmin)
                fits = self.misfit(*present)
            self.left -= 1
            if status == Status.MAX_EVALUATIONS:
                self.note_stop()
            noise = max(noise, NOISE * math.sqrt(fits))
            if fits > DIVERGENCE_FACTOR**2 * min(misfit, closest.misfit):
                break
            value = fits + self.penalty(final, *present)
            if value < least_value:
                closest, least_value = _Candidate(*present, fits, found.belief), value
        if self.should_stop():  # within the last round
            self.note_stop()
        explained = EXPLAINED * misfit
        fit, solution = closest, self.solution
        if closest.misfit >= explained:
            fit, solution = _Candidate(v, vmin, misfit), before
        # some cells may be at a wrong level, but most are not
        if best.misfit >= explained and not self.are_better_integers(best, fit):
            best, self.solution = fit, solution
        elif best.belief is None:
            self.keep_outlines(best.v, best.misfit)
        if best.belief is not None:
            self.solution = best.belief
        return best.v, best.vmin

    def are_better_integers(self, assigned, fit):
        """Whether assigned integers explain the record better than a fit will at its levels in
        integers, which are what it ends as where these explain it at all."""
        if assigned.belief is None or assigned.misfit >= self.rounding_limit or self.should_stop():
            return False
        _, plain, unrounded = self.rounding_of_coefficients(*to_integers(fit.v))
        return plain < self.rounding_limit and assigned.misfit < min(plain, unrounded)

    def linearise(self, v, vmin):
        """`_Linear` of the record at a map."""
        cells, parameters = EdgeCells(v.cpu(), vmin.cpu()), Full(v.shape)
        x = parameters.from_velocity(v, vmin)
        if not cells.found:
            return _Linear(x, parameters, cells)
        misfit = BandMisfit(self.simulator, parameters, self.record)
        normal, pull_back = misfit.linearise(x, cells.columns)
        self.iterations += 1
        self.spend(misfit.hessian_cost())
        return _Linear(x, parameters, cells, normal, pull_back)

    def assign_twice(self, v, vmin, record, noise, assignment, floor):
        """([`_Round`, ...], whether they are beyond doubt): a second one where the first tells
        the rounding and leaves less noise, as the Jacobian is at hand; none where it was stopped.

        They are beyond doubt if the map is hardly another one, or if they fit to the floor and less
        noise has changed no integer.
        """
        linear = self.linearise(v, vmin)
        first = self.assign_once(linear, record, noise)
        if first is None:
            return [], False
        nearby = _mean_change(first.v, v) < SURE
        less = first.noise_within(assignment)
        fits = nearby and first.misfit < floor
        if fits or first.misfit >= self.rounding_limit or less >= noise:
            return [first], nearby
        second = self.assign_once(linear, first.record, less)
        if second is None:
            return [first], nearby
        same = second.misfit < floor and all(map(torch.equal, first.integers, second.integers))
        return [first, second], same or _mean_change(second.v, v) < SURE

    def assign_once(self, linear, record, noise):
        """`_Round` for a record; None where it was stopped before it was assigned."""
        with self.on(record):
            v, vmin, sure, belief = self.assign_cells(linear, noise)
        if belief is None and self.should_stop():
            return None
        integers = to_integers(v)
        shift, plain, unrounded = self.rounding_of_coefficients(*integers)
        # other software's records have no such rounding
        none = plain < unrounded and plain < self.rounding_limit
        record = self.record if none else self.record - shift
        return _Round(v, vmin, sure, belief, integers, min(plain, unrounded), record)

    def assign_cells(self, linear, noise):
        """Map and vmin with each cell at a level where that is sure, which cells (nz, nx) bool
        these are, and what is believed of all; noise: rms, of the residual."""
        parameters, x, cells = linear.parameters, linear.x, linear.cells
        v, vmin = parameters.velocity(x), parameters.vmin(x)
        unassigned = v, vmin, torch.ones(v.shape, dtype=torch.bool), None
        if not cells.found:
            return unassigned
        residual = BandMisfit(self.simulator, parameters, self.record).residual(x)
        self.spend(2)
        half = residual.numel() / 2
        quadratic = linear.normal * half, linear.pull_back(residual).cpu() * half
        best = self.best_assignment(cells, *quadratic, noise, parameters, x)
        if best is None:
            return unassigned
        assigned, found = best
        between = parameters.velocity(parameters.retract(x, assigned.between.to(x)))
        belief = LevelBelief(
            levels=assigned.levels.to(v),
            variance=assigned.level_variance.to(v),
            probabilities=assigned.probabilities.to(v),
            # a step changes a velocity by (new / old)^3 of its change
            between=(between, assigned.between_variance.to(v) * (between / v) ** 6),
        )
        return parameters.velocity(found), parameters.vmin(found), assigned.sure, belief

    def best_assignment(self, cells, normal, gradient, noise, parameters, x):
        """(`AssignedLevels`, its unknowns): with more noise than it should be where that fits
        better.

        Where the record is far from linear in what is to be changed, that is noise as well, and
        with less of it assumed others make up for it.
        """
        best, least = None, math.inf
        bounds = self.simulator.survey.velocity_bounds
        for more in MORE_NOISE:
            variance = noise_variance((more * noise) ** 2, self.simulator.survey)
            assigned = cells.assign(normal, gradient, variance, self.should_stop)
            if assigned is None:
                break
            # a level may lie beyond the bounds, by as much as it is not known
            found = parameters.retract(x, assigned.step.to(x)).clamp(*bounds)
            fits = math.sqrt(self.misfit(parameters.velocity(found), parameters.vmin(found)))
            self.left -= 1
            if best is None or fits < BETTER * least:
                best, least = (assigned, found), fits
            if fits < EXPECTED * more * noise:
                break
        return best


def _mean_change(v, before):
    return float((v - before).abs().mean())
