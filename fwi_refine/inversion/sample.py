"""One sample: classify, choose the recipe, minimise stage by stage, accept only what is better.

Pure: no files, no clock, no globals. The same input gives the same bits.
"""

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fwi_refine.errors import SampleError
from fwi_refine.inversion.accept import NOT_TRIED, best_of, integers, proven, written
from fwi_refine.inversion.budget import Budget, Step
from fwi_refine.inversion.data import Data, Model
from fwi_refine.inversion.families import METHODS, PRIORS, find_family
from fwi_refine.inversion.levels.exact import Certificate
from fwi_refine.inversion.levels.refine import assign_levels
from fwi_refine.inversion.method import choose_method
from fwi_refine.inversion.recipe import Recipe
from fwi_refine.inversion.routes import classify
from fwi_refine.inversion.source import FoundSource, found_source
from fwi_refine.inversion.stages import Curvature, Solution, Trace, penalty, run_stages
from fwi_refine.inversion.uncertainty import expected_error
from fwi_refine.objective.known_cells import KnownCells, known_cells
from fwi_refine.objective.misfit import BandMisfit
from fwi_refine.objective.noise import CLEAN, Noise
from fwi_refine.objective.parameterisation import Full
from fwi_refine.objective.source import SOURCES
from fwi_refine.priors import Priors
from fwi_refine.priors import load as load_priors
from fwi_refine.routing import Family, can_classify
from fwi_refine.routing.look import ADVICE_FOR_ARRAYS, look
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.validate import check_prediction, check_record, to_numpy
from fwi_refine.survey.weights import sample_weights
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

# In flags, what takes the place of Gauss-Newton with the full Jacobian.
METHOD_WORDS = {"matrix-free": "matrix-free Gauss-Newton", "lbfgs": "L-BFGS"}


@dataclass(frozen=True)
class Refined:
    """A refined sample.

    Attributes
    ----------
    velocity : ndarray (nz, nx) float64
        The map, m/s.
    vmin : float
        The velocity that scales the damping, m/s.
    family : str
        The route that led to the map.
    evidence : dict
        The numbers that the family is told by, see `routing.Classification`.
    family_reason : str
        Why this family.
    status : str
        "refined", "unchanged" (nothing better was found; velocity is the start, that is the
        prediction brought within the survey's bounds) or "failed" (the start cannot be simulated).
    misfit_before, misfit_after : float
        Rms, in the unit of the record.
    objective_before, objective_after : float
        Mean square misfit plus weighted prior of the recipe's first stage.
    evaluations : int
        Simulations of misfit and gradient, see `Budget`.
    iterations : int
        Of all optimisers.
    reason : str
        Why it is unchanged or failed.
    flags : tuple of str
        What a reader should know of the result.
    expected_error : float or None
        Expected mean absolute error, m/s; None where it is not known.
    deviation : ndarray (nz, nx) float32 or None
        Expected rms error of each cell, m/s; see uncertainty.py.
    samples : ndarray (K, nz, nx) float32 or None
        Maps drawn from the posterior, m/s, where they were asked for and it is known.
    history : tuple of (int, int, float)
        (stage, evaluations, rms misfit) on the way, see io/history.py.
    exact : bool or None
        Whether the map is proven: its record, in the arithmetic of the released data, is equal to
        the measured one in every sample. None where that was not tried: for maps that are not of
        integers, and for records of another arithmetic.
    equal_samples : float or None
        Fraction of the samples that come before the first difference of their trace.
    noise : float or None
        Rms of a sample's noise that the record tells, in its unit, beyond the rounding of float32;
        None where it tells nothing.
    missing : int
        Samples of the record without weight.
    source : FoundSource or None
        The wavelets, where they were estimated with the map.
    """

    velocity: np.ndarray
    vmin: float
    family: str
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
    samples: np.ndarray | None = None
    history: tuple[tuple[int, int, float], ...] = ()
    exact: bool | None = None
    equal_samples: float | None = None
    noise: float | None = None
    missing: int = 0
    source: FoundSource | None = None


@dataclass(frozen=True)
class RecipeResult:
    """Where a recipe led to.

    Attributes
    ----------
    family
        Of the recipe.
    status, reason
        As of `Refined`.
    model
        The refined model, or the start.
    before, after
        (mean square misfit, objective) of the start and of the model.
    stopped
        Whether budget or time ran out.
    rounded
        Whether integers were taken; None where they were not asked for.
    curvature
        What the expected error follows from.
    traces
        One for the start, and one for each stage.
    certificate
        What the record says of the map, where it is one of integers.
    noise
        Of the record, or of what the stages left of it; None: not known.
    """

    family: str
    status: str
    model: Model
    before: tuple[float, float]
    after: tuple[float, float]
    stopped: bool
    rounded: bool | None
    curvature: Curvature
    traces: tuple[Trace, ...]
    reason: str = ""
    certificate: Certificate = NOT_TRIED
    noise: Noise | None = CLEAN

    @property
    def rms(self) -> float:
        """Misfit of the model, which is that of the map as it is written."""
        return math.sqrt(self.after[0])

    @property
    def fit(self) -> float:
        """Rms misfit that the stages reached, whatever became of vmin."""
        last = next((trace[-1][1] for trace in reversed(self.traces) if trace), math.inf)
        return min(self.rms, last) if self.status == "refined" else self.rms


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
    watch: Callable[[Step], object] | None = None,
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
    watch
        Told the `Step` after every iteration; the result does not depend on it.
    simulator
        Default one for the survey, in float64.
    weights
        Of shots, receivers or samples, as `survey.weights.check_weights` returns them.
    fixed : ndarray of bool (nz, nx)
        Cells that are kept as predicted.
    bounds : two ndarrays (nz, nx)
        Least and largest velocity of each cell, m/s.
    force
        Goes on, unlooked at, where the arrays look like other units, another scale or another form.

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
    if method not in METHODS:
        raise ValueError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    if prior not in PRIORS:
        raise ValueError(f"prior {prior!r}: expected one of {', '.join(PRIORS)}")
    if source not in SOURCES:
        raise ValueError(f"source {source!r}: expected one of {', '.join(SOURCES)}")
    if max_evaluations is not None and max_evaluations < 1:
        raise ValueError(f"max_evaluations {max_evaluations}: the start alone takes 1")
    prediction = check_prediction(to_numpy(prediction), survey=survey)
    record = check_record(to_numpy(record), survey=survey, gaps=True)
    if not force:
        look([prediction], [record], survey, advice=ADVICE_FOR_ARRAYS, source=source)
    counts = sample_weights(record, survey, weights)
    if counts is not None:
        if not counts.any():
            raise SampleError("record: found no sample that is there and has a weight")
        record[:, : survey.n_steps][counts == 0] = np.nan
    priors = (priors or load_priors()).on_grid(survey.shape, survey.spacing)
    simulator = simulator or Simulator(survey)
    if source != "known" and counts is not None:
        raise SampleError(
            f"record: {int((counts != counts.max()).sum())} samples are missing or weigh less; a "
            f"source that is estimated ({source!r}) needs all of them"
        )
    start = torch.from_numpy(prediction).clamp(*survey.velocity_bounds)
    known = known_cells(start, survey, fixed, bounds)
    if known is not None:
        start = known.applied(start)
    clamped = not torch.equal(start, torch.from_numpy(prediction))
    start = start.float().double().to(simulator.device)  # as a file has it
    if known is not None:
        known = known.of(start)
    data, amplitude = _data_of(record, start, simulator, source, counts, known)
    evidence, words = {}, "chosen by the user"
    if family == "auto" or can_classify(survey):
        classification = classify(prediction, data.with_gaps, priors, survey)
        evidence = classification.evidence
        words = classification.reason if family == "auto" else words
    chosen = str(classification.family) if family == "auto" else find_family(family).name
    method, why = choose_method(method, chosen, survey, simulator.kernel)
    several = family == "auto" and method != "lbfgs"
    routes = (chosen, *(find_family(chosen).others if several else ()))
    recipes = {
        route: find_family(route).recipe(method, prior).in_unit(survey.unit) for route in routes
    }
    recipes = {
        route: recipe.with_noise(data.noise, survey, data.count)
        for route, recipe in recipes.items()
    }
    budget = Budget(max_evaluations, should_stop, watch)
    best, traces = refine_by_routes(recipes, data, start, priors, budget)
    if best.family != chosen:
        words = f"{best.family} explains it better than {chosen}, which was tried first: {words}"
    deviation = None
    if best.certificate.exact:
        deviation = torch.zeros_like(best.model.v)
    elif best.status == "refined" and best.curvature.uncertainty is not None:
        deviation = best.curvature.uncertainty.deviation(best.model.v)
    drawn = _draw(best, samples, record, survey) if samples else None
    scale = abs(amplitude)  # misfits are in the unit of the record as it was given
    return Refined(
        velocity=best.model.v.cpu().numpy().copy(),
        vmin=float(best.model.vmin),
        family=best.family,
        evidence=evidence,
        family_reason=words,
        status=best.status,
        misfit_before=scale * math.sqrt(best.before[0]),
        misfit_after=scale * best.rms,
        objective_before=scale**2 * best.before[1],
        objective_after=scale**2 * best.after[1],
        evaluations=math.ceil(budget.evaluations),
        iterations=budget.iterations,
        reason=best.reason,
        flags=_flags(best, data, clamped, f"{METHOD_WORDS[method]}: {why}" if why else ""),
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


def _data_of(
    record: np.ndarray,
    start: torch.Tensor,
    simulator: Simulator,
    source: str,
    weights: np.ndarray | None,
    known: KnownCells | None,
) -> tuple[Data, float]:
    """The data, and the amplitude of the source that was divided out of the record."""
    # a start that cannot be simulated fails by itself
    if source == "known" or not simulator.is_stable(start[None]):
        return Data.of_sample(record, start, simulator, weights, known), 1.0
    each = source == "fit-each"
    return Data.with_free_source(record, start, simulator, each=each, known=known)


def _draw(best: RecipeResult, count: int, record: np.ndarray, survey: Survey) -> np.ndarray | None:
    """Maps (count, nz, nx) from the posterior, the same for the same record."""
    known = best.curvature.uncertainty
    if best.status != "refined" or best.certificate.exact or not isinstance(known, Solution):
        return None
    found = known.samples(best.model.v, count, zlib.crc32(np.ascontiguousarray(record).tobytes()))
    if found is None:
        return None
    return found.clamp(*survey.velocity_bounds).float().cpu().numpy()


def _flags(best: RecipeResult, data: Data, clamped: bool, why: str) -> tuple[str, ...]:
    """What a reader should know; why: another method took the place of Gauss-Newton."""
    flags = {
        "start outside bounds": clamped,
        why: bool(why),
        "stopped early": best.stopped,
        "not rounded: the record would fit worse": best.rounded is False,
        "poor fit": best.status != "failed" and best.after[0] > data.square(POOR_FIT),
    }
    return tuple(flag for flag, holds in flags.items() if holds)


def refine_by_routes(
    recipes: dict[str, Recipe],
    data: Data,
    start: torch.Tensor,
    priors: Priors,
    budget: Budget,
) -> tuple[RecipeResult, tuple[Trace, ...]]:
    """Runs recipes until one leads to a fit and to a map that looks like its family.

    Returns
    -------
    RecipeResult
        Of the route that was chosen, see `choose_route`.
    tuple of Trace
        Of all routes that were run, and of the end.
    """
    tried: list[RecipeResult] = []
    right: list[bool] = []
    stopped = False
    for number, (family, recipe) in enumerate(recipes.items(), 1):
        result = run_recipe(family, recipe, data, start, priors, budget)
        tried.append(result)
        alone = len(recipes) == 1
        right.append(_fits(result, data) and (alone or _looks_like(result, data, priors)))
        if right[-1] or result.certificate.exact or result.status == "failed" or result.stopped:
            break
        if number < len(recipes) and (not budget.affords(2) or budget.should_stop()):
            stopped = True
            break
    best = tried[choose_route(tried, [_fits(result, data) for result in tried], right)]
    end = ((math.ceil(budget.evaluations), best.rms),)
    traces = (*(trace for result in tried for trace in result.traces), end)
    return _stopped(best, stopped or tried[-1].stopped), traces


def choose_route(tried: Sequence[RecipeResult], fits: Sequence[bool], right: Sequence[bool]) -> int:
    """Which of the routes that were tried is taken.

    Parameters
    ----------
    tried
        The results, in the order in which they were tried.
    fits
        Whether each explains its record.
    right
        Whether its map looks like the family, too.

    Returns
    -------
    int
        The first that is right; else the first that fits; else the first of all, or a later one
        with far less misfit.
    """
    best = 0
    for k in range(1, len(tried)):
        better = (right[k], fits[k]) > (right[best], fits[best])
        if not (fits[k] or fits[best]):
            far = tried[k].rms < FAR_BETTER * tried[best].rms
            better = far and tried[k].status == "refined"
        best = k if better else best
    return best


def _fits(result: RecipeResult, data: Data) -> bool:
    return result.fit**2 <= data.square(FIT)


def _stopped(result: RecipeResult, stopped: bool) -> RecipeResult:
    return replace(result, stopped=result.stopped or stopped)


def _looks_like(result: RecipeResult, data: Data, priors: Priors) -> bool:
    """Whether the classifier takes a result for a map of its family: layers come out of the record
    of a rough map as well, but not a few velocities."""
    v = result.model.v.cpu().numpy()
    found = classify(v, data.with_gaps, priors, data.survey).family
    return found == result.family or {found, result.family} == {Family.TWO_VELOCITY, Family.LAYERED}


def run_recipe(
    family: str,
    recipe: Recipe,
    data: Data,
    start: torch.Tensor,
    priors: Priors,
    budget: Budget,
) -> RecipeResult:
    """Runs one recipe from a start (nz, nx), m/s, and accepts only what is better.

    Parameters
    ----------
    family
        Whose recipe it is.
    recipe
        Its stages, and what follows them.
    data, priors, budget
        As for `run_stage`; the budget affords an evaluation at least.

    Returns
    -------
    RecipeResult
        "refined" where the objective, the misfit with the prior of the first stage, is lower.
    """
    given, first = Model.of(start), recipe.stages[0]
    misfit = data.misfit(given, budget)
    before = misfit, misfit + penalty(first, given, priors)
    begin: Trace = ((math.ceil(budget.evaluations), math.sqrt(misfit)),)
    unchanged = RecipeResult(
        family, "unchanged", given, before, before, False, None, Curvature(), (begin,)
    )
    unchanged = replace(unchanged, noise=data.noise)
    # A parameterisation may not hold the start as it is; its misfit counts all the same.
    if not math.isfinite(before[1]):
        reason = "the record simulated from the start does not have a finite misfit"
        return replace(unchanged, status="failed", reason=reason)
    with budget.keeping(1):  # for the misfit of the result
        model = data.possible(Model(data.with_source_velocities(start), given.vmin))
        budget.enter(f"{family}, start", math.sqrt(misfit))
        found = run_stages(recipe.stages, data, model, priors, budget, misfit, family)
        if data.noise is None and not found.stopped and budget.affords(data.cost):
            data = _with_noise(data, found.model, budget)
            recipe = recipe.with_noise(data.noise, data.survey, data.count)
            unchanged = replace(unchanged, noise=data.noise)
        if recipe.assignment and not found.stopped:
            known = found.curvature or Curvature()
            levels = assign_levels(recipe.assignment, data, found.model, priors, budget, known)
            found = replace(levels, traces=found.traces + levels.traces)
    traces = (begin, *found.traces)
    if not budget.affords(1):
        reason = "no evaluation was left to try anything"
        return replace(unchanged, stopped=True, traces=traces, reason=reason)
    maps = _possible(written(found.model, found.curvature), data)
    model, misfit = best_of(maps, data, budget)
    after = misfit, misfit + penalty(first, model, priors)
    rounded: bool | None = None
    certificate = NOT_TRIED
    if recipe.round and budget.affords(data.cost):
        whole, squares = best_of(_possible(integers(found.model), data), data, budget)
        beyond = data.beyond_noise(misfit)
        limit = misfit
        if not recipe.blended:
            limit = max(data.square(FIT), 4 * beyond + (misfit - beyond))
        if squares <= limit or not recipe.blended:
            whole, squares, certificate = proven(whole, squares, data, budget)
        total = squares + penalty(first, whole, priors)
        rounded = certificate.exact or (squares <= limit and total < before[1])
        if recipe.blended and not rounded:
            rounded = None  # integers were not to be expected
        if rounded:
            after, model = (squares, total), whole
    result = replace(
        unchanged,
        stopped=found.stopped and not certificate.exact,
        rounded=rounded,
        traces=traces,
        certificate=certificate if rounded else NOT_TRIED,
    )
    if not after[1] < before[1]:
        if not model.same_as(given):
            result = replace(result, certificate=NOT_TRIED)
        return replace(result, reason="nothing better than the start found")
    known = found.curvature or Curvature()
    return replace(result, status="refined", model=model, after=after, curvature=known)


def _with_noise(data: Data, model: Model, budget: Budget) -> Data:
    """The data with the noise that a model leaves of the record; one simulation."""
    budget.charge(data.cost)
    parameters = Full(model.shape)
    misfit = BandMisfit(data.simulator, parameters, data.record, data.weights)
    residual = misfit.residual(parameters.from_velocity(model.v, model.vmin))
    return data if residual is None else data.with_noise_of(residual[0], FIT)


def _possible(models: list[Model], data: Data) -> list[Model]:
    """The maps brought to what is known of single cells, each with its own minimum."""
    if data.known is None:
        return models
    return [Model.of(data.possible(model).v) for model in models]
