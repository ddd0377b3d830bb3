"""Does the physics match a record? Checks with numbers."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fwi_refine.analysis.installation import Check
from fwi_refine.errors import SampleError
from fwi_refine.objective.arithmetic import (
    DIVISION,
    DOUBLE,
    RELEASED,
    equal_samples,
    possible_arithmetics,
)
from fwi_refine.objective.source_cells import source_velocities
from fwi_refine.objective.source_shape import compare_wavelet
from fwi_refine.routing.checks.first_arrivals import FALLBACK_VELOCITY, first_arrivals
from fwi_refine.routing.checks.inputs import as_map
from fwi_refine.routing.checks.recognise import recognise
from fwi_refine.routing.checks.source import WITH_MAP, WITHOUT_MAP, source_near
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.validate import check_prediction, check_record, check_velocity
from fwi_refine.wave import Simulator

# For people.
MAKERS = {
    RELEASED: "released (float32, times 1/dx)",
    DIVISION: "released code on a CPU (float32, divided by dx)",
    DOUBLE: "float64",
}


def check_inputs(record: ArrayLike, simulator: Simulator, v: ArrayLike | None = None) -> Check:
    """Do a record, and a map, look like what they are taken for?

    Parameters
    ----------
    record : array_like, (shots, >= n_steps, receivers)
        The record.
    simulator : Simulator
        Of the survey.
    v : array_like, (nz, nx), optional
        A map, m/s.

    Returns
    -------
    Check
        Units, scale, sign and order; see routing/checks/recognise.py.
    """
    maps = [] if v is None else [as_map(np.asarray(v), simulator.survey)]
    findings = recognise(maps, [np.asarray(record)], simulator.survey)
    text = "; ".join(f.text + (f" ({f.option})" if f.option else "") for f in findings)
    return Check("units, scale and order", text or "as expected", "as expected", not findings)


def reciprocity_errors(
    record: NDArray[Any], survey: Survey = OPENFWI
) -> dict[tuple[int, int], float]:
    """Rms difference of the two traces between each pair of sources.

    Parameters
    ----------
    record : ndarray, (shots, >= n_steps, receivers)
        The record.
    survey : Survey
        That of the record.

    Returns
    -------
    dict
        By pair of sources that stand at receivers, in the record's units.

    Notes
    -----
    The scheme is reciprocal up to a factor, G(r <- x) = G(x <- r) (v_r / v_x)^2, and a source at
    x injects with v_x^2: the factors cancel and both traces carry v_x^2 G(x <- r) alike.
    """
    positions = [
        survey.receivers.index(source) if source in survey.receivers else None
        for source in survey.sources
    ]
    errors = {}
    for a, column_a in enumerate(positions):
        for b, column_b in enumerate(positions[:a]):
            if column_a is not None and column_b is not None:
                forth = record[a, : survey.n_steps, column_b].astype(np.float64)
                back = record[b, : survey.n_steps, column_a].astype(np.float64)
                errors[b, a] = float(np.sqrt(np.mean((forth - back) ** 2)))
    return errors


def check_physics(record: ArrayLike, simulator: Simulator) -> list[Check]:
    """Does this record come from the survey that is simulated?

    Sources that stand at no receiver tell less: without them nothing is known of velocities and
    amplitudes, and without two of them nothing of reciprocity.

    Parameters
    ----------
    record, simulator
        As for `check_inputs`.

    Returns
    -------
    list of Check

    Raises
    ------
    SampleError
        If the record is unusable.
    """
    survey = simulator.survey
    record = check_record(record, survey=survey)
    velocities = source_velocities(record, survey)
    low, high = survey.velocity_bounds
    at_receivers = np.array([source in survey.receivers for source in survey.sources])
    told = velocities[at_receivers]
    plausible = bool(((told >= low) & (told <= high)).all())
    errors = list(reciprocity_errors(record, survey).values())
    rms = float(np.sqrt(np.mean(np.square(record[:, : survey.n_steps], dtype=np.float64))))
    checks = [Check("record rms", rms)]
    if told.size:
        checks.append(
            Check(
                "velocity at the sources, m/s",
                told.round(3).tolist(),
                f"{low:g} to {high:g} (sign and scale of the first row)",
                plausible,
            )
        )
    if errors:
        checks.append(
            Check(
                "reciprocity error, rms",
                [min(errors), max(errors)],
                "<= 1e-5 of the record's rms",
                max(errors) <= 1e-5 * rms,
            )
        )
    known = plausible and told.size == velocities.size
    arrivals = first_arrivals(
        record, velocities if known else np.full_like(velocities, FALLBACK_VELOCITY), simulator
    )
    if arrivals is None:
        return checks
    sign = "as simulated" if arrivals.amplitude > 0 else "reversed"
    checks.append(Check("first arrivals, sign", sign, "as simulated", arrivals.amplitude > 0))
    if told.size < velocities.size:  # a guess stands for what is not known, in the delay as well
        return checks
    scale, delay = abs(arrivals.amplitude), arrivals.delay
    return [
        *checks,
        Check("first arrivals, amplitude", scale, "0.8 to 1.25", 0.8 <= scale <= 1.25),
        Check("first arrivals, delay, s", delay, "-0.003 to 0.003", abs(delay) <= 0.003),
    ]


def check_source(
    record: ArrayLike, simulator: Simulator, v: ArrayLike | None = None
) -> list[Check]:
    """Is the source of a record that of the survey?

    Parameters
    ----------
    record, simulator
        As for `check_inputs`.
    v : array_like, (nz, nx), optional
        A map, m/s, whose upper rows are about right. Without one less is told, and only of maps
        that are nearly constant near the sources.

    Returns
    -------
    list of Check

    Raises
    ------
    SampleError
        If the record or the map is unusable.
    """
    survey = simulator.survey
    record = check_record(record, survey=survey)
    limits = WITHOUT_MAP if v is None else WITH_MAP
    v = None if v is None else check_prediction(v, survey=survey)
    found = source_near(record, simulator, v)
    if found is None:
        return [Check("source", "not told: the map explains too little near the sources")]
    expected = compare_wavelet(survey.whole_wavelet, survey).frequency
    low, high = ((1 + sign * limits.frequency) * expected for sign in (-1, 1))
    a, ms = limits.amplitude, 1e3 * limits.delay
    return [
        Check(
            "source, amplitude", found.amplitude, f"{1 - a:g} to {1 + a:g}",
            abs(found.amplitude - 1) <= a,
        ),
        Check(
            "source, delay, ms", 1e3 * found.delay, f"{-ms:g} to {ms:g}",
            abs(found.delay) <= limits.delay,
        ),
        Check(
            "source, peak frequency, Hz", found.frequency, f"{low:.3g} to {high:.3g}",
            low <= found.frequency <= high,
        ),
        Check(
            "source, shape off by", found.difference, f"<= {limits.shape:g}",
            found.difference <= limits.shape,
        ),
    ]  # fmt: skip


def check_arithmetic(
    record: ArrayLike, simulator: Simulator, v: ArrayLike | None = None
) -> list[Check]:
    """In which arithmetic was a record made, and does a map make it to the last bit?

    Parameters
    ----------
    record, simulator
        As for `check_inputs`.
    v : array_like, (nz, nx), optional
        A map, m/s. Without one the first two rows of the record tell.

    Returns
    -------
    list of Check
        Nothing that passes or fails: a map may be good and not exact.

    Raises
    ------
    SampleError
        If the record is unusable.
    """
    survey = simulator.survey
    record = check_record(record, survey=survey)
    by_rows = possible_arithmetics(record, survey)
    if v is None:
        told = " or ".join(MAKERS[name] for name in by_rows) or "of another code"
        return [Check("arithmetic, by the first rows", told)]
    try:
        v = check_velocity(v, survey=survey)
    except SampleError as error:
        return [Check("map proven by its record", f"no, {error}")]
    equal = equal_samples(record, v, simulator)
    exact = [name for name, fraction in equal.items() if fraction == 1.0]
    told = " and ".join(MAKERS[name] for name in exact) or "of none is this map's record"
    return [
        Check("arithmetic, by the map", told),
        *(Check(f"equal samples, {MAKERS[name]}", x) for name, x in equal.items()),
        Check("map proven by its record", "yes" if RELEASED in exact else "no"),
    ]
