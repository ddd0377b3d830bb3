"""Maps beside other maps of the same samples: turned, scaled, in another order.

Two maps of one ground differ by what a network or an inversion errs. An explanation counts that
leaves half of the difference, or less, in every sample.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from fwi_refine.errors import SampleError
from fwi_refine.routing.checks.form import Finding
from fwi_refine.routing.checks.order import MIN_PAIRS, MIN_PAIRS_OF_MANY
from fwi_refine.routing.checks.regression import MAX_MISFIT_RATIO

MIN_DIFFERENCE = 0.01  # relative rms difference, below which two maps agree
MIN_SCALE_DEVIATION = 0.2  # relative deviation of a factor that is no error of a map
MAX_SCALE_SPREAD = 0.03  # relative spread of the factors within a map, and between maps

Pair = tuple[np.ndarray, np.ndarray]
Others = Callable[[], Iterable[Any]]  # gives maps, or (map, what reads the map beside it)

TURNS: tuple[tuple[str, Callable[[np.ndarray], np.ndarray], str], ...] = (
    ("transposed", np.transpose, "--transpose"),
    ("upside down", lambda v: v[::-1], ""),
    ("mirrored", lambda v: v[:, ::-1], ""),
)


def recognise_other_maps(
    pairs: Sequence[Pair],
    words: tuple[str, str],
    others: Others = lambda: (),
) -> list[Finding]:
    """Findings on maps beside others of the same samples.

    Parameters
    ----------
    pairs : sequence of (ndarray, ndarray), (nz, nx) each
        Two maps of each of a few samples, m/s.
    words : (str, str)
        What both are called, in the plural.
    others : callable
        Gives the second maps of other samples, also of these; with what reads the first one of the
        same sample, if that is known.

    Returns
    -------
    list of Finding
        At most one.
    """
    usable = [(v, w) for v, w in pairs if v.shape == w.shape and _is_map(v) and _is_map(w)]
    apart = [_difference(v, w) for v, w in usable]
    if not usable or not all(d > MIN_DIFFERENCE for d in apart):
        return []
    one, other = words
    factors = [np.median(v.astype(np.float64) / w) for v, w in usable]
    even = all(_is_even(v, w, a) for (v, w), a in zip(usable, factors, strict=True))
    mean = float(np.mean(factors))
    if even and abs(mean - 1) > MIN_SCALE_DEVIATION and np.ptp(factors) < MAX_SCALE_SPREAD * mean:
        text = f"{one} are {mean:.4g} times as large as {other}: one of them has other units"
        return [Finding(f"{text}; give both in m/s")]
    for name, turn, option in TURNS:
        turned = [(turn(v), w) for v, w in usable]
        if any(v.shape != w.shape for v, w in turned):
            continue
        if _all_better([_difference(v, w) for v, w in turned], apart):
            text = f"{one} are much closer to {other} when one of both is {name}"
            return [Finding(text, option)]
    return recognise_order(usable, words, others)


def recognise_order(
    pairs: Sequence[Pair], words: tuple[str, str], others: Others = lambda: ()
) -> list[Finding]:
    """The finding that maps belong to others than those beside them.

    Parameters
    ----------
    pairs, words, others
        As for `recognise_other_maps`.

    Returns
    -------
    list of Finding
        At most one. A map that is much closer to that of another sample counts; where some are not,
        only if it is also closer to that than the map that stands beside it.
    """
    usable = [(v, w) for v, w in pairs if v.shape == w.shape and _is_map(v) and _is_map(w)]
    apart = [(v, d) for v, w in usable if (d := _difference(v, w)) > MIN_DIFFERENCE]
    best: list[tuple[float, int, Any]] = [(np.inf, -1, None)] * len(apart)
    for k, item in enumerate(others() if len(apart) > 1 else ()):
        w, *read = item if isinstance(item, tuple) else (item,)
        if _is_map(w):
            best = [
                (d, k, (w, *read))
                if v.shape == w.shape and (d := _difference(v, w)) < known[0]
                else known
                for known, (v, _) in zip(best, apart, strict=True)
            ]
    moved = [
        found
        for found, (_, own) in zip(best, apart, strict=True)
        if found[0] < MAX_MISFIT_RATIO * own
    ]
    if len({k for _, k, _ in moved}) < len(moved):
        return []
    fewest = MIN_PAIRS
    if len(moved) < len(usable):  # the others stand where they belong, or are poor
        moved = [found for found in moved if _is_closer(*found)]
        fewest = MIN_PAIRS_OF_MANY
    if len(moved) < fewest:
        return []
    one, other = words
    text = f"{one} are much closer to {other} of other samples than to their own"
    return [Finding(f"{text}: they seem to be in another order; give ids")]


def _is_closer(difference: float, k: int, partner: tuple[Any, ...]) -> bool:
    """Whether the map that stands beside one is much farther from it than `difference`."""
    w, *read = partner
    with suppress(SampleError, IndexError):
        v = read[0]()
        return (
            v.shape == w.shape and _is_map(v) and difference < MAX_MISFIT_RATIO * _difference(v, w)
        )
    return False


def _is_map(v: np.ndarray) -> bool:
    return v.ndim == 2 and v.dtype.kind == "f" and bool(np.isfinite(v).all() and (v > 0).all())


def _difference(v: np.ndarray, w: np.ndarray) -> float:
    """Rms difference, of the rms of the second."""
    v, w = v.astype(np.float64), w.astype(np.float64)
    return float(np.linalg.norm(v - w) / np.linalg.norm(w))


def _is_even(v: np.ndarray, w: np.ndarray, factor: float) -> bool:
    """Whether most of a map is another one times a factor, and the other one not all but constant,
    which any constant would be."""
    ratio = v.astype(np.float64) / w / factor
    return bool(
        np.mean(np.abs(ratio - 1) < MAX_SCALE_SPREAD) > 0.5
        and np.std(w) > MAX_SCALE_SPREAD * np.mean(w)
    )


def _all_better(new: Sequence[float], old: Sequence[float]) -> bool:
    return all(n < MAX_MISFIT_RATIO * o for n, o in zip(new, old, strict=True))
