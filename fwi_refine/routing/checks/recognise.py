"""Recognises inputs that are not maps in m/s and records as simulated.

A few samples are looked at before a run. The first shots of each map are simulated, and the
record is regressed on them: x = a g(s) + c with g the identity or the logarithm of training
loaders. A regression that fits tells scale, sign, offset and logarithm at once. Where it does not
fit, the transposed map and the records of other samples are tried. A start far from the truth fits
none of them, and is no finding: only an explanation that fits far better than "as it is" counts, or
a record whose own physics contradicts the survey, whatever the map is.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from fwi_refine.io.convert import AS_THEY_ARE, Conversion
from fwi_refine.routing.checks.first_rows import recognise_first_rows
from fwi_refine.routing.checks.form import (
    Finding,
    is_record,
    recognise_axes,
    recognise_maps,
)
from fwi_refine.routing.checks.order import recognise_misplaced
from fwi_refine.routing.checks.physics import cut, recognise_physics, velocities_at_sources
from fwi_refine.routing.checks.regression import (
    Fit,
    all_better,
    recognise_scales,
    regress,
    relative,
    times,
)
from fwi_refine.routing.checks.source_velocities import recognise_source_velocities
from fwi_refine.survey import Survey
from fwi_refine.wave import Simulator

SHOTS_SIMULATED = 2  # of each sample
# Residual of a regression, of the record's rms, of a map that is the record's own
GOOD_RESIDUAL = 0.5
POOR_RESIDUAL_OF_MAP = 0.2  # the same, from which on it may be one of a map that was turned
POOR_RESIDUAL_OF_PAIR = 0.1  # the same, from which on a record may belong to another prediction

# What maps may have been turned by: (words, how to turn them back, the option that does so).
TURNS: tuple[tuple[str, Callable[[np.ndarray], np.ndarray], str], ...] = (
    (
        "rows and columns exchanged: they seem to be transposed",
        lambda maps: np.ascontiguousarray(maps.transpose(0, 2, 1)),
        "--transpose",
    ),
    (
        "their rows in reverse: they seem to be upside down",
        lambda maps: np.ascontiguousarray(maps[:, ::-1]),
        "",
    ),
    (
        "their columns in reverse: they seem to be mirrored",
        lambda maps: np.ascontiguousarray(maps[:, :, ::-1]),
        "",
    ),
)
REVERSED = (("their time", 1), ("their receivers", 2), ("their shots", 0))  # of records: axes

NO_RECORD = np.empty(0)  # in place of a record that is refused for its type

Pair = tuple[np.ndarray, np.ndarray]  # a map and its record
# gives (name, record), and what reads the map of that record, if that is known
Others = Callable[[], Iterable[tuple[Any, ...]]]


def recognise(
    maps: Sequence[np.ndarray],
    records: Sequence[np.ndarray],
    survey: Survey,
    others: Others = lambda: (),
    simulator: Simulator | None = None,
    source: str = "known",
    more: Sequence[Pair] = (),
) -> list[Finding]:
    """Findings on a few samples; empty where nothing speaks against them.

    Parameters
    ----------
    maps
        Predictions (nz, nx), m/s if all is well, of a float type; none for records alone.
    records
        The record of each, (shots, rows, receivers); none for maps alone.
    survey
        The survey that they are taken to be of.
    others
        Gives (name, record) of samples that a prediction may belong to instead; a third item, if
        there is one, reads the map that is taken for that of the record.
    simulator
        As long as it is not given, one on the CPU.
    source
        One of `objective.SOURCES`: where the wavelet is estimated, another amplitude, sign or delay
        is no finding.
    more
        Further samples, of which only the order is looked at.

    Returns
    -------
    list of Finding
        At most a few, in the order in which they are to be looked at.
    """
    found = _recognise(maps, records, survey, others, simulator, more)
    return [one for one in found if source == "known" or not one.of_source]


def _recognise(
    maps: Sequence[np.ndarray],
    records: Sequence[np.ndarray],
    survey: Survey,
    others: Others,
    simulator: Simulator | None,
    more: Sequence[Pair],
) -> list[Finding]:
    maps = [np.asarray(v) for v in maps]
    records = [d if d.dtype.kind == "f" else NO_RECORD for d in map(np.asarray, records)]
    findings: list[Finding] = []
    velocities = velocities_at_sources(records, survey)
    finding, undo = recognise_maps(maps, survey, velocities)
    if finding is not None:
        findings.append(finding)
        if undo is None:
            return findings
        maps = [undo.velocity(v) for v in maps]
    finding, order = recognise_axes([np.shape(d) for d in records], survey)
    if finding is not None:
        findings.append(finding)
        records = [order.record(np.asarray(d)) for d in records]
    if not maps:
        alone = [cut(d, survey) for d in records if is_record(np.shape(d), survey)]
        alone = [d for d in alone if d.any()]
        found = recognise_physics(alone, survey, _few(simulator, survey)) if alone else []
        return findings + (found or recognise_first_rows(alone, survey))
    both = _usable(zip(maps, records, strict=False), survey)
    if both:
        turn = (undo or AS_THEY_ARE).velocity
        rest = [(turn(np.asarray(v)), order.record(np.asarray(d))) for v, d in more]
        found = _recognise_values(both, survey, order, others, simulator, rest)
        findings += found or recognise_first_rows([d for _, d in both], survey)
    if (
        not findings
        and (finding := recognise_source_velocities(maps, velocities, survey)) is not None
    ):
        findings.append(finding)
    return findings


def _usable(pairs: Iterable[Pair], survey: Survey) -> list[Pair]:
    """Maps within the bounds and the rows of records that count, where both have their shapes."""
    usable = [
        (_filled(v, survey), cut(d, survey))
        for v, d in pairs
        if v.shape == survey.shape and is_record(np.shape(d), survey)
    ]
    return [(v, d) for v, d in usable if v is not None and d.any()]


def _recognise_values(
    usable: list[Pair],
    survey: Survey,
    order: Conversion,
    others: Others,
    simulator: Simulator | None,
    more: Sequence[Pair] = (),
) -> list[Finding]:
    """Findings from the values of maps and records, for samples of the right shapes."""
    simulator = _few(simulator, survey)
    usable = [(v, d) for v, d in usable if simulator.is_stable(torch.from_numpy(v)[None])]
    if not usable:  # what cannot be simulated fails by itself
        return []
    maps = np.stack([v for v, _ in usable])
    shots = [survey.sources.index(source) for source in simulator.survey.sources]
    records = [d[shots] for _, d in usable]
    simulated = _simulate(maps, simulator)
    as_they_are = [relative(s, x) for s, x in zip(simulated, records, strict=True)]
    fits = [regress(s, x) for s, x in zip(simulated, records, strict=True)]
    strange = [
        (s, fit)
        for s, fit in zip(simulated, fits, strict=True)
        if fit.residual >= POOR_RESIDUAL_OF_PAIR
    ]
    for v, d in _usable(more, survey):
        if (fitted := _fit(v, d[shots], simulator)) and fitted[1].residual >= POOR_RESIDUAL_OF_PAIR:
            strange.append(fitted)
    if len(strange) >= 2:
        fit = partial(_fit, simulator=simulator)
        finding = recognise_misplaced(strange, survey, order, others, shots, fit)
        if finding is not None:
            return [finding]
    fit_well = all(fit.residual < GOOD_RESIDUAL for fit in fits)
    if fit_well and any(fit.residual < POOR_RESIDUAL_OF_MAP for fit in fits):
        return recognise_scales(fits, as_they_are, records)
    for name, turn, option in TURNS:
        turned = turn(maps)
        if turned.shape != maps.shape or not simulator.is_stable(torch.from_numpy(turned)):
            continue
        seen = _simulate(turned, simulator)
        new = [regress(s, x) for s, x in zip(seen, records, strict=True)]
        if all_better(new, fits, GOOD_RESIDUAL):
            text = f"predictions fit their records {times(fits, new)} times better with {name}"
            return [Finding(text, option), *recognise_scales(new, as_they_are, records)]
    for name, axis in REVERSED:
        turned_records = [np.flip(d, axis)[shots] for _, d in usable]
        new = [regress(s, x) for s, x in zip(simulated, turned_records, strict=True)]
        if all_better(new, fits, GOOD_RESIDUAL):
            text = f"records fit their predictions {times(fits, new)} times better with {name}"
            return [Finding(f"{text} reversed; give them as they were recorded")]
    if fit_well:
        return recognise_scales(fits, as_they_are, records)
    return recognise_physics([d for _, d in usable], survey, simulator)


def _fit(v: np.ndarray, x: np.ndarray, simulator: Simulator) -> tuple[np.ndarray, Fit] | None:
    """The simulated shots of a map, and a record regressed on them; None where it is unstable."""
    if not simulator.is_stable(torch.from_numpy(v)[None]):
        return None
    (s,) = _simulate(v[None], simulator)
    return s, regress(s, x)


def _few(simulator: Simulator | None, survey: Survey) -> Simulator:
    """A simulator of the first shots alone, like the one that is given."""
    options = simulator.options if simulator else {"device": "cpu"}
    return Simulator(_few_shots(survey), dtype=torch.float32, **options)


def _few_shots(survey: Survey) -> Survey:
    """The survey with its first and middle shot."""
    number = len(survey.sources)
    chosen = sorted({k * number // (2 * SHOTS_SIMULATED - 2) for k in range(SHOTS_SIMULATED)})
    return replace(survey, sources=tuple(survey.sources[k] for k in chosen if k < number))


def _simulate(maps: np.ndarray, simulator: Simulator) -> np.ndarray:
    return simulator.forward(torch.from_numpy(maps)).double().cpu().numpy()


def _filled(v: np.ndarray, survey: Survey) -> np.ndarray | None:
    """The map within the bounds, float64; None where it is not finite."""
    if not np.isfinite(v).all():
        return None
    return np.array(v, np.float64).clip(*survey.velocity_bounds)


SAMPLES_CHECKED = 4
SAMPLES_CHECKED_FOR_ORDER = 6  # samples of which the order alone is looked at


def checked_positions(count: int) -> list[int]:
    """Positions of the samples that are looked at, of `count`: the first, the last, and between."""
    return sorted(
        {k * (count - 1) // (SAMPLES_CHECKED - 1) for k in range(SAMPLES_CHECKED) if count}
    )


def more_positions(count: int) -> list[int]:
    """Positions of `SAMPLES_CHECKED_FOR_ORDER` other samples, or of as many as there are.

    One of each stretch, at random, so that no rule of an order passes them by; the same for the
    same count.
    """
    rest = (
        [k for k in range(count) if k not in checked_positions(count)]
        if count < 1000
        else range(count)
    )
    stretches = np.array_split(rest, SAMPLES_CHECKED_FOR_ORDER)
    rng = np.random.default_rng(count)
    drawn = {int(rng.choice(one)) for one in stretches if len(one)}
    return sorted(drawn - {*checked_positions(count)})
