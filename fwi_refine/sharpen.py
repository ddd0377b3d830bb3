"""Each cell of a layered map decided on, with the rounding of the released data taken out."""

import math

from fwi_refine.level_decision import EdgeCells
from fwi_refine.levels import to_integers
from fwi_refine.misfit import BandMisfit
from fwi_refine.parameters import Full
from fwi_refine.posterior import noise_variance
from fwi_refine.rounding import EXPLAINED
from fwi_refine.stages import StageRunner

SWEEPS = 8  # searches with one Jacobian at most, the residual renewed in between
LEAST_GAIN = 1.0  # in units of minus log likelihood: what is less is no reason to go on
# What float32 arithmetic leaves of a record, rms, once the rounding of the coefficients is taken
# out: 2.6e-6 to 3.7e-6.
FLOOR = 4e-6
STAYS = 0.03  # m/s, mean change from round to round: what is less is the last
# m/s, mean change by a round: after more, a map that fits to the floor may not be the only one
SURE = 0.3
# Times the least rms misfit between rounds: what fits worse has lost its way. On the one sample
# where that was seen (CurveFault_B) no later round found back, and maps became worse and worse.
ASTRAY = 10.0
LEAST_ROUND = 40  # evaluations that a round costs: two Jacobians and a few records


class Sharpener(StageRunner):
    """The end of a recipe for maps of few levels."""

    def sharpen(self, v, vmin, decision):
        """Map and vmin with each cell decided on, in integers where these explain the record.

        In each round the rounding is computed from the present integers and taken out of the
        record, and the cells are given their levels. Cells decided wrongly leave a map that does
        not fit; from there the stage in between finds one that does, with fewer wrong cells, as
        those decided rightly stay. Where no map of integers explains the record, what fitted best
        between rounds is returned, or v and vmin if these do.
        """
        misfit = self.misfit(v, vmin)
        floor = (FLOOR * self.simulator.survey.unit) ** 2
        present, closest, decided = (v, vmin), (misfit, v, vmin), None
        integers = to_integers(v)
        shift, plain, unrounded = self.rounding_of_coefficients(*integers)
        best = (min(plain, unrounded), *integers)
        record = self.record - shift
        for number in range(decision.rounds):
            done = number == 0 and best[0] < floor
            if done or self.left < LEAST_ROUND or self.should_stop():
                break
            with self.on(record):
                found = self.decide_levels(*present, decision.noise, number)
            integers = to_integers(found[0])
            shift, plain, unrounded = self.rounding_of_coefficients(*integers)
            # of two that fit to the floor the later is the likelier
            if min(plain, unrounded) < max(best[0], floor):
                best = (min(plain, unrounded), *integers)
            stays = decided is not None and _mean_change(found[0], decided) < STAYS
            if stays or (best[0] < floor and _mean_change(found[0], present[0]) < SURE):
                break
            decided = found[0]
            # While it is not known whether there is any rounding, a shift that makes it worse is
            # none. At first that says nothing: too much else is wrong.
            record = self.record - shift if self.rounded or unrounded < plain else self.record
            with self.on(record):
                present = self.minimise(decision.between, *found)[:2]
                fits = self.misfit(*present)
            if fits > ASTRAY**2 * closest[0]:
                break
            closest = min(closest, (fits, *present), key=lambda found: found[0])
        if best[0] < EXPLAINED * misfit:
            self.keep_outlines(best[1], best[0])
            return best[1:]
        # some cells are not decided on right, but most are
        return closest[1:] if closest[0] < EXPLAINED * misfit else (v, vmin)

    def decide_levels(self, v, vmin, noise, number=0):
        """Map and vmin with each cell at a level, or between levels; noise: least rms residual;
        number: of the round, for another order of the windows in each.

        With one Jacobian, and the residual renewed after each search. Of the maps that the searches
        find the one is kept for which misfit and cells between levels together cost least.
        """
        parameters = Full(v.shape)
        misfit = BandMisfit(self.simulator, parameters, self.record)
        self.hessian, pull_back = misfit.linearise(parameters.from_velocity(v, vmin))
        self.iterations += 1
        used, half = misfit.hessian_cost(), math.prod(self.simulator.survey.record_shape) / 2
        # cells are decided on by the CPU: the largest matrix goes there once
        cells = EdgeCells(v.cpu(), self.hessian.cpu() * half)
        least = noise_variance(noise**2, self.simulator.survey)
        best, found = math.inf, (v, vmin)
        for sweep in range(SWEEPS if cells.found else 0):
            present = cells.velocity.to(v), cells.vmin.to(v)
            residual = misfit.residual(parameters.from_velocity(*present))
            used += 1
            if residual is None:
                break
            square = float(residual.square().mean())
            cost = half * square / least + cells.cost()
            if sweep > 1 and not cost < best - LEAST_GAIN:
                break
            # the map before the first search fits, and few others do as well
            best, found = cost, present
            gradient = pull_back(residual).cpu() * half
            used += 1
            # what the open cells can explain is no noise
            left = cells.unexplained(gradient, half * square, least) / half
            variance = noise_variance(max(left, noise**2), self.simulator.survey)
            seed = number * SWEEPS + sweep
            moves = cells.search(gradient, variance, seed, self.should_stop)
            if self.should_stop() or not (moves or cells.fit_levels(gradient, variance)):
                break
        self.evaluations += used
        self.left -= used
        return found


def _mean_change(v, before):
    return float((v - before).abs().mean())
