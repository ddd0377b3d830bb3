"""Carrying out the stages of a recipe, and what they use up."""

import math
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

import torch

from fwi_refine.inversion.levels.levels import to_integers
from fwi_refine.inversion.levels.rounding import rounding_of_coefficients
from fwi_refine.inversion.recipe import COST_SCALE, GOOD_FIT, Stage
from fwi_refine.inversion.uncertainty import standard_deviation
from fwi_refine.objective.base import PriorTerm
from fwi_refine.objective.flat_misfit import FlatMisfit, has_flat_misfit, window_before_return
from fwi_refine.objective.misfit import FEW_UNKNOWNS, BandMisfit, DataMisfit, VminTie
from fwi_refine.objective.parameterisation import Full, Parameters, Regions, Rows
from fwi_refine.objective.source_cells import SourceCells, source_cells
from fwi_refine.optimise import (
    Status,
    gauss_newton_step,
    lbfgs,
    levenberg_marquardt,
    preconditioned_lbfgs,
)
from fwi_refine.survey import Survey
from fwi_refine.survey.frequency import lower_frequency
from fwi_refine.wave import Simulator

AT_REST = 4.0  # m/s, mean change by a stage, after less of which a map may be done
STOPPED = "stopped early"  # a flag
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
    survey: Survey

    def deviation(self, v):
        """Expected rms error of each cell (nz, nx) m/s, or None; v: the map, on which it does not
        depend."""
        return standard_deviation(
            self.hessian, self.parameters, self.misfit, self.survey, self.prior_hessian
        )


class StageRunner:
    """The stages of one sample, and what they have used up so far."""

    def __init__(self, simulator, priors, record, start, max_evaluations, should_stop):
        self.simulator = simulator
        self.priors = priors
        self.record = record
        self.left = math.inf if max_evaluations is None else max_evaluations
        self.should_stop = should_stop or (lambda: False)
        self.evaluations = self.iterations = 0
        self.shots = len(simulator.survey.sources)
        self.flags = []
        self.known = source_cells(record, start, simulator.survey)
        self.solution = None  # a Solution, or what is believed of assigned cells
        self.exact = None  # a simulator that images every step, made when it is needed
        self.hessian = None  # of the misfit, the last one by every cell
        self.good_fit = GOOD_FIT * simulator.survey.unit**2
        self.stage = 0
        self.history = []  # (stage, evaluations so far, rms misfit), see io/history.py

    @property
    def shot_fraction(self):
        """What an evaluation counts as: the fraction of the shots that are used."""
        return Fraction(len(self.simulator.survey.sources), self.shots)

    def note(self, misfit, evaluations=0):
        """Adds a mean square misfit to the history; evaluations: since they were last counted."""
        so_far = math.ceil(self.evaluations + self.shot_fraction * evaluations)
        self.history.append((self.stage, so_far, math.sqrt(misfit)))

    def spend(self, evaluations):
        """Counts evaluations, and takes them off the budget."""
        self.evaluations += self.shot_fraction * evaluations
        self.left -= self.shot_fraction * evaluations

    def with_source_velocities(self, v):
        v = v.clone()
        rows, columns, velocities = self.known
        v[rows, columns] = velocities
        return v

    def run_stages(self, stages, v, vmin):
        """Map and vmin after all stages, or after those that the budget allows."""
        reference = misfit = None
        moved, asked, skipped = 0.0, None, False
        for stage in stages:
            target = stage.misfit_target if stage.unless_it_fits else None
            if target not in (None, asked):  # asked once for all stages in a row with one target
                # of all shots where it is known: a stage may have looked at some only
                last = self.history[-1][2] ** 2 if misfit is None else misfit
                skipped = last < target and moved < AT_REST
            asked = target
            if target is not None and skipped:
                continue
            if stage.must_fit and misfit is None:
                misfit = self.misfit(v, vmin)
                self.left -= 1
                reference = misfit if reference is None else reference
            solution, before, misfit = self.solution, misfit, None
            found, found_vmin, status = self.minimise(stage, v, vmin)
            if stage.must_fit:
                self.left -= 1
                misfit = self.misfit(found, found_vmin)
                # what fits better than the data's own rounding has fitted some of it
                if misfit > max(4 * reference, self.good_fit):
                    found, found_vmin, self.solution, misfit = v, vmin, solution, before
            moved = float((found - v).abs().mean())
            v, vmin = found, found_vmin
            if status == Status.MAX_EVALUATIONS or self.should_stop():
                self.note_stop()
                break
        return v, vmin

    def minimise_filtered(self, stage: Stage, v, vmin):
        """`minimise` for the record as with a wavelet of a lower frequency, in which a start that
        is a cycle off at the survey's is none."""
        survey = self.simulator.survey
        lower, record = lower_frequency(self.record, stage.frequency * survey.frequency, survey)
        with self.on(record, Simulator(lower, **self.simulator.how)):
            found = self.minimise(replace(stage, frequency=None), v, vmin)
        self.solution = None
        return found

    def minimise_part(self, stage: Stage, part: Survey, v, vmin):
        """`minimise` for some of the shots and receivers of the record."""
        record = self.record[: len(part.sources), :, :: stage.receivers]
        with self.on(record, Simulator(part, **self.simulator.how)):
            return self.minimise(replace(stage, shots=None, receivers=1), v, vmin)

    def note_stop(self):
        """Flags that the time or the budget ran out."""
        if STOPPED not in self.flags:
            self.flags.append(STOPPED)

    @contextmanager
    def on(self, record, simulator=None):
        """Within it, this is the record that is measured, and what simulates it."""
        before = self.record, self.simulator
        self.record, self.simulator = record, simulator or self.simulator
        try:
            yield
        finally:
            self.record, self.simulator = before

    def minimise(self, stage: Stage, v, vmin):
        """Map, vmin and the optimiser's status after one stage; a stage that found nothing lower
        leaves the map as it is, not as its parameterisation would have it."""
        if self.left < 1:
            return v, vmin, Status.MAX_EVALUATIONS
        if stage.frequency is not None:
            return self.minimise_filtered(stage, v, vmin)
        part = stage.part_of(self.simulator.survey)
        if part is not self.simulator.survey:
            return self.minimise_part(stage, part, v, vmin)
        self.stage += 1
        parameters = stage.parameters(v, self.priors)
        prior = PriorTerm(stage.prior(v, self.priors), parameters)
        x = parameters.from_velocity(v, vmin)
        limit = None if math.isinf(self.left) else int(self.left / self.shot_fraction)
        by_jacobian = {
            "levenberg-marquardt": partial(
                levenberg_marquardt, max_damping_increases=stage.max_damping_increases
            ),
            "preconditioned-lbfgs": preconditioned_lbfgs,
        }
        if stage.method in by_jacobian:
            misfit = self.misfit_of(stage, parameters, x)
            priors = prior + VminTie(*stage.vmin(v))
            if parameters.prior_acts_on_map:
                priors = priors + SourceCells(self.known, parameters)
            result = by_jacobian[stage.method](
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
        self.spend(result.evaluations)
        if not result.iterations:
            return v, vmin, result.status
        return parameters.velocity(result.x), parameters.vmin(result.x), result.status

    def misfit_of(self, stage, parameters, x):
        simulator = self.simulator_for(stage)
        if isinstance(parameters, Rows) and has_flat_misfit(x[:-1], simulator.survey):
            window = window_before_return(x[:-1], simulator.survey)
            return FlatMisfit(simulator, parameters, self.record, window)
        return BandMisfit(simulator, parameters, self.record)

    def simulator_for(self, stage):
        if stage.method != "preconditioned-lbfgs":
            return self.simulator
        ours = self.simulator
        if self.exact is None or self.exact.survey is not ours.survey:
            # it needs gradients to which every step adds
            self.exact = Simulator(ours.survey, imaging_step=1, **ours.how)
        return self.exact

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
        if isinstance(misfit, FlatMisfit) or (
            not gaussian and misfit.parameters.size > FEW_UNKNOWNS
        ):
            # a part of the record; or a prior that says nothing of single cells
            self.solution = None
            return
        self.spend(1)
        self.solution = Solution(
            misfit.parameters,
            misfit.last_hessian,
            misfit(result.x),
            prior.hessian(result.x) if gaussian else None,
            self.simulator.survey,
        )

    def keep_outlines(self, v, misfit):
        """The same for a map of layers whose cells were assigned, if their outlines are right."""
        if self.hessian is None:
            return
        regions = Regions.from_map(v, SAME)
        columns = regions.matrix(v.device)
        hessian = columns.T @ (self.hessian @ columns)
        self.solution = Solution(regions, hessian, misfit, None, self.simulator.survey)

    def deviation(self, v):
        """Expected rms error of each cell of v (nz, nx) m/s, the map after the last stage; None:
        not known."""
        return None if self.solution is None else self.solution.deviation(v)

    def integers(self, v, vmin):
        """The map (nz, nx) and vmin rounded to integers, and their mean square misfit.

        vmin is the minimum of the true map, and one wrong cell may lie far below it: the best of
        the map's minimum, what the data say and the lowest level is taken.
        """
        rounded = v.round()
        choices = []
        for choice in ((rounded, rounded.min()), (rounded, vmin.round()), to_integers(v)):
            if not any(all(map(torch.equal, choice, other)) for other in choices):
                choices.append(choice)
        self.left -= len(choices)
        return min(
            ((*choice, self.misfit(*choice)) for choice in choices), key=lambda choice: choice[2]
        )

    def rounding_of_coefficients(self, v, vmin):
        """As in levels/rounding.py, for integers v and vmin."""
        self.spend(2)
        return rounding_of_coefficients(self.simulator, v, vmin, self.record)

    def misfit(self, v, vmin):
        """Mean square misfit of a map."""
        self.evaluations += self.shot_fraction
        record = torch.from_numpy(self.record)[None, :, : self.simulator.survey.n_steps]
        return float(self.simulator.misfit(v[None], record, vmin[None])[0])

    def penalty(self, stage: Stage, v, vmin):
        """Weighted prior of a map."""
        parameters = stage.parameters(v, self.priors)
        prior = PriorTerm(stage.prior(v, self.priors), parameters)
        return stage.weight * prior(parameters.from_velocity(v, vmin))
