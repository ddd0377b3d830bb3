"""One sample: checked, its family told, its recipe carried out.

Pure: no files, no clock, no globals. The same input gives the same bits.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fwi_refine.errors import SampleError
from fwi_refine.inversion.budget import Budget, Progress
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.families import METHODS, PRIORS, find_family
from fwi_refine.inversion.method import choose_method, choose_prior
from fwi_refine.inversion.recipe import Recipe
from fwi_refine.inversion.refined import Refined
from fwi_refine.inversion.routes import classify
from fwi_refine.inversion.run_recipe import RecipeResult, fits_poorly, unfinished
from fwi_refine.inversion.source import found_source
from fwi_refine.inversion.try_routes import try_routes
from fwi_refine.inversion.uncertainty import Solution, expected_error
from fwi_refine.limits import truth_value
from fwi_refine.objective.constraints import Constraints, constraints_of
from fwi_refine.objective.source import SOURCES
from fwi_refine.priors import Priors
from fwi_refine.priors import load as load_priors
from fwi_refine.routing import can_classify
from fwi_refine.routing.checks.inputs import ADVICE_FOR_ARRAYS, check_samples
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.validate import check_prediction, check_record, to_numpy
from fwi_refine.survey.weights import sample_weights
from fwi_refine.wave import Simulator

# In flags, what takes the place of Gauss-Newton with the full Jacobian.
METHOD_NAMES = {"matrix-free": "matrix-free Gauss-Newton", "lbfgs": "L-BFGS"}


def refine_sample(
    prediction: np.ndarray,
    record: np.ndarray,
    *,
    survey: Survey = OPENFWI,
    priors: Priors | None = None,
    family: str = "auto",
    method: str = "auto",
    prior: str = "auto",
    source: str = "known",
    samples: int = 0,
    max_evaluations: int | None = None,
    should_stop: Callable[[], bool] | None = None,
    out_of_time: Callable[[], bool] | None = None,
    watch: Callable[[Progress], object] | None = None,
    simulator: Simulator | None = None,
    weights: np.ndarray | None = None,
    fixed: np.ndarray | None = None,
    bounds: tuple[np.ndarray, np.ndarray] | None = None,
    force: bool = False,
) -> Refined:
    """Refines one predicted map until its simulated record matches the measured one.

    Parameters
    ----------
    prediction : ndarray (nz, nx)
        The predicted map, m/s.
    record : ndarray (shots, rows >= n_steps, receivers)
        The measured record; NaN where samples are missing.
    survey
        What the record is of.
    priors
        Lengths in cells of 10 m, whatever the survey; default those for OpenFWI.
    family
        "auto" classifies, which is possible for the survey of OpenFWI alone, and tries another
        route where that one does not lead to a fit; otherwise one of `families.names()`.
    method
        One of `families.METHODS`.
    prior
        One of `families.PRIORS`: what the Style families end with.
    source
        One of `SOURCES`: whether the wavelet is the survey's, or to be estimated with the map: one
        for all shots, or one for each.
    samples
        Maps to draw from the posterior, where that is known.
    max_evaluations
        Never exceeded; see `Budget`.
    should_stop
        Asked after every iteration; True ends with the best map so far.
    out_of_time
        The same, asked also between the simulations of an iteration and the batches of a Jacobian;
        what an iteration has not yet led to is dropped.
    watch
        Told the `Progress` after every iteration; the result does not depend on it.
    simulator
        Default one for the survey, in float64.
    weights
        Of shots, receivers or samples, as `survey.weights.check_weights` returns them.
    fixed : ndarray of bool (nz, nx)
        Cells that are kept as predicted.
    bounds : two ndarrays (nz, nx)
        Least and largest velocity of each cell, m/s.
    force
        Goes on where the arrays look like other units, another scale or another form.

    Returns
    -------
    Refined
        Never worse than the start by its own objective.

    Raises
    ------
    SampleError
        For arrays that cannot be used.
    InputError
        For arrays that seem to be something else, unless `force` is true; a ValueError.
    ValueError
        For an unknown family, method or prior, fewer than one evaluation, and for "auto" with a
        survey whose families cannot be told.
    """
    _check_choices(method, prior, source, max_evaluations)
    prediction = check_prediction(to_numpy(prediction), survey=survey)
    record = check_record(to_numpy(record), survey=survey, gaps=True)
    if not truth_value(force, "force"):
        check_samples([prediction], [record], survey, advice=ADVICE_FOR_ARRAYS, source=source)
    record, counts = _weighted(record, survey, weights)
    priors = (priors or load_priors()).on_grid(survey.shape, survey.spacing)
    simulator = simulator or Simulator(survey)
    start = _start_of(prediction, simulator, fixed, bounds)
    data, amplitude = _data_of(record, start, simulator, source, counts)
    choice = _choose(prediction, data, simulator, priors, family, method, prior)
    budget = Budget(max_evaluations, should_stop, out_of_time, watch)
    best, traces = try_routes(choice.recipes, data, start.v, priors, budget)
    # an error is known to first order about a map that explains its record
    poor = fits_poorly(best, data) or unfinished(best, data)
    deviation = None if poor else _deviation(best)
    drawn = _draw(best, samples, record, survey) if samples and not poor else None
    scale = abs(amplitude)  # misfits are in the unit of the record as it was given
    return Refined(
        velocity=best.model.v.cpu().numpy().copy(),
        vmin=float(best.model.vmin),
        family=best.family,
        evidence=choice.evidence,
        family_reason=choice.reason_for(best.family),
        status=best.status,
        misfit_before=scale * math.sqrt(best.before[0]),
        misfit_after=scale * best.rms,
        objective_before=scale**2 * best.before[1],
        objective_after=scale**2 * best.after[1],
        evaluations=math.ceil(budget.evaluations),
        iterations=budget.iterations,
        reason=best.reason,
        flags=_flags(best, data, start.clamped, choice.method),
        expected_error=None if deviation is None else expected_error(deviation),
        deviation=None if deviation is None else deviation.float().cpu().numpy(),
        samples=drawn,
        exact=best.certificate.exact,
        equal_samples=best.certificate.equal_fraction,
        noise=None if best.noise is None else scale * best.noise.sample,
        missing=0 if counts is None else int((counts == 0).sum()),
        history=tuple(
            (stage, evaluations, scale * rms)
            for stage, trace in enumerate(traces)
            for evaluations, rms in trace
        ),
        source=None
        if best.status == "failed"
        else found_source(data, best.model, best.curvature, amplitude, survey),
    )


def _check_choices(method: str, prior: str, source: str, max_evaluations: int | None) -> None:
    for name, choice, choices in (
        ("method", method, METHODS),
        ("prior", prior, PRIORS),
        ("source", source, SOURCES),
    ):
        if choice not in choices:
            raise ValueError(f"{name} {choice!r}: expected one of {', '.join(choices)}")
    if max_evaluations is not None and max_evaluations < 1:
        raise ValueError(f"max_evaluations {max_evaluations}: the start alone takes 1")


def _weighted(
    record: np.ndarray, survey: Survey, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """The record, NaN where a sample has no weight; and the weights, None: all count."""
    counts = sample_weights(record, survey, weights)
    if counts is None:
        return record, None
    if not counts.any():
        raise SampleError("record: found no sample that is there and has a weight")
    record[:, : survey.n_steps][counts == 0] = np.nan
    return record, counts


@dataclass(frozen=True)
class _Start:
    """A prediction within its bounds: v (nz, nx) m/s, whether that changed it, and the
    constraints of single cells."""

    v: torch.Tensor
    clamped: bool
    constraints: Constraints | None


def _start_of(
    prediction: np.ndarray,
    simulator: Simulator,
    fixed: np.ndarray | None,
    bounds: tuple[np.ndarray, np.ndarray] | None,
) -> _Start:
    """The start of a prediction, as a file has it: float32."""
    survey = simulator.survey
    given = torch.from_numpy(prediction)
    v = given.clamp(*survey.velocity_bounds)
    constraints = constraints_of(v, survey, fixed, bounds)
    if constraints is not None:
        v = constraints.applied(v)
    clamped = not torch.equal(v, given)
    v = v.float().double().to(simulator.device)
    return _Start(v, clamped, None if constraints is None else constraints.of(v))


def _data_of(
    record: np.ndarray,
    start: _Start,
    simulator: Simulator,
    source: str,
    weights: np.ndarray | None,
) -> tuple[Data, float]:
    """The data, and the amplitude of the source that was divided out of the record."""
    # a start that cannot be simulated fails by itself
    if source == "known" or not simulator.is_stable(start.v[None]):
        return Data.of_sample(record, start.v, simulator, weights, start.constraints), 1.0
    each = source == "fit-each"
    return Data.with_free_source(record, start.v, simulator, each, weights, start.constraints)


@dataclass(frozen=True)
class _Choice:
    """The recipes to try, by family, why the first of them, and by which method if not by
    Gauss-Newton."""

    recipes: dict[str, Recipe]
    evidence: dict[str, float]
    reason: str
    method: str

    def reason_for(self, family: str) -> str:
        """Why a map is of this family, which may not be the first that was tried."""
        first = next(iter(self.recipes))
        if family == first:
            return self.reason
        return f"{family} explains it better than {first}, which was tried first: {self.reason}"


def _choose(
    prediction: np.ndarray,
    data: Data,
    simulator: Simulator,
    priors: Priors,
    family: str,
    method: str,
    prior: str,
) -> _Choice:
    """Family, method and recipes of a sample; simulator: with the survey as it was given."""
    survey, inferred = simulator.survey, family == "auto"
    evidence: dict[str, float] = {}
    reason = "chosen by the user"
    if inferred or can_classify(survey):
        told = classify(prediction, data.with_gaps, priors, survey)
        evidence = told.evidence
        if inferred:
            family, reason = str(told.family), told.reason
    first = find_family(family).name
    method, why = choose_method(method, first, survey, simulator.kernel)
    several = inferred and method != "lbfgs"
    recipes = {
        route: find_family(route)
        .recipe(method, choose_prior(prior, survey))
        .in_unit(survey.unit)
        .with_noise(data.noise, survey, data.count)
        for route in (first, *(find_family(first).others if several else ()))
    }
    return _Choice(recipes, evidence, reason, f"{METHOD_NAMES[method]}: {why}" if why else "")


def _deviation(best: RecipeResult) -> torch.Tensor | None:
    """Expected rms error of each cell (nz, nx), m/s; None where it is not known."""
    if best.certificate.exact:
        return torch.zeros_like(best.model.v)
    if best.status != "refined" or best.curvature.uncertainty is None:
        return None
    return best.curvature.uncertainty.deviation(best.model.v)


def _draw(best: RecipeResult, count: int, record: np.ndarray, survey: Survey) -> np.ndarray | None:
    """Maps (count, nz, nx) from the posterior, the same for the same record."""
    if best.certificate.exact:  # nothing is left open
        return best.model.v.float().cpu().numpy()[None].repeat(count, 0)
    known = best.curvature.uncertainty
    if best.status != "refined" or not isinstance(known, Solution):
        return None
    found = known.samples(best.model.v, count, zlib.crc32(np.ascontiguousarray(record).tobytes()))
    if found is None:
        return None
    return found.clamp(*survey.velocity_bounds).float().cpu().numpy()


def _flags(best: RecipeResult, data: Data, clamped: bool, why: str) -> tuple[str, ...]:
    """Notes for a reader; why: another method took the place of Gauss-Newton."""
    flags = {
        "start outside bounds": clamped,
        why: bool(why),
        "stopped early": best.stopped,
        "not rounded: the record would fit worse": best.rounded is False,
        "poor fit": fits_poorly(best, data),
    }
    return tuple(flag for flag, holds in flags.items() if holds)
