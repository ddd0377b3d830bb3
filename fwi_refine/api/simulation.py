"""Simulation from arrays: what `fwi-refine simulate` does with files, without files."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from joblib import cpu_count
from numpy.typing import ArrayLike, NDArray

from fwi_refine.api.options import check_choice, gpus_meant, torch_device
from fwi_refine.errors import InputError, SampleError
from fwi_refine.routing.checks.form import recognise_maps
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.validate import check_velocity, to_maps
from fwi_refine.wave import KERNELS, Simulator

BATCH = 8  # maps simulated at a time, so that shots keep every core busy
GPU_BATCH = 64  # on a GPU, which works on many more shots at a time


def simulate(
    velocity: ArrayLike | torch.Tensor,
    *,
    survey: Survey = OPENFWI,
    dtype: str | torch.dtype | type[np.floating[Any]] = "float32",
    device: str | torch.device = "auto",
    kernel: str = "auto",
    threads: int | None = None,
) -> NDArray[Any]:
    """Records of velocity maps, in the conventions of the released data.

    `WaveSimulator` is differentiable.

    Parameters
    ----------
    velocity : array-like
        m/s, one map (nz, nx), or many, (N, nz, nx) or (N, 1, nz, nx); floats or integers.
    survey : Survey
        Grid, steps, wavelet, sources, receivers.
    dtype : str or dtype
        float64, or float32, in which the records of OpenFWI's survey are the released data's, bit
        for bit.
    device : str or torch.device
        "auto", "cpu", "cuda" or "cuda:1".
    kernel : str
        "auto", "cuda", "torch", "native" or "reference", as for `--kernel`.
    threads : int, optional
        Default all cores.

    Returns
    -------
    array
        (shots, rows, receivers) for one map, else (N, shots, rows, receivers), with all
        `survey.file_rows` rows of a record file.

    Raises
    ------
    SampleError
        For a map that is not finite or not within the survey's velocity bounds; a ValueError.
    InputError
        For arrays that are no maps.

    Examples
    --------
    >>> import numpy as np
    >>> from fwi_refine import simulate
    >>> simulate(np.full((70, 70), 2000.0)).shape
    (5, 1000, 70)
    """
    maps, shape = to_maps(velocity, survey, "velocity", kinds="fiu")
    name = _name_of(dtype)
    check_choice("kernel", kernel, KERNELS)
    checked = np.empty(maps.shape)
    for k, v in enumerate(maps.astype(np.float64)):
        try:
            checked[k] = check_velocity(v, survey=survey, where=f"map {k}")
        except SampleError as error:
            finding, _ = recognise_maps([v], survey)
            raise SampleError(f"{error}; {finding.text}" if finding else str(error)) from error
    simulator = Simulator(
        replace(survey, n_steps=survey.file_rows),
        dtype=getattr(torch, name),
        kernel=kernel,
        threads=cpu_count() if threads is None else threads,
        device=torch_device(device, gpus_meant(device)),
    )
    size = batch_size(simulator)
    records = np.empty((len(maps), *survey.file_shape), name)
    for k in range(0, len(maps), size):
        found = simulator.recorded(torch.from_numpy(checked[k : k + size]))
        records[k : k + size] = found.cpu().numpy()
    return records[0] if len(shape) == 2 else records


def _name_of(dtype: Any) -> str:
    """float32 or float64. Raises InputError for another type, and for what is none."""
    try:
        name = str(dtype).removeprefix("torch.")
        name = name if isinstance(dtype, torch.dtype) else str(np.dtype(dtype))
    except TypeError:
        name = repr(dtype)
    if dtype is None or name not in ("float32", "float64"):
        raise InputError(f"dtype {dtype!r}: expected float32 or float64")
    return name


def batch_size(simulator: Simulator) -> int:
    """How many maps are simulated at a time: more on a GPU."""
    return BATCH if simulator.device.type == "cpu" else GPU_BATCH
