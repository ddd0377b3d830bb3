"""Output files: written under a temporary name, fsynced, renamed. A final name means done.

A temporary name is random, and its file is made anew, so nothing that stands there is written to or
followed. The file is locked as long as it is written: a lock ends with its process, so what a
killed one left is told from what is being written, and swept when the same output is next claimed.
"""

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from fwi_refine.errors import InputError, OutputExistsError
from fwi_refine.files import check_regular, is_same_file

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]+\.tmp", re.DOTALL)


def claim_output(
    path: str | os.PathLike[str],
    overwrite: bool,
    what: str = "output",
    inputs: Iterable[Path | None] = (),
) -> Path:
    """The path, if it can be written: tried, as hours of work may come before it is.

    Parameters
    ----------
    path : path-like
        Final name of the output. What killed processes left beside it is removed.
    overwrite : bool
        Whether a file that stands there may be replaced.
    what : str
        How messages call it.
    inputs : iterable of Path or None
        Files and folders that must stay as they are.

    Returns
    -------
    Path
        The path.

    Raises
    ------
    OutputExistsError
        If it stands already and may not be replaced.
    InputError
        Without a folder, where nothing can be written, and for one of the inputs.
    """
    path = Path(path)
    refuse_input(path, inputs, what)
    if path.is_dir():
        raise InputError(f"{what} {path}: is a directory, expected a file name")
    check_regular(path)  # a device, such as /dev/null, would be replaced
    if os.path.lexists(path) and not overwrite:
        raise OutputExistsError(
            f"{what} {path} exists already: choose another name, or pass --overwrite"
        )
    if not path.parent.is_dir():
        raise InputError(f"{what} {path}: there is no directory {path.parent}")
    sweep(path.parent, {path.name})
    try:
        trial, file = open_temporary(path)  # the file itself may be open already
        file.close()
        trial.unlink()
    except OSError as error:
        raise InputError(f"{what} {path}: cannot be written ({error.strerror})") from error
    return path


def refuse_input(path: Path, inputs: Iterable[Path | None], what: str = "output") -> None:
    """Check that an output is none of the inputs.

    Parameters
    ----------
    path : Path
        The output.
    inputs : iterable of Path or None
        Files and folders; None is left out.
    what : str
        What the output is called.

    Raises
    ------
    InputError
        Where it is one of the inputs, or would be read as part of one.
    """
    for other in filter(None, inputs):
        if is_same_file(path, other):
            raise InputError(f"{what} {path}: is an input as well; choose another name")
        if other.is_dir() and _is_read(*(Path(os.path.realpath(p)) for p in (path, other))):
            raise InputError(
                f"{what} {path}: is one of the files in {other}, an input, or would be read as "
                "one; choose another name"
            )


def _is_read(path: Path, folder: Path) -> bool:
    """Whether a file is one of those that an input folder is read for, or would be."""
    if not path.is_relative_to(folder):
        return False
    inside = path.relative_to(folder).parts
    if (folder / "run.toml").exists():
        return inside[0] in ("run.toml", "parts", "shards")
    return path.suffix == ".npy" and (len(inside) == 1 or inside[0] in ("data", "model"))


def partial_mark(paths: Iterable[Path]) -> str:
    """The mark in the names of unfinished results.

    It is `.partial`, with a number if earlier ones of these paths are still there.
    """
    paths = [*paths]
    mark, number = ".partial", 1
    while any(marked(path, mark).exists() for path in paths):
        number += 1
        mark = f".partial-{number}"
    return mark


def marked(path: Path, mark: str) -> Path:
    """The path with the mark before its suffix."""
    return path.with_name(f"{path.stem}{mark}{path.suffix}")


def open_temporary(path: Path) -> tuple[Path, BinaryIO]:
    """A new file beside `path`, so that renaming it is atomic; locked until it is closed.

    Raises OSError if it cannot be made.
    """
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
        file = open(os.open(temporary, flags, 0o666), "wb+")  # noqa: SIM115 (the caller closes it)
        with contextlib.suppress(OSError):  # a disk without locks: nothing is swept on it
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.stat(temporary), os.fstat(file.fileno())):
                return temporary, file
        except FileNotFoundError:  # swept before it was locked
            pass
        file.close()


def is_temporary(name: str, of: str) -> bool:
    """Whether a file is named as one that is written, by any process, before it is called `of`."""
    return _final_name(name) == of


def _final_name(name: str) -> str | None:
    """The final name of a temporary file, None if it is none."""
    found = _TEMPORARY.fullmatch(name)
    return found and found[1]


def sweep(folder: Path, names: Container[str]) -> None:
    """Removes what killed processes left of some outputs; what a living one writes stays."""
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            final = _final_name(entry.name)
            if final is not None and final in names:
                _remove_if_left(entry)


def _remove_if_left(path: Path) -> None:
    """Removes a temporary file that no process has locked; leaves it where locks fail."""
    with contextlib.suppress(OSError):
        number = os.open(path, os.O_RDWR | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(number)


def publish(temporary: Path, path: Path) -> None:
    """Gives a finished temporary file its final name; both the bytes and the name are durable."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    with contextlib.suppress(OSError):  # not every file system can fsync a directory
        directory = os.open(Path(path).parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


@contextlib.contextmanager
def named_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Within it, errors of the system that name no file name this output, as those of a full disk.

    Parameters
    ----------
    path : str or PathLike
        The output.

    Raises
    ------
    OSError
        The same error, with the name.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path to write to; on success it is renamed to `path`, else it is removed."""
    path = Path(path)
    temporary, lock = open_temporary(path)
    with lock, named_errors(path):
        try:
            yield temporary
            publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def samples_path(out: str | os.PathLike[str]) -> Path:
    """Where maps from the posterior stand beside the refined maps `out`."""
    return Path(out).with_suffix(".samples.h5")
