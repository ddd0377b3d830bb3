"""Predictions that belong to other records than their own.

A prediction that fits the record of another sample far better than its own is misplaced, if it
also fits that record better than the prediction that stands beside it: else the two samples are
alike, and the prediction is a poor one.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fwi_refine.errors import SampleError
from fwi_refine.io.convert import Conversion
from fwi_refine.routing.checks.form import Finding, is_record
from fwi_refine.routing.checks.physics import cut
from fwi_refine.routing.checks.regression import MAX_MISFIT_RATIO, Fit, regress
from fwi_refine.survey import Survey

# Residual of a regression, of the record's rms, of the record that belongs to a map
MAX_PARTNER_RESIDUAL = 0.25
# Samples that have to be misplaced: where all that do not fit their records are, and where only
# some are, as two poor predictions may happen to look like misplaced ones.
MIN_PAIRS, MIN_PAIRS_OF_MANY = 2, 3
ROW_STEP = 4  # rows of a record between two that are compared while partners are looked for

FitMap = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, Fit] | None]


@dataclass(frozen=True)
class _Partner:
    """The best record of a prediction so far: residual, name, the record, and what reads the map
    that stands beside it."""

    residual: float
    name: str
    record: np.ndarray
    read: Callable[[], np.ndarray] | None


def recognise_misplaced(
    strange: list[tuple[np.ndarray, Fit]],
    survey: Survey,
    order: Conversion,
    others: Callable[[], Iterable[tuple[Any, ...]]],
    shots: list[int],
    fit: FitMap,
) -> Finding | None:
    """The finding that predictions belong to other records than their own.

    Parameters
    ----------
    strange : list of (ndarray, Fit)
        What is simulated of predictions that do not fit their records, and how they do.
    survey : Survey
        Of the records.
    order : Conversion
        How the records are stored.
    others : callable
        As for `recognise`.
    shots : list of int
        Which are simulated.
    fit : callable
        Fits a map to a record.

    Returns
    -------
    Finding or None
        None where too few of them are misplaced.
    """
    best = [_Partner(np.inf, "", np.empty(0), None)] * len(strange)
    for name, record, *own in others():
        if record.ndim != 3 or not is_record((record := order.record(record)).shape, survey):
            continue
        x = cut(record, survey)[shots]
        for k, (s, _) in enumerate(strange):
            residual = regress(s[:, ::ROW_STEP], x[:, ::ROW_STEP]).residual
            if residual < best[k].residual:
                best[k] = _Partner(residual, name, x, own[0] if own else None)
    best = [
        replace(partner, residual=regress(s, partner.record).residual) if partner.name else partner
        for partner, (s, _) in zip(best, strange, strict=True)
    ]
    moved = [
        partner
        for partner, (_, own) in zip(best, strange, strict=True)
        if partner.residual < min(MAX_PARTNER_RESIDUAL, MAX_MISFIT_RATIO * own.residual)
    ]
    if len({partner.name for partner in moved}) < len(moved):
        return None
    fewest = MIN_PAIRS
    if len(moved) < len(strange):  # the others stand where they belong, or are poor
        moved = [partner for partner in moved if _fits_better(partner, fit, survey)]
        fewest = MIN_PAIRS_OF_MANY
    if len(moved) < fewest:
        return None
    return Finding(
        f"predictions fit the records of other samples, for instance {moved[0].name}, and not "
        "their own: they seem to be in another order; give their ids with --ids"
    )


def _fits_better(partner: _Partner, fit: FitMap, survey: Survey) -> bool:
    """Whether a prediction fits the record of its partner far better than the partner's does."""
    with suppress(SampleError):
        v = None if partner.read is None else np.asarray(partner.read(), np.float64)
        if v is not None and v.shape == survey.shape and np.isfinite(v).all():
            found = fit(v.clip(*survey.velocity_bounds), partner.record)
            return found is not None and partner.residual < MAX_MISFIT_RATIO * found[1].residual
    return False
