"""The family of a sample, from its record and its predicted map.

Four tests, in the order of the published recipe (2nd place of the Yale/UNC-CH competition). The
first that holds decides; a sample that passes none is layered. The thresholds stand in
priors/openfwi.toml.

    flat-vel      the record is mirror-symmetric: rms(first shot - mirrored last shot) is small.
                  Only a map without lateral change gives such a record.
    style-a       the map is smooth: its energy under the Gaussian process of Style A is small
    style-b       no velocity is common: the most frequent round(v / 3) covers few cells
    two-velocity  the two largest areas (neighbours within 10 m/s) cover almost the whole map

All numbers are measured for every sample, also those that were not needed, so that a report
shows how far the sample was from each family.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from fwi_refine.errors import InputError
from fwi_refine.objective.connected import connected_areas
from fwi_refine.priors import Priors, Routing
from fwi_refine.routing.families import Family
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.validate import check_prediction, check_record

MAP_FEATURES = ("style_a_log_energy", "style_b_cells", "two_velocity_cells")
FEATURES = ("symmetry_rms", *MAP_FEATURES)


NO_FAMILY = (
    "families can be told apart on the survey of OpenFWI only; say which it is: layered (layers, "
    "faults and bodies with edges), style-a (smooth), style-b (rough) or flat-vel (flat layers)"
)


@dataclass(frozen=True)
class Classification:
    """A family and the evidence for it.

    Parameters
    ----------
    family : Family
        The family.
    evidence : dict of float
        The four measured numbers (`FEATURES`), each with its `..._threshold`; the same keys for
        every sample.
    reason : str
        The test that decided, with its number and threshold.
    confidence : float
        0 where a number stands on its threshold, near 1 far from it: 1 - r, r the largest ratio of
        a number to its threshold, or its inverse where that is less, over the tests up to the one
        that decided. It is a distance, not a probability.
    """

    family: Family
    evidence: dict[str, float]
    reason: str
    confidence: float


def classify(
    prediction: ArrayLike, record: ArrayLike, priors: Priors, survey: Survey = OPENFWI
) -> Classification:
    """Family of one sample.

    Parameters
    ----------
    prediction : array_like, shape (nz, nx)
        Predicted map in m/s.
    record : array_like, shape (shots, rows, receivers)
        Measured record, of which the rows up to `survey.n_steps` are used.
    priors : Priors
        Priors and thresholds.
    survey : Survey
        Survey of the record.

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
    measured = sample_features(prediction, record, priors, survey)
    return apply_thresholds(measured, priors.routing, cells=survey.shape[0] * survey.shape[1])


def sample_features(
    prediction: ArrayLike, record: ArrayLike, priors: Priors, survey: Survey = OPENFWI
) -> dict[str, float]:
    """The four numbers that are compared with thresholds.

    Parameters
    ----------
    prediction, record, priors, survey
        As for `classify`, which has the errors, too.

    Returns
    -------
    dict of float
        By the keys `FEATURES`.
    """
    if not can_classify(survey):
        raise InputError(NO_FAMILY)
    v = check_prediction(prediction, survey=survey)
    used = check_record(record, survey=survey)[:, : survey.n_steps]
    return {"symmetry_rms": symmetry_rms(used), **map_features(v, priors)}


def apply_thresholds(measured: dict[str, float], routing: Routing, cells: int) -> Classification:
    """Family of a sample from its measured numbers.

    Parameters
    ----------
    measured : dict of float
        As `sample_features` returns them.
    routing : Routing
        Thresholds.
    cells : int
        Number of cells of the map.

    Returns
    -------
    Classification
    """
    symmetry, energy, same, two = (measured[key] for key in FEATURES)
    # (family, holds, number and threshold as positive quantities, what to say)
    tests = (
        (
            Family.FLAT_VEL,
            symmetry < routing.symmetry_rms,
            (symmetry, routing.symmetry_rms),
            f"asymmetry of the record {symmetry:.2g} rms against {routing.symmetry_rms:.2g}",
        ),
        (
            Family.STYLE_A,
            energy < routing.style_a_log_energy,
            (np.exp(energy), np.exp(routing.style_a_log_energy)),
            f"Style A energy e^{energy:.2f} against e^{routing.style_a_log_energy:.2f}",
        ),
        (
            Family.STYLE_B,
            same < routing.style_b_cells,
            (same, routing.style_b_cells),
            f"most frequent velocity in {same:.0f} cells against {routing.style_b_cells:.0f}",
        ),
        (
            # The cells left over are compared: the areas themselves never exceed the map.
            Family.TWO_VELOCITY,
            two > routing.two_velocity_cells,
            (cells - two, max(cells - routing.two_velocity_cells, 0.0)),
            f"two largest areas {two:.0f} cells against {routing.two_velocity_cells:.0f}",
        ),
    )
    reached = []
    for test in tests:
        reached.append(test)
        if test[1]:
            break
    family, holds, _, words = reached[-1]
    if not holds:
        family, words = Family.LAYERED, f"no other test holds; {words}"
    confidence = 1.0 - max(_closeness(*numbers) for _, _, numbers, _ in reached)
    evidence = measured | {f"{key}_threshold": getattr(routing, key) for key in measured}
    return Classification(family, evidence, words, confidence)


def can_classify(survey: Survey) -> bool:
    """Whether families can be told apart: the thresholds are those of OpenFWI's maps and records.

    Parameters
    ----------
    survey : Survey
        Survey of the records.

    Returns
    -------
    bool
        True for the survey of OpenFWI, also with other time steps, absorbing band and velocity
        bounds.
    """
    free = ("n_steps", "file_rows", "absorbing_cells", "velocity_bounds")
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
    return symmetry_rms(record[:, : survey.n_steps]) < priors.routing.symmetry_rms


def _closeness(number: float, threshold: float) -> float:
    """Ratio of the two, not negative, such that it is at most 1: 1 on the threshold."""
    larger = max(number, threshold)
    return float(min(number, threshold) / larger) if larger > 0 else 1.0


def symmetry_rms(record: NDArray[Any]) -> float:
    """Asymmetry of a record.

    Parameters
    ----------
    record : ndarray, shape (shots, rows, receivers)
        Record.

    Returns
    -------
    float
        Rms of the first shot minus the last one, mirrored over the receivers.
    """
    difference = record[0].astype(np.float64) - record[-1, :, ::-1]
    return float(np.sqrt(np.mean(difference**2)))


def map_features(prediction: NDArray[Any], priors: Priors) -> dict[str, float]:
    """The numbers that are measured on the predicted map.

    Parameters
    ----------
    prediction : ndarray, shape (nz, nx)
        Predicted map in m/s.
    priors : Priors
        Priors and thresholds.

    Returns
    -------
    dict of float
        By the keys `MAP_FEATURES`.
    """
    routing = priors.routing
    energy = float(priors.style_a.value(torch.from_numpy(np.asarray(prediction, np.float64))))
    # A map that equals the mean has energy 0; e^0 is far below any threshold as well.
    log_energy = np.log(max(energy, 1.0))
    _, counts = np.unique(np.round(prediction / routing.style_b_bin), return_counts=True)
    areas = np.sort(np.bincount(connected_areas(prediction, routing.area_tolerance).ravel()))
    values = (log_energy, counts.max(), areas[-2:].sum())
    return {key: float(value) for key, value in zip(MAP_FEATURES, values, strict=True)}
