"""The record of one map in the arithmetic of the released data, and where another differs."""

import torch
from numpy.typing import ArrayLike

from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave.simulator import Simulator


def released_record(
    v: torch.Tensor,
    vmin: float | torch.Tensor | None = None,
    survey: Survey = OPENFWI,
    threads: int | None = None,
    kernel: str = "auto",
) -> torch.Tensor:
    """The record of one map as the released data has it, on any device and by any kernel.

    Parameters
    ----------
    v : torch.Tensor, (nz, nx)
        The map, m/s. On a GPU the record is made there.
    vmin : float or torch.Tensor, optional
        The velocity that scales the damping, m/s; default the minimum of v.
    survey : Survey
        The survey.
    threads : int, optional
        Of the CPU; default torch's number.
    kernel : str
        As for `Simulator`.

    Returns
    -------
    torch.Tensor of float32, (shots, n_steps, receivers)
        The record, with the bits of the released data.

    Raises
    ------
    ValueError
        For a v of another shape, and velocities that cannot be simulated.
    """
    v, given = _one(v, vmin, survey)
    return _simulator(survey, threads, kernel, v.device).released(v, given)[0]


def first_differences(
    v: torch.Tensor,
    record: ArrayLike | torch.Tensor,
    vmin: float | torch.Tensor | None = None,
    survey: Survey = OPENFWI,
    *,
    stop: bool = False,
    threads: int | None = None,
    kernel: str = "auto",
) -> torch.Tensor:
    """The first row in which a record is not that of a map.

    A map all of whose traces are equal throughout is proven by its record.

    Parameters
    ----------
    v : torch.Tensor, (nz, nx)
        The map, m/s.
    record : array_like or torch.Tensor, (shots, >= n_steps, receivers)
        The record; rows from n_steps on are not used.
    vmin, survey, threads, kernel
        As for `released_record`.
    stop : bool
        Each shot ends with the first of its differences, which is what is sought where a map is
        tried; later ones are not looked for.

    Returns
    -------
    torch.Tensor of int32, (shots, receivers)
        n_steps where a trace is equal throughout.

    Raises
    ------
    ValueError
        For arrays of other shapes, and velocities that cannot be simulated.
    """
    v, given = _one(v, vmin, survey)
    data = torch.as_tensor(record)[None, :, : survey.n_steps]
    simulator = _simulator(survey, threads, kernel, v.device)
    return simulator.first_differences(v, data, given, stop=stop)[0]


def _one(
    v: torch.Tensor, vmin: float | torch.Tensor | None, survey: Survey
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A map and its vmin as a batch."""
    if tuple(v.shape) != survey.shape:
        raise ValueError(f"velocity of shape {tuple(v.shape)}: expected {survey.shape}")
    given = None if vmin is None else torch.as_tensor(vmin, dtype=torch.float64)
    if given is not None and given.numel() != 1:
        raise ValueError(f"vmin of shape {tuple(given.shape)}: expected one number")
    return v.detach()[None], None if given is None else given.reshape(1)


def _simulator(survey: Survey, threads: int | None, kernel: str, device: torch.device) -> Simulator:
    return Simulator(survey, torch.float32, kernel, threads, device=device)
