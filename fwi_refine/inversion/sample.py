"""One sample: classify, choose the recipe, minimise stage by stage, accept only what is better.

Pure: no files, no clock, no globals. The same input gives the same bits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fwi_refine.inversion.levels.refine import LevelRefiner
from fwi_refine.inversion.method import choose_method
from fwi_refine.inversion.recipe import Recipe
from fwi_refine.inversion.recipes import METHODS, OTHER_ROUTES
from fwi_refine.inversion.stages import STOPPED
from fwi_refine.inversion.uncertainty import expected_error
from fwi_refine.priors import Priors
from fwi_refine.priors import load as load_priors
from fwi_refine.routing import Family, can_classify, classify
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.validate import check_prediction, check_record
from fwi_refine.wave import Simulator

# A result whose rms misfit stays above this is flagged: the published method's accuracy falls off
# from 1e-4 rms on, and a start that is usable for the benchmark begins near 1e-1.
POOR_FIT = 1e-2

# Rms misfit of a map that explains its record: the worst floor reported for released data (7.4e-5)
# rounded up. Rounding to integers is kept if it leaves so little, or at most twice as much as was
# left before; what fits worse has some cell that is not right yet, whose unrounded value is the
# better guess. And where the family was only inferred, another route is tried above it.
FIT = 1e-4
# Where no route leads to a fit, another takes the place of the first if it leaves less than this
# fraction of the rms: noise alone is fitted better by the one with more unknowns.
FAR_BETTER = 0.5


@dataclass(frozen=True)
class Refined:
    """A refined sample. Velocities in m/s; misfits are rms, in the unit of the record.

    status: "refined", "unchanged" (nothing better was found; velocity is the start, that is the
    prediction brought within the survey's bounds) or "failed" (the start cannot be simulated;
    reason says why). objective_*: mean square misfit plus weighted prior of the recipe's first
    stage. evaluations: simulations of misfit and gradient; a misfit alone counts as one, a product
    with the Gauss-Newton matrix as two, a Jacobian as objective/misfit.py and flat_misfit.py say,
    each as its fraction where some of the shots are used. expected_error: expected mean absolute
    error; deviation (nz, nx) float32: expected rms error of each cell (see uncertainty.py); None
    where they are not known. history: (stage, evaluations, rms misfit) on the way, see
    io/history.py.
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
    expected_error: float | None = None
    deviation: np.ndarray | None = None
    history: tuple[tuple[int, int, float], ...] = ()


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

    family: "auto" classifies, which is possible for the survey of OpenFWI alone, and tries another
    route where that one does not lead to a fit; otherwise one of `routing.Family`. method: a key of
    `recipes.METHODS`. priors: lengths in cells of 10 m, whatever the survey. should_stop: asked
    after every iteration; True ends with the best map so far. Raises SampleError for arrays that
    cannot be used, ValueError for an unknown family or method, and for "auto" with another survey.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    prediction = check_prediction(prediction, survey=survey)
    record = check_record(record, survey=survey)
    priors = (priors or load_priors()).on_grid(survey.shape, survey.spacing)
    simulator = simulator or Simulator(survey)
    evidence, words = {}, "chosen by the user"
    if family == "auto" or can_classify(survey):
        classification = classify(prediction, record, priors, survey)
        evidence = classification.evidence
        words = classification.reason if family == "auto" else words
    chosen = classification.family if family == "auto" else Family(family)
    method, why = choose_method(method, chosen, survey, simulator.kernel)
    start = torch.from_numpy(prediction).clamp(*survey.velocity_bounds)
    clamped = not torch.equal(start, torch.from_numpy(prediction))
    start = start.to(simulator.device)
    others = OTHER_ROUTES.get(chosen, ()) if family == "auto" and method != "lbfgs" else ()
    run = _Run(simulator, priors, record, start, max_evaluations, should_stop)
    recipes = {route: METHODS[method][route].in_unit(survey.unit) for route in (chosen, *others)}
    fitting, result = run.refine_by_routes(start, recipes)
    if fitting != chosen:
        words = f"{fitting} explains it better than {chosen}, which was tried first: {words}"
    flags = ["start outside bounds"] if clamped else []
    flags += [f"L-BFGS: {why}"] if why else []
    return Refined(
        velocity=result.pop("velocity", start.cpu().numpy()),
        family=fitting,
        evidence=evidence,
        family_reason=words,
        flags=(*flags, *result.pop("flags")),
        evaluations=math.ceil(run.evaluations),
        iterations=run.iterations,
        history=tuple(run.history),
        **result,
    )


class _Run(LevelRefiner):
    """A sample from its start to what is handed back. Results are fields of `Refined`."""

    def refine_by_routes(self, start, recipes: dict[Family, Recipe]):
        """(family, result) of the first recipe that leads to a fit and to a map that looks like its
        family; else of the first that leads to a fit; else of the first of all, or of a later one
        with far less misfit.
        """
        best, rank = None, (False, False)
        for number, (family, recipe) in enumerate(recipes.items(), 1):
            result = self.refine(start, recipe)
            rms = result["misfit_after"]
            fits = rms <= FIT * self.simulator.survey.unit
            right = fits and (len(recipes) == 1 or self.looks_like(family, start, result))
            better = best is None or (right, fits) > rank
            if not (better or fits or rank[1]):
                far = rms < FAR_BETTER * best[1]["misfit_after"]
                better = far and result["status"] == "refined"
            if better:
                best, rank = (family, result), (right, fits)
            if right or result["status"] == "failed":
                break
            over = number < len(recipes) and (self.left < 1 or self.should_stop())
            if over or STOPPED in result["flags"]:
                self.flags = best[1]["flags"]
                self.note_stop()
                break
            self.stage += 1
        self.stage += 1
        self.note(best[1]["misfit_after"] ** 2)
        return best

    def looks_like(self, family, start, result):
        """Whether the classifier takes a result for a map of this family: layers come out of the
        record of a rough map as well, but not a few velocities."""
        v = result.get("velocity", start.cpu().numpy())
        found = classify(v, self.record, self.priors, self.simulator.survey).family
        return found == family or {found, family} == {Family.TWO_VELOCITY, Family.LAYERED}

    def refine(self, start, recipe: Recipe):
        """The result of one recipe."""
        self.flags, self.solution, self.hessian = [], None, None
        unit = self.simulator.survey.unit
        vmin = start.min()
        first = recipe.stages[0]
        misfit_before = self.misfit(start, vmin)
        self.note(misfit_before)
        numbers = {"misfit_before": math.sqrt(misfit_before), "vmin": float(vmin)}
        # A parameterisation may not hold the start as it is; its misfit counts all the same.
        before = misfit_before + self.penalty(first, start, vmin)
        if not math.isfinite(before):
            reason = "the record simulated from the start does not have a finite misfit"
            return numbers | self._result("failed", misfit_before, before, before, reason)
        v, vmin = self.run_stages(recipe.stages, self.with_source_velocities(start), vmin)
        if recipe.assignment and not self.flags:
            v, vmin = self.assign_levels(v, vmin, recipe.assignment)
        misfit = self.misfit(v, vmin)
        after = misfit + self.penalty(first, v, vmin)
        if recipe.round:
            integers, minimum, rounded = self.integers(v, vmin)
            total = rounded + self.penalty(first, integers, minimum)
            if rounded <= max((FIT * unit) ** 2, 4 * misfit) and total < before:
                v, vmin, misfit, after = integers, minimum, rounded, total
            else:
                self.flags.append("not rounded: the record would fit worse")
        if not after < before:
            result = self._result(
                "unchanged", misfit_before, before, before, "nothing better than the start found"
            )
        else:
            result = self._result("refined", misfit, before, after)
            result |= {"velocity": v.cpu().numpy().copy(), "vmin": float(vmin)}
            deviation = self.deviation(v)
            if deviation is not None:
                result["deviation"] = deviation.float().cpu().numpy()
                result["expected_error"] = expected_error(deviation)
        if result["misfit_after"] > POOR_FIT * unit:
            self.flags.append("poor fit")
        return numbers | result

    def _result(self, status, misfit, before, after, reason=""):
        return {
            "status": status,
            "reason": reason,
            "misfit_after": math.sqrt(misfit),
            "objective_before": before,
            "objective_after": after,
            "flags": self.flags,
        }
