"""The scope of a self-test: a card, its driver, torch and this program."""

import contextlib
import functools
import hashlib
from pathlib import Path

import torch

from fwi_refine.version import __version__

DRIVER = Path("/proc/driver/nvidia/version")  # on Linux


def identity(kernel: str, device: torch.device) -> str | None:
    """A kernel on a device, with everything that its results may depend on.

    Parameters
    ----------
    kernel : str
        "cuda" or "torch".
    device : torch.device
        Where it computes.

    Returns
    -------
    str or None
        Lines of text; None on the CPU, where no self-test is needed.
    """
    if device.type == "cpu":
        return None
    lines = [f"fwi-refine {__version__} {program_hash()}", f"kernel {kernel}"]
    lines += [f"torch {torch.__version__}, CUDA {torch.version.cuda}", f"device {device.type}"]
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        lines += [f"card {card.name}, {card.major}.{card.minor}, {card.total_memory} bytes"]
        lines += [f"driver {driver()}"]
    return "\n".join(lines)


def driver() -> str:
    """The driver of NVIDIA's cards.

    Returns
    -------
    str
        The highest version of CUDA that it knows and, on Linux, its own version.
    """
    known = ""
    with contextlib.suppress(OSError):
        known = DRIVER.read_text(errors="replace").partition("\n")[0]
    with contextlib.suppress(ImportError, RuntimeError):
        from cuda.bindings import driver as cuda

        known = f"CUDA {cuda.cuDriverGetVersion()[1]} {known}"
    return known.strip()


@functools.cache
def program_hash() -> str:
    """A digest of this folder's sources.

    Returns
    -------
    str
        Hexadecimal.
    """
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".py", ".h", ".cu"):
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
