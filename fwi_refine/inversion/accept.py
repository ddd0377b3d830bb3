"""The map that takes the place of what the stages found: as a file holds it, and proven."""

import math
from collections.abc import Sequence

import torch

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.levels.exact import Certificate, certify, search
from fwi_refine.inversion.levels.integers import merge_scattered, to_integers, without_rare
from fwi_refine.inversion.levels.levels import find_levels
from fwi_refine.inversion.minimum import with_minimum
from fwi_refine.inversion.model import Model, distinct
from fwi_refine.inversion.stage_result import Curvature
from fwi_refine.inversion.uncertainty import Solution

# Rms misfit of integers from which the search for a proven map begins.
MAX_RMS_FOR_SEARCH = 1e-3
# m/s by which cells of rare velocities change before the search, where more samples are equal then.
RARE_VELOCITY_TOLERANCES = (2.0, 5.0)
NOT_TRIED = Certificate(None)


def written(model: Model, curvature: Curvature | None) -> list[Model]:
    """The maps that may stand in a file in a model's place: float32, each with its own minimum.

    A file holds no vmin: who reads it takes the map's minimum. So where vmin is another, either
    the cells below it are lifted to it, the others making up for it where the curvature is known,
    or the lowest cell is set to it.
    """
    single, vmin = model.v.float().double(), model.vmin.float().double()
    if torch.equal(single.min(), vmin):
        return [Model.of(single)]
    lowest = single.clone()
    lowest.view(-1)[int(single.argmin())] = vmin
    maps = [single, single.clamp_min(vmin), lowest]
    if curvature is not None and isinstance(curvature.uncertainty, Solution):
        lifted = with_minimum(model, curvature.uncertainty)
        if lifted is not None:
            maps.insert(0, lifted.v.clamp_min(lifted.vmin).float().double())
    return distinct(map(Model.of, maps))


def integers(model: Model) -> list[Model]:
    """The maps of integers that may stand in a model's place, each with its own minimum.

    One wrong cell may lie far below the true minimum: the rounded map, the same above what the data
    say of vmin, and above the lowest level; and that with areas whose cells scatter as one.
    """
    rounded, levels = model.v.round(), to_integers(model.v)[0]
    merged = to_integers(merge_scattered(levels))[0]
    maps = (rounded, rounded.clamp_min(model.vmin.round()), levels, merged)
    return distinct(map(Model.of, maps))


def proven(
    whole: Model, misfit: float, data: Data, budget: Budget
) -> tuple[Model, float, Certificate]:
    """A map of integers after the search for the one that its record proves.

    Parameters
    ----------
    whole
        A map of integers.
    misfit
        Its mean square misfit. No search begins above `MAX_RMS_FOR_SEARCH`.
    data, budget
        As for `run_stage`. The search takes at most as many evaluations as all before it.

    Returns
    -------
    Model, float, Certificate
        The map, its misfit, and what the record says of it; the given map where nothing better was
        found.
    """
    if misfit > data.misfit_limit(MAX_RMS_FOR_SEARCH) or not budget.affords(2 * data.cost):
        return whole, misfit, NOT_TRIED
    with budget.keeping(data.cost), budget.at_most(budget.evaluations):
        own = certify(whole.v, data, budget)
        begin, before = _most_equal(whole, own, data, budget)
        levels = find_levels(begin).velocities
        v, certificate = search(begin, before, levels, data, budget)
    if torch.equal(v, whole.v) or not torch.equal(data.constrained(Model.of(v)).v, v):
        return whole, misfit, own
    found = Model.of(v)
    fit = data.misfit(found, budget)
    if certificate.exact or fit < misfit:
        return found, fit, certificate
    return whole, misfit, own


def _most_equal(
    whole: Model, own: Certificate, data: Data, budget: Budget
) -> tuple[torch.Tensor, Certificate]:
    """The map of integers (nz, nx), with its rare velocities or without, of the most equal samples,
    and what the record says of it; own: what it says of the given one.

    The misfit does not tell: a cell that is 1 m/s off is less than the rounding of the record.
    """
    best, most = whole.v, own
    fewer = (Model.of(without_rare(whole.v, within)) for within in RARE_VELOCITY_TOLERANCES)
    for model in distinct([whole, *fewer])[1:]:
        if most.exact is not False or not torch.equal(data.constrained(model).v, model.v):
            continue
        found = certify(model.v, data, budget)
        if (found.equal_fraction or 0.0) > (most.equal_fraction or 0.0):
            best, most = model.v, found
    return best, most


def best_of(models: Sequence[Model], data: Data, budget: Budget) -> tuple[Model, float]:
    """The model that fits best, of those that the budget affords.

    Parameters
    ----------
    models
        At least one.
    data
        What they are to explain.
    budget
        Is charged for a simulation of each.

    Returns
    -------
    model, misfit
        Mean square misfit; infinite where the budget affords none.
    """
    best, least = models[0], math.inf
    for model in models:
        misfit = data.misfit(model, budget) if budget.affords(data.cost) else math.inf
        if misfit < least:
            best, least = model, misfit
    return best, least
