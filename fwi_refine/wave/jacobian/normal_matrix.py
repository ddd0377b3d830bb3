"""J^T J in float64, and what of J it may leave out.

Most of what neighbouring receivers see differently comes from close by: short waves along the
surface do not reach deep cells. So for each mode of the records an orthogonal matrix combines the
receivers into some that see deep cells and others that see the upper ones alone. It leaves J^T J as
it is but for the rounding of J's own precision. Modes come in the order of time,
and the early ones see little but upper cells as they are. What is next to nothing of a row, from
some depth on, is taken for zero. The rest is a J of its own, so that its J^T J is positive
semidefinite as well.
"""

import itertools
from collections.abc import Iterable, Iterator
from functools import partial

import torch

from fwi_refine.wave.interrupt import may_go_on
from fwi_refine.wave.threads import Pool, workers

ROWS = 4096  # rows of J in one product
COLUMNS = 500  # columns of J^T J in one product
MODES = 24  # of the records, whose rows are sorted by depth as one
GROUPS = 16  # of such rows, each down to one depth
PIECE = 64  # of a group's rows, copied at a time
DEEP = 0.3  # of the map's depth, from which on cells are deep where receivers are combined


def transposed_product(a: torch.Tensor, b: torch.Tensor, threads: int | None) -> torch.Tensor:
    """a^T b in float64, with the same bits for any number of threads.

    Parameters
    ----------
    a : torch.Tensor, (m, n)
        One matrix.
    b : torch.Tensor, (m, k)
        Another, or the same.
    threads : int or None
        Of the CPU, None for as many as torch uses.

    Returns
    -------
    torch.Tensor of float64, (n, k)
        Where b is a, only its upper triangle counts.
    """
    with workers(a.device, threads) as pool:
        return sum_of_products(a.split(ROWS), pool, None if b is a else b.split(ROWS))


def sum_of_products(
    parts: Iterable[torch.Tensor], pool: Pool, others: Iterable[torch.Tensor] | None = None
) -> torch.Tensor:
    """The sum of part^T other over parts of two matrices.

    Parameters
    ----------
    parts : iterable of torch.Tensor, (m, n)
        Rows of J.
    pool : Pool
        See `workers`.
    others : iterable of torch.Tensor, (m, k), optional
        The same rows of another matrix; by default of J itself.

    Returns
    -------
    torch.Tensor of float64, (n, k)
        For J^T J only the upper triangle counts.
    """
    right = None if others is None else _widened(others)
    total: torch.Tensor | None = None
    for left in _widened(parts):
        other = left if right is None else next(right)
        if total is None:
            total = left.new_zeros(left.shape[1], other.shape[1])
        _add(total, left, other, pool)
    assert total is not None
    return total


def _widened(parts: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Each part in float64, in the place of the one before: fresh memory would cost as much time
    as the product."""
    memory: torch.Tensor | None = None
    for part in parts:
        may_go_on()
        if memory is None:
            memory = part.to(torch.float64, copy=True)
            yield memory
        else:
            yield memory[: len(part)].copy_(part)


def sum_without_hidden(
    parts: Iterable[torch.Tensor], shape: tuple[int, int], hidden: float, pool: Pool
) -> torch.Tensor:
    """The same for J itself, less what is hidden.

    Parameters
    ----------
    parts : iterable of torch.Tensor, (shots, receivers, modes, nz * nx + 1)
        J by each cell, row by row, and by vmin; `MODES` modes after the other.
    shape : tuple of int
        (nz, nx).
    hidden : float
        The norm that a row's part by all cells from some depth on must exceed.
    pool : Pool
        See `workers`.

    Returns
    -------
    torch.Tensor of float64, (nz * nx + 1, nz * nx + 1)
        Only its upper triangle is filled.
    """
    combine = partial(_combine, shape=shape, hidden=hidden)
    rest = iter(parts)
    first = next(rest)
    shots, receivers, modes, n = first.shape
    normal = torch.zeros(n, n, dtype=torch.float64, device=first.device)
    rows = first.new_empty(modes, shots, receivers, n)
    wide = normal.new_empty(-(-rows[..., 0].numel() // GROUPS), n)
    for some in itertools.chain([first], rest):
        may_go_on()
        combined = rows[: some.shape[2]]
        depths = torch.cat(list(pool.map(combine, some.unbind(2), combined)))
        copy = partial(_copy_rows, combined.flatten(0, 2))
        for group in depths.argsort(descending=True, stable=True).split(len(wide)):
            part = wide[: len(group)]
            list(pool.map(copy, group.split(PIECE), part.split(PIECE)))
            _add_down_to(normal, part, int(depths[group[0]]) * shape[1], pool)
    return normal


def _combine(
    traces: torch.Tensor, out: torch.Tensor, *, shape: tuple[int, int], hidden: float
) -> torch.Tensor:
    """Fills out with the combined rows of one mode (shots, receivers, n); the depth down to which
    each counts, (shots * receivers,)."""
    deep = traces[..., int(DEEP * shape[0]) * shape[1] : -1]
    _, combine = torch.linalg.eigh((deep @ deep.mT).sum(0).double())
    torch.matmul(combine.T.to(traces), traces, out=out)
    energies = (out.flatten(0, 1)[:, :-1] / hidden).unflatten(1, shape).square().sum(2)
    return (energies.flip(1).cumsum(1) > 1).sum(1)


def _copy_rows(rows: torch.Tensor, which: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_(rows[which])


def _add_down_to(normal: torch.Tensor, part: torch.Tensor, count: int, pool: Pool) -> None:
    """Adds part^T part to the upper triangle, of which columns from `count` on, but for the last,
    are taken for zero."""
    seen, last = part[:, :count], part[:, -1]
    _add(normal[:count, :count], seen, seen, pool)
    if count == len(normal):
        return

    def add(i: int) -> None:
        own = seen[:, i : i + COLUMNS].T
        normal[i : i + len(own), -1].addmv_(own, last)

    list(pool.map(add, range(0, count, COLUMNS)))
    normal[-1, -1] += pool.submit(lambda: last.square().sum()).result()


def _add(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, pool: Pool) -> None:
    """Adds left^T right, where both are the same to the upper triangle alone."""

    def add(i: int) -> None:
        own = left[:, i : i + COLUMNS].T
        first = i if left is right else 0
        total[i : i + len(own), first:].addmm_(own, right[:, first:])

    list(pool.map(add, range(0, left.shape[1], COLUMNS)))
