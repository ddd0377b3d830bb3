"""The fields of some shots in plain torch, and their time step in few passes over memory.

A field has two rows and two columns more than the grid on each side, which repeat what the grid
wraps around to: so each neighbour is a view, and nothing is moved to reach it. The step overwrites
the older time level, as the compiled kernels do (kernels/step.h). Where torch can compile it
(`fused_step`), it is one pass.
"""

import functools
import threading
from collections.abc import Callable

import torch

from fwi_refine.wave.grid import C1, C2, C3

HALO = 2
FusedStep = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Level:
    """A field at one time, with its halo, and the views of it that a step needs.

    Parameters
    ----------
    p : torch.Tensor, (tasks, HALO + rows + HALO, HALO + cols + HALO)
        The field.

    Attributes
    ----------
    inside : torch.Tensor, (tasks, rows, cols)
        The grid's cells.
    near, far : list of torch.Tensor, (tasks, rows, cols)
        Each cell's neighbours at distance 1 and 2: above, below, left, right.
    """

    def __init__(self, p: torch.Tensor):
        rows, cols = p.shape[1] - 2 * HALO, p.shape[2] - 2 * HALO
        self.p, self.flat = p, p.flatten()
        self.inside = p[:, HALO:-HALO, HALO:-HALO]
        self.near, self.far = (around(p, k) for k in (1, 2))
        self._ends = (
            (p[:, :HALO], p[:, rows : rows + HALO]),
            (p[:, HALO + rows :], p[:, HALO : 2 * HALO]),
            (p[:, :, :HALO], p[:, :, cols : cols + HALO]),
            (p[:, :, HALO + cols :], p[:, :, HALO : 2 * HALO]),
        )

    def wrap(self) -> None:
        """Fills the halo from the other ends of the grid, which has two cells at least."""
        for beyond, end in self._ends:
            beyond.copy_(end)

    def laplacian(self, out: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
        """L p = 2 c1 p + c2 N1 + c3 N2, in `out`."""
        for total, (up, down, left, right) in ((out, self.near), (scratch, self.far)):
            torch.add(up, down, out=total).add_(left).add_(right)
        return out.mul_(C2).add_(scratch, alpha=C3).add_(self.inside, alpha=2 * C1)


class Fields:
    """Two time levels of a field, for some shots.

    Parameters
    ----------
    alpha : torch.Tensor, (tasks or 1, rows, cols)
        (v dt / dx)^2 of each shot's medium, or of that of them all.
    decay : torch.Tensor, (tasks or 1, rows, cols)
        1 - kappa.
    tasks : int
        Shots.
    fused : callable, optional
        The step as one operation, of `fused_step`.
    """

    def __init__(
        self, alpha: torch.Tensor, decay: torch.Tensor, tasks: int, fused: FusedStep | None = None
    ):
        rows, cols = alpha.shape[1:]
        self._alpha, self._decay, self._fused = alpha, decay, fused
        self.now, self.old = (
            Level(alpha.new_zeros(tasks, rows + 2 * HALO, cols + 2 * HALO)) for _ in range(2)
        )
        shape = (tasks, rows, cols) if fused is None else (0,)
        self._scratch = alpha.new_empty(shape), alpha.new_empty(shape)

    def laplacian(self) -> torch.Tensor:
        """L p, (tasks, rows, cols), overwritten by the next call; not where the step is fused."""
        return self.now.laplacian(*self._scratch)

    def advance(self, own: torch.Tensor | None = None) -> torch.Tensor:
        """Makes the next level, without the cells beyond the grid.

        Parameters
        ----------
        own : torch.Tensor, optional
            L p, where it is at hand.

        Returns
        -------
        torch.Tensor, (tasks, rows, cols)
            The level's cells, to be added to before `wrap`.
        """
        here, following = self.now.inside, self.old.inside
        if self._fused is not None:
            following.copy_(self._fused(self.now.p, self.old.p, self._alpha, self._decay))
        else:
            own = self.laplacian() if own is None else own
            following.neg_().add_(here).mul_(self._decay).add_(here)
            following.addcmul_(self._alpha, own)
        self.now, self.old = self.old, self.now
        return following

    def wrap(self) -> None:
        """Fills what lies beyond the grid, after a step and all that is added to it."""
        self.now.wrap()


def around(p: torch.Tensor, k: int) -> list[torch.Tensor]:
    """Each cell's neighbours at a distance: above, below, left, right."""
    rows, cols = p.shape[1] - 2 * HALO, p.shape[2] - 2 * HALO
    corners = ((HALO - k, HALO), (HALO + k, HALO), (HALO, HALO - k), (HALO, HALO + k))
    return [p[:, r : r + rows, c : c + cols] for r, c in corners]


def step(
    p: torch.Tensor, old: torch.Tensor, alpha: torch.Tensor, decay: torch.Tensor
) -> torch.Tensor:
    """One time step, as one expression, which torch can compile.

    Parameters
    ----------
    p, old : Tensor, shape (shots, rows, columns)
        Present and former field with their margins.
    alpha, decay : Tensor
        (v dt / dx)^2, and 1 minus the damping per step, of the grid's cells.

    Returns
    -------
    Tensor
        The next field of the grid's cells.

    Notes
    -----
    The scheme is that of wave/reference.py.
    """
    here, before = (x[:, HALO:-HALO, HALO:-HALO] for x in (p, old))
    near, far = ((a + b) + (c + d) for a, b, c, d in (around(p, 1), around(p, 2)))
    laplacian = 2 * C1 * here + C2 * near + C3 * far
    return here + decay * (here - before) + alpha * laplacian


_compiling = threading.Lock()


def fused_step(device: torch.device) -> FusedStep | None:
    """The step compiled by torch for a GPU, where it can.

    Parameters
    ----------
    device : torch.device
        The device.

    Returns
    -------
    callable or None
        None on the CPU, whose compiled step is no faster, and where torch's compiler is missing or
        its result is wrong.
    """
    if device.type != "cuda":
        return None
    with _compiling:
        return compiled(device)


@functools.cache
def compiled(device: torch.device) -> FusedStep | None:
    """The step compiled by torch, tried on a small field; None if that fails.

    Parameters
    ----------
    device : torch.device
        The device.

    Returns
    -------
    callable or None
        As `step`.
    """
    generator = torch.Generator().manual_seed(0)
    p, old, alpha, decay = (
        torch.rand(2, n, n + 1, generator=generator).to(device) for n in (12, 12, 8, 8)
    )
    fused: FusedStep = torch.compile(step, dynamic=True)
    try:
        error = (fused(p, old, alpha, decay) - step(p, old, alpha, decay)).abs().max()
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever a compiler that is missing or does not fit raises
        return None
    return fused if float(error) < 1e-5 else None
