"""Scale and start of records, told by their first rows, whatever the maps are.

Nothing has come back yet in the first two rows. At the source, d[0] = a (v dt)^2 w[0]; at the cell
beside it, d[1] = alpha c2 d[0], with alpha = (v dt / dx)^2 and the scheme's c2 = 4/3
(wave/reference.py). The ratio of the two tells the velocity beside the source without the scale a,
and d[0] tells a v^2. Where source and neighbours have one velocity, as in layers, the scale follows
exactly; else it scatters about the true one. Noise hides both numbers, and then nothing is said.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fwi_refine.routing.checks.form import Finding
from fwi_refine.survey import Survey
from fwi_refine.wave import C2

MIN_SIGNAL_TO_NOISE = 10.0  # value over noise, from which on it tells something
MIN_QUANTA = 100.0  # value over the smallest one of the record: with less it may be rounding
MIN_SCALE_DEVIATION = 0.01  # smallest relative deviation of a scale that is reported
MIN_STANDARD_ERRORS = 5.0  # deviation over its standard error
MIN_ESTIMATES = 4  # of a scale
QUIET_LEVEL = 1e-4  # of a trace before the first arrival, of the record's rms
EARLY_FRACTION = 0.7  # fraction of the time of the first possible arrival that counts as before it

Array = NDArray[np.float64]


def recognise_first_rows(records: Sequence[Array], survey: Survey) -> list[Finding]:
    """Contradictions of the survey in the first rows of every record.

    Parameters
    ----------
    records
        (shots, >= n_steps, receivers) each, finite, of float64.
    survey
        The survey that they are taken to be of.

    Returns
    -------
    list of Finding
        At most one.
    """
    if not records or survey.wavelet[0] == 0:
        return []
    if all(_has_levels(d, survey) for d in records):
        text = (
            "the traces have levels of their own before the first arrival, expected 0: their mean "
            "or a trend seems removed"
        )
        return [Finding(f"{text}; give the records as they were recorded")]
    if all(_begins_late(d, survey) for d in records):
        text = (
            "records are 0 at the sources in their first row, where the wavelet has begun: they "
            "seem to begin late, or to be muted"
        )
        return [Finding(f"{text}; give them as they were recorded", of_source=True)]
    estimates = [scales(d, survey) for d in records]
    each = [found for found, _ in estimates]
    found, errors = (np.concatenate(parts) for parts in zip(*estimates, strict=True))
    if found.size < MIN_ESTIMATES or any(e.size == 0 for e in each):
        return []
    scale = float(np.median(found))
    scatter = 1.4826 * float(np.median(np.abs(found - scale)))
    error = 1.25 * max(scatter, scale * float(np.median(errors))) / np.sqrt(found.size)
    off = scale - 1
    if abs(off) < max(MIN_SCALE_DEVIATION, MIN_STANDARD_ERRORS * error) or any(
        (np.median(e) - 1) * off <= 0 for e in each
    ):
        return []
    text = (
        f"records begin {scale:.5g} times as large as the survey's wavelet makes them: they seem "
        "scaled, or of another wavelet or start"
    )
    option = f"--record-scale {1 / scale:.5g} (about; the exact factor matters)"
    return [Finding(text, option, of_source=True)]


def scales(d: Array, survey: Survey) -> tuple[Array, Array]:
    """Estimates of a record's scale, one for each source that tells it, and how far noise may put
    each off, relative."""
    noise = _noise(d, survey)
    least = max(MIN_SIGNAL_TO_NOISE * noise, MIN_QUANTA * _quantum(d))
    index = {position: k for k, position in enumerate(survey.receivers)}
    found, errors = [], []
    for shot, (row, column) in enumerate(survey.sources):
        beside = [index[p] for p in ((row, column - 1), (row, column + 1)) if p in index]
        at = index.get((row, column))
        if at is None or not beside:
            continue
        first = d[shot, 0, at]
        second = d[shot, 1, beside]
        # the sign of both is that of the wavelet; another one is found by the first arrivals
        if min(abs(first), *np.abs(second)) <= least or (second * first <= 0).any():
            continue
        alpha = float(second.mean()) / first / C2
        v_squared = alpha * (survey.spacing / survey.dt) ** 2
        scale = first / survey.wavelet[0] / survey.dt**2 / v_squared
        if scale > 0:
            found.append(scale)
            errors.append(noise / float(np.abs(second).min()))
    return np.array(found), np.array(errors)


def _begins_late(d: Array, survey: Survey) -> bool:
    """Whether a record is exactly 0 at each source, at the time of the first row."""
    index = {position: k for k, position in enumerate(survey.receivers)}
    at = [(shot, index[p]) for shot, p in enumerate(survey.sources) if p in index]
    return bool(at) and not any(d[shot, 0, k] for shot, k in at)


def _early(survey: Survey) -> NDArray[np.bool_]:
    """(shots, n_steps, receivers), True before any wave can arrive."""
    travelled = np.arange(1, survey.n_steps + 1) * survey.dt * survey.velocity_bounds[1]
    sources, receivers = (np.array(p, float) for p in (survey.sources, survey.receivers))
    away = np.linalg.norm(sources[:, None] - receivers[None], axis=-1) * survey.spacing
    return np.asarray(travelled[None, :, None] < EARLY_FRACTION * away[:, None, :])


def _noise(d: Array, survey: Survey) -> float:
    """Robust standard deviation before the first arrivals; 0 where nothing comes before them."""
    values = d[_early(survey)]
    if not values.size:
        return 0.0
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _quantum(d: Array) -> float:
    """The smallest value that is not 0: the step of numbers that were rounded to decimals."""
    sizes = np.abs(d[d != 0])
    return float(sizes.min()) if sizes.size else 0.0


def _has_levels(d: Array, survey: Survey) -> bool:
    """Whether most traces are constant, and not 0, before the first arrival."""
    early = _early(survey)
    rows = early.sum(axis=1)
    enough = rows >= 10
    if enough.sum() < 10:
        return False
    values = np.where(early, d, 0.0)
    means = values.sum(axis=1)[enough] / rows[enough]
    squares = np.square(values).sum(axis=1)[enough] / rows[enough]
    spread = np.sqrt(np.maximum(0.0, squares - means**2))
    rms = float(np.sqrt(np.mean(np.square(d))))
    level = float(np.median(np.abs(means)))
    return level > QUIET_LEVEL * rms and level > MIN_SIGNAL_TO_NOISE * float(np.median(spread))
