"""Arrays and tensors of the Python interface, as the samples that the rest of the program takes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from fwi_refine.batch import Chunk
from fwi_refine.errors import InputError, SampleError
from fwi_refine.io.samples import Sample
from fwi_refine.validate import check_prediction


def to_numpy(values) -> np.ndarray:
    """A numpy array of an array, a list or a tensor on any device."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)


def to_maps(values, survey, name, kinds="f") -> tuple[np.ndarray, tuple[int, ...]]:
    """One map or many as (N, nz, nx), and the shape that they were given in.

    kinds: of numpy's types, those that will do. Raises InputError for what are no maps; `name`
    says in its message which argument it is about.
    """
    if isinstance(values, (list, tuple)):
        try:
            values = np.stack([to_numpy(v) for v in values])
        except ValueError as error:
            raise InputError(f"{name}: found a list of no maps, or unlike ones ({error})") from (
                error
            )
    array = to_numpy(values)
    nz, nx = survey.shape
    if array.dtype.kind not in kinds:
        raise InputError(f"{name}: found type {array.dtype}, expected a float type")
    leading = array.shape[:-2]
    if array.shape[-2:] != (nz, nx) or len(leading) > 2 or leading[1:] not in ((), (1,)):
        raise InputError(
            f"{name}: found shape {array.shape}, expected ({nz}, {nx}), (N, {nz}, {nx}) or "
            f"(N, 1, {nz}, {nx})"
        )
    return array.reshape(leading[0] if leading else 1, nz, nx), array.shape


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
