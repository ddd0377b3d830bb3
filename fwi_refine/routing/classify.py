"""The family of a sample, from its record and its predicted map.

Each family but one has a test, its `Criterion`, which stands with its recipe in
fwi_refine/inversion/families/; `inversion.routes.classify` applies them. Their order is that of the
published recipe (2nd place of the Yale/UNC-CH competition). The first that holds decides; a sample
that passes none is layered. The thresholds stand in priors/openfwi.toml.

All numbers are measured for every sample, also those that were not needed, so that a report
shows how far the sample was from each family.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fwi_refine.errors import InputError
from fwi_refine.objective.noise import CLEAN, MARGIN, early_noise
from fwi_refine.priors import Priors, Routing
from fwi_refine.routing.criterion import Criteria
from fwi_refine.routing.families import Family
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.validate import check_prediction, check_record

NO_FAMILY = (
    "families can be told apart on the survey of OpenFWI only; say which it is: layered (layers, "
    "faults and bodies with edges), general (anything else, and starts far off), style-a "
    "(smooth), style-b (rough) or flat-vel (flat layers)"
)

# Rms of noise over that of a record: what is louder may be a record of its own
MAX_NOISE_RATIO = 0.3


@dataclass(frozen=True)
class Classification:
    """A family and the evidence for it.

    Parameters
    ----------
    family : str
        A `Family`, or the name of another one that is registered.
    evidence : dict of float
        The measured numbers (`feature_names`), each with its `..._threshold`; the same keys for
        every sample.
    reason : str
        The test that decided, with its number and threshold.
    confidence : float
        0 where a number stands on its threshold, near 1 far from it: 1 - r, r the largest ratio of
        a number to its threshold, or its inverse where that is less, over the tests up to the one
        that decided. It is a distance, not a probability.
    """

    family: str
    evidence: dict[str, float]
    reason: str
    confidence: float


def classify(
    prediction: ArrayLike,
    record: ArrayLike,
    priors: Priors,
    survey: Survey = OPENFWI,
    *,
    criteria: Criteria,
) -> Classification:
    """Family of one sample.

    Parameters
    ----------
    prediction : array_like, shape (nz, nx)
        Predicted map in m/s.
    record : array_like, shape (shots, rows, receivers)
        Measured record, of which the rows up to `survey.n_steps` are used; NaN where samples are
        missing.
    priors : Priors
        Priors and thresholds.
    survey : Survey
        Survey of the record.
    criteria : mapping
        Test of each family that has one.

    Returns
    -------
    Classification

    Raises
    ------
    SampleError
        For arrays of another shape or type, and for values that are not finite.
    InputError
        For a survey that the tests are not made for (see `can_classify`).
    ValueError
        For priors fitted on another grid.
    """
    measured = sample_features(prediction, record, priors, survey, criteria=criteria)
    cells = survey.shape[0] * survey.shape[1]
    return apply_thresholds(measured, priors.routing, cells, criteria)


def feature_names(criteria: Criteria) -> tuple[str, ...]:
    """The names of the numbers that are measured, in the order of the tests."""
    return tuple(test.feature for test in criteria.values())


def sample_features(
    prediction: ArrayLike,
    record: ArrayLike,
    priors: Priors,
    survey: Survey = OPENFWI,
    *,
    criteria: Criteria,
) -> dict[str, float]:
    """The numbers that are compared with thresholds.

    Parameters
    ----------
    prediction, record, priors, survey, criteria
        As for `classify`, which has the errors, too.

    Returns
    -------
    dict of float
        By the keys `feature_names`.
    """
    if not can_classify(survey):
        raise InputError(NO_FAMILY)
    v = check_prediction(prediction, survey=survey)
    used = check_record(record, survey=survey, gaps=True)[:, : survey.n_steps]
    return {test.feature: test.measure(v, used, priors) for test in criteria.values()}


def apply_thresholds(
    measured: dict[str, float], routing: Routing, cells: int, criteria: Criteria
) -> Classification:
    """Family of a sample from its measured numbers.

    Parameters
    ----------
    measured : dict of float
        As `sample_features` returns them.
    routing : Routing
        Thresholds.
    cells : int
        Number of cells of the map.
    criteria : mapping
        Test of each family that has one.

    Returns
    -------
    Classification
    """
    family, nearest, words = str(Family.LAYERED), 0.0, "there are no tests"
    for name, test in criteria.items():
        number = measured[test.feature]
        nearest = max(nearest, test.closeness(number, routing, cells))
        words = test.describe(number, routing)
        if test.holds(number, routing):
            family = name
            break
    else:
        words = f"no other test holds; {words}"
    thresholds = {
        f"{test.feature}_threshold": test.threshold_in(routing) for test in criteria.values()
    }
    return Classification(_named(family), measured | thresholds, words, 1.0 - nearest)


def _named(family: str) -> str:
    """The member of `Family` of that name, where there is one."""
    return Family(family) if family in {*map(str, Family)} else family


def can_classify(survey: Survey) -> bool:
    """Whether families can be told apart: the thresholds are those of OpenFWI's maps and records.

    Parameters
    ----------
    survey : Survey
        Survey of the records.

    Returns
    -------
    bool
        True for the survey of OpenFWI, also with other time steps, absorbing band, velocity bounds,
        a water layer, and another wavelet of its frequency.
    """
    free = (
        "n_steps",
        "file_rows",
        "absorbing_cells",
        "velocity_bounds",
        "water",
        "given_wavelet",
    )
    return replace(OPENFWI, **{name: getattr(survey, name) for name in free}) == survey


def are_flat(record: NDArray[Any], priors: Priors, survey: Survey = OPENFWI) -> bool:
    """Whether the layers are flat by the symmetry of the record.

    Parameters
    ----------
    record : ndarray, shape (shots, rows, receivers)
        Measured record.
    priors : Priors
        Priors and thresholds.
    survey : Survey
        Survey of the record.

    Returns
    -------
    bool
        False for a survey with which families cannot be told apart, too.
    """
    if not can_classify(survey):
        return False
    return asymmetry(record[:, : survey.n_steps]) < priors.routing.symmetry_rms


def symmetry_rms(record: NDArray[Any]) -> float:
    """Asymmetry of a record.

    Parameters
    ----------
    record : ndarray, shape (shots, rows, receivers)
        Record.

    Returns
    -------
    float
        Rms of the first shot minus the last one, mirrored over the receivers; of the samples that
        both have. 0 where there are none.
    """
    difference = record[0].astype(np.float64) - record[-1, :, ::-1]
    there = np.isfinite(difference)
    if not there.all():
        difference = difference[there] if there.any() else np.zeros(1)
    return float(np.sqrt(np.mean(difference**2)))


def asymmetry(record: NDArray[Any]) -> float:
    """Asymmetry of a record of OpenFWI's sources and receivers, beyond its noise.

    Parameters
    ----------
    record : ndarray, shape (shots, n_steps, receivers)
        Record, NaN where samples are missing.

    Returns
    -------
    float
        `symmetry_rms` less what the noise before the first arrivals makes of it, where that is
        faint enough beside the record to be told from it.
    """
    found = symmetry_rms(record)
    there = np.isfinite(record)
    filled = np.where(there, record, 0.0)
    survey = replace(OPENFWI, n_steps=record.shape[1], file_rows=record.shape[1])
    noise = early_noise(filled, survey, None if there.all() else there.astype(np.float64))
    if noise is None or noise == CLEAN or noise.misfit() > MAX_NOISE_RATIO**2 * np.mean(filled**2):
        return found
    return math.sqrt(max(found**2 - 2 * MARGIN**2 * noise.misfit(), 0.0))


def map_features(prediction: NDArray[Any], priors: Priors, criteria: Criteria) -> dict[str, float]:
    """The numbers that are measured on the predicted map alone.

    Parameters
    ----------
    prediction : ndarray, shape (nz, nx)
        Predicted map in m/s.
    priors : Priors
        Priors and thresholds.
    criteria : mapping
        Test of each family that has one.

    Returns
    -------
    dict of float
        By the names of the features.
    """
    tests = [test for test in criteria.values() if not test.from_record]
    return {test.feature: test.measure(prediction, None, priors) for test in tests}
