"""Which changes to a map of integers explain where its record first differs from a measured one.

The unknowns are the cells near edges, which may have the level of a neighbour, and the levels,
which may be a few m/s off. The data are a window of each trace about its first difference. See
exact.py.
"""

import dataclasses
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from scipy.ndimage import binary_dilation, maximum_filter1d

from fwi_refine.inversion.levels.levels import MIN_AREA, along_edges
from fwi_refine.inversion.levels.scattering import arrival_steps, scattered, scattering_cost
from fwi_refine.optimise.integer_least_squares import IntegerProblem, integer_least_squares
from fwi_refine.wave import Simulator

# Noise of a sample p: ROUNDING_NOISE (1 + |p|), and MODEL_NOISE times the largest difference within
# NOISE_REACH steps, as the linear record is wrong by as much.
ROUNDING_NOISE, MODEL_NOISE, NOISE_REACH = 5e-7, 0.05, 15
SIGNAL_TO_ROUNDING = 6.0  # times the rounding, from which on a difference is taken for a signal
WINDOW_LEAD, WINDOW_WIDTH = 20, 100  # steps: of a window before the first signal, and in all
MAX_DELAY = 150  # steps after the path from cell to cell, by which a change has shown
RECEIVER_STEP = 3  # of the receivers, of which the window is explained; the certificate is of all
LEVEL_REACH = 3  # m/s that a level may be off
NEIGHBOURHOOD = 2  # cells from which a cell may take its level
CHANGE_PENALTY = 0.003  # of a change, as a fraction of what there is to explain


@dataclass(frozen=True)
class Choice:
    """Which unknowns are looked at.

    Attributes
    ----------
    most
        Most cells and levels at once, from the top.
    widened
        Cells by which the neighbourhood of edges is widened.
    width
        Steps of the windows.
    """

    most: int
    widened: int = 1
    width: int = WINDOW_WIDTH


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


@dataclass(frozen=True)
class Window:
    """The part of each trace of some receivers that counts.

    Attributes
    ----------
    receivers
        Which.
    steps, data, weight
        (shots, receivers, width) each: steps before the horizon, what was measured there, and one
        over the noise.
    horizon
        Steps that need be simulated.
    before
        The weighted sum of squares that the map leaves.
    """

    receivers: slice
    steps: torch.Tensor
    data: torch.Tensor
    weight: torch.Tensor
    horizon: int
    before: float

    def energy(self, record: torch.Tensor) -> float:
        """Weighted sum of squares that a record (shots, horizon, all receivers) leaves."""
        left = self.data - self.taken(record)
        return float((left.double() * self.weight).square().sum())

    def taken(self, record: torch.Tensor) -> torch.Tensor:
        """The samples of a record (shots, steps, all receivers) that count."""
        return record.movedim(1, 2)[:, self.receivers].gather(2, self.steps)


@dataclass(frozen=True)
class Front:
    """The unknowns behind the first differences of a map, and where they are looked for.

    Attributes
    ----------
    cells, levels
        Numbers (C,) of the cells, row by row, and (K,) m/s.
    lag
        (nz * nx,) steps of the path over a cell after the first signal, the least of all traces.
    window
        What they have to explain.
    residual
        (shots, receivers, width) of the map, within the window.
    """

    cells: np.ndarray
    levels: np.ndarray
    lag: np.ndarray
    window: Window
    residual: torch.Tensor

    def cost(self, simulator: Simulator) -> Fraction:
        """Records that `explain` simulates."""
        part = self.simulator(simulator)
        records = len(self.levels) + 1 + scattering_cost(part.survey)
        return records * Fraction(self.window.horizon, simulator.survey.n_steps)

    def simulator(self, simulator: Simulator) -> Simulator:
        """Of the receivers and steps of the window, in float64."""
        receivers = simulator.survey.receivers[self.window.receivers]
        return resized(simulator, receivers=receivers, n_steps=self.window.horizon)


def resized(simulator: Simulator, **changes: object) -> Simulator:
    """The same simulator for a survey with changes, in float64."""
    survey = dataclasses.replace(simulator.survey, **changes)  # type: ignore[arg-type]
    return Simulator(survey, torch.float64, **simulator.options)


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


def find_front(
    v: torch.Tensor,
    data: torch.Tensor,
    released: torch.Tensor,
    simulator: Simulator,
    choice: Choice,
) -> Front | None:
    """Unknowns that may explain the first differences of a map; None: no cell does.

    Parameters
    ----------
    v
        Map (nz, nx) of integers, float64, m/s.
    data, released
        (shots, n_steps, receivers) float32: the measured record, and that of the map.
    simulator
        Its survey, whose sources and receivers are on the map.
    choice
        Which unknowns are looked at.
    """
    survey = simulator.survey
    difference = (data - released).movedim(1, 2)
    rounding = ROUNDING_NOISE * (1 + data.movedim(1, 2).abs())
    signal = difference.abs() > SIGNAL_TO_ROUNDING * rounding
    signal = signal if signal.any() else difference != 0
    start = torch.where(signal.any(-1), signal.int().argmax(-1), survey.n_steps).numpy()
    values = v.numpy()
    arrival = arrival_steps(values, survey)
    open_ = along_edges(values)
    for _ in range(choice.widened):
        open_ = binary_dilation(open_)
    for source in survey.sources:
        open_[source] = False
    cells = np.flatnonzero(open_)
    levels, sizes = np.unique(values, return_counts=True)
    levels = levels[sizes >= MIN_AREA]
    if not len(levels) or not len(cells):
        return None
    # a level shows where the first of its cells does
    of_levels = [arrival[..., values.ravel() == level].min(-1) for level in levels]
    both = np.concatenate([arrival[..., cells], np.stack(of_levels, axis=-1)], axis=-1)
    horizon, seen = _horizon(start, both, survey.n_steps, choice)
    seen[len(cells)] = True  # the lowest velocity scales the damping of the band
    levels, cells = levels[seen[len(cells) :]], cells[seen[: len(cells)]]
    if not len(cells):
        return None
    receivers = slice(RECEIVER_STEP // 2, None, RECEIVER_STEP)  # some tell the same as all
    first = start[:, receivers, None]
    steps = first - WINDOW_LEAD + np.arange(choice.width)
    counts = (steps >= 0) & (steps < horizon) & (first < horizon - WINDOW_LEAD)
    take = torch.from_numpy(steps.clip(0, horizon - 1))
    residual, rounding = (x[:, receivers].double().gather(2, take) for x in (difference, rounding))
    nearby = maximum_filter1d(residual.abs().numpy(), 2 * NOISE_REACH + 1, axis=-1)
    weight = torch.from_numpy(counts / np.hypot(rounding.numpy(), MODEL_NOISE * nearby))
    return Front(
        cells=cells,
        levels=levels,
        lag=(arrival - start[..., None]).min((0, 1)),
        window=Window(
            receivers=receivers,
            steps=take,
            data=data.movedim(1, 2)[:, receivers].gather(2, take),
            weight=weight,
            horizon=horizon,
            before=float((residual * weight).square().sum()),
        ),
        residual=residual,
    )


def explain(
    v: torch.Tensor, front: Front, others: np.ndarray, simulator: Simulator
) -> list[Change]:
    """The few changes that explain a window best, from the top down.

    Parameters
    ----------
    v
        Map (nz, nx) of integers, float64, m/s.
    front
        Of this map.
    others
        (L,) m/s, which each cell may have besides the values of its neighbourhood.
    simulator
        Its survey, and how it is to be simulated.
    """
    values, window = v.numpy(), front.window
    positions = np.column_stack(np.unravel_index(front.cells, values.shape))
    part = front.simulator(simulator)
    by_cell = scattered(v, positions, window.steps, part).double()
    by_level = _by_levels(v, front.levels, window, part)
    columns = (torch.cat([by_cell, by_level]) * window.weight).flatten(1)
    weighted = (front.residual * window.weight).flatten()
    unknown, value, velocity = _choices(values, positions, front.levels, others)
    problem = IntegerProblem(
        normal=(columns @ columns.T).numpy(),
        pulled=(columns @ weighted).numpy(),
        energy=window.before,
        unknown=unknown,
        value=value,
    )
    u, probability = integer_least_squares(problem, CHANGE_PENALTY)
    changes = []
    for i in np.flatnonzero(u):
        to = float(velocity[(unknown == i) & (value == u[i])][0])
        if i < len(positions):
            row, column = positions[i].tolist()
            onset = front.lag[front.cells[i]]
            changes.append(Change(onset, probability[i], to, cell=(row, column)))
        else:
            level = float(front.levels[i - len(positions)])
            onset = front.lag[values.ravel() == level].min()
            changes.append(Change(onset, probability[i], to, level=level))
    return sorted(changes, key=lambda change: change.onset)


def _horizon(
    start: np.ndarray, arrival: np.ndarray, n_steps: int, choice: Choice
) -> tuple[int, np.ndarray]:
    """(last step looked at, which cells show before it): at most so many, where that can be.

    start: (shots, receivers) of the signals; arrival: (shots, receivers, cells)
    """

    def seen(horizon: int) -> np.ndarray:
        counts = (start < horizon - WINDOW_LEAD)[..., None]
        last = np.minimum(start + choice.width - WINDOW_LEAD, horizon)[..., None]
        late = (start < n_steps) & (start - MAX_DELAY > 0)
        right = ((arrival < start[..., None] - MAX_DELAY) & late[..., None]).any((0, 1))
        return ((arrival < last) & counts).any((0, 1)) & ~right

    begun = start[start < n_steps]
    high = min(n_steps, int(begun.max(initial=0)) + choice.width - WINDOW_LEAD)
    if np.count_nonzero(seen(high)) > choice.most:
        low = min(high, int(begun.min()) + 2 * WINDOW_LEAD)
        while high - low > 1:
            middle = (low + high) // 2
            if np.count_nonzero(seen(middle)) > choice.most:
                high = middle
            else:
                low = middle
        high = low
    return high, seen(high)


def _by_levels(
    v: torch.Tensor, levels: np.ndarray, window: Window, simulator: Simulator
) -> torch.Tensor:
    """(levels, shots, receivers, width): what 1 m/s more of each adds to the record."""
    changes = torch.zeros(len(levels), *window.steps.shape, dtype=torch.float64)
    before = simulator.forward(v[None])[0]
    for change, level in zip(changes, levels.tolist(), strict=True):
        after = simulator.forward(torch.where(v == level, v + 1, v)[None])[0]
        change[:] = (after - before).cpu().movedim(1, 2).gather(2, window.steps)
    return changes


def _choices(
    values: np.ndarray, positions: np.ndarray, levels: np.ndarray, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(unknown, value, velocity) of all choices: of a cell 1 - (v / v')^2, of a level m/s more."""
    unknown, value, velocity = [], [], []
    for i, (row, column) in enumerate(positions):
        own = values[row, column]
        rows, columns = (
            slice(max(0, at - NEIGHBOURHOOD), at + NEIGHBOURHOOD + 1) for at in (row, column)
        )
        for other in np.setdiff1d(np.union1d(values[rows, columns], others), own):
            unknown.append(i)
            value.append(1 - (own / other) ** 2)
            velocity.append(other)
    for i, level in enumerate(levels, len(positions)):
        for more in (*range(-LEVEL_REACH, 0), *range(1, LEVEL_REACH + 1)):
            unknown.append(i)
            value.append(float(more))
            velocity.append(level + more)
    return np.array(unknown), np.array(value), np.array(velocity)
