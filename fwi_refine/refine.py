"""One sample: classify, choose the recipe, minimise stage by stage, accept only what is better.

Pure: no files, no clock, no globals. The same input gives the same bits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fwi_refine.classify import Family, classify
from fwi_refine.misfit import DataMisfit, VminTie
from fwi_refine.objective import PriorTerm
from fwi_refine.optimise import Status, gauss_newton_step, lbfgs, levenberg_marquardt
from fwi_refine.priors import Priors
from fwi_refine.priors import load as load_priors
from fwi_refine.recipes import COST_SCALE, METHODS, Recipe, Stage
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.validate import check_prediction, check_record
from fwi_refine.wave import Simulator

# A result whose rms misfit stays above this is flagged: the published method's accuracy falls off
# from 1e-4 rms on, and a start that is usable for the benchmark begins near 1e-1.
POOR_FIT = 1e-2

# Rounding to integers is kept where the record still fits to this rms, the worst floor reported
# for released data (7.4e-5) rounded up, or at most twice as badly as before. Where it fits worse,
# some cell is not right yet, and its unrounded value is the better guess.
ROUNDED_FIT = 1e-4


@dataclass(frozen=True)
class Refined:
    """A refined sample. Velocities in m/s; misfits are rms, in the unit of the record.

    status: "refined", "unchanged" (nothing better was found; velocity is the start, that is the
    prediction brought within the survey's bounds) or "failed" (the start cannot be simulated;
    reason says why). objective_*: mean square misfit plus
    weighted prior of the recipe's first stage. evaluations: simulations of misfit and gradient;
    a misfit alone counts as one, a product with the Gauss-Newton matrix as two, a Jacobian as
    misfit.py says.
    """

    velocity: np.ndarray  # (nz, nx) float64
    vmin: float
    family: Family
    evidence: dict[str, float]
    family_reason: str
    status: str
    misfit_before: float
    misfit_after: float
    objective_before: float
    objective_after: float
    evaluations: int
    iterations: int
    reason: str = ""
    flags: tuple[str, ...] = ()


def refine_sample(
    prediction: np.ndarray,  # (nz, nx) m/s
    record: np.ndarray,  # (shots, >= n_steps, receivers)
    *,
    survey: Survey = OPENFWI,
    priors: Priors | None = None,
    family: str = "auto",
    method: str = "auto",
    max_evaluations: int | None = None,
    should_stop: Callable[[], bool] | None = None,
    simulator: Simulator | None = None,
) -> Refined:
    """Refines one predicted map until its simulated record matches the measured one.

    family: "auto" classifies; otherwise one of `classify.Family`. method: a key of
    `recipes.METHODS`. should_stop: asked after every iteration; True ends with the best map so
    far. Raises SampleError for arrays that cannot be used, ValueError for an unknown family or
    method.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    prediction = check_prediction(prediction, survey=survey)
    record = check_record(record, survey=survey)
    priors = priors or load_priors()
    simulator = simulator or Simulator(survey)
    classification = classify(prediction, record, priors, survey)
    chosen = classification.family if family == "auto" else Family(family)
    if method == "auto" and simulator.kernel == "reference":
        method = "lbfgs"  # the 70 shots of one Jacobian would take the reference many minutes
    run = _Run(simulator, priors, record, METHODS[method][chosen], max_evaluations, should_stop)
    start = torch.from_numpy(prediction).clamp(*survey.velocity_bounds)
    flags = [] if torch.equal(start, torch.from_numpy(prediction)) else ["start outside bounds"]
    result = run.refine(start)
    return Refined(
        velocity=result.pop("velocity", start.numpy()),
        family=chosen,
        evidence=classification.evidence,
        family_reason=classification.reason if family == "auto" else "chosen by the user",
        flags=(*flags, *run.flags),
        **result,
    )


class _Run:
    """The stages of one sample, and what they have used up so far."""

    def __init__(self, simulator, priors, record, recipe: Recipe, max_evaluations, should_stop):
        self.simulator = simulator
        self.priors = priors
        self.record = record
        self.recipe = recipe
        self.left = math.inf if max_evaluations is None else max_evaluations
        self.should_stop = should_stop or (lambda: False)
        self.evaluations = self.iterations = 0
        self.flags = []

    def refine(self, start):
        """The fields of `Refined` that depend on the run."""
        vmin = start.min()
        first = self.recipe.stages[0]
        misfit_before = self.misfit(start, vmin)
        numbers = {"misfit_before": math.sqrt(misfit_before), "vmin": float(vmin)}
        # A parameterisation may not hold the start as it is; its misfit counts all the same.
        before = misfit_before + self.penalty(first, start, vmin)
        if not math.isfinite(before):
            reason = "the record simulated from the start does not have a finite misfit"
            return numbers | self._finish("failed", misfit_before, before, before, reason)
        v, vmin = self.run_stages(start, vmin)
        misfit = self.misfit(v, vmin)
        after = misfit + self.penalty(first, v, vmin)
        if self.recipe.round:
            integers, minimum = v.round(), v.round().min()
            rounded = self.misfit(integers, minimum)
            total = rounded + self.penalty(first, integers, minimum)
            if rounded <= max(ROUNDED_FIT**2, 4 * misfit) and total < before:
                v, vmin, misfit, after = integers, minimum, rounded, total
            else:
                self.flags.append("not rounded: the record would fit worse")
        if not after < before:
            result = self._finish(
                "unchanged", misfit_before, before, before, "nothing better than the start found"
            )
        else:
            result = self._finish("refined", misfit, before, after)
            result |= {"velocity": v.numpy().copy(), "vmin": float(vmin)}
        if result["misfit_after"] > POOR_FIT:
            self.flags.append("poor fit")
        return numbers | result

    def run_stages(self, v, vmin):
        """Map and vmin after all stages, or after those that the budget allows."""
        previous = reference = status = None
        for stage in self.recipe.stages:
            if stage is previous and status in (Status.CONVERGED, Status.STALLED):
                continue  # the same again would find the same
            if stage.must_fit and reference is None:
                reference = self.misfit(v, vmin)
                self.left -= 1
            found, found_vmin, status = self.minimise(stage, v, vmin)
            if stage.must_fit:
                self.left -= 1
                if self.misfit(found, found_vmin) > 4 * reference:
                    found, found_vmin = v, vmin
            v, vmin = found, found_vmin
            if status == Status.MAX_EVALUATIONS or self.should_stop():
                self.flags.append("stopped early")
                break
            previous = stage
        return v, vmin

    def _finish(self, status, misfit, before, after, reason=""):
        return {
            "status": status,
            "reason": reason,
            "misfit_after": math.sqrt(misfit),
            "objective_before": before,
            "objective_after": after,
            "evaluations": self.evaluations,
            "iterations": self.iterations,
        }

    def minimise(self, stage: Stage, v, vmin):
        """Map, vmin and the optimiser's status after one stage; a stage that found nothing lower
        leaves the map as it is, not as its parameterisation would have it."""
        parameters = stage.parameters(v, self.priors)
        prior = PriorTerm(stage.prior(self.priors), parameters)
        misfit = DataMisfit(self.simulator, parameters, self.record)
        x = parameters.from_velocity(v, vmin)
        weight, objective = stage.weight, misfit
        if stage.share:
            # a prior of almost nothing, as of a constant map, must not get a weight without bounds
            weight = max(weight, stage.share * self.misfit(v, vmin) / max(prior(x), 1.0))
            self.left -= 1
            objective = misfit + weight * VminTie(v.min())
        objective = objective + weight * prior

        if self.left < 1:
            return v, vmin, Status.MAX_EVALUATIONS

        def callback(result):
            target = stage.misfit_target
            fits = target is not None and result.value - weight * prior(result.x) < target
            return fits or self.should_stop()

        limit = None if math.isinf(self.left) else int(self.left)
        if stage.method == "gauss-newton-step":
            result = gauss_newton_step(
                objective, x, max_evaluations=limit, should_stop=self.should_stop
            )
        elif stage.method == "levenberg-marquardt":
            result = levenberg_marquardt(
                objective,
                x,
                max_iterations=stage.max_iterations,
                max_evaluations=limit,
                hessian_cost=misfit.hessian_cost(),
                retract=parameters.retract,
                callback=callback,
            )
        else:
            result = lbfgs(
                objective,
                x,
                max_iterations=stage.max_iterations,
                max_evaluations=limit,
                gradient_tolerance=stage.gradient_tolerance,
                scale=COST_SCALE,
                initial_step=stage.initial_step,
                callback=callback,
            )
        self.iterations += result.iterations
        self.evaluations += result.evaluations
        self.left -= result.evaluations
        if not result.iterations:
            return v, vmin, result.status
        return parameters.velocity(result.x), parameters.vmin(result.x), result.status

    def misfit(self, v, vmin):
        """Mean square misfit of a map."""
        self.evaluations += 1
        record = torch.from_numpy(self.record)[None, :, : self.simulator.survey.n_steps]
        return float(self.simulator.misfit(v[None], record, vmin[None])[0])

    def penalty(self, stage: Stage, v, vmin):
        """Weighted prior of a map."""
        parameters = stage.parameters(v, self.priors)
        prior = PriorTerm(stage.prior(self.priors), parameters)
        return stage.weight * prior(parameters.from_velocity(v, vmin))
