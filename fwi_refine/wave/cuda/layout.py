"""How a GPU's threads share the grid of a shot; the kernels' side of it is
kernels/cuda/blocks.h."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from fwi_refine.survey import Survey

# that a kernel keeps for each shot
FIELDS = {"forward": 2, "released": 2, "adjoint": 2, "tangent": 4}
HALO = 2  # rows beyond its own that a block looks at
CLUSTER = 8  # thread blocks of a shot: the most that every card with clusters has
CLUSTERS_SINCE = (9, 0)  # compute capability
COUNTERS = 16  # bytes of shared memory that kernels/cuda/cluster.h takes
RESERVED = 1024  # that CUDA takes for each block; a multiprocessor has this much more than a block
THREADS = 320  # of a block at most: on OpenFWI's padded grid 2 x 160, each with 20 rows
MAX_THREADS = 480  # of a block with its fields in the card's memory, for which it waits long
MAX_RESIDENT = 2  # blocks of a multiprocessor: more would have too few registers each
WARP = 32


@dataclass(frozen=True)
class Layout:
    """How a shot is spread over threads.

    Parameters
    ----------
    blocks : int
        Thread blocks of a shot.
    width, strips : int
        Threads side by side and above one another in a block.
    side : int
        Columns of a thread that stand side by side.
    halo : int
        Rows of its neighbours that a block has on both sides.
    shared : bool
        Fields in the blocks' shared memory, otherwise in global memory.
    resident : int
        Blocks that a multiprocessor is to have room for.
    """

    blocks: int
    width: int
    strips: int
    side: int
    halo: int
    shared: bool
    resident: int = 1

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.width * self.strips

    def block_rows(self, rows: int) -> int:
        """Rows of the grid that a block has, two at least; the last one may have fewer."""
        most = max(math.ceil(rows / self.blocks), 2)
        while rows % most == 1:
            most += 1
        return most

    def strip_rows(self, rows: int) -> int:
        """Rows of the grid that a thread has."""
        return math.ceil(self.block_rows(rows) / self.strips)

    def memory(self, shape: tuple[int, int], fields: int, itemsize: int) -> int:
        """Bytes of shared memory of a block, for some fields on a grid of this shape."""
        rows = self.block_rows(shape[0]) + 2 * self.halo
        kept = fields * rows * shape[1] * itemsize if self.shared else 0
        return max(kept, 8 * self.threads)  # the threads' sums take the place of the fields

    def owner(self, shape: tuple[int, int], row: int, column: int) -> int:
        """Number of the thread, counted through all blocks, that has a cell."""
        block, row = divmod(row, self.block_rows(shape[0]))
        strip = row // self.strip_rows(shape[0])
        return block * self.threads + strip * self.width + column // self.side % self.width

    def constants(self, survey: Survey) -> dict[str, int]:
        """The part of a kernel's call that stays the same for a survey."""
        rows, cols = survey.padded_shape
        return {
            "rows": rows,
            "cols": cols,
            "margin": survey.absorbing_cells,
            "map_rows": survey.shape[0],
            "map_cols": survey.shape[1],
            "block_rows": self.block_rows(rows),
            "strip_rows": self.strip_rows(rows),
            "width": self.width,
            "threads": self.threads,
        }


def side(survey: Survey) -> int:
    """How many columns a thread may have side by side: as many as divide the map and its band.

    Parameters
    ----------
    survey : Survey
        The survey.

    Returns
    -------
    int
        2 or 1.
    """
    return 2 if survey.shape[1] % 2 == survey.absorbing_cells % 2 == 0 else 1


def choose_layout(
    survey: Survey,
    fields: int,
    itemsize: int,
    capability: tuple[int, int],
    shared_memory: int,
    room: Callable[[Layout], object],
) -> Layout:
    """How a card spreads a shot of a survey.

    A cluster of blocks keeps the fields in its blocks' shared memory where the card has clusters,
    enough of that memory and room for at least one cluster, which a part of a card may not have;
    with rows of its neighbours, where there is room for them. Else one block keeps the fields in
    global memory. It does not depend on the batch, so neither does a bit of the result.

    Parameters
    ----------
    survey : Survey
        The survey.
    fields : int
        That a kernel keeps for each shot.
    itemsize : int
        Bytes of a number.
    capability : tuple of int
        The card's compute capability.
    shared_memory : int
        Bytes that a block may have.
    room : callable
        True for a layout of which the card can hold a cluster.

    Returns
    -------
    Layout
        The layout.
    """
    width_of_side, shape = side(survey), survey.padded_shape
    width = WARP * -(-shape[1] // (width_of_side * WARP))

    def layout(blocks: int, most: int, halo: int, shared: bool) -> Layout:
        columns = min(width, most)
        return Layout(blocks, columns, most // columns, width_of_side, halo, shared)

    def fitting(cluster: Layout) -> int:
        """How many of its blocks a multiprocessor has the shared memory for."""
        memory = cluster.memory(shape, fields, itemsize) + COUNTERS
        return (shared_memory + RESERVED) // (memory + RESERVED)

    for halo in (HALO, 0):
        cluster = layout(CLUSTER, THREADS, halo, shared=True)
        cluster = replace(cluster, resident=min(fitting(cluster), MAX_RESIDENT))
        if tuple(capability) >= CLUSTERS_SINCE and cluster.resident and room(cluster):
            return cluster
    return layout(1, MAX_THREADS, HALO, shared=False)
