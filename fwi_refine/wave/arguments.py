"""Maps and records that are given to the wave operator as tensors: their type and their units."""

import warnings

import torch

from fwi_refine.survey import Survey

MIN_VMIN_FRACTION = 0.1  # of the slowest velocity of the survey


def refuse_type(name: str, values: torch.Tensor) -> None:
    """Raises ValueError for what is no tensor of real numbers that lie in memory one by one."""
    if not isinstance(values, torch.Tensor):
        raise ValueError(f"{name}: found {type(values).__name__}, expected a torch.Tensor")
    if values.is_complex() or values.dtype == torch.bool:
        raise ValueError(f"{name} of type {values.dtype}: expected a float type")
    if values.layout != torch.strided or values.is_quantized or values.is_meta:
        kind = "without values" if values.is_meta else "quantised or sparse"
        raise ValueError(f"{name}: found a tensor that is {kind}, expected an ordinary one")


def warn_of_units(v: torch.Tensor, survey: Survey) -> None:
    """Warns, once, of maps all of whose velocities are far below the survey's: km/s, maybe."""
    low = survey.velocity_bounds[0]
    if v.numel() and 0 < float(v.detach().max()) < MIN_VMIN_FRACTION * low:
        warnings.warn(
            f"velocities are at most {float(v.detach().max()):.4g} m/s, where the survey has "
            f"{low:g} and more: are they in km/s or scaled?",
            stacklevel=3,
        )
