"""Is this prediction, is this record, what the survey expects? One sample at a time.

The checks raise `SampleError` with what was found and what was expected, and return an array
that the rest of the program can take as it is.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fwi_refine.errors import InputError, SampleError
from fwi_refine.survey.geometry import OPENFWI, Survey


def check_prediction(
    prediction: ArrayLike, *, survey: Survey = OPENFWI, where: str = "prediction"
) -> NDArray[np.float64]:
    """Check a predicted map.

    Values outside the survey's velocity bounds pass: refining starts from what is nearest to them.

    Parameters
    ----------
    prediction : array_like, (nz, nx) or (1, nz, nx)
        The map, of any float type, m/s.
    survey : Survey
        That of the sample.
    where : str
        Its name in a message.

    Returns
    -------
    ndarray of float64, (nz, nx)
        A copy.

    Raises
    ------
    SampleError
        For another type or shape, and for values that are not finite.
    """
    array = _float_array(prediction, where)
    if array.shape not in (survey.shape, (1, *survey.shape)):
        raise SampleError(f"{where}: found shape {array.shape}, expected {survey.shape}")
    array = array.reshape(survey.shape)
    with np.errstate(over="ignore"):  # of a wider type
        v = np.array(array, dtype=np.float64, order="C")
    _check_finite(v, where, ("row", "column"))
    return v


def check_velocity(
    velocity: ArrayLike, *, survey: Survey = OPENFWI, where: str = "map"
) -> NDArray[np.float64]:
    """Check a map that is to be simulated: also its velocities, and that the scheme is stable.

    Parameters
    ----------
    velocity : array_like, (nz, nx) or (1, nz, nx)
        The map, of any float type, m/s.
    survey : Survey
        That of the sample.
    where : str
        Its name in a message.

    Returns
    -------
    ndarray of float64, (nz, nx)
        A copy.

    Raises
    ------
    SampleError
        As `check_prediction`; also for velocities outside the survey's bounds, and for ones beyond
        the stability limit of the scheme with the damping that the map's minimum gives it.
    """
    v = check_prediction(velocity, survey=survey, where=where)
    low, high = survey.velocity_bounds
    if v.min() < low or v.max() > high:
        raise SampleError(
            f"{where}: found velocities {v.min():.6g} to {v.max():.6g} m/s, expected {low:.6g} "
            f"to {high:.6g}"
        )
    edges = np.concatenate([v[0], v[-1], v[:, 0], v[:, -1]])
    limits = survey.stable_velocities(float(v.min()))
    for fastest, limit, place in zip((v.max(), edges.max()), limits, ("", " edge"), strict=True):
        if fastest > limit:
            raise SampleError(
                f"{where}: found{place} velocities up to {fastest:.6g} m/s with a minimum of "
                f"{v.min():.6g}, expected at most {limit:.6g}, up to which the scheme is stable "
                "with its damping"
            )
    return v


def check_record(
    record: ArrayLike, *, survey: Survey = OPENFWI, where: str = "record", gaps: bool = False
) -> NDArray[Any]:
    """Check a record.

    Rows from n_steps on are not used, so they are not checked.

    Parameters
    ----------
    record : array_like, (shots, >= n_steps, receivers)
        The record, of any float type.
    survey : Survey
        That of the sample.
    where : str
        Its name in a message.
    gaps : bool
        Whether NaN is allowed, as samples that are missing.

    Returns
    -------
    ndarray, (shots, >= n_steps, receivers)
        A copy; float64 stays, other types become float32.

    Raises
    ------
    SampleError
        For another type or shape, for values that are not finite, and for a record of zeros only.
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
    dtype = np.float64 if array.dtype.itemsize >= 8 else np.float32
    with np.errstate(over="ignore"):  # of a wider type
        array = np.array(array, dtype=dtype, order="C")
    used = array[:, :n_steps]
    known = np.nan_to_num(used, posinf=np.inf, neginf=-np.inf) if gaps else used
    _check_finite(known, where, ("shot", "row", "receiver"))
    if gaps and np.isnan(used).all():
        raise SampleError(f"{where}: found only NaN, expected a recorded wave")
    if not known.any():
        raise SampleError(f"{where}: found only zeros, expected a recorded wave")
    return array


def to_numpy(values: Any) -> NDArray[Any]:
    """A numpy array of an array, a list or a tensor.

    Parameters
    ----------
    values : array_like or torch.Tensor
        A tensor may be on any device and require a gradient.

    Returns
    -------
    ndarray
        Of the same shape and type; bfloat16, which numpy lacks, becomes float32.

    Raises
    ------
    SampleError
        For a tensor without values or of quantised ones, and a masked array whose type has no NaN.
    """
    import torch  # here, as it takes seconds, which `--help` does not have

    if isinstance(values, torch.Tensor):
        if values.is_meta:
            raise SampleError("found a tensor of the device meta, which has no values")
        values = values.detach().cpu()
        if values.is_quantized:
            raise SampleError("found a quantised tensor; give tensor.dequantize()")
        if values.layout != torch.strided:
            values = values.to_dense()
        values = values.resolve_conj().resolve_neg()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return unmasked(values)


def unmasked(values: ArrayLike) -> NDArray[Any]:
    """An array as numpy makes it; where a masked one has no value, NaN instead of what lies there.

    Raises SampleError where its type has no NaN.
    """
    if not isinstance(values, np.ma.MaskedArray) or not np.ma.is_masked(values):
        return np.asarray(values)
    if values.dtype.kind != "f":
        raise SampleError(f"found a masked array of type {values.dtype}, expected a float type")
    return np.asarray(values.filled(np.nan))


def check_survey(survey: Survey) -> Survey:
    """The survey. Raises InputError for what is none."""
    if not isinstance(survey, Survey):
        raise InputError(
            f"survey {survey!r}: expected a Survey; read_survey makes one of a TOML file"
        )
    return survey


def to_maps(
    values: Any, survey: Survey, name: str, kinds: str = "f"
) -> tuple[NDArray[Any], tuple[int, ...]]:
    """One map or many as an array of maps.

    Parameters
    ----------
    values : array_like or torch.Tensor, (nz, nx), (N, nz, nx) or (N, 1, nz, nx)
        The maps, or a list of single ones.
    survey : Survey
        That of the maps.
    name : str
        Of the argument, for a message.
    kinds : str
        Of numpy's types, those that will do.

    Returns
    -------
    maps : ndarray, (N, nz, nx)
        The maps.
    shape : tuple of int
        The shape that they were given in.

    Raises
    ------
    InputError
        For what are no maps.
    """
    check_survey(survey)
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


def _float_array(values: ArrayLike, where: str) -> NDArray[Any]:
    array = unmasked(values)
    if array.dtype.kind != "f":
        raise SampleError(f"{where}: found type {array.dtype}, expected a float type")
    return array


def _check_finite(array: NDArray[Any], where: str, axes: Sequence[str]) -> None:
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
