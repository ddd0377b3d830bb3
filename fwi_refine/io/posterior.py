"""Maps drawn from posteriors, in one HDF5 file."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import ArrayLike

from fwi_refine.io.outputs import open_temporary, publish


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
        self._ids = ids
        self._temporary, self._lock = open_temporary(path)
        self._file = h5py.File(self._lock, "w")
        self._maps = self._file.create_dataset(
            "samples", (len(ids), *shape), "<f4", chunks=(1, *shape), fillvalue=np.nan
        )

    def write(self, k: int, maps: ArrayLike) -> None:
        """Maps (K, nz, nx) of sample k, in m/s."""
        self._maps[k] = np.asarray(maps, np.float32)

    def publish(self, path: Path) -> None:
        """Gives the file its final name."""
        self._file.create_dataset("ids", data=list(self._ids), dtype=h5py.string_dtype())
        self._file.close()
        self._lock.flush()
        publish(self._temporary, path)
        self._lock.close()

    def discard(self) -> None:
        """Removes what was written; does nothing after `publish`."""
        self._file.close()
        self._lock.close()
        self._temporary.unlink(missing_ok=True)
