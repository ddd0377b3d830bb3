"""One recipe carried out from a start, of which only what is better is accepted."""

import math
from dataclasses import dataclass, replace

import torch

from fwi_refine.inversion.accept import NOT_TRIED, best_of, integers, proven, written
from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.levels.exact import Certificate
from fwi_refine.inversion.levels.refine import assign_levels
from fwi_refine.inversion.model import Model
from fwi_refine.inversion.problem import penalty
from fwi_refine.inversion.recipe import Recipe
from fwi_refine.inversion.stage_result import Curvature, StageResult, Trace
from fwi_refine.inversion.stages import run_stages
from fwi_refine.objective.misfit import BandMisfit
from fwi_refine.objective.noise import CLEAN, Noise
from fwi_refine.objective.parameterisation import Full
from fwi_refine.priors import Priors
from fwi_refine.routing import Family
from fwi_refine.routing.edges import blended_edges

# Rms misfit of a map that explains its record: the worst floor reported for released data (7.4e-5)
# rounded up. Rounding to integers is kept if it leaves so little, or at most twice as much as was
# left before; what fits worse has some cell that is not right yet, whose unrounded value is the
# better guess. And where the family was only inferred, another route is tried above it.
FIT_RMS = 1e-4
# Rms misfit above which a result is a poor fit: the published method's accuracy falls off from 1e-4
# rms on, and a start that is usable for the benchmark begins near 1e-1.
POOR_FIT_RMS = 1e-2
# Fraction of the start's rms misfit above which a poor fit gives way to the start, as that is
# likelier to be nearer: what is left is then of another source or of noise, which the map has taken
# up. benchmarks/poor_fits.json has the cases.
MAX_RMS_RATIO_TO_START = 0.2


NOTHING_BETTER = "nothing better than the start found"


@dataclass(frozen=True)
class RecipeResult:
    """Where a recipe led to.

    Attributes
    ----------
    family
        Of the recipe, or the one that the map's edges tell, see `Recipe.if_blended`.
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
    given = Model.of(start)
    misfit = data.misfit(given, budget)
    before = misfit, misfit + penalty(recipe.stages[0], given, priors)
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
        budget.enter(f"{family}, start", math.sqrt(misfit))
        found = _minimise(family, recipe, data, given, misfit, priors, budget)
    traces = begin, *found.stages.traces
    unchanged = replace(unchanged, family=found.family, noise=found.data.noise, traces=traces)
    if not budget.affords(1):
        reason = "no evaluation was left to try anything"
        return replace(unchanged, stopped=True, reason=reason)
    result = _as_written(found, recipe, unchanged, priors, budget)
    better = result.after[1] < before[1]
    if better and not _start_is_nearer(result, recipe, misfit, found.data):
        return result
    return replace(
        unchanged,
        reason=_nearer(result, misfit) if better else NOTHING_BETTER,
        stopped=result.stopped,
        rounded=result.rounded,
        certificate=result.certificate if result.model.same_as(given) else NOT_TRIED,
    )


def fits_poorly(result: RecipeResult, data: Data) -> bool:
    """Whether a result is too far from its record for an error that is known to first order."""
    return result.status != "failed" and result.after[0] > data.misfit_limit(POOR_FIT_RMS)


def unfinished(result: RecipeResult, data: Data) -> bool:
    """Whether a result was stopped before it explained its record."""
    return result.stopped and result.after[0] > data.misfit_limit(FIT_RMS)


def _start_is_nearer(result: RecipeResult, recipe: Recipe, misfit: float, data: Data) -> bool:
    """Whether the start is likelier to be nearer to the truth than a result with less misfit;
    misfit: mean square, of the start."""
    most = math.inf
    if unfinished(result, data):
        most = recipe.nearer_below
        if data.noise is None:  # what is left may be noise
            most = max(most, MAX_RMS_RATIO_TO_START)
    elif fits_poorly(result, data):
        most = MAX_RMS_RATIO_TO_START
    return result.after[0] > most**2 * misfit


def _nearer(result: RecipeResult, misfit: float) -> str:
    """The reason for a start that is kept; misfit: mean square, of the start."""
    left = f"{result.rms / math.sqrt(misfit):.0%} of the start's misfit"
    if result.stopped:
        return f"stopped with {left} left: the start is likelier to be nearer; allow more time"
    return f"the best fit leaves {left}: the start is likelier to be nearer"


@dataclass(frozen=True)
class _Minimised:
    """Where stages and level assignment ended.

    data: with the noise that is then known; blended: whether the recipe asks for the edges, and
    they are.
    """

    stages: StageResult
    data: Data
    family: str
    blended: bool


def _minimise(
    family: str,
    recipe: Recipe,
    data: Data,
    given: Model,
    misfit: float,
    priors: Priors,
    budget: Budget,
) -> _Minimised:
    """Stages and level assignment; misfit: mean square, of the given model."""
    by_edges = bool(recipe.if_blended)
    blended = by_edges and family == Family.BLENDED
    start = data.constrained(Model(data.with_source_velocities(given.v), given.vmin))
    found = run_stages(recipe.stages, data, start, priors, budget, misfit, family)
    if found.stopped:
        return _Minimised(found, data, family, blended)
    if data.noise is None and budget.affords(data.cost):
        data = _with_noise(data, found.model, budget)
        recipe = recipe.with_noise(data.noise, data.survey, data.count)
    if by_edges:
        blended = blended_edges(found.model.v.cpu().numpy()) > priors.routing.blended_edges
        family = Family.BLENDED if blended else Family.LAYERED
    if blended:
        ended = next((trace[-1][1] ** 2 for trace in reversed(found.traces) if trace), misfit)
        more = run_stages(recipe.if_blended, data, found.model, priors, budget, ended, family)
        found = found.then(more)
    elif recipe.assignment:
        known = found.curvature or Curvature()
        levels = assign_levels(recipe.assignment, data, found.model, priors, budget, known)
        found = replace(levels, traces=found.traces + levels.traces)
    return _Minimised(found, data, family, blended)


def _as_written(
    found: _Minimised, recipe: Recipe, unchanged: RecipeResult, priors: Priors, budget: Budget
) -> RecipeResult:
    """The map as a file holds it, or in integers where these explain the record."""
    stages, data, first = found.stages, found.data, recipe.stages[0]
    maps = _constrained(written(stages.model, stages.curvature), data)
    model, misfit = best_of(maps, data, budget)
    after = misfit, misfit + penalty(first, model, priors)
    rounded: bool | None = None
    certificate = NOT_TRIED
    if recipe.round and budget.affords(data.cost):
        whole = _best_integers(found, misfit, budget)
        objective = whole.misfit + penalty(first, whole.model, priors)
        better = whole.fits and objective < unchanged.before[1]
        if whole.certificate.exact or better:
            model, after, certificate = whole.model, (whole.misfit, objective), whole.certificate
            rounded = True
        elif not found.blended:  # where edges are blended, integers were not to be expected
            rounded = False
    return replace(
        unchanged,
        status="refined",
        model=model,
        after=after,
        stopped=stages.stopped and not certificate.exact,
        rounded=rounded,
        curvature=stages.curvature or Curvature(),
        certificate=certificate,
    )


@dataclass(frozen=True)
class _IntegerMap:
    """A map of integers: its mean square misfit, whether that is little enough, and its proof."""

    model: Model
    misfit: float
    fits: bool
    certificate: Certificate


def _best_integers(found: _Minimised, misfit: float, budget: Budget) -> _IntegerMap:
    """The best map of integers; misfit: mean square, of the map as it is."""
    data = found.data
    whole, squares = best_of(_constrained(integers(found.stages.model), data), data, budget)
    beyond = data.beyond_noise(misfit)
    limit = misfit
    if not found.blended:
        limit = max(data.misfit_limit(FIT_RMS), 4 * beyond + (misfit - beyond))
    certificate = NOT_TRIED
    if squares <= limit or not found.blended:
        whole, squares, certificate = proven(whole, squares, data, budget)
    return _IntegerMap(whole, squares, squares <= limit, certificate)


def _with_noise(data: Data, model: Model, budget: Budget) -> Data:
    """The data with the noise that a model leaves of the record; one simulation."""
    budget.charge(data.cost)
    parameters = Full(model.shape)
    misfit = BandMisfit(data.simulator, parameters, data.record, data.weights)
    residual = misfit.residual(parameters.from_velocity(model.v, model.vmin))
    return data if residual is None else data.with_noise_of(residual[0], FIT_RMS)


def _constrained(models: list[Model], data: Data) -> list[Model]:
    """The maps within the constraints of single cells, each with its own minimum."""
    if data.constraints is None:
        return models
    return [Model.of(data.constrained(model).v) for model in models]
