"""Each cell of a layered map decided on, with the rounding of the released data taken out."""

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

# m/s from a level within which a cell is taken to have it before any is decided on
NEARLY = 5.0
# What float32 arithmetic leaves of a record, rms, once the rounding of the coefficients is taken
# out: 2.7e-6 to 3.9e-6.
FLOOR = 4e-6
# Rms misfit of integers below which it tells whether there is rounding: above, too much is wrong.
TELLING = 1e-4
# Share of the rms misfit of what a round has decided that counts as noise in the next: as much as
# is wrong, the Jacobian and the rounding are.
NOISE = 0.3
STAYS = 0.03  # m/s, mean change from round to round: what is less is the last
# m/s, mean change by a round: after more, a map that fits to the floor may not be the only one
SURE = 0.3
# Times the rms misfit before all rounds, or that of the likeliest fit between them if it is less:
# what fits worse has lost its way. On the one sample where that was seen (CurveFault_B) no later
# round found back, and maps became worse and worse.
ASTRAY = 10.0
A_FEW = 18  # records that a round costs, besides two Jacobians
# Times the noise that is tried for a decision; the share of the rms misfit with less from which on
# more is taken; and times the noise that the rms misfit may be, below which no more is tried: a
# single wrong cell is that much.
MORE_NOISE = (1.0, 4.0, 16.0)
BETTER = 0.5
EXPECTED = 10.0
# m/s about its level where a cell is expected in the fit between rounds, if that is sure, or not
WIDTHS = (1.0, 100.0)


@dataclass(frozen=True)
class _Candidate:
    """A map (nz, nx) and vmin that may be the result; misfit: mean square, for integers without
    what their rounding adds; belief: of the decision that led to it, None before any."""

    v: torch.Tensor
    vmin: torch.Tensor
    misfit: float
    belief: LevelBelief | None = None


@dataclass(frozen=True)
class _Linear:
    """A record to first order about a map, by what is decided on; see `BandMisfit.linearise`. It
    holds the whole Jacobian.

    cells: with nothing found there is nothing to decide, and no matrix
    """

    x: torch.Tensor
    parameters: Full
    cells: EdgeCells
    normal: torch.Tensor | None = None
    pull_back: Callable | None = None


@dataclass(frozen=True)
class _Decision:
    """v, vmin, sure, belief: as from `decide_levels`; integers: map and vmin; misfit: of these,
    mean square, without what their rounding adds; record: the measured one without that."""

    v: torch.Tensor
    vmin: torch.Tensor
    sure: torch.Tensor
    belief: LevelBelief | None
    integers: tuple[torch.Tensor, torch.Tensor]
    misfit: float
    record: np.ndarray

    def noise_within(self, decision):
        """What counts as noise in the next."""
        least, most = decision.noise
        return min(most, max(least, NOISE * math.sqrt(self.misfit)))

    def better_than(self, best, floor):
        """The likelier of it and a `_Candidate`: of two that fit to the floor the later."""
        if self.misfit < max(best.misfit, floor):
            return _Candidate(*self.integers, self.misfit, self.belief)
        return best


class Sharpener(StageRunner):
    """The end of a recipe for maps of few levels."""

    @property
    def telling(self):
        """`TELLING` as a mean square, in the unit of the record."""
        return (TELLING * self.simulator.survey.unit) ** 2

    def sharpen(self, v, vmin, decision):
        """Map and vmin with each cell decided on, in integers where these explain the record.

        In each round the cells are given their levels, and the rounding is computed from the
        integers that come out and taken out of the record, on which they are decided on once more
        if that leaves less noise. Cells decided wrongly leave a map that does not fit; from there
        the stage in between finds one that does, with fewer wrong cells, as those decided rightly
        stay. Where no map of integers explains the record, the likeliest of the fits between rounds
        is returned, or v and vmin if these explain it as well, unless the decided integers are
        better than those.
        """
        misfit = self.misfit(v, vmin)
        unit = self.simulator.survey.unit
        floor = (FLOOR * unit) ** 2
        jacobian = BandMisfit(self.simulator, Full(v.shape), self.record).hessian_cost()
        before = self.solution
        least, most = decision.noise
        noise = max(most, NOISE * math.sqrt(misfit))
        final = decision.between(WIDTHS[0], 1.0)
        present, decided = (v, vmin), None
        closest, least_value = _Candidate(v, vmin, misfit), math.inf
        integers = to_integers(v, NEARLY)
        shift, plain, unrounded = self.rounding_of_coefficients(*integers)
        best = _Candidate(*integers, min(plain, unrounded))
        record = self.record - shift
        for _ in range(0 if best.misfit < floor else decision.rounds):
            if self.left < 2 * jacobian + A_FEW or self.should_stop():
                self.note_stop()
                break
            made, beyond_doubt = self.decide_twice(*present, record, noise, decision, floor)
            for found in made:
                best = found.better_than(best, floor)
            if not made or self.should_stop():
                break
            found = min(reversed(made), key=lambda found: max(found.misfit, floor))
            stays = decided is not None and _mean_change(found.v, decided) < STAYS
            if stays or (beyond_doubt and best.misfit < floor):
                break
            decided, record, noise = found.v, found.record, found.noise_within(decision)
            width = torch.where(found.sure, *WIDTHS).to(v)
            with self.on(record):
                between = decision.between(width, noise / least)
                *present, status = self.minimise(between, found.v, found.vmin)
                fits = self.misfit(*present)
            self.left -= 1
            if status == Status.MAX_EVALUATIONS:
                self.note_stop()
            noise = max(noise, NOISE * math.sqrt(fits))
            if fits > ASTRAY**2 * min(misfit, closest.misfit):
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
        # some cells may not be decided on right, but most are
        if best.misfit >= explained and not self.are_better_integers(best, fit):
            best, self.solution = fit, solution
        elif best.belief is None:
            self.keep_outlines(best.v, best.misfit)
        if best.belief is not None:
            self.solution = best.belief
        return best.v, best.vmin

    def are_better_integers(self, decided, fit):
        """Whether decided integers explain the record better than a fit will at its levels in
        integers, which are what it ends as where these explain it at all."""
        if decided.belief is None or decided.misfit >= self.telling or self.should_stop():
            return False
        _, plain, unrounded = self.rounding_of_coefficients(*to_integers(fit.v))
        return plain < self.telling and decided.misfit < min(plain, unrounded)

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

    def decide_twice(self, v, vmin, record, noise, decision, floor):
        """([`_Decision`, ...], whether they are beyond doubt): a second one where the first tells
        the rounding and leaves less noise, as the Jacobian is at hand; none where it was stopped.

        They are beyond doubt if the map is hardly another one, or if they fit to the floor and less
        noise has changed no integer.
        """
        linear = self.linearise(v, vmin)
        first = self.decide(linear, record, noise)
        if first is None:
            return [], False
        nearby = _mean_change(first.v, v) < SURE
        less = first.noise_within(decision)
        fits = nearby and first.misfit < floor
        if fits or first.misfit >= self.telling or less >= noise:
            return [first], nearby
        second = self.decide(linear, first.record, less)
        if second is None:
            return [first], nearby
        same = second.misfit < floor and all(map(torch.equal, first.integers, second.integers))
        return [first, second], same or _mean_change(second.v, v) < SURE

    def decide(self, linear, record, noise):
        """`_Decision` for a record; None where it was stopped before it was decided."""
        with self.on(record):
            v, vmin, sure, belief = self.decide_levels(linear, noise)
        if belief is None and self.should_stop():
            return None
        integers = to_integers(v)
        shift, plain, unrounded = self.rounding_of_coefficients(*integers)
        # other software's records have no such rounding
        none = plain < unrounded and plain < self.telling
        record = self.record if none else self.record - shift
        return _Decision(v, vmin, sure, belief, integers, min(plain, unrounded), record)

    def decide_levels(self, linear, noise):
        """Map and vmin with each cell at a level where that is sure, which cells (nz, nx) bool
        these are, and what is believed of all; noise: rms, of the residual."""
        parameters, x, cells = linear.parameters, linear.x, linear.cells
        v, vmin = parameters.velocity(x), parameters.vmin(x)
        undecided = v, vmin, torch.ones(v.shape, dtype=torch.bool), None
        if not cells.found:
            return undecided
        residual = BandMisfit(self.simulator, parameters, self.record).residual(x)
        self.spend(2)
        half = residual.numel() / 2
        quadratic = linear.normal * half, linear.pull_back(residual).cpu() * half
        best = self.best_decision(cells, *quadratic, noise, parameters, x)
        if best is None:
            return undecided
        decided, found = best
        between = parameters.velocity(parameters.retract(x, decided.between.to(x)))
        belief = LevelBelief(
            levels=decided.levels.to(v),
            variance=decided.level_variance.to(v),
            probabilities=decided.probabilities.to(v),
            # a step changes a velocity by (new / old)^3 of its change
            between=(between, decided.between_variance.to(v) * (between / v) ** 6),
        )
        return parameters.velocity(found), parameters.vmin(found), decided.sure, belief

    def best_decision(self, cells, normal, gradient, noise, parameters, x):
        """(`Decided`, its unknowns): with more noise than it should be where that fits better.

        Where the record is far from linear in what is to be changed, that is noise as well, and
        with less of it assumed others make up for it.
        """
        best, least = None, math.inf
        bounds = self.simulator.survey.velocity_bounds
        for more in MORE_NOISE:
            variance = noise_variance((more * noise) ** 2, self.simulator.survey)
            decided = cells.decide(normal, gradient, variance, self.should_stop)
            if decided is None:
                break
            # a level may lie beyond the bounds, by as much as it is not known
            found = parameters.retract(x, decided.step.to(x)).clamp(*bounds)
            fits = math.sqrt(self.misfit(parameters.velocity(found), parameters.vmin(found)))
            self.left -= 1
            if best is None or fits < BETTER * least:
                best, least = (decided, found), fits
            if fits < EXPECTED * more * noise:
                break
        return best


def _mean_change(v, before):
    return float((v - before).abs().mean())
