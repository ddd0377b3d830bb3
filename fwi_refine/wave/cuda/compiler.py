"""The CUDA kernels (kernels/cuda/wave.cu) compiled for a card, or taken from a cache.

cuda.core compiles them at run time (NVRTC), so that no CUDA toolkit is needed.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from fwi_refine.survey import Survey
from fwi_refine.wave.cuda.layout import Layout

KERNELS = Path(__file__).parents[1] / "kernels"
SOURCES = (
    *("cuda/wave.cu", "cuda/cluster.h", "cuda/blocks.h", "cuda/sweeps.h", "cuda/thread.h"),
    *("cuda/columns.h", "cuda/fields.h", "cuda/call.h", "step.h"),
)
REALS = {torch.float32: "float", torch.float64: "double"}
UNROLLED = 20  # up to so many rows of a thread are compiled one by one; where there are more,
SLIDE = 5  # so many at a time are, and the five rows in registers need not be moved


def defines(layout: Layout, survey: Survey, dtype: torch.dtype) -> list[tuple[str, str]]:
    """Macros that wave.cu is compiled with.

    Parameters
    ----------
    layout : Layout
        How a shot is spread over threads.
    survey : Survey
        The survey.
    dtype : torch.dtype
        float32 or float64.

    Returns
    -------
    list of tuple of str
        Names and values.
    """
    constants = layout.constants(survey)
    values = {
        "REAL": REALS[dtype],
        "FWI_BLOCKS": layout.blocks,
        "FWI_SHARED": int(layout.shared),
        "FWI_SIDE": layout.side,
        "FWI_HALO": layout.halo,
        "FWI_UNROLL": constants["strip_rows"] if constants["strip_rows"] <= UNROLLED else SLIDE,
        "FWI_RESIDENT": layout.resident,
        **{f"FWI_{name.upper()}": value for name, value in constants.items()},
    }
    return [(name, str(value)) for name, value in values.items()]


def cubin(macros: Sequence[tuple[str, str]], arch: str) -> bytes:
    """Machine code of wave.cu, from the cache or compiled; no GPU is needed for that.

    Parameters
    ----------
    macros : sequence of tuple of str
        Names and values.
    arch : str
        Of the card, such as "sm_90".

    Returns
    -------
    bytes
        The code.

    Raises
    ------
    RuntimeError
        With the compiler's log.
    """
    from cuda.bindings import nvrtc
    from cuda.core import Program as Source
    from cuda.core import ProgramOptions

    sources = [(KERNELS / name).read_text() for name in SOURCES]
    version = nvrtc.nvrtcVersion()[1:]
    key = hashlib.sha256(repr((sources, macros, arch, version)).encode()).hexdigest()

    def compiled() -> bytes:
        folder = str(KERNELS / "cuda")
        options = ProgramOptions(arch=arch, define_macro=macros, include_path=[folder])
        try:
            return bytes(Source(sources[0], "c++", options).compile("cubin").code)
        except Exception as error:
            raise RuntimeError(f"wave.cu cannot be compiled for {arch}: {error}") from error

    return cached(cache_folder() / f"{key}.cubin", compiled)


def cache_folder() -> Path:
    """Where compiled kernels are kept.

    Returns
    -------
    Path
        fwi-refine in XDG_CACHE_HOME, by default in ~/.cache.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fwi-refine"


def cached(path: Path, make: Callable[[], bytes]) -> bytes:
    """The content of a file of the cache, made and kept there if it is not.

    A cache that cannot be written costs time and nothing else.

    Parameters
    ----------
    path : Path
        The file.
    make : callable
        Called where the file is missing or damaged.

    Returns
    -------
    bytes
        The content.
    """
    with suppress(OSError):
        stored = path.read_bytes()
        digest, content = stored[:32], stored[32:]
        if hashlib.sha256(content).digest() == digest:
            return content
    content = make()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(hashlib.sha256(content).digest() + content)
                file.close()
                os.replace(file.name, path)  # whole or not at all, also with two at once
            except OSError:
                os.unlink(file.name)
                raise
    return content
