"""What a command that was stopped goes on from: its table, and its finished maps.

For commands whose results are an array for each sample and nothing else, so that they need no run
directory. The table says what the results depend on; the same command goes on only with an equal
one.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import ArrayLike, NDArray

from fwi_refine.errors import InputError
from fwi_refine.files import open_regular, read_npy, read_toml
from fwi_refine.io.convert import Conversion
from fwi_refine.io.outputs import atomic_path, is_temporary
from fwi_refine.machine_faults import is_machine_fault
from fwi_refine.runs import locks
from fwi_refine.runs.directory.config import differences, files_of
from fwi_refine.survey import Survey
from fwi_refine.version import __version__

TABLE = "begun.toml"
LOCK = "lock"

log = logging.getLogger(__name__)


def describe_command(
    path: Path,
    files: Sequence[Path],
    names: Sequence[str],
    survey: Survey,
    conversion: Conversion,
    kernel: str,
    **settings: Any,
) -> dict[str, Any]:
    """The table of a command.

    Parameters
    ----------
    path, files
        What it reads, and the files that it consists of.
    names : sequence of str
        Ids of the samples that are made, in their order.
    survey, conversion
        Of the samples.
    kernel : str
        What computes waves, `Simulator.kernel`.
    **settings
        Whatever else the results depend on.

    Returns
    -------
    dict
        As TOML gives it back.
    """
    table = {
        "program": {"version": __version__, "kernel": kernel.split()[0]},
        "samples": {
            "count": len(names),
            "ids": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        },
        "settings": settings,
        "survey": {k: v for k, v in asdict(survey).items() if v is not None},
        "conversion": conversion.differences(),
        "input": files_of(path, files),
    }
    copied: dict[str, Any] = json.loads(json.dumps(table))
    return copied


def goes_on(path: Path, table: dict[str, Any], overwrite: bool) -> bool:
    """Whether the command of a table was begun before, as the file `path` says.

    Parameters
    ----------
    path : Path
        Where the table of that command stands, if there is one.
    table : dict
        Of the present command.
    overwrite : bool
        Whether another command is forgotten.

    Raises
    ------
    InputError
        If it was another command, unless `overwrite` is true, and for a file that is no table.
    """
    try:
        stored = read_toml(path)
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        if is_machine_fault(error):
            raise
        lines = [f"{path.name} cannot be read ({error})"]
    else:
        lines = differences(stored, table)
    if not lines:
        return True
    if not overwrite:
        raise InputError(
            f"{path}: is of an earlier command to the same output, which was stopped and was "
            f"another: {lines[0]}; continue that one, give another --out, or begin anew with "
            "--overwrite"
        )
    log.warning("%s: an earlier command to the same output, forgotten", path)
    return False


def write_table(path: Path, table: dict[str, Any]) -> None:
    """Writes a table for `goes_on`."""
    with atomic_path(path) as temporary:
        temporary.write_text(tomli_w.dumps(table), encoding="utf-8")


class KeptMaps:
    """Finished maps of a command, each in a file of its own.

    Parameters
    ----------
    folder : Path
        Where they are, with the table.
    shape : tuple of int
        Of a map, (nz, nx).
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self.folder, self.shape = folder, shape

    def write(self, n: int, v: ArrayLike) -> None:
        """Keeps map n; it is durable when this returns."""
        with atomic_path(self._file(n)) as temporary, open(temporary, "wb") as file:
            np.save(file, np.asarray(v, np.float64))

    def read(self, n: int) -> NDArray[np.float64] | None:
        """Map n, None where it is not kept; what is damaged is removed."""
        path = self._file(n)
        try:
            with open_regular(path) as file:
                v = read_npy(file, path.stat().st_size)
        except FileNotFoundError:
            return None
        except ValueError as error:
            log.warning("%s: damaged (%s); it is removed", path, error)
            path.unlink()
            return None
        return v if v.shape == self.shape else None

    def remove(self) -> None:
        """Removes all of it, when the command is done."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, n: int) -> Path:
        return self.folder / f"{n}.npy"


@contextmanager
def kept_maps(
    folder: Path, shape: tuple[int, ...], table: dict[str, Any], overwrite: bool
) -> Iterator[KeptMaps]:
    """The maps of the command of a table, in a folder that no other process uses meanwhile.

    The folder is made where there is none, and emptied where it was another command's and
    `overwrite` is true.

    Raises
    ------
    InputError
        As `goes_on` does, and for a folder that holds other things.
    LockHeld
        If another process works on it.
    """
    folder.mkdir(exist_ok=True)
    with locks.locked(folder / LOCK, needed=False):
        if not goes_on(folder / TABLE, table, overwrite):
            _empty(folder)
            write_table(folder / TABLE, table)
        yield KeptMaps(folder, shape)


def _empty(folder: Path) -> None:
    """Removes the maps of another command. Raises InputError where other things stand."""
    for path in folder.iterdir():
        own = path.suffix == ".npy" and path.stem.isdecimal()
        if not (own or path.name in (TABLE, LOCK) or is_temporary(path.name, TABLE)):
            raise InputError(f"{folder}: holds other things than maps, such as {path.name}")
    for path in folder.glob("*.npy"):
        path.unlink()
