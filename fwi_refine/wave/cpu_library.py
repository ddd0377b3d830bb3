"""The library of the compiled CPU kernel, which is built when the package is installed.

Where it is missing, `load` returns None and the caller falls back to reference.py.
"""

import ctypes
import functools
import importlib.machinery
import os
from pathlib import Path


def library_path() -> Path | None:
    """Find the built kernel.

    Returns
    -------
    Path or None
        None when the package was installed without a compiler.
    """
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name("_kernel" + suffix)
        if path.exists():
            return path
    return None


@functools.cache
def load() -> ctypes.CDLL | None:
    """Load the kernel's library, once.

    Returns
    -------
    ctypes.CDLL or None
        None when it was not built or cannot be loaded, or FWI_REFINE_KERNEL is "reference".
    """
    path = library_path()
    if path is None or os.environ.get("FWI_REFINE_KERNEL") == "reference":
        return None
    try:
        return open_library(path)
    except OSError:
        return None


def open_library(path: str | Path) -> ctypes.CDLL:
    """Load a kernel's library and declare its types.

    Parameters
    ----------
    path : str or Path
        The library.

    Returns
    -------
    ctypes.CDLL
        The library.

    Raises
    ------
    OSError
        Where it cannot be loaded.
    """
    library = ctypes.CDLL(str(path))
    library.fwi_frame_bytes.restype = ctypes.c_size_t
    return library
