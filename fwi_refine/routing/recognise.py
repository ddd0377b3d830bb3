"""What maps and records seem to be, where they are not maps in m/s and records as simulated.

A few samples are looked at before a run. The first shots of each map are simulated, and the
record is regressed on them: x = a g(s) + c with g the identity or the logarithm of training
loaders. A regression that fits tells scale, sign, offset and logarithm at once. Where it does not
fit, the transposed map and the records of other samples are tried. A start far from the truth fits
none of them, and is no finding: only an explanation that fits far better than "as it is" counts, or
a record whose own physics contradicts the survey, whatever the map is.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fwi_refine.io.convert import Conversion, forward_log
from fwi_refine.objective.source_cells import source_velocities
from fwi_refine.routing.first_arrivals import FALLBACK, FirstArrivals, first_arrivals
from fwi_refine.routing.recognise_first_rows import recognise_first_rows
from fwi_refine.routing.recognise_form import (
    Finding,
    is_record,
    recognise_axes,
    recognise_maps,
)
from fwi_refine.survey import Survey
from fwi_refine.wave import Simulator

SHOTS = 2  # simulated of each sample
FITS = 0.5  # residual of a regression, of the record's rms, of a map that is the record's own
TURNED = 0.2  # the same, from which on it may be one of a map that was turned
STRANGE = 0.1  # the same, from which on a record may belong to another prediction
PARTNER = 0.25  # the same, of the record that belongs to it
BETTER = 0.5  # an explanation leaves this fraction of the misfit, or less, of "as it is"
LOG_BETTER = 0.7  # residual with the logarithm over that without it
SCALE_OFF = 0.05  # relative deviation of a scale that is no start's error
SIGN_OFF = 0.3  # deviation of a scale from -1 that a start's error explains
SPREAD = 0.04  # relative spread of the scales of records that have one scale
OFFSET = 0.02  # of the record's rms
AMPLITUDE = (0.5, 2.0)  # of first arrivals over simulated ones
DELAY = 0.003  # s
TOLD = 10.0  # first row over noise, from which on the first row tells velocities

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

Others = Callable[[], Iterable[tuple[str, np.ndarray]]]  # gives (name, record)


def recognise(
    maps: Sequence[np.ndarray],
    records: Sequence[np.ndarray],
    survey: Survey,
    others: Others = lambda: (),
    simulator: Simulator | None = None,
    source: str = "known",
) -> list[Finding]:
    """What a few samples seem to be; empty where nothing speaks against them.

    Parameters
    ----------
    maps
        Predictions (nz, nx), m/s if all is well, of a float type; none for records alone.
    records
        The record of each, (shots, rows, receivers); none for maps alone.
    survey
        The survey that they are taken to be of.
    others
        Gives (name, record) of samples that a prediction may belong to instead.
    simulator
        As long as it is not given, one on the CPU.
    source
        One of `objective.SOURCES`: where the wavelet is estimated, another amplitude, sign or delay
        is no finding.

    Returns
    -------
    list of Finding
        At most a few, in the order in which they are to be looked at.
    """
    found = _recognise(maps, records, survey, others, simulator)
    return [one for one in found if source == "known" or not one.of_source]


def _recognise(
    maps: Sequence[np.ndarray],
    records: Sequence[np.ndarray],
    survey: Survey,
    others: Others,
    simulator: Simulator | None,
) -> list[Finding]:
    maps = [np.asarray(v) for v in maps]
    findings = []
    finding, undo = recognise_maps(maps, survey, _told(records, survey))
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
        cut = [_cut(d, survey) for d in records if is_record(np.shape(d), survey)]
        cut = [d for d in cut if d.any()]
        more = _by_physics(cut, survey, _few(simulator, survey)) if cut else []
        return findings + (more or recognise_first_rows(cut, survey))
    usable = [
        (_filled(v, survey), _cut(d, survey))
        for v, d in zip(maps, records, strict=False)
        if v.shape == survey.shape and is_record(np.shape(d), survey)
    ]
    both = [(v, d) for v, d in usable if v is not None and d.any()]
    if both:
        more = _recognise_values(both, survey, order, others, simulator)
        findings += more or recognise_first_rows([d for _, d in both], survey)
    return findings


@dataclass(frozen=True)
class Fit:
    """A record as a simulated one, scaled: x = scale g(s) + offset.

    residual: rms of what is left, over that of x without its mean.
    """

    scale: float
    offset: float
    residual: float
    log: bool = False


def regress(s: np.ndarray, x: np.ndarray) -> Fit:
    """The regression of a record on a simulated one, with the logarithm where it is needed."""
    plain = _regress(s, x)
    logged = replace(_regress(forward_log(s, 1.0), x), log=True)
    return logged if logged.residual < LOG_BETTER * plain.residual else plain


def _recognise_values(
    usable: list[tuple[np.ndarray, np.ndarray]],
    survey: Survey,
    order: Conversion,
    others: Others,
    simulator: Simulator | None,
) -> list[Finding]:
    """What the values of maps and records tell, for samples of the right shapes."""
    simulator = _few(simulator, survey)
    usable = [(v, d) for v, d in usable if simulator.is_stable(torch.from_numpy(v)[None])]
    if not usable:  # what cannot be simulated fails by itself
        return []
    maps = np.stack([v for v, _ in usable])
    shots = [survey.sources.index(source) for source in simulator.survey.sources]
    records = [d[shots] for _, d in usable]
    simulated = _simulate(maps, simulator)
    as_they_are = [_relative(s, x) for s, x in zip(simulated, records, strict=True)]
    fits = [regress(s, x) for s, x in zip(simulated, records, strict=True)]
    strange = [(s, fit) for s, fit in zip(simulated, fits, strict=True) if fit.residual >= STRANGE]
    if len(strange) >= 2 and (finding := _mixed_up(strange, survey, order, others, shots)):
        return [finding]
    fit_well = all(fit.residual < FITS for fit in fits)
    if fit_well and any(fit.residual < TURNED for fit in fits):
        return _scaled(fits, as_they_are, records)
    for name, turn, option in TURNS:
        turned = turn(maps)
        if turned.shape != maps.shape or not simulator.is_stable(torch.from_numpy(turned)):
            continue
        seen = _simulate(turned, simulator)
        new = [regress(s, x) for s, x in zip(seen, records, strict=True)]
        if _all_better(new, fits, FITS):
            text = f"predictions fit their records {_times(fits, new)} times better with {name}"
            return [Finding(text, option), *_scaled(new, as_they_are, records)]
    for name, axis in REVERSED:
        turned_records = [np.flip(d, axis)[shots] for _, d in usable]
        new = [regress(s, x) for s, x in zip(simulated, turned_records, strict=True)]
        if _all_better(new, fits, FITS):
            text = f"records fit their predictions {_times(fits, new)} times better with {name}"
            return [Finding(f"{text} reversed; give them as they were recorded")]
    if fit_well:
        return _scaled(fits, as_they_are, records)
    return _by_physics([d for _, d in usable], survey, simulator)


def _scaled(fits: list[Fit], as_they_are: list[float], records: list[np.ndarray]) -> list[Finding]:
    """What scales, offsets and logarithms tell, of fits that hold for every sample."""
    logs = [fit.log for fit in fits]
    scales = np.array([fit.scale for fit in fits])
    rms = np.array([np.sqrt(np.mean(np.square(x))) for x in records])
    offsets = np.array([fit.offset for fit in fits])
    shifted = bool((np.abs(offsets) > OFFSET * rms).all())
    scaled = bool((np.abs(scales - 1) > SCALE_OFF).all())
    better = all(
        f.residual < BETTER * relative for f, relative in zip(fits, as_they_are, strict=True)
    )
    if not (better and (all(logs) or shifted or scaled)):
        return []
    what = "logarithms, sign(d) ln(1 + |d|)" if all(logs) else ""
    if np.ptp(scales) > SPREAD * np.abs(scales).mean():
        factors = f"each scaled by a factor of its own, {_range(scales)}"
        text = ", ".join(part for part in (what, factors) if part)
        return [Finding(f"records seem to be {text}; give them as they were recorded")]
    a, c = float(scales.mean()), float(offsets.mean())
    log = " --record-log 1" if all(logs) else ""
    if shifted or (log and scaled):
        ends = [(end - c) / a for end in (-1.0, 1.0)]
        if log:
            ends = [float(np.sign(e) * np.expm1(abs(e))) for e in ends]
        text = ", ".join(part for part in (what, f"normalised, with 0 at {c:.3g}") if part)
        option = f"--record-range {ends[0]:.4g} {ends[1]:.4g}{log}"
        return [Finding(f"records seem to be {text}", f"{option} (about)")]
    if log:
        return [Finding(f"records seem to be {what}", log.strip())]
    if abs(a + 1) < SIGN_OFF:
        return [Finding("records seem to have the other sign", "--record-scale -1", True)]
    text = f"records seem to be {a:.4g} times as large as expected"
    option = f"--record-scale {1 / a:.4g} (about; the exact factor matters)"
    return [Finding(text, option, of_source=True)]


def _mixed_up(
    wrong: list[tuple[np.ndarray, Fit]],
    survey: Survey,
    order: Conversion,
    others: Others,
    shots: list[int],
) -> Finding | None:
    """The finding that predictions belong to other records than their own, or None."""
    best = [(np.inf, "")] * len(wrong)
    for name, record in others():
        if record.ndim != 3:
            continue
        record = order.record(record)
        if not is_record(record.shape, survey):
            continue
        x = _cut(record, survey)[shots]
        best = [
            min(known, (regress(s, x).residual, name))
            for known, (s, _) in zip(best, wrong, strict=True)
        ]
    names = [name for _, name in best]
    alike = all(
        residual < min(PARTNER, BETTER * fit.residual)
        for (residual, _), (_, fit) in zip(best, wrong, strict=True)
    )
    if not alike or len({*names}) < len(names):
        return None
    return Finding(
        f"predictions fit the records of other samples, for instance {names[0]}, and not their "
        "own: they seem to be in another order; give their ids with --ids"
    )


def _by_physics(records: list[np.ndarray], survey: Survey, simulator: Simulator) -> list[Finding]:
    """What contradicts the survey in each record, whatever the maps are."""
    quiet = [_quiet(d, survey) for d in records]
    rms = [float(np.sqrt(np.mean(np.square(d)))) for d in records]
    found: list[Finding] = []
    levels = [
        q[0]
        for q, r in zip(quiet, rms, strict=True)
        if q is not None and abs(q[0]) > max(OFFSET * r, 3 * q[1])
    ]
    if len(levels) == len(records):
        text = f"records are {levels[0]:.3g} before the first arrival, expected 0: they seem "
        return [Finding(f"{text}normalised", "--record-range LOW HIGH, --record-log 1 for logs")]
    arrivals: list[FirstArrivals] = []
    exact = True
    for d, q in zip(records, quiet, strict=True):
        velocities = _told_velocities(d, survey, q)
        known = bool(np.isfinite(velocities).all())
        exact &= known
        shots = [survey.sources.index(source) for source in simulator.survey.sources]
        velocities = velocities[shots] if known else np.full(len(shots), FALLBACK)
        arrival = first_arrivals(d[shots], velocities, simulator)
        if arrival is None:
            return []
        arrivals.append(arrival)
    amplitudes = np.array([arrival.amplitude for arrival in arrivals])
    low, high = AMPLITUDE
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
        sizes_text = f"first arrivals are {_range(sizes)} times as large as simulated ones"
        found.append(
            Finding(
                f"{sizes_text}: records seem scaled, or logarithms",
                "--record-scale FACTOR or --record-log 1",
                of_source=True,
            )
        )
    delays = np.array([arrival.delay for arrival in arrivals])
    if not found and exact and ((delays > DELAY).all() or (delays < -DELAY).all()):
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


def _told_velocities(
    d: np.ndarray, survey: Survey, quiet: tuple[float, float] | None
) -> np.ndarray:
    """(shots,) m/s at the sources; NaN where the first row does not stand out of the noise."""
    velocities = source_velocities(d, survey)
    low, high = survey.velocity_bounds
    first = (velocities * survey.dt) ** 2 * abs(float(survey.wavelet[0]))
    noise = quiet[1] if quiet else 0.0
    with np.errstate(invalid="ignore"):
        plausible = (velocities >= low) & (velocities <= high) & (first > TOLD * noise)
    return np.where(plausible, velocities, np.nan)


def _told(records: Sequence[np.ndarray], survey: Survey) -> list[np.ndarray]:
    """The velocities at the sources of each record, for those that have its shape."""
    return [
        _told_velocities(cut, survey, _quiet(cut, survey))
        for cut in (_cut(d, survey) for d in records if is_record(np.shape(d), survey))
    ]


def _few(simulator: Simulator | None, survey: Survey) -> Simulator:
    """A simulator of the first shots alone, like the one that is given."""
    how = simulator.how if simulator else {"device": "cpu"}
    return Simulator(_few_shots(survey), dtype=torch.float32, **how)


def _few_shots(survey: Survey) -> Survey:
    """The survey with its first and middle shot."""
    number = len(survey.sources)
    chosen = sorted({k * number // (2 * SHOTS - 2) for k in range(SHOTS)})
    return replace(survey, sources=tuple(survey.sources[k] for k in chosen if k < number))


def _simulate(maps: np.ndarray, simulator: Simulator) -> np.ndarray:
    return simulator.forward(torch.from_numpy(maps)).double().cpu().numpy()


def _filled(v: np.ndarray, survey: Survey) -> np.ndarray | None:
    """The map within the bounds, float64; None where it is not finite."""
    if not np.isfinite(v).all():
        return None
    return np.array(v, np.float64).clip(*survey.velocity_bounds)


def _cut(d: np.ndarray, survey: Survey) -> np.ndarray:
    """The rows of a record that are simulated, float64, zero where they are not finite."""
    return np.nan_to_num(np.asarray(d)[:, : survey.n_steps].astype(np.float64), posinf=0, neginf=0)


def _regress(s: np.ndarray, x: np.ndarray) -> Fit:
    s0, x0 = s - s.mean(), x - x.mean()
    power, own = float(np.vdot(s0, s0)), float(np.vdot(x0, x0))
    if not (power > 0 and own > 0):
        return Fit(0.0, float(x.mean()), 1.0)
    scale = float(np.vdot(s0, x0)) / power
    residual = float(np.sqrt(max(0.0, 1 - scale * float(np.vdot(s0, x0)) / own)))
    return Fit(scale, float(x.mean() - scale * s.mean()), residual)


def _relative(s: np.ndarray, x: np.ndarray) -> float:
    return float(np.linalg.norm(s - x) / np.linalg.norm(x))


def _all_better(new: list[Fit], old: list[Fit], limit: float) -> bool:
    return all(n.residual < min(limit, BETTER * o.residual) for n, o in zip(new, old, strict=True))


def _times(old: list[Fit], new: list[Fit]) -> str:
    ratio = np.mean([fit.residual for fit in old]) / np.mean([fit.residual for fit in new])
    return f"{ratio:.1f}"


def _range(values: np.ndarray) -> str:
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"


LOOKED_AT = 4  # samples


def looked_at(count: int) -> list[int]:
    """Positions of the samples that are looked at, of `count`: the first, the last, and between."""
    return sorted({k * (count - 1) // (LOOKED_AT - 1) for k in range(LOOKED_AT)})
