"""Arrays and tensors of the Python interface, as the samples that the rest of the program takes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fwi_refine.errors import InputError, SampleError
from fwi_refine.io.samples import Chunk, Sample
from fwi_refine.survey.validate import check_prediction, to_numpy


def match(records, shape):
    """Something with a record for each map of an array of this shape.

    Raises InputError where there are more or fewer, or where an array has too few axes for many.
    """
    if len(shape) == 2:
        return [records]
    axes = getattr(records, "shape", None)
    if axes is not None and len(axes) != 4:
        raise InputError(
            f"records: found shape {tuple(axes)}, expected (N, shots, rows, receivers)"
        )
    if len(records) != shape[0]:
        raise InputError(f"found {shape[0]} predictions and {len(records)} records")
    return records


@dataclass(frozen=True)
class Record:
    """A record in memory, as a source of io/records.py."""

    values: np.ndarray
    number: int

    def read(self, k):
        return self.values

    def truth(self, k):
        return None

    def where(self, k):
        return f"records[{self.number}]"


def chunks(maps, records, survey) -> Iterator[Chunk]:
    """The samples one by one; a record is read when its sample is asked for."""
    for k, v in enumerate(maps):
        starts, source, problem = (), None, None
        try:
            where = f"prediction of sample {k}"
            starts = (("prediction", check_prediction(v, survey=survey, where=where)),)
            source = Record(to_numpy(records[k]), k)
        except SampleError as error:
            problem = str(error)
        except Exception as error:  # `records` may be anything, and a bad one fails alone
            problem = f"record of sample {k}: {type(error).__name__}: {error}"
        yield Chunk(k, (Sample(k, str(k), starts, problem=problem, source=source),))
