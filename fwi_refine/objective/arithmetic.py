"""In which arithmetic a record was made: by its first two rows, or by a map.

The first row at a source is x^2 w[0], x = v dt, and the second is (2 - 5 alpha) times that, plus
x^2 w[1]: no wave has come back, and both follow from the velocity of one cell. So both tell how
each product was rounded.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_refine.survey import Survey
from fwi_refine.wave import Simulator, propagate_released, released_medium

RELEASED = "released"  # OpenFWI's, as on a GPU: alpha = (x (1 / dx))^2 in float32
DIVISION = "division"  # the same code on a CPU: alpha = (x / dx)^2 in float32
DOUBLE = "float64"  # and perhaps rounded in the end

ULPS = 8  # float32 neighbours among which the velocity of a source cell is looked for

_Pair = tuple[Any, Any]  # of the first two samples


def _single(divide: bool, v: Any, w: NDArray[Any], survey: Survey) -> _Pair:
    """The first two samples at a source for velocities v, in float32."""
    f = np.float32
    x, dx = f(v) * f(survey.dt), survey.spacing
    alpha = np.square(x / f(dx) if divide else x * f(1 / dx))
    first = x * x * f(w[0])
    return first, (f(2) + f(-5) * alpha) * first + x * x * f(w[1])


def _double(v: Any, w: NDArray[Any], survey: Survey) -> _Pair:
    """The same in float64."""
    x = np.float64(v) * survey.dt
    first = x * x * w[0]
    return first, (2 - 5 * (x / survey.spacing) ** 2) * first + x * x * w[1]


_MAKERS: dict[str, Callable[[Any, NDArray[Any], Survey], _Pair]] = {
    RELEASED: lambda v, w, survey: _single(False, v, w, survey),
    DIVISION: lambda v, w, survey: _single(True, v, w, survey),
    DOUBLE: _double,
}


def possible_arithmetics(
    record: NDArray[Any], survey: Survey, missing: NDArray[np.bool_] | None = None
) -> tuple[str, ...]:
    """In which arithmetic the first two rows allow a record to be made.

    Parameters
    ----------
    record : ndarray, (shots, >= n_steps, receivers)
        The record. Sources on the map at which a receiver stands count.
    survey : Survey
        Its survey.
    missing : ndarray of bool, (shots, n_steps, receivers), optional
        Samples that tell nothing; finite all the same.

    Returns
    -------
    tuple of str
        Of `RELEASED`, `DIVISION` and `DOUBLE`, in that order. None: another code's, another
        wavelet's or scaled. Several: their first rows do not differ, or no source tells.
    """
    rows = np.asarray(record)[:, :2]
    single = bool(np.array_equal(rows.astype(np.float32), rows))
    sources = _at_sources(rows, survey, missing)
    found = []
    for name, make in _MAKERS.items():
        if not single and name != DOUBLE:
            continue
        if all(_fits(*samples, make, single, survey) for samples in sources):
            found.append(name)
    return tuple(found)


def has_released_arithmetic(
    record: NDArray[Any], survey: Survey, missing: NDArray[np.bool_] | None = None
) -> bool:
    """Whether a record may be in the arithmetic of released ones.

    Parameters
    ----------
    record : ndarray, (shots, >= n_steps, receivers)
        The record.
    survey : Survey
        Its survey.
    missing : ndarray of bool, (shots, n_steps, receivers), optional
        Samples that tell nothing; finite all the same.

    Returns
    -------
    bool
        False where a sample is not a float32 value, or where the first rows tell. True is no proof.
    """
    record = np.asarray(record)[:, : survey.n_steps]
    if not np.array_equal(record.astype(np.float32), record):
        return False
    return RELEASED in possible_arithmetics(record, survey, missing)


def is_of_an_arithmetic(
    record: NDArray[Any], survey: Survey, missing: NDArray[np.bool_] | None = None
) -> bool:
    """Whether the first two rows at some source tell an arithmetic, as no record with noise does.

    Parameters
    ----------
    record, survey, missing
        As for `possible_arithmetics`.

    Returns
    -------
    bool
        False as well where no source tells.
    """
    told = _at_sources(np.asarray(record)[:, :2], survey, missing)
    return bool(told) and bool(possible_arithmetics(record, survey, missing))


def _at_sources(
    rows: NDArray[Any], survey: Survey, missing: NDArray[np.bool_] | None
) -> list[tuple[float, float]]:
    """The first two samples at each source that stands alone, on the map and at a receiver."""
    nz, nx = survey.shape
    found = []
    for shot, source in enumerate(survey.sources):
        on_map = 0 <= source[0] < nz and 0 <= source[1] < nx
        if on_map and source in survey.receivers and survey.sources.count(source) == 1:
            k = survey.receivers.index(source)
            first, second = rows[shot, :, k].tolist()
            if missing is None or not missing[shot, :2, k].any():
                found.append((first, second))
    return found


def _fits(
    first: float,
    second: float,
    make: Callable[[Any, NDArray[Any], Survey], _Pair],
    single: bool,
    survey: Survey,
) -> bool:
    """Whether some velocity makes both samples."""
    w = survey.wavelet[:2]
    if not w[0]:
        return True
    if not first / w[0] > 0:
        return False
    v = math.sqrt(first / w[0]) / survey.dt
    if not single:
        return bool(np.allclose(make(v, w, survey), (first, second), rtol=1e-9, atol=0))
    bits = np.float32(v).view(np.int32) + np.arange(-ULPS, ULPS + 1, dtype=np.int32)
    made = [np.asarray(part).astype(np.float32) for part in make(bits.view(np.float32), w, survey)]
    return bool(((made[0] == np.float32(first)) & (made[1] == np.float32(second))).any())


def equal_samples(record: NDArray[Any], v: NDArray[Any], simulator: Simulator) -> dict[str, float]:
    """The fraction of a record's samples that a map has too, by arithmetic.

    Parameters
    ----------
    record : ndarray, (shots, >= n_steps, receivers)
        The record.
    v : ndarray, (nz, nx)
        The map, m/s; vmin is its minimum.
    simulator : Simulator
        Its survey, and how it is to be simulated.

    Returns
    -------
    dict
        1.0 for the arithmetic in which the map makes the record. Float32 values are compared.
    """
    survey = simulator.survey
    maps = torch.as_tensor(np.asarray(v))[None]
    measured = torch.from_numpy(np.asarray(record)[:, : survey.n_steps].astype(np.float32))
    medium = released_medium(maps, None, survey, divide=True)
    double = Simulator(survey, torch.float64, **simulator.options)
    made = {
        RELEASED: simulator.released(maps)[0],
        DIVISION: propagate_released(*medium, survey)[0],
        DOUBLE: double.forward(maps.double())[0].float(),
    }
    return {name: float((part.cpu() == measured).double().mean()) for name, part in made.items()}
