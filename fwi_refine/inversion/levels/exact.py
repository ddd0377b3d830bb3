"""Integer maps that are proven by their record, and the search for them.

The arithmetic of released records is known bit for bit (wave/released_arithmetic.py). A map whose
record is equal in every sample is proven. A wrong cell leaves each trace equal until the wave has
been there and back. So what differs first in a trace tells of the topmost errors, and there it is
a signal well above an ulp, while later all of the record differs by rounding.

The search looks at a window of each trace about its first difference. The unknowns are the cells
near edges, which may have the level of a neighbour, and the levels, which may be a few m/s off.
`scattering` says what each cell would add to the window, differences of two records what each
level would; `integer_least_squares` picks the few that explain it. Samples count by their own
size, since the linear record is off by a few per cent, down to the rounding. What was picked is
tried exactly, all, or some: what leaves least in the window is kept. Once that is right the first
differences come later, and the next window tells of deeper errors.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_dilation, maximum_filter1d

from fwi_refine.inversion.levels.levels import LEAST_AREA, along_edges
from fwi_refine.inversion.levels.scattering import arrival_steps, scattered, scattering_cost
from fwi_refine.optimise.integer_least_squares import IntegerProblem, integer_least_squares
from fwi_refine.survey import Survey
from fwi_refine.wave import Simulator

ULPS = 8  # float32 neighbours among which the velocity of a source cell is looked for
# Noise of a sample p: ROUNDING (1 + |p|), and MODEL times the largest difference within NEARBY
# steps, as the linear record is wrong by as much.
ROUNDING, MODEL, NEARBY = 5e-7, 0.05, 15
SIGNAL = 6.0  # times the rounding, from which on a difference is taken for a signal
BEFORE, WIDTH = 20, 100  # steps: of a window before the first signal, and in all
LATEST = 150  # steps after the path from cell to cell, by which a change has shown
EVERY = 3  # of the receivers, of which the window is explained; exact trials are of all
LEVEL_REACH = 3  # m/s that a level may be off
REACH = 2  # cells from which a cell may take its level
PENALTY = 0.003  # of a change, as a fraction of what there is to explain
SINGLES = 12  # changes that are tried one by one, likeliest first, with what was chosen or without
SURE = 0.95  # probability of a change that is tried without those that are less likely
# Of the weighted sum of squares in the window: the fraction below which what is left is better, and
# that below which no more changes are tried.
BETTER, DONE = 0.9, 0.02
PRICE = 0.01  # of a change in a trial, as a fraction of that sum: what gains less may be chance
# Most cells that are weighed at once, by how many cells the neighbourhood of edges is widened, and
# the width of the window: what is tried in turn where nothing better is found.
ATTEMPTS = ((1000, 1, WIDTH), (400, 1, WIDTH), (1000, 1, 60), (1600, 2, WIDTH))


@dataclass(frozen=True)
class Certificate:
    """What a record says of a map.

    Attributes
    ----------
    exact
        Whether every sample of every trace is equal, so that the map is proven; None: not tried,
        as the record is not in the arithmetic of released ones.
    equal_fraction
        Fraction of the samples that come before the first difference of their trace; None: not
        tried.
    first
        (shots, receivers) int32, the first step that differs, n_steps where none does; None: not
        tried.
    """

    exact: bool | None
    equal_fraction: float | None = None
    first: np.ndarray | None = None


@dataclass(frozen=True)
class Change:
    """One change to a map: all cells at a level, or one cell, to `value` in m/s.

    `onset` is in steps, of its earliest effect after the first signal of a trace; smaller is
    nearer to the top.
    """

    onset: float
    probability: float
    value: float
    cell: tuple[int, int] | None = None
    level: float | None = None


def has_released_arithmetic(record: np.ndarray, survey: Survey) -> bool:
    """Whether the first row of a record may be in the arithmetic of released ones.

    Parameters
    ----------
    record
        (shots, >= n_steps, receivers).
    survey
        Where a source stands at a receiver, the first sample there belongs to a float32 velocity.

    Returns
    -------
    bool
        False where a sample is not a float32 value, or where no float32 velocity of a source cell
        makes its first sample. True is no proof.
    """
    record = np.asarray(record)
    if not np.array_equal(record.astype(np.float32), record):
        return False
    w = np.float32(survey.wavelet[0])
    if not w:
        return True
    for shot, source in enumerate(survey.sources):
        if source not in survey.receivers or survey.sources.count(source) > 1:
            continue
        sample = np.float32(record[shot, 0, survey.receivers.index(source)])
        if sample / w <= 0:
            return False
        nearest = np.float32(math.sqrt(float(sample) / float(w)) / survey.dt)
        bits = nearest.view(np.int32) + np.arange(-ULPS, ULPS + 1, dtype=np.int32)
        x = bits.view(np.float32) * np.float32(survey.dt)
        if sample not in x * x * w:
            return False
    return True


def prove(v: torch.Tensor, record: np.ndarray, simulator: Simulator) -> Certificate:
    """Compares the record of a map with a measured one, sample by sample.

    Parameters
    ----------
    v
        Map (nz, nx), m/s; vmin is its minimum. Simulated once.
    record
        (shots, >= n_steps, receivers).
    simulator
        Its survey, and how it is to be simulated.

    Returns
    -------
    Certificate
        `exact` is True only if no sample of rows 0 to n_steps - 1 differs.
    """
    if not has_released_arithmetic(record, simulator.survey):
        return Certificate(None)
    return _certificate(_first_differences(v, _rows(record, simulator), simulator), simulator)


def search(
    v: torch.Tensor,
    record: np.ndarray,
    levels: torch.Tensor | None,
    simulator: Simulator,
    budget: float = math.inf,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[torch.Tensor, Certificate, float]:
    """Repairs a map of integers that is nearly right, down from the top.

    Parameters
    ----------
    v
        Map (nz, nx), m/s.
    record
        (shots, >= n_steps, receivers).
    levels
        (K,) m/s, integers that a cell may have besides the values of its neighbourhood. None: no
        others.
    simulator
        Its survey, and how it is to be simulated.
    budget
        Most simulations, in records of n_steps; a shorter one, or one of fewer shots, counts by
        its fraction.
    should_stop
        Asked before each simulation of the search.

    Returns
    -------
    v, certificate, trials
        The best map, float64, what the record says of it, and the simulations that were used, at
        most `budget`. Where the record is of another arithmetic, or v is not of integers, v is what
        it was. With a budget below 1 nothing is tried.
    """
    start = v
    ledger = _Ledger(budget, should_stop)
    if not has_released_arithmetic(record, simulator.survey) or not ledger.affords(1):
        return start, Certificate(None), 0.0
    data = _rows(record, simulator)
    certificate = _certificate(ledger.first_differences(v, data, simulator), simulator)
    if not torch.equal(v, v.round()):
        return start, certificate, ledger.used
    v, attempt = v.double().cpu(), 0
    best = certificate, v
    levels = np.zeros(0) if levels is None else levels.double().cpu().numpy().round()
    while not best[0].exact and attempt < len(ATTEMPTS):
        proposed = _propose(v, data, levels, simulator, ledger, *ATTEMPTS[attempt])
        if proposed is None:  # out of budget
            break
        better = _best_trial(v, *proposed, simulator, ledger) if proposed[0] else None
        if better is None:
            attempt += 1
            continue
        if not ledger.affords(1):
            break
        v, attempt = better, 0
        certificate = _certificate(ledger.first_differences(v, data, simulator), simulator)
        best = max(best, (certificate, v), key=lambda pair: pair[0].equal_fraction)
    return best[1].to(start.device), best[0], ledger.used


class _Ledger:
    """What a search may still simulate; nothing is simulated that it does not afford."""

    def __init__(self, budget, should_stop):
        self._budget, self._should_stop, self.used = budget, should_stop, 0.0

    def affords(self, cost):
        return self.used + cost <= self._budget and not self._should_stop()

    def charge(self, cost):
        self.used += cost

    def first_differences(self, v, data, simulator):
        self.charge(1)
        return _first_differences(v, data, simulator)


def _rows(record, simulator):
    """The rows of a record that count, (1, shots, n_steps, receivers) float32."""
    rows = np.asarray(record)[:, : simulator.survey.n_steps].astype(np.float32)
    return torch.from_numpy(rows)[None]


def _first_differences(v, data, simulator):
    """(shots, receivers), as numpy."""
    return simulator.first_differences(v[None], data.to(simulator.device))[0].cpu().numpy()


def _certificate(first, simulator):
    n_steps = simulator.survey.n_steps
    return Certificate(bool((first == n_steps).all()), float(first.mean() / n_steps), first)


def _with(simulator, **changes):
    """The same simulator for another survey, in float64."""
    survey = dataclasses.replace(simulator.survey, **changes)
    return Simulator(survey, torch.float64, **simulator.how)


def _best_trial(v, changes, window, simulator, ledger):
    """The map with the changes that leave least in the window; None where they leave too much."""
    part = _with(simulator, n_steps=window.horizon)
    cost = window.horizon / simulator.survey.n_steps

    def left(some):
        if not ledger.affords(cost):
            return math.inf
        ledger.charge(cost)
        energy = window.energy(part.released(apply_changes(v, some)[None])[0].cpu())
        return energy + PRICE * window.before * len(some)

    best, chosen = min(
        ((left(some), some) for some in _subsets(changes)),
        key=lambda pair: pair[0],
        default=(math.inf, []),
    )
    for change in sorted(changes, key=lambda change: -change.probability)[:SINGLES]:
        other = [c for c in chosen if c is not change]
        other = other if change in chosen else [*chosen, change]
        if other and best > (DONE + PRICE * len(chosen)) * window.before:
            improved = left(other)
            if improved < best:
                best, chosen = improved, other
    return apply_changes(v, chosen) if best < BETTER * window.before else None


@dataclass(frozen=True)
class _Window:
    """What counts of each trace of some receivers: data and weight, (shots, receivers, width), at
    steps before the horizon; before: the energy of the residual that the weights are from."""

    receivers: slice
    steps: torch.Tensor
    data: torch.Tensor
    weight: torch.Tensor
    horizon: int
    before: float

    def energy(self, record):
        """Weighted sum of squares of what a record (shots, horizon, all receivers) leaves."""
        taken = record.movedim(1, 2)[:, self.receivers].gather(2, self.steps)
        return float(((self.data - taken).double() * self.weight).square().sum())


def _subsets(changes: list[Change]) -> Iterator[list[Change]]:
    """All changes, those that are sure, and fewer and fewer of either from the top."""
    sure = [change for change in changes if change.probability >= SURE]
    seen = []
    for some in (changes, sure):
        size = len(some)
        while size:
            if some[:size] not in seen:
                seen.append(some[:size])
                yield some[:size]
            size //= 2


def apply_changes(v: torch.Tensor, changes: list[Change]) -> torch.Tensor:
    """A map (nz, nx) with changes: a cell that takes a level which changes takes its new value."""
    v, new = v.clone(), {c.level: c.value for c in changes if c.level is not None}
    cells = [c for c in changes if c.cell is not None]
    before = v.clone()
    for level, value in new.items():
        v[before == level] = value
    for change in cells:
        v[change.cell] = new.get(change.value, change.value)
    return v


def _propose(v, data, levels, simulator, ledger, most, widened, width):
    """Changes that explain the windows best, from the top down; None: it cannot be afforded."""
    if not ledger.affords(1):
        return None
    ledger.charge(1)
    n_steps = simulator.survey.n_steps
    residual = (data - simulator.released(v[None]).cpu())[0].movedim(1, 2)
    rounding = ROUNDING * (1 + data[0].movedim(1, 2).abs())
    signal = residual.abs() > SIGNAL * rounding
    signal = signal if signal.any() else residual != 0
    start = torch.where(signal.any(-1), signal.int().argmax(-1), n_steps).numpy()
    values, arrival = v.numpy(), arrival_steps(v.numpy(), simulator.survey)
    open_ = along_edges(values)
    for _ in range(widened):
        open_ = binary_dilation(open_)
    for source in simulator.survey.sources:
        open_[source] = False
    cells = np.flatnonzero(open_)
    known, sizes = np.unique(values, return_counts=True)
    known = known[sizes >= LEAST_AREA]
    # a level shows where the first of its cells does
    of_levels = [arrival[..., values.ravel() == level].min(-1) for level in known]
    both = np.concatenate([arrival[..., cells], np.stack(of_levels, axis=-1)], axis=-1)
    horizon, seen = _horizon(start, both, n_steps, most, width)
    seen[len(cells)] = True  # the lowest velocity scales the damping of the band
    known, cells = known[seen[len(cells) :]], cells[seen[: len(cells)]]
    # a window of some receivers, which tell the same
    thin = np.s_[:, EVERY // 2 :: EVERY]
    receivers = simulator.survey.receivers[thin[1]]
    part = _with(simulator, receivers=receivers, n_steps=horizon)
    at = start[thin] - BEFORE
    steps = at[..., None] + np.arange(width)
    counts = (steps >= 0) & (steps < horizon) & (start[thin] < horizon - BEFORE)[..., None]
    steps = steps.clip(0, horizon - 1)
    cost = (len(known) + 1 + scattering_cost(part.survey)) * horizon / n_steps
    if not len(cells) or not ledger.affords(cost):
        return None if len(cells) else ([], None)
    ledger.charge(cost)
    places = np.column_stack(np.unravel_index(cells, values.shape))
    take = torch.from_numpy(steps)
    by_level = _by_levels(v, known, take, part)
    columns = torch.cat([scattered(v, places, steps, part).double(), by_level])
    window = residual[thin].double().gather(2, take)
    nearby = maximum_filter1d(window.abs().numpy(), 2 * NEARBY + 1, axis=-1)
    noise = np.hypot(rounding[thin].double().gather(2, take).numpy(), MODEL * nearby)
    weight = torch.from_numpy(counts / noise)
    columns, window = (columns * weight).flatten(1), (window * weight).flatten()
    unknown, value, targets = _choices(values, places, known, levels)
    problem = IntegerProblem(
        (columns @ columns.T).numpy(),
        (columns @ window).numpy(),
        float(window @ window),
        unknown,
        value,
    )
    u, probability = integer_least_squares(problem, PENALTY)
    lag = (arrival - start[..., None]).min((0, 1))
    changes = []
    for i in np.flatnonzero(u):
        to = targets[(unknown == i) & (value == u[i])][0]
        if i < len(places):
            place = tuple(places[i].tolist())
            changes.append(Change(lag[cells[i]], probability[i], to, cell=place))
        else:
            level = float(known[i - len(places)])
            onset = lag[values.ravel() == level].min()
            changes.append(Change(onset, probability[i], to, level=level))
    measured = data[0].movedim(1, 2)[thin].gather(2, take)
    seen = _Window(thin[1], take, measured, weight, horizon, problem.energy)
    return sorted(changes, key=lambda change: change.onset), seen


def _horizon(start, arrival, n_steps, most, width):
    """(last step looked at, which cells show before it): at most `most` cells, where that can be.

    start: (shots, receivers) of the signals; arrival: (shots, receivers, cells)
    """

    def seen(horizon):
        counts = (start < horizon - BEFORE)[..., None]
        last = np.minimum(start + width - BEFORE, horizon)[..., None]
        late = (start < n_steps) & (start - LATEST > 0)
        right = ((arrival < start[..., None] - LATEST) & late[..., None]).any((0, 1))
        return ((arrival < last) & counts).any((0, 1)) & ~right

    begun = start[start < n_steps]
    high = min(n_steps, int(begun.max(initial=0)) + width - BEFORE)
    if np.count_nonzero(seen(high)) > most:
        low = min(high, int(begun.min()) + 2 * BEFORE)
        while high - low > 1:
            middle = (low + high) // 2
            if np.count_nonzero(seen(middle)) > most:
                high = middle
            else:
                low = middle
        high = low
    return high, seen(high)


def _by_levels(v, known, take, simulator):
    """(levels, shots, receivers, width): what 1 m/s more of each adds to the record."""
    changes = torch.zeros(len(known), *take.shape, dtype=torch.float64)
    before = simulator.forward(v[None])[0]
    for change, level in zip(changes, known.tolist(), strict=True):
        after = simulator.forward(torch.where(v == level, v + 1, v)[None])[0]
        change[:] = (after - before).cpu().movedim(1, 2).gather(2, take)
    return changes


def _choices(values, places, known, levels):
    """(unknown, value, velocity) of all choices: of a cell 1 - (v / v')^2, of a level m/s more."""
    unknown, value, velocity = [], [], []
    for i, (row, column) in enumerate(places):
        own = values[row, column]
        rows, columns = (slice(max(0, at - REACH), at + REACH + 1) for at in (row, column))
        for other in np.setdiff1d(np.union1d(values[rows, columns], levels), own):
            unknown.append(i)
            value.append(1 - (own / other) ** 2)
            velocity.append(other)
    for i, level in enumerate(known, len(places)):
        for more in (*range(-LEVEL_REACH, 0), *range(1, LEVEL_REACH + 1)):
            unknown.append(i)
            value.append(float(more))
            velocity.append(level + more)
    return np.array(unknown), np.array(value), np.array(velocity)
