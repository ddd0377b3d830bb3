"""Records regressed on simulated ones: scale, sign, offset and logarithm at once."""

from dataclasses import dataclass, replace

import numpy as np

from fwi_refine.io.convert import forward_log
from fwi_refine.routing.checks.form import Finding

MAX_MISFIT_RATIO = 0.5  # an explanation leaves this fraction of the misfit, or less, of "as it is"
MAX_LOG_RESIDUAL_RATIO = 0.7  # residual with the logarithm over that without it
MIN_SCALE_DEVIATION = 0.05  # relative deviation of a scale that is no start's error
MAX_SIGN_DEVIATION = 0.3  # deviation of a scale from -1 that a start's error explains
MAX_SCALE_SPREAD = 0.04  # relative spread of the scales of records that have one scale
MIN_OFFSET = 0.02  # of the record's rms


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
    return logged if logged.residual < MAX_LOG_RESIDUAL_RATIO * plain.residual else plain


def recognise_scales(
    fits: list[Fit], as_they_are: list[float], records: list[np.ndarray]
) -> list[Finding]:
    """Findings from scales, offsets and logarithms, of fits that hold for every sample."""
    logs = [fit.log for fit in fits]
    scales = np.array([fit.scale for fit in fits])
    rms = np.array([np.sqrt(np.mean(np.square(x))) for x in records])
    offsets = np.array([fit.offset for fit in fits])
    shifted = bool((np.abs(offsets) > MIN_OFFSET * rms).all())
    scaled = bool((np.abs(scales - 1) > MIN_SCALE_DEVIATION).all())
    better = all(
        f.residual < MAX_MISFIT_RATIO * relative
        for f, relative in zip(fits, as_they_are, strict=True)
    )
    if not (better and (all(logs) or shifted or scaled)):
        return []
    what = "logarithms, sign(d) ln(1 + |d|)" if all(logs) else ""
    if np.ptp(scales) > MAX_SCALE_SPREAD * np.abs(scales).mean():
        factors = f"each scaled by a factor of its own, {span(scales)}"
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
    if abs(a + 1) < MAX_SIGN_DEVIATION:
        return [Finding("records seem to have the other sign", "--record-scale -1", of_source=True)]
    text = f"records seem to be {a:.4g} times as large as expected"
    option = f"--record-scale {1 / a:.4g} (about; the exact factor matters)"
    return [Finding(text, option, of_source=True)]


def relative(s: np.ndarray, x: np.ndarray) -> float:
    """Misfit of a simulated record, of the norm of the record."""
    return float(np.linalg.norm(s - x) / np.linalg.norm(x))


def all_better(new: list[Fit], old: list[Fit], limit: float) -> bool:
    """Whether every fit is better than the old one by far, and good in itself."""
    return all(
        n.residual < min(limit, MAX_MISFIT_RATIO * o.residual)
        for n, o in zip(new, old, strict=True)
    )


def times(old: list[Fit], new: list[Fit]) -> str:
    """How many times better new fits are, as text."""
    ratio = np.mean([fit.residual for fit in old]) / np.mean([fit.residual for fit in new])
    return f"{ratio:.1f}"


def span(values: np.ndarray) -> str:
    """The range of some values, as text."""
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"


def _regress(s: np.ndarray, x: np.ndarray) -> Fit:
    s0, x0 = s - s.mean(), x - x.mean()
    power, own = float(np.vdot(s0, s0)), float(np.vdot(x0, x0))
    if not (power > 0 and own > 0):
        return Fit(0.0, float(x.mean()), 1.0)
    scale = float(np.vdot(s0, x0)) / power
    residual = float(np.sqrt(max(0.0, 1 - scale * float(np.vdot(s0, x0)) / own)))
    return Fit(scale, float(x.mean() - scale * s.mean()), residual)
