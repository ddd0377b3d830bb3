"""Recipes tried one after the other, until one explains its record."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.recipe import Recipe
from fwi_refine.inversion.routes import classify
from fwi_refine.inversion.run_recipe import FIT_RMS, RecipeResult, run_recipe
from fwi_refine.inversion.stage_result import Trace
from fwi_refine.priors import Priors
from fwi_refine.routing import Family

# Where no route leads to a fit, another takes the place of the first if it leaves less than this
# fraction of the rms: noise alone is fitted better by the one with more unknowns.
MAX_RMS_RATIO_TO_FIRST = 0.5


def try_routes(
    recipes: dict[str, Recipe],
    data: Data,
    start: torch.Tensor,
    priors: Priors,
    budget: Budget,
) -> tuple[RecipeResult, tuple[Trace, ...]]:
    """Runs recipes until one leads to a fit and to a map that looks like its family.

    Parameters
    ----------
    recipes
        By family, in the order in which they are tried.
    data, start, priors, budget
        As for `run_recipe`.

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
        stopped = result.stopped
        if right[-1] or result.certificate.exact or result.status == "failed" or stopped:
            break
        if number < len(recipes) and (not budget.affords(2) or budget.should_stop()):
            stopped = True
            break
    best = tried[choose_route(tried, [_fits(result, data) for result in tried], right)]
    end = ((math.ceil(budget.evaluations), best.rms),)
    traces = (*(trace for result in tried for trace in result.traces), end)
    return replace(best, stopped=best.stopped or stopped), traces


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
            far = tried[k].rms < MAX_RMS_RATIO_TO_FIRST * tried[best].rms
            better = far and tried[k].status == "refined"
        best = k if better else best
    return best


def _fits(result: RecipeResult, data: Data) -> bool:
    return result.fit**2 <= data.misfit_limit(FIT_RMS)


def _looks_like(result: RecipeResult, data: Data, priors: Priors) -> bool:
    """Whether the classifier takes a result for a map of its family: layers come out of the record
    of a rough map as well, but not a few velocities."""
    v = result.model.v.cpu().numpy()
    found = classify(v, data.with_gaps, priors, data.survey).family
    return found == result.family or {found, result.family} == {Family.BLENDED, Family.LAYERED}
