"""Is this prediction, is this record, what the survey expects? One sample at a time.

The checks raise `SampleError` with what was found and what was expected, and return an array
that the rest of the program can take as it is.
"""

import numpy as np

from fwi_refine.errors import InputError, SampleError
from fwi_refine.survey.geometry import OPENFWI


def check_prediction(prediction, *, survey=OPENFWI, where="prediction") -> np.ndarray:
    """(nz, nx) float64 copy of a predicted map in m/s, checked.

    prediction: (nz, nx) or (1, nz, nx), of any float type. `where` names it in the message.
    Values outside the survey's velocity bounds pass: refining starts from what is nearest to
    them. Raises SampleError for another type or shape, and for values that are not finite.
    """
    array = _float_array(prediction, where)
    if array.shape not in (survey.shape, (1, *survey.shape)):
        raise SampleError(f"{where}: found shape {array.shape}, expected {survey.shape}")
    array = array.reshape(survey.shape)
    _check_finite(array, where, ("row", "column"))
    return np.array(array, dtype=np.float64, order="C")


def check_velocity(velocity, *, survey=OPENFWI, where="map") -> np.ndarray:
    """As `check_prediction`, for a map that is to be simulated: within the velocity bounds."""
    v = check_prediction(velocity, survey=survey, where=where)
    low, high = survey.velocity_bounds
    if v.min() < low or v.max() > high:
        raise SampleError(
            f"{where}: found velocities {v.min():.6g} to {v.max():.6g} m/s, expected {low:.6g} "
            f"to {high:.6g}"
        )
    return v


def check_record(record, *, survey=OPENFWI, where="record") -> np.ndarray:
    """(shots, rows >= n_steps, receivers) record, checked; float64 stays, other types: float32.

    Rows from n_steps on are not used, so they are not checked. Raises SampleError for another
    type or shape, for values that are not finite, and for a record of zeros only.
    """
    array = _float_array(record, where)
    shots, n_steps, receivers = survey.record_shape
    if (
        array.ndim != 3
        or (array.shape[0], array.shape[2]) != (shots, receivers)
        or array.shape[1] < n_steps
    ):
        raise SampleError(
            f"{where}: found shape {array.shape}, expected {survey.file_shape} "
            f"(shots, time rows, receivers), with at least {n_steps} rows"
        )
    used = array[:, :n_steps]
    _check_finite(used, where, ("shot", "row", "receiver"))
    if not used.any():
        raise SampleError(f"{where}: found only zeros, expected a recorded wave")
    dtype = np.float64 if array.dtype.itemsize >= 8 else np.float32
    return np.array(array, dtype=dtype, order="C")


def to_numpy(values) -> np.ndarray:
    """A numpy array of an array, a list or a tensor on any device."""
    import torch  # here, as it takes seconds, which `--help` does not have

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


def _float_array(values, where) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind != "f":
        raise SampleError(f"{where}: found type {array.dtype}, expected a float type")
    return array


def _check_finite(array, where, axes):
    """Raises SampleError that counts the values that are not finite and places the first."""
    finite = np.isfinite(array)
    if finite.all():
        return
    bad = np.argwhere(~finite)
    place = ", ".join(f"{axis} {i}" for axis, i in zip(axes, bad[0], strict=True))
    first = array[tuple(bad[0])]
    raise SampleError(
        f"{where}: found {len(bad)} of {array.size} values not finite, the first {first} at "
        f"{place}; expected finite values"
    )
