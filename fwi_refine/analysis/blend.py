"""Several predictions of one map made into one: weighted mean, median, and how weights are found.

Weights are found by hill climbing (Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble selection
from libraries of models", ICML 2004): start from the best member alone, then again and again add
the member, one that is in already included, that makes the mean best. As the best state on the
way is returned, the result is never worse than the best member, by the measure and on the samples
that it was found with.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from fwi_refine.errors import InputError, SampleError

if TYPE_CHECKING:
    from fwi_refine.wave import Simulator

ROUNDS = 20  # weights are multiples of 1/n, n up to this


@dataclass(frozen=True)
class Climbed:
    """Weights found by `climb`.

    Attributes
    ----------
    weights : tuple of float
        One for each member; they add up to 1.
    score : float
        That of the weights.
    alone : tuple of float
        The score of each member alone.
    """

    weights: tuple[float, ...]
    score: float
    alone: tuple[float, ...]


def climb(
    score: Callable[[NDArray[np.float64]], float], members: int, rounds: int = ROUNDS
) -> Climbed:
    """Weights of predictions that make a score small, by hill climbing.

    A state is never scored twice.

    Parameters
    ----------
    score : callable
        Gets weights, (members,), that add up to 1.
    members : int
        How many predictions there are.
    rounds : int
        Steps; weights are multiples of 1/n, n up to this.

    Returns
    -------
    Climbed

    Raises
    ------
    InputError
        If no member has a finite score.

    References
    ----------
    Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble selection from libraries of models",
    ICML 2004.
    """
    known: dict[tuple[int, ...], float] = {}

    def scored(counts: tuple[int, ...]) -> float:
        # 1:1 and 2:2 are the same mean.
        state = tuple(n // math.gcd(*counts) for n in counts)
        if state not in known:
            value = float(score(np.array(state) / sum(state)))
            known[state] = value if math.isfinite(value) else math.inf
        return known[state]

    single = [tuple(int(m == k) for m in range(members)) for k in range(members)]
    counts = best = min(single, key=scored)
    if math.isinf(scored(best)):
        raise InputError("no prediction has a finite score, so no weights can be found")
    for _ in range(rounds - 1):
        counts = min((_sum(counts, one) for one in single), key=scored)
        best = min(best, counts, key=scored)
    weights = tuple(n / sum(best) for n in best)
    return Climbed(weights, scored(best), tuple(map(scored, single)))


def _sum(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))


class LabelScore:
    """Mean `|weighted mean - truth|` of some samples, m/s, as a function of the weights.

    Parameters
    ----------
    maps : array_like, (samples, members, nz, nx)
        Predictions, m/s.
    truth : array_like, (samples, nz, nx)
        True maps, m/s.
    """

    def __init__(self, maps: ArrayLike, truth: ArrayLike) -> None:
        self._maps = np.asarray(maps, np.float32)
        self._truth = np.asarray(truth, np.float32)

    def __call__(self, weights: NDArray[np.float64]) -> float:
        total = 0.0
        # A sample at a time: no second copy of all maps.
        for maps, truth in zip(self._maps, self._truth, strict=True):
            error = np.tensordot(weights, maps, 1) - truth
            total += np.abs(error).mean()
        return total / len(self._maps)


class MisfitScore:
    """Mean over some samples of the rms of simulated minus given record.

    The mean of the roots, not the root of the mean: a network's error in m/s is near to
    proportional to the rms misfit, and one bad sample should not decide alone.

    Parameters
    ----------
    maps : array_like, (samples, members, nz, nx)
        Predictions, m/s.
    records : sequence of ndarray, (shots, >= n_steps, receivers)
        The record of each sample.
    simulator : Simulator
        Of their survey.
    """

    def __init__(
        self, maps: ArrayLike, records: Sequence[NDArray[Any]], simulator: "Simulator"
    ) -> None:
        self._maps = np.asarray(maps, np.float64)
        self._records = records
        self._simulator = simulator

    def __call__(self, weights: NDArray[np.float64]) -> float:
        blends = (np.tensordot(weights, maps, 1) for maps in self._maps)
        pairs = zip(blends, self._records, strict=True)
        return float(np.mean([np.sqrt(misfits(self._simulator, [v], d)[0]) for v, d in pairs]))


def misfits(
    simulator: "Simulator", maps: Sequence[NDArray[Any]], record: NDArray[Any]
) -> NDArray[np.float64]:
    """Mean square misfit of several maps to one record.

    A map beyond the survey's velocity bounds is measured as what is nearest to it.

    Parameters
    ----------
    simulator : Simulator
        Of the record's survey.
    maps : sequence of ndarray, (nz, nx)
        The maps, m/s.
    record : ndarray, (shots, >= n_steps, receivers)
        The record; rows from n_steps on are not used.

    Returns
    -------
    ndarray of float64, (n,)
        In the record's units squared; inf where a map cannot be simulated, and where the misfit
        is no number.
    """
    survey = simulator.survey
    v = torch.as_tensor(np.stack(maps).astype(np.float64).clip(*survey.velocity_bounds))
    d = torch.as_tensor(np.asarray(record[:, : survey.n_steps], np.float64))
    stable = [simulator.is_stable(one) for one in v.split(1)]
    v = v[stable]
    values = np.full(len(maps), np.inf)
    values[stable] = simulator.misfit(v, d.expand(len(v), *d.shape)).numpy()
    return np.where(np.isfinite(values), values, np.inf)


def combine(
    maps: Sequence[NDArray[Any] | None], weights: Sequence[float] | None
) -> NDArray[np.float64]:
    """The weighted mean, or the median, of those maps that are there.

    Parameters
    ----------
    maps : sequence of ndarray or None, (nz, nx)
        The map of each member, m/s, None for one that cannot be used; its weight goes to the
        others in proportion.
    weights : sequence of float or None
        One for each member; None for the median of each cell.

    Returns
    -------
    ndarray, (nz, nx)
        m/s.

    Raises
    ------
    SampleError
        If there is no map at all.
    """
    usable = [v for v in maps if v is not None]
    if not usable:
        raise SampleError("no prediction of it can be used")
    if weights is None:
        return np.median(usable, axis=0)
    kept = np.array([w for v, w in zip(maps, weights, strict=True) if v is not None], np.float64)
    if not kept.any():
        kept[:] = 1.0
    return np.tensordot(kept / kept.sum(), np.stack(usable), 1)
