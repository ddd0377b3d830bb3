"""J^T J without J: some rows at a time, from the spectra at sources and receivers.

A row of J is made of the spectra of one source and one receiver (reciprocity.py), which are far
fewer numbers than the rows of all pairs: for OpenFWI's survey 0.3 GB against 0.7 GB, and for ten
times the cells and receivers 30 GB against 700 GB. So the spectra are kept, and rows are made from
them where they are needed, in the same order and with the same bits as those of the whole matrix.
"""

from collections.abc import Callable, Iterator

import torch

from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave.jacobian.assemble import assemble
from fwi_refine.wave.jacobian.full import jacobian, scaled
from fwi_refine.wave.jacobian.normal_matrix import (
    MODES,
    ROWS,
    sum_of_products,
    sum_without_hidden,
)
from fwi_refine.wave.jacobian.plan import Plan
from fwi_refine.wave.jacobian.reciprocity import Assembly
from fwi_refine.wave.paths import MakeKernel
from fwi_refine.wave.simulator import Simulator
from fwi_refine.wave.threads import Pool, workers

MAX_ROWS = 1.2e9  # bytes of the rows of some modes that are made at a time


def normal_matrix(
    v: torch.Tensor,
    vmin: float | torch.Tensor,
    along: Callable[[torch.Tensor], torch.Tensor] | None = None,
    *,
    survey: Survey = OPENFWI,
    hidden: float = 0.0,
    kernel: str | MakeKernel = "auto",
    threads: int | None = None,
    device: str | torch.device | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """J^T J = D N D with a unit diagonal of N; see `Jacobian.normal_matrix`.

    On a GPU the whole J is made, as its memory holds it.

    Parameters
    ----------
    v : torch.Tensor, (nz, nx)
        The map, m/s.
    vmin : float or torch.Tensor
        The velocity that scales the damping, m/s.
    along, hidden
        As for `Jacobian.normal_matrix`.
    survey, kernel, threads, device
        As for `jacobian`.

    Returns
    -------
    N : torch.Tensor of float64, (n, n)
        Of unit diagonal.
    D : torch.Tensor of float64, (n,)
        The diagonal of D.
    """
    single = torch.float32
    where = Simulator(survey, single, kernel, threads, device=device).device
    if where.type != "cpu":
        full = jacobian(v, vmin, survey=survey, kernel=kernel, threads=threads, device=device)
        return full.normal_matrix(along, threads, hidden)
    kept = assemble(_Kept, v, vmin, survey, single, kernel, threads, None, device)
    with workers(where, threads) as pool:
        if along is None and hidden:
            blocks = kept.by_modes(pool)
            return scaled(sum_without_hidden(blocks, survey.shape, hidden, pool))
        parts = kept.parts(ROWS, pool)
        if along is not None:
            parts = _mapped(along, parts, pool)
        return scaled(sum_of_products(parts, pool))


def modes_at_a_time(of_mode: int, modes: int) -> int:
    """How many of the modes have their rows made at a time; of_mode: numbers in those of one."""
    size = max(1, min(modes, int(MAX_ROWS / (of_mode * torch.float32.itemsize))))
    return size if size <= MODES else min(modes, size // MODES * MODES)


def _mapped(
    along: Callable[[torch.Tensor], torch.Tensor], parts: Iterator[torch.Tensor], pool: Pool
) -> Iterator[torch.Tensor]:
    """One part after the other, as the next overwrites it; by a thread of the pool."""
    return (pool.submit(along, part).result() for part in parts)


class _Kept(Assembly):
    """Keeps the spectra of the receivers."""

    def prepare(self, plan: Plan) -> None:
        """As in `Assembly`."""
        self._spectra_of: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}

    def put(self, point: tuple[int, int], own: torch.Tensor, extra: torch.Tensor) -> None:
        """As in `Assembly`."""
        self._spectra_of[point] = own.clone(), extra.clone()

    def by_modes(self, pool: Pool) -> Iterator[torch.Tensor]:
        """J by `MODES` modes after the other, or fewer where these are too large; each is
        overwritten by later ones. As many as memory takes are made at a time: every time, the
        spectra of all sources and receivers are multiplied."""
        shots, receivers, modes, n = self.shape
        size = modes_at_a_time(shots * receivers * n, modes)
        memory = torch.empty(shots, receivers, size, n)
        for first in range(0, modes, size):
            out = memory[:, :, : modes - first]
            self._fill(slice(first, first + size), out, pool)
            yield from out.split(MODES, dim=2)

    def parts(self, count: int, pool: Pool) -> Iterator[torch.Tensor]:
        """J by `count` rows after the other, in the order of the matrix, each overwritten by the
        next."""
        shots, receivers, modes, n = self.shape
        part = torch.empty(min(count, shots * receivers * modes), n)
        pairs = -(-count // modes)  # whose rows are made at a time
        rows = torch.empty(pairs, 1, modes, n)
        everyone = [(shot, receiver) for shot in range(shots) for receiver in range(receivers)]
        filled = 0
        for first in range(0, len(everyone), pairs):
            some = everyone[first : first + pairs]
            list(pool.map(self._fill_pair, some, rows))
            rest = rows[: len(some)].flatten(0, 2)
            while len(rest):
                new = min(len(rest), count - filled)
                part[filled : filled + new] = rest[:new]
                rest, filled = rest[new:], filled + new
                if filled == count:
                    yield part
                    filled = 0
        if filled:
            yield part[:filled]

    def _fill_pair(self, pair: tuple[int, int], out: torch.Tensor) -> None:
        shot, receiver = pair
        spectra = self._spectra_of[self._survey.receivers[receiver]]
        self.rows(*spectra, slice(None), out, shot)

    def _fill(self, modes: slice, out: torch.Tensor, pool: Pool) -> None:
        """Rows of some modes, (shots, receivers, modes, n)."""

        def fill(receiver: int) -> None:
            spectra = self._spectra_of[self._survey.receivers[receiver]]
            self.rows(*spectra, modes, out[:, receiver])

        list(pool.map(fill, range(len(self._survey.receivers))))
