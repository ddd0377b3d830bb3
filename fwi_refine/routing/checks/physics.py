"""Contradictions of the survey in records alone: levels, first arrivals, source velocities."""

from collections.abc import Sequence

import numpy as np

from fwi_refine.objective.source_cells import source_velocities
from fwi_refine.routing.checks.first_arrivals import (
    FALLBACK_VELOCITY,
    FirstArrivals,
    first_arrivals,
)
from fwi_refine.routing.checks.form import Finding, is_record
from fwi_refine.routing.checks.regression import MIN_OFFSET, span
from fwi_refine.survey import Survey
from fwi_refine.wave import Simulator

AMPLITUDE_RANGE = (0.5, 2.0)  # of first arrivals over simulated ones
MAX_DELAY = 0.003  # s
MIN_SIGNAL_TO_NOISE = 10.0  # first row over noise, from which on the first row tells velocities


def recognise_physics(
    records: list[np.ndarray], survey: Survey, simulator: Simulator
) -> list[Finding]:
    """Contradictions of the survey in each record, whatever the maps are.

    Parameters
    ----------
    records : list of ndarray, shape (shots, n_steps, receivers)
        Some records.
    survey : Survey
        What they are taken to be of.
    simulator : Simulator
        Of some of its shots.

    Returns
    -------
    list of Finding
        Those that hold for every record.
    """
    quiet = [_quiet(d, survey) for d in records]
    rms = [float(np.sqrt(np.mean(np.square(d)))) for d in records]
    levels = [
        q[0]
        for q, r in zip(quiet, rms, strict=True)
        if q is not None and abs(q[0]) > max(MIN_OFFSET * r, 3 * q[1])
    ]
    if len(levels) == len(records):
        text = f"records are {levels[0]:.3g} before the first arrival, expected 0: they seem "
        return [Finding(f"{text}normalised", "--record-range LOW HIGH, --record-log 1 for logs")]
    arrivals: list[FirstArrivals] = []
    exact = True
    for d, q in zip(records, quiet, strict=True):
        velocities = velocities_of_record(d, survey, q)
        known = bool(np.isfinite(velocities).all())
        exact &= known
        shots = [survey.sources.index(source) for source in simulator.survey.sources]
        velocities = velocities[shots] if known else np.full(len(shots), FALLBACK_VELOCITY)
        arrival = first_arrivals(d[shots], velocities, simulator)
        if arrival is None:
            return []
        arrivals.append(arrival)
    return _of_arrivals(arrivals, exact)


def _of_arrivals(arrivals: list[FirstArrivals], exact: bool) -> list[Finding]:
    """Findings from sign, size and delay of first arrivals; exact: the velocities at the sources
    are known, so that a delay counts."""
    found: list[Finding] = []
    amplitudes = np.array([arrival.amplitude for arrival in arrivals])
    low, high = AMPLITUDE_RANGE
    if (amplitudes < 0).all():
        found.append(
            Finding(
                "first arrivals have the other sign than simulated ones",
                "--record-scale -1",
                of_source=True,
            )
        )
    sizes = np.abs(amplitudes)
    if (sizes < low).all() or (sizes > high).all():
        sizes_text = f"first arrivals are {span(sizes)} times as large as simulated ones"
        found.append(
            Finding(
                f"{sizes_text}: records seem scaled, or logarithms",
                "--record-scale FACTOR or --record-log 1",
                of_source=True,
            )
        )
    delays = np.array([arrival.delay for arrival in arrivals])
    if not found and exact and ((delays > MAX_DELAY).all() or (delays < -MAX_DELAY).all()):
        found.append(
            Finding(
                f"first arrivals come {delays.mean():.3g} s later than simulated ones: time step, "
                "wavelet or start of the records differ from the survey",
                "--survey FILE",
                of_source=True,
            )
        )
    return found


def _quiet(d: np.ndarray, survey: Survey) -> tuple[float, float] | None:
    """(median, robust standard deviation) of a record before any wave can arrive; None if that is
    nowhere."""
    rows = np.arange(1, survey.n_steps + 1) * survey.dt * survey.velocity_bounds[1]
    sources, receivers = (np.array(p, float) for p in (survey.sources, survey.receivers))
    away = np.linalg.norm(sources[:, None] - receivers[None], axis=-1) * survey.spacing
    values = d[rows[None, :, None] < 0.7 * away[:, None, :]]
    if values.size < 50:
        return None
    median = float(np.median(values))
    return median, 1.4826 * float(np.median(np.abs(values - median)))


def velocities_of_record(
    d: np.ndarray, survey: Survey, quiet: tuple[float, float] | None
) -> np.ndarray:
    """Velocities at the sources of a record, from its first row.

    Parameters
    ----------
    d : ndarray, shape (shots, n_steps, receivers)
        The record.
    survey : Survey
        Its velocity bounds and wavelet count.
    quiet : (float, float) or None
        Median and deviation before the first arrival; None: not known.

    Returns
    -------
    ndarray, shape (shots,)
        m/s; NaN where the first row does not stand out of the noise.
    """
    velocities = source_velocities(d, survey)
    low, high = survey.velocity_bounds
    first = (velocities * survey.dt) ** 2 * abs(float(survey.wavelet[0]))
    noise = quiet[1] if quiet else 0.0
    with np.errstate(invalid="ignore"):
        plausible = (
            (velocities >= low) & (velocities <= high) & (first > MIN_SIGNAL_TO_NOISE * noise)
        )
    return np.where(plausible, velocities, np.nan)


def velocities_at_sources(records: Sequence[np.ndarray], survey: Survey) -> list[np.ndarray]:
    """The velocities at the sources of each record, for those that have its shape."""
    return [
        velocities_of_record(x, survey, _quiet(x, survey))
        for x in (cut(d, survey) for d in records if is_record(np.shape(d), survey))
    ]


def cut(d: np.ndarray, survey: Survey) -> np.ndarray:
    """The rows of a record that are simulated, float64, zero where they are not finite."""
    return np.nan_to_num(np.asarray(d)[:, : survey.n_steps].astype(np.float64), posinf=0, neginf=0)
