"""The survey and the priors that a command was given as files, and parts that hold nothing."""

import os
from collections.abc import Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwi_refine.errors import InputError
from fwi_refine.files import open_regular, read_npy
from fwi_refine.survey import OPENFWI, Survey, read_survey

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fwi_refine.priors import Priors


def load_survey(path: Path | None) -> Survey:
    """The survey of a file, or OpenFWI's. Raises InputError."""
    return OPENFWI if path is None else read_survey(path)


def load_priors(path: Path | None) -> "Priors":
    """The built-in priors, or those of a file. Raises InputError if it is none."""
    from fwi_refine.priors import load

    try:
        return load(path)
    except (OSError, ValueError) as error:
        raise InputError(f"--priors {path}: {error}") from error


def load_array(path: Path, option: str) -> "NDArray[Any]":
    """The array of a .npy file. Raises InputError, naming the option, if it is none."""
    try:
        with open_regular(path) as file:
            return read_npy(file, os.fstat(file.fileno()).st_size)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{option} {path}: cannot be read as .npy ({error})") from error


def need_some(items: Sized, shard: tuple[int, int] | None, what: str) -> None:
    """Raises InputError where a part of the samples holds none; what: they are called."""
    if not len(items):
        i, n = shard or (1, 1)
        raise InputError(f"--shard {i}/{n}: no {what} in this part")
