"""Carrying out the stages of a recipe, and what they use up."""

import math
from dataclasses import dataclass

import torch

from fwi_refine.known_cells import KnownCells, known_cells
from fwi_refine.level_decision import decide_levels
from fwi_refine.levels import to_integers
from fwi_refine.misfit import BandMisfit, DataMisfit, VminTie
from fwi_refine.objective import PriorTerm
from fwi_refine.optimise import Status, gauss_newton_step, lbfgs, levenberg_marquardt
from fwi_refine.parameters import Full, Parameters, Regions
from fwi_refine.posterior import noise_variance, standard_deviation
from fwi_refine.recipes import COST_SCALE, GOOD_FIT, Stage

# Decisions on the levels of cells with one Jacobian: most of them, most that are refused one after
# another, and how many times fewer cells the next one may change.
DECISIONS = 40
PATIENCE = 6
FEWER = 4
LEAST_GAIN = 1.0  # in units of minus log likelihood: what is less is no reason to go on
SAME = 0.5  # m/s: integers that differ by less are the same


@dataclass(frozen=True)
class Solution:
    """Where a Gauss-Newton stage ended: what the expected error follows from.

    hessian: of the misfit, at its last Jacobian; misfit: mean square, within the band;
    prior_hessian: of a Gaussian prior, None for total variation
    """

    parameters: Parameters
    hessian: torch.Tensor
    misfit: float
    prior_hessian: torch.Tensor | None


class StageRunner:
    """The stages of one sample, and what they have used up so far."""

    def __init__(self, simulator, priors, record, start, max_evaluations, should_stop):
        self.simulator = simulator
        self.priors = priors
        self.record = record
        self.left = math.inf if max_evaluations is None else max_evaluations
        self.should_stop = should_stop or (lambda: False)
        self.evaluations = self.iterations = 0
        self.flags = []
        self.known = known_cells(record, start, simulator.survey)
        self.solution = None
        self.hessian = None  # of the misfit, the last one by every cell
        self.good_fit = GOOD_FIT * simulator.survey.unit**2
        self.stage = 0
        self.history = []  # (stage, evaluations so far, rms misfit), see history.py

    def note(self, misfit, evaluations=0):
        """Adds a mean square misfit to the history; evaluations: since they were last counted."""
        self.history.append((self.stage, self.evaluations + evaluations, math.sqrt(misfit)))

    def with_known_cells(self, v):
        v = v.clone()
        rows, columns, velocities = self.known
        v[rows, columns] = velocities
        return v

    def run_stages(self, stages, v, vmin):
        """Map and vmin after all stages, or after those that the budget allows."""
        previous = reference = status = None
        for stage in stages:
            if stage is previous and status in (Status.CONVERGED, Status.STALLED):
                continue  # the same again would find the same
            if stage.unless_it_fits and self.history[-1][2] ** 2 < stage.misfit_target:
                continue
            if stage.must_fit and reference is None:
                reference = self.misfit(v, vmin)
                self.left -= 1
            solution = self.solution
            found, found_vmin, status = self.minimise(stage, v, vmin)
            if stage.must_fit:
                self.left -= 1
                # what fits better than the data's own rounding has fitted some of it
                if self.misfit(found, found_vmin) > max(4 * reference, self.good_fit):
                    found, found_vmin, self.solution = v, vmin, solution
            v, vmin = found, found_vmin
            if status == Status.MAX_EVALUATIONS or self.should_stop():
                self.flags.append("stopped early")
                break
            previous = stage
        return v, vmin

    def minimise(self, stage: Stage, v, vmin):
        """Map, vmin and the optimiser's status after one stage; a stage that found nothing lower
        leaves the map as it is, not as its parameterisation would have it."""
        if self.left < 1:
            return v, vmin, Status.MAX_EVALUATIONS
        self.stage += 1
        parameters = stage.parameters(v, self.priors)
        prior = PriorTerm(stage.prior(v, self.priors), parameters)
        x = parameters.from_velocity(v, vmin)
        limit = None if math.isinf(self.left) else int(self.left)
        if stage.method == "levenberg-marquardt":
            misfit = BandMisfit(self.simulator, parameters, self.record)
            priors = prior + VminTie(v.min())
            if parameters.prior_acts_on_map:
                priors = priors + KnownCells(self.known, parameters)
            result = levenberg_marquardt(
                misfit,
                priors,
                x,
                weight=stage.weight_at,
                max_iterations=stage.max_iterations,
                corrections=stage.corrections,
                max_evaluations=limit,
                hessian_cost=misfit.hessian_cost(),
                target=stage.misfit_target or 0.0,
                retract=parameters.retract,
                callback=self.watch,
            )
            self.keep(misfit, prior, result)
        else:
            result = self.published(stage, parameters, prior, x, limit)
        self.iterations += result.iterations
        self.evaluations += result.evaluations
        self.left -= result.evaluations
        if not result.iterations:
            return v, vmin, result.status
        return parameters.velocity(result.x), parameters.vmin(result.x), result.status

    def watch(self, result) -> bool:
        """Notes what a Gauss-Newton stage has found; whether it is to stop."""
        self.note(result.misfit, result.evaluations)
        return self.should_stop()

    def published(self, stage, parameters, prior, x, limit):
        """One stage of the published method: the plain misfit and a fixed weight."""
        weight = stage.weight
        objective = DataMisfit(self.simulator, parameters, self.record) + weight * prior

        def noted(result):
            misfit = result.value - weight * prior(result.x)
            self.note(max(misfit, 0.0), result.evaluations)  # rounding may leave it below 0
            return misfit

        def callback(result):
            misfit, target = noted(result), stage.misfit_target
            return (target is not None and misfit < target) or self.should_stop()

        if stage.method == "gauss-newton-step":
            result = gauss_newton_step(
                objective, x, max_evaluations=limit, should_stop=self.should_stop
            )
            noted(result)
            return result
        return lbfgs(
            objective,
            x,
            max_iterations=stage.max_iterations,
            max_evaluations=limit,
            gradient_tolerance=stage.gradient_tolerance,
            scale=COST_SCALE,
            initial_step=stage.initial_step,
            callback=callback,
        )

    def keep(self, misfit, prior, result):
        """Keeps what the expected error follows from."""
        if misfit.last_hessian is None:
            return
        if isinstance(misfit.parameters, Full):
            self.hessian = misfit.last_hessian
        gaussian = prior.quadratic
        if not gaussian and isinstance(misfit.parameters, Full):
            self.solution = None  # total variation says nothing of single cells
            return
        self.evaluations += 1
        self.solution = Solution(
            misfit.parameters,
            misfit.last_hessian,
            misfit(result.x),
            prior.hessian(result.x) if gaussian else None,
        )

    def keep_outlines(self, v, misfit):
        """The same for a map of layers whose cells were decided on, if their outlines are right."""
        if self.hessian is None:
            return
        regions = Regions.from_map(v, SAME)
        columns = regions.matrix(v.device)
        self.solution = Solution(regions, columns.T @ (self.hessian @ columns), misfit, None)

    def deviation(self):
        """Expected rms error of each cell (nz, nx) m/s after the last stage; None: not known."""
        if self.solution is None:
            return None
        return standard_deviation(
            self.solution.hessian,
            self.solution.parameters,
            self.solution.misfit,
            self.simulator.survey,
            self.solution.prior_hessian,
        )

    def integers(self, v, vmin):
        """The map (nz, nx) and vmin rounded to integers, and their mean square misfit.

        vmin is the minimum of the true map, and one wrong cell may lie far below it: the best of
        the map's minimum, what the data say and the lowest level is taken.
        """
        rounded = v.round()
        choices = ((rounded, rounded.min()), (rounded, vmin.round()), to_integers(v))
        self.left -= len(choices)
        return min(
            ((*choice, self.misfit(*choice)) for choice in choices), key=lambda choice: choice[2]
        )

    def decide_levels(self, v, vmin, noise):
        """Map and vmin with each cell at a level, or between levels; noise: least rms residual.

        With one Jacobian, and the residual renewed after each decision. A decision is kept if
        misfit and cells between levels together cost less; if not, the next one may change fewer
        cells, as the Jacobian is less to be trusted than was thought.
        """
        parameters = Full(v.shape)
        misfit = BandMisfit(self.simulator, parameters, self.record)
        x = parameters.from_velocity(v, vmin)
        self.hessian, pull_back = misfit.linearise(x)
        residual, found = misfit.residual(x), (v, vmin)
        half = residual.numel() / 2
        # cells are decided on by the CPU: the largest matrix goes there once
        normal, used = self.hessian.cpu() * half, misfit.hessian_cost() + 1
        pull, most, refused = pull_back(residual) * half, math.inf, 0
        for seed in range(DECISIONS):
            square = float(residual.square().mean())
            variance = noise_variance(max(square, noise**2), self.simulator.survey)
            first = seed == 0  # the first one makes it a map of levels, which must fit worse
            decision = decide_levels(
                *found, v, pull, normal, variance, 0 if first else most, seed, self.should_stop
            )
            trial = misfit.residual(parameters.from_velocity(decision.v, decision.vmin))
            used += 1
            gain = -math.inf
            if trial is not None:
                gain = decision.saved + half * (square - float(trial.square().mean())) / variance
            if trial is not None and (first or gain > 0):
                found, residual = (decision.v, decision.vmin), trial
                most, refused = max(most, 2 * decision.moves), 0
                pull = pull_back(residual) * half
                if not first and gain < LEAST_GAIN:
                    break
            else:
                most, refused = max(1, decision.moves // FEWER), refused + 1
                if refused == PATIENCE or not decision.moves:
                    break
        self.evaluations += used
        self.left -= used
        self.iterations += 1
        return found

    def misfit(self, v, vmin):
        """Mean square misfit of a map."""
        self.evaluations += 1
        record = torch.from_numpy(self.record)[None, :, : self.simulator.survey.n_steps]
        return float(self.simulator.misfit(v[None], record, vmin[None])[0])

    def penalty(self, stage: Stage, v, vmin):
        """Weighted prior of a map."""
        parameters = stage.parameters(v, self.priors)
        prior = PriorTerm(stage.prior(v, self.priors), parameters)
        return stage.weight * prior(parameters.from_velocity(v, vmin))
