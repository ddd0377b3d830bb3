"""Arrays and tensors of the Python interface, as the samples that the rest of the program takes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwi_refine.errors import InputError, SampleError
from fwi_refine.io.samples import Chunk, Sample
from fwi_refine.machine_faults import is_machine_fault, machine_error
from fwi_refine.survey import Survey
from fwi_refine.survey.validate import check_prediction, to_numpy


def match(records: Any, shape: tuple[int, ...]) -> Any:
    """Something with a record for each map of an array.

    Parameters
    ----------
    records : array-like
        One record for one map, else anything with a length and `records[k]`.
    shape : tuple of int
        Of the array of maps.

    Raises
    ------
    InputError
        Where there are more or fewer, or where an array has too few axes for many.
    """
    if len(shape) == 2:
        return [records]
    axes = getattr(records, "shape", None)
    if axes is not None and len(axes) != 4:
        raise InputError(
            f"records: found shape {tuple(axes)}, expected (N, shots, rows, receivers)"
        )
    known = axes is not None or hasattr(records, "__len__")  # an array of Zarr has no len()
    if not (known and hasattr(records, "__getitem__")):
        raise InputError(
            f"records: found {type(records).__name__}, expected a length and records[k]"
        )
    count = len(records) if axes is None else axes[0]
    if count != shape[0]:
        raise InputError(f"found {shape[0]} predictions and {count} records")
    return records


@dataclass(frozen=True)
class Record:
    """A record in memory, as a source as of io/record_sources.py."""

    values: NDArray[Any]
    number: int

    def read(self, k: int) -> NDArray[Any]:
        """The record, (shots, rows, receivers)."""
        return self.values

    def truth(self, k: int) -> None:
        """None: no true map is known."""

    def where(self, k: int) -> str:
        """Which record it is, for messages."""
        return f"records[{self.number}]"


def chunks(maps: NDArray[Any], records: Any, survey: Survey) -> Iterator[Chunk]:
    """The samples one by one; a record is read when its sample is asked for.

    Parameters
    ----------
    maps : array
        (N, nz, nx) in m/s.
    records : array-like
        `records[k]` is the record of map k.
    survey : Survey
        What they have to fit.

    Raises
    ------
    MachineError
        If the machine cannot read a record.
    """
    for k, v in enumerate(maps):
        starts: tuple[tuple[str, NDArray[np.float64]], ...] = ()
        source, problem = None, None
        try:
            where = f"prediction of sample {k}"
            starts = (("prediction", check_prediction(v, survey=survey, where=where)),)
            source = Record(to_numpy(records[k]), k)
        except SampleError as error:
            problem = str(error)
        except Exception as error:  # `records` may be anything, and a bad one fails alone
            if is_machine_fault(error):
                raise machine_error(error, f"record of sample {k}") from error
            problem = f"record of sample {k}: {type(error).__name__}: {error}"
        yield Chunk(k, (Sample(k, str(k), starts, problem=problem, source=source),))
