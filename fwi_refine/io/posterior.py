"""Maps drawn from posteriors, in one HDF5 file.

HDF5 may end the process where it meets a full disk. So it writes only what room was claimed for,
and the maps are written beside it, where its array stands in the file.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import ArrayLike

from fwi_refine.io.map_writer import claim_space, write_at
from fwi_refine.io.outputs import named_errors, open_temporary, publish

ROOM = 2**16  # bytes that HDF5 takes for itself
ROOM_ID = 64  # and for each text, beside its bytes


class SamplesWriter:
    """`samples` (N, K, nz, nx) float32 in m/s and `ids`, filled in any order, NaN elsewhere.

    Parameters
    ----------
    path : Path
        Final name of the file.
    ids : sequence of str
        Of all samples; may be filled until `publish`.
    shape : sequence of int
        (K, nz, nx).

    Raises
    ------
    OSError
        If it cannot be made.
    """

    def __init__(self, path: Path, ids: Sequence[str], shape: Sequence[int]) -> None:
        self._path, self._ids, self._shape = path, ids, tuple(shape)
        self._written: set[int] = set()
        self._bytes = 4 * math.prod(self._shape)
        self._temporary, self._lock = open_temporary(path)
        try:
            with named_errors(path):
                size = len(ids) * self._bytes + ROOM
                claim_space(self._lock, size)
                self._offset = self._make()
                claim_space(self._lock, size)  # HDF5 had begun the file anew
        except OSError:
            self.discard()
            raise

    def _make(self) -> int:
        """Makes the file with an array that is not filled; returns where its first byte stands."""
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        with h5py.File(self._temporary, "w", locking=False) as file:
            space = h5py.h5s.create_simple((len(self._ids), *self._shape))
            kind = h5py.h5t.IEEE_F32LE
            return int(h5py.h5d.create(file.id, b"samples", kind, space, plan).get_offset())

    def write(self, k: int, maps: ArrayLike) -> None:
        """Maps (K, nz, nx) of sample k, in m/s."""
        values = np.asarray(maps).astype("<f4").reshape(self._shape)
        with named_errors(self._path):
            write_at(self._lock, values.tobytes(), self._offset + k * self._bytes)
        self._written.add(k)

    def publish(self, path: Path) -> None:
        """Gives the file its final name."""
        unknown = np.full(self._shape, np.nan)
        for k in range(len(self._ids)):
            if k not in self._written:
                self.write(k, unknown)
        end = self._offset + len(self._ids) * self._bytes
        with named_errors(path):
            claim_space(self._lock, end + ROOM + sum(len(i.encode()) + ROOM_ID for i in self._ids))
            with h5py.File(self._temporary, "r+", locking=False) as file:
                file.create_dataset("ids", data=list(self._ids), dtype=h5py.string_dtype())
            publish(self._temporary, path)
        self._lock.close()

    def discard(self) -> None:
        """Removes what was written; does nothing after `publish`."""
        self._lock.close()
        self._temporary.unlink(missing_ok=True)
