"""A run directory: made once, then filled with parts by one process or by many."""

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from fwi_refine.errors import DamagedPartError, InputError, PartError
from fwi_refine.files import read_toml
from fwi_refine.io.outputs import atomic_path, is_temporary
from fwi_refine.machine_faults import is_machine_fault, machine_error
from fwi_refine.runs import locks
from fwi_refine.runs.directory.config import FILE, FORMAT, config_hash, differences
from fwi_refine.runs.directory.parts import (
    DEVIATION,
    PART,
    PIECE,
    SAMPLES,
    VELOCITY,
    Part,
    read_part,
    stored_number,
    temporary_number,
    write_part,
)

MAKING = 60.0  # s; how long another process may take to make the directory

log = logging.getLogger(__name__)


def shard_chunks(shard: tuple[int, int], count: int) -> range:
    """Chunks of shard (i, n), i from 1, of a run of `count` chunks; it may have none."""
    i, n = shard
    return range(count * (i - 1) // n, count * i // n)


class RunDirectory:
    """An existing run directory.

    Parameters
    ----------
    path : path-like
        The directory.

    Raises
    ------
    InputError
        If there is none.
    MachineError
        If the machine cannot read its table.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.parts_folder, self.shards_folder = self.path / "parts", self.path / "shards"
        self.config = _read_config(self.path / FILE)
        self.hash = config_hash(self.config)
        samples = self.config["samples"]
        self.count: int = samples["count"]
        self.chunk_size: int = samples["chunk_size"]
        self.sample_shape: tuple[int, ...] = tuple(samples["shape"])
        self.chunk_count = -(-self.count // self.chunk_size)

    @classmethod
    def prepare(
        cls, path: str | os.PathLike[str], config: dict[str, Any], needs_locks: bool = True
    ) -> "RunDirectory":
        """The run directory of a table: made where there is none, else that which stands there.

        Several processes may do this at once.

        Parameters
        ----------
        path : path-like
            The directory.
        config : dict
            The table, see `describe`.
        needs_locks : bool
            Whether a disk without locks is refused.

        Raises
        ------
        InputError
            If the directory holds something else, a run that differs (the message says in what),
            or parts without the table that says what they are.
        RunError
            If the disk has no locks.
        """
        path = Path(path)
        if not (path / FILE).exists():
            check_place(path)
            for folder in (path, path / "parts", path / "shards"):
                folder.mkdir(parents=True, exist_ok=True)
            with locks.locked(path / "shards" / "making.lock", MAKING, needs_locks):
                if not (path / FILE).exists():
                    _refuse_orphans(path)
                    with atomic_path(path / FILE) as temporary:
                        temporary.write_bytes(tomli_w.dumps(config).encode())
        run = cls(path)
        run.check(config)
        return run

    @property
    def map_names(self) -> list[str]:
        """The maps that its parts hold of each sample."""
        kept = self.config["settings"].get("keep_deviation")
        names = [VELOCITY, DEVIATION] if kept else [VELOCITY]
        return [*names, SAMPLES] if self.sample_count else names

    @property
    def sample_count(self) -> int:
        """Maps that it keeps from the posterior of each sample."""
        return int(self.config["settings"].get("samples", 0))

    def check(self, config: dict[str, Any]) -> None:
        """Raises InputError if the table of this run is not `config`."""
        lines = differences(self.config, config)
        if lines:
            raise InputError(
                f"{self.path}: is another run, whose results would not fit; "
                f"continue it as it was begun, or give a new directory. {'; '.join(lines)}"
            )

    def chunks(self, shard: tuple[int, int] = (1, 1)) -> range:
        """Numbers of the chunks of a shard."""
        return shard_chunks(shard, self.chunk_count)

    def samples(self, chunk: int) -> range:
        """Places in the run of the samples of a chunk."""
        first = chunk * self.chunk_size
        return range(first, min(first + self.chunk_size, self.count))

    def chunk_of(self, index: int) -> int:
        """The chunk of a sample."""
        return index // self.chunk_size

    def is_archive(self, chunks: Iterable[int]) -> bool:
        """Whether some chunks are finished, and nothing can be written: on a read-only disk."""
        folders = self.parts_folder, self.shards_folder
        writable = all(os.access(folder, os.W_OK) for folder in folders)
        return not writable and {*chunks} <= {*self.parts()}

    def parts(self) -> dict[int, list[Path]]:
        """Files that have the name of a part, by chunk; more than one where results differ."""
        return self._stored(PART)

    def pieces(self) -> dict[int, list[Path]]:
        """Files of single samples, by their indices, of chunks that are not finished."""
        return self._stored(PIECE)

    def _stored(self, kind: str) -> dict[int, list[Path]]:
        found = defaultdict(list)
        for path in sorted(self.parts_folder.iterdir()):
            number = stored_number(path.name, kind)
            if number is not None:
                found[number].append(path)
        return dict(found)

    def read(self, path: Path) -> Part:
        """A part or piece, checked against this run.

        Raises
        ------
        DamagedPartError
            If its bytes are not those that were written.
        PartError
            If it is not of this run.
        MachineError
            If the machine cannot read it.
        """
        part = read_part(path, self.hash)
        number = stored_number(path.name)
        if number is None:
            expected = 1
        else:
            expected = len(self.samples(number)) if number < self.chunk_count else 0
        if len(part.rows) != expected:
            raise PartError(f"{path}: found {len(part.rows)} samples, expected {expected}")
        shape = tuple(self.config["survey"]["shape"])
        if sorted(part.maps) != sorted(self.map_names):
            raise PartError(f"{path}: found maps {[*part.maps]}, expected {self.map_names}")
        expected_shapes = {SAMPLES: (self.sample_count, *shape)}
        if any(
            values.shape[1:] != expected_shapes.get(name, shape)
            for name, values in part.maps.items()
        ):
            raise PartError(f"{path}: found maps of another shape, expected {shape}")
        return part

    def add(self, number: int, part: Part) -> None:
        """Stores the results of a chunk. Raises OSError."""
        write_part(self.parts_folder, number, part, self.hash)

    def add_piece(self, index: int, part: Part) -> Path:
        """Stores the result of one sample of a chunk that is not finished. Raises OSError."""
        return write_part(self.parts_folder, index, part, self.hash, PIECE)

    def recover(self, chunks: Container[int]) -> Iterator[tuple[Sequence[int], Part]]:
        """The finished part of some chunks. Removes leftovers of a killed process or a bad disk.

        Only for the process that has claimed these chunks. A file is removed only where its bytes
        do not have the digest of its name, or another of the same name stands beside it.

        Parameters
        ----------
        chunks : container of int
            The chunks.

        Yields
        ------
        (sequence of int, Part)
            Indices of samples, and their results.

        Raises
        ------
        PartError
            If a whole part is not of this run.
        MachineError
            If the machine cannot read a part.
        """
        for path in self.temporaries():
            if self._written_chunk(path) in chunks:
                log.info("%s: left by a process that ended; removed", path)
                path.unlink(missing_ok=True)
        done = set()
        for number, part in self._sound(self.parts(), lambda number: number in chunks):
            done.add(number)
            yield self.samples(number), part
        pieces = self.pieces()
        for index, paths in pieces.items():
            if self.chunk_of(index) in done:  # its part was stored just before the process ended
                for path in paths:
                    path.unlink(missing_ok=True)
        mine = {index: paths for index, paths in pieces.items() if self.chunk_of(index) not in done}
        for index, part in self._sound(mine, lambda index: self.chunk_of(index) in chunks):
            yield [index], part

    def _sound(
        self, files: dict[int, list[Path]], chosen: Callable[[int], bool]
    ) -> Iterator[tuple[int, Part]]:
        """The first sound one of the files of each number; removes the others."""
        for number, paths in files.items():
            if not chosen(number):
                continue
            good = None
            for path in paths:
                try:
                    part = self.read(path)
                except DamagedPartError as error:
                    log.warning("%s; it is removed", error)
                    path.unlink()
                    continue
                if good is not None:
                    log.warning("%s: a second result of the same samples; it is removed", path)
                    path.unlink()
                good = good or part
            if good is not None:
                yield number, good

    def _written_chunk(self, temporary: Path) -> int | None:
        """The chunk that a temporary file was to belong to."""
        found = temporary_number(temporary.name)
        if found is None:
            return None
        kind, number = found
        return number if kind == PART else self.chunk_of(number)

    def temporaries(self) -> list[Path]:
        """Files that are being written, or were when their process ended."""
        names = sorted(self.parts_folder.iterdir())
        return [path for path in names if temporary_number(path.name) is not None]


def check_place(path: Path) -> None:
    """Raises InputError where no new run can be made: other things stand there, or parts without
    the table that says what they are."""
    if path.exists() and (not path.is_dir() or _strangers(path)):
        raise InputError(f"{path}: holds other things than a run; give a new directory")
    _refuse_orphans(path)


def _refuse_orphans(path: Path) -> None:
    """Raises InputError where parts stand without the table that says what they are."""
    parts = path / "parts"
    names = [entry.name for entry in parts.iterdir()] if parts.is_dir() else []
    count = sum(stored_number(n, kind) is not None for n in names for kind in (PART, PIECE))
    if count:
        raise InputError(
            f"{path}: holds {count} finished parts, but {FILE} is lost, which says what they are: "
            "bring it back from a copy, or give a new directory; the parts were left as they are"
        )


def _strangers(path: Path) -> bool:
    """Whether it holds what no run has; another process may just be making one."""
    own = {"parts", "shards", FILE}
    names = {entry.name for entry in path.iterdir()} - own
    return any(not is_temporary(name, FILE) for name in names)


def _read_config(path: Path) -> dict[str, Any]:
    """The table of a run, with the keys and types that `RunDirectory` relies on."""
    try:
        config = read_toml(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        found = "there is no such directory"
        if path.parent.exists():
            found = f"holds no {path.name}" if path.parent.is_dir() else "it is a file"
        raise InputError(f"{path.parent}: not a run directory ({found})") from error
    except (OSError, ValueError) as error:
        if is_machine_fault(error):
            raise machine_error(error, str(path)) from error
        raise InputError(f"{path.parent}: not a run directory ({path.name}: {error})") from error
    if config.get("format") != FORMAT:
        raise InputError(
            f"{path}: found format {config.get('format')!r}, expected {FORMAT}: another version "
            "of this program made it"
        )
    samples, survey = config.get("samples"), config.get("survey")
    sizes = [samples.get("count"), samples.get("chunk_size")] if isinstance(samples, dict) else []
    for owner in (samples, survey):
        shape = owner.get("shape") if isinstance(owner, dict) else None
        sizes += shape if isinstance(shape, list) else [None]
    whole = all(type(size) is int and size > 0 for size in sizes)
    if not whole or not isinstance(config.get("settings"), dict):
        raise InputError(f"{path}: damaged: found no settings, or no counts and shapes")
    return config
