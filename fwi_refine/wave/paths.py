"""Which kernel computes: on the CPU the compiled one, on a card the first that proves right there.

On a card the CUDA kernels come first, then torch's own operations, then the CPU. What is passed
over, and why, is said in one warning.
"""

import functools
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch

from fwi_refine.survey import Survey
from fwi_refine.wave.cpu import NativeKernel
from fwi_refine.wave.cpu_library import load as load_native
from fwi_refine.wave.cuda import program as cuda
from fwi_refine.wave.cuda.kernel import BlockKernel
from fwi_refine.wave.identity import identity
from fwi_refine.wave.kernel import Kernel
from fwi_refine.wave.reference import ReferenceKernel
from fwi_refine.wave.torch_kernel import TorchKernel

KERNELS = ("auto", "cuda", "torch", "native", "reference")
MakeKernel = Callable[[Survey, torch.dtype, int], Kernel]  # of a survey, a type, an imaging step

FALLBACK_WARNING = (
    "the compiled wave kernel is not available, so the slow torch reference is used; "
    "reinstall fwi-refine where a C compiler is present"
)


@dataclass(frozen=True)
class Path:
    """A way to compute.

    Attributes
    ----------
    make : callable
        Makes its kernels.
    device : torch.device
        Where they compute.
    identity : str or None
        Card, driver, versions and program; None for what needs no self-test.
    """

    make: MakeKernel
    device: torch.device
    identity: str | None = None


def choose(
    kernel: str, device: str | torch.device | None, threads: int, narrow: bool = True
) -> Path:
    """The kernel that a name stands for on a device.

    Parameters
    ----------
    kernel : str
        One of KERNELS.
    device : str or torch.device, optional
        Default the CPU, and a GPU for "cuda".
    threads : int
        Of the CPU.
    narrow : bool
        False: the compiled kernel of the CPU computes every cell at every step.

    Returns
    -------
    Path
        Its device is the CPU where "auto" finds no other kernel right.

    Raises
    ------
    ValueError
        For a name that is none, or a kernel that does not run on the device.
    RuntimeError
        For a device that is not there, and a kernel that was asked for and fails its self-test.
    """
    if kernel not in KERNELS:
        *some, last = map(repr, KERNELS)
        raise ValueError(f"kernel {kernel!r}: expected {', '.join(some)} or {last}")
    device = torch.device(device or ("cuda" if kernel == "cuda" else "cpu"))
    on_cpu = device.type == "cpu"
    if (on_cpu and kernel == "cuda") or (not on_cpu and kernel in ("native", "reference")):
        raise ValueError(f"kernel {kernel!r} does not run on the device {device}")
    if on_cpu:
        return _on_cpu(kernel, threads, narrow)
    if kernel == "cuda":
        return _proven(_by_cuda(device))
    if device.type == "cuda":
        device = cuda.existing(device)
    if kernel == "torch":
        return _proven(_by_torch(device))
    reasons = []
    for name, by in (("the CUDA kernels", _by_cuda), ("torch's operations", _by_torch)):
        try:
            path = _proven(by(device))
        except RuntimeError as error:  # of torch and CUDA as well
            reasons.append(f"{name} cannot be used on {device}: {error}")
            continue
        if reasons:
            _warn(f"{reasons[0]}; {name} compute instead")
        return path
    _warn(f"{'; '.join(reasons)}; computing on the CPU")
    return _on_cpu("auto", threads, narrow)


def paths_on(device: torch.device) -> dict[str, Path | str]:
    """Every way to compute on a device, not tested, or why it cannot be used.

    Parameters
    ----------
    device : torch.device
        A device other than the CPU, or the CPU for torch alone.

    Returns
    -------
    dict of str to Path or str
        By the kernel's name.
    """
    found: dict[str, Path | str] = {}
    ways = {"torch": _by_torch}
    for name, by in ({"cuda": _by_cuda} | ways if device.type != "cpu" else ways).items():
        try:
            found[name] = by(device)
        except RuntimeError as error:
            found[name] = str(error)
    return found


def _on_cpu(kernel: str, threads: int, narrow: bool) -> Path:
    device = torch.device("cpu")
    if kernel == "auto":
        kernel = "native" if load_native() is not None else "reference"
        if kernel == "reference" and os.environ.get("FWI_REFINE_KERNEL") != "reference":
            _warn(FALLBACK_WARNING)
    if kernel == "torch":
        return _by_torch(device)
    kind = NativeKernel if kernel == "native" else ReferenceKernel
    return Path(lambda survey, dtype, every: kind(survey, dtype, threads, every, narrow), device)


def _by_cuda(device: torch.device) -> Path:
    program = cuda.program(device)
    return Path(
        lambda survey, dtype, every: BlockKernel(survey, dtype, every, program),
        program.device,
        program.identity,
    )


def _by_torch(device: torch.device) -> Path:
    return Path(
        lambda survey, dtype, every: TorchKernel(survey, dtype, every, device),
        device,
        identity("torch", device),
    )


def _proven(path: Path) -> Path:
    """The path, if its self-test passes. Raises RuntimeError."""
    from fwi_refine.wave import self_test  # which simulates, by this module

    reason = self_test.problem(path)
    if reason is not None:
        raise RuntimeError(reason)
    return path


@functools.cache
def _warn(text: str) -> None:
    """Once in a process."""
    warnings.warn(text, RuntimeWarning, stacklevel=4)
