"""Float64 on a device, on which the way of normal matrices and solves depends."""

import functools
from enum import Enum

import torch

# NVIDIA's cards that multiply in float64 at half the rate of float32 or at the same, by their
# compute capability (CUDA C++ Programming Guide, "Arithmetic Instructions"): P100, V100, A100,
# H100 and H200, B200. All others have a thirty-second or less of it.
FAST_FLOAT64 = ((6, 0), (7, 0), (8, 0), (9, 0), (10, 0))
WITHOUT_FLOAT64 = ("mps",)


class Float64(Enum):
    """How a device computes in float64."""

    FAST = "fast"
    SLOW = "slow"
    NONE = "none"


@functools.cache
def float64(device: torch.device) -> Float64:
    """How a device computes in float64.

    Parameters
    ----------
    device : torch.device
        The device.

    Returns
    -------
    Float64
        FAST for the CPU and for devices that nothing is known of.
    """
    if device.type in WITHOUT_FLOAT64:
        return Float64.NONE
    if device.type == "cuda" and torch.cuda.get_device_capability(device) not in FAST_FLOAT64:
        return Float64.SLOW
    return Float64.FAST


def widened(x: torch.Tensor) -> torch.Tensor:
    """A tensor in float64, on its own device, or on the CPU where that has no float64.

    Parameters
    ----------
    x : torch.Tensor
        The tensor.

    Returns
    -------
    torch.Tensor of float64
        Of the same shape.
    """
    return (x.cpu() if float64(x.device) is Float64.NONE else x).double()


def placed(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device, in float32 where it is float64 and the device has none.

    Parameters
    ----------
    x : torch.Tensor
        The tensor.
    device : torch.device
        Where it is needed.

    Returns
    -------
    torch.Tensor
        On the device.
    """
    if x.dtype == torch.float64 and float64(device) is Float64.NONE:
        x = x.float()
    return x.to(device)
