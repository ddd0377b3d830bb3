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

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from fwi_refine.inversion.budget import Budget, Cost
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.levels.candidates import (
    Change,
    Choice,
    Window,
    apply_changes,
    explain,
    find_front,
    resized,
)
from fwi_refine.objective.arithmetic import has_released_arithmetic
from fwi_refine.wave import Simulator, first_unequal

# Changes that are tried one by one, likeliest first, with what was chosen or without
MAX_SINGLE_CHANGES = 12
SURE_PROBABILITY = 0.95  # probability of a change that is tried without those that are less likely
# Fractions of the weighted sum of squares in the window: changes that leave more are none, and no
# more are tried below the second.
MAX_REMAINING_FRACTION, ENOUGH_FRACTION = 0.9, 0.02
# Of a change in a trial, as a fraction of that sum: what gains less may be chance
TRIAL_PENALTY = 0.01
# What is looked at, in turn, where nothing better is found.
ATTEMPTS = (Choice(1000), Choice(400), Choice(1000, width=60), Choice(1600, widened=2))


@dataclass(frozen=True)
class Certificate:
    """The verdict of a record on a map.

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


def prove(
    v: torch.Tensor, record: np.ndarray, simulator: Simulator, missing: np.ndarray | None = None
) -> Certificate:
    """Compares the record of a map with a measured one, sample by sample.

    Parameters
    ----------
    v
        Map (nz, nx), m/s; vmin is its minimum. Simulated once.
    record
        (shots, >= n_steps, receivers).
    simulator
        Its survey, and how it is to be simulated.
    missing
        Samples (shots, n_steps, receivers) that are not compared.

    Returns
    -------
    Certificate
        `exact` is True only if no sample of rows 0 to n_steps - 1 differs, of those that are there.
    """
    if not has_released_arithmetic(record, simulator.survey, missing):
        return Certificate(None)
    return _compare(v, _rows(record, simulator), simulator, missing)


def certify(v: torch.Tensor, data: Data, budget: Budget) -> Certificate:
    """As `prove`, of a sample's data: one evaluation, where the budget affords it.

    Parameters
    ----------
    v
        Map (nz, nx), m/s.
    data
        The whole record of a sample.
    budget
        Is charged.

    Returns
    -------
    Certificate
    """
    if not data.released or not _goes_on(budget, 1):
        return Certificate(None)
    budget.charge(1)
    return _compare(v, _rows(data.record, data.simulator), data.simulator, data.missing)


def search(
    v: torch.Tensor,
    before: Certificate,
    levels: torch.Tensor | None,
    data: Data,
    budget: Budget,
    attempts: Sequence[Choice] = ATTEMPTS,
) -> tuple[torch.Tensor, Certificate]:
    """Repairs a map of integers that is almost right, down from the top.

    Parameters
    ----------
    v
        Map (nz, nx), m/s.
    before
        What the record says of it, see `certify`.
    levels
        (K,) m/s, integers that a cell may have besides the values of its neighbourhood. None: no
        others.
    data
        The whole record of a sample.
    budget
        Is charged for what is simulated; a record of fewer steps or shots counts by its fraction.
    attempts
        What is looked at, in turn, where nothing better is found.

    Returns
    -------
    v, certificate
        The best map, float64, and what the record says of it. Where the record is of another
        arithmetic, or v is not of integers, v is what it was.
    """
    survey, simulator, missing = data.survey, data.simulator, data.missing
    record = _rows(data.record, simulator)
    on_map = all(
        0 <= row < survey.shape[0] and 0 <= column < survey.shape[1]
        for row, column in (*survey.sources, *survey.receivers)
    )
    if before.exact is not False or not on_map or not torch.equal(v, v.round()):
        return v, before
    others = np.zeros(0) if levels is None else levels.double().cpu().numpy().round()
    present, attempt = v.double().cpu(), 0
    best = before, present
    while not best[0].exact and attempt < len(attempts) and _goes_on(budget, 1):
        budget.charge(1)
        released = simulator.released(present[None])[0].cpu()
        measured = _filled(record, released, missing)
        front = find_front(present, measured, released, simulator, attempts[attempt])
        better = None
        if front is not None:
            cost = front.cost(simulator)
            if not _goes_on(budget, cost):
                break
            budget.charge(cost)
            changes = explain(present, front, others, simulator)
            better = _best_trial(present, changes, front.window, simulator, budget)
        if better is None:
            attempt += 1
            continue
        if not _goes_on(budget, 1):
            break
        budget.charge(1)
        present, attempt = better, 0
        found = _compare(present, record, simulator, missing), present
        best = max(best, found, key=lambda pair: pair[0].equal_fraction or 0.0)
    return best[1].to(v.device), best[0]


def _best_trial(
    v: torch.Tensor,
    changes: list[Change],
    window: Window,
    simulator: Simulator,
    budget: Budget,
) -> torch.Tensor | None:
    """The map with the changes that leave least in the window; None where they leave too much."""
    part = resized(simulator, n_steps=window.horizon)
    cost = Fraction(window.horizon, simulator.survey.n_steps)

    def left(some: list[Change]) -> float:
        if not _goes_on(budget, cost):
            return math.inf
        budget.charge(cost)
        energy = window.energy(part.released(apply_changes(v, some)[None])[0].cpu())
        return energy + TRIAL_PENALTY * window.before * len(some)

    tried = [(left(some), some) for some in _subsets(changes)]
    best, chosen = min(tried, key=lambda pair: pair[0], default=(math.inf, []))
    for change in sorted(changes, key=lambda change: -change.probability)[:MAX_SINGLE_CHANGES]:
        other = [c for c in chosen if c is not change]
        other = other if change in chosen else [*chosen, change]
        if other and best > (ENOUGH_FRACTION + TRIAL_PENALTY * len(chosen)) * window.before:
            improved = left(other)
            if improved < best:
                best, chosen = improved, other
    return apply_changes(v, chosen) if best < MAX_REMAINING_FRACTION * window.before else None


def _subsets(changes: list[Change]) -> Iterator[list[Change]]:
    """All changes, those that are sure, and fewer and fewer of either from the top."""
    sure = [change for change in changes if change.probability >= SURE_PROBABILITY]
    seen: list[list[Change]] = []
    for some in (changes, sure):
        size = len(some)
        while size:
            if some[:size] not in seen:
                seen.append(some[:size])
                yield some[:size]
            size //= 2


def _goes_on(budget: Budget, cost: Cost) -> bool:
    return budget.affords(cost) and not budget.should_stop()


def _rows(record: np.ndarray, simulator: Simulator) -> torch.Tensor:
    """The rows of a record that count, (shots, n_steps, receivers) float32."""
    rows = np.asarray(record)[:, : simulator.survey.n_steps]
    return torch.from_numpy(rows.astype(np.float32))


def _filled(data: torch.Tensor, released: torch.Tensor, missing: np.ndarray | None) -> torch.Tensor:
    """Data (shots, n_steps, receivers) whose missing samples are those of a map."""
    if missing is None:
        return data
    return torch.where(torch.from_numpy(missing).to(data.device), released.to(data), data)


def _compare(
    v: torch.Tensor,
    data: torch.Tensor,
    simulator: Simulator,
    missing: np.ndarray | None = None,
) -> Certificate:
    """The verdict of a record (shots, n_steps, receivers) on a map."""
    n_steps = simulator.survey.n_steps
    if missing is None:
        found = simulator.first_differences(v[None], data[None].to(simulator.device))[0]
        first = found.cpu().numpy()
        return Certificate(bool((first == n_steps).all()), float(first.mean() / n_steps), first)
    released = simulator.released(v[None])[0].cpu()
    first = first_unequal(released, _filled(data, released, missing)).numpy()
    there = ~missing.all(1)  # traces that hold something
    equal = float(first[there].mean() / n_steps)
    return Certificate(bool((first == n_steps).all()), equal, first)
