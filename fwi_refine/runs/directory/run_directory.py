"""A run directory: made once, then filled with parts by one process or by many."""

import logging
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import filelock
import tomli_w

from fwi_refine.errors import InputError, PartError
from fwi_refine.io.outputs import atomic_path, is_temporary
from fwi_refine.runs.directory.config import FILE, FORMAT, config_hash, differences
from fwi_refine.runs.directory.parts import (
    DEVIATION,
    VELOCITY,
    Part,
    part_number,
    read_part,
    temporary_number,
    write_part,
)
from fwi_refine.runs.directory.shards import shard_chunks

MAKING = 60  # s; how long another process may take to make the directory

log = logging.getLogger(__name__)


class RunDirectory:
    """An existing run directory. Raises InputError if there is none at `path`."""

    def __init__(self, path):
        self.path = Path(path)
        self.parts_folder, self.shards_folder = self.path / "parts", self.path / "shards"
        self.config = _read_config(self.path / FILE)
        self.hash = config_hash(self.config)
        samples = self.config["samples"]
        self.count, self.chunk_size = samples["count"], samples["chunk_size"]
        self.sample_shape = tuple(samples["shape"])
        self.chunk_count = -(-self.count // self.chunk_size)

    @classmethod
    def prepare(cls, path, config):
        """The run directory of a table: made where there is none, else that which stands there.

        Several processes may do this at once. Raises InputError if the directory holds something
        else, or a run that differs; the message says in what.
        """
        path = Path(path)
        if not (path / FILE).exists():
            if path.exists() and (not path.is_dir() or _strangers(path)):
                raise InputError(f"{path}: holds other things than a run; give a new directory")
            for folder in (path, path / "parts", path / "shards"):
                folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(path / "shards" / "making.lock", timeout=MAKING):
                if not (path / FILE).exists():
                    with atomic_path(path / FILE) as temporary:
                        temporary.write_bytes(tomli_w.dumps(config).encode())
        run = cls(path)
        run.check(config)
        return run

    @property
    def map_names(self) -> list[str]:
        """The maps that its parts hold of each sample."""
        kept = self.config["settings"].get("keep_deviation")
        return [VELOCITY, DEVIATION] if kept else [VELOCITY]

    def check(self, config):
        """Raises InputError if the table of this run is not `config`."""
        lines = differences(self.config, config)
        if lines:
            raise InputError(
                f"{self.path}: is another run, whose results would not fit; "
                f"continue it as it was begun, or give a new directory. {'; '.join(lines)}"
            )

    def chunks(self, shard=(1, 1)) -> range:
        """Numbers of the chunks of a shard."""
        return shard_chunks(shard, self.chunk_count)

    def samples(self, chunk) -> range:
        """Places in the run of the samples of a chunk."""
        first = chunk * self.chunk_size
        return range(first, min(first + self.chunk_size, self.count))

    def parts(self) -> dict[int, list[Path]]:
        """Files that have the name of a part, by chunk; more than one where results differ."""
        found = defaultdict(list)
        for path in sorted(self.parts_folder.iterdir()):
            number = part_number(path.name)
            if number is not None:
                found[number].append(path)
        return dict(found)

    def read(self, path) -> Part:
        """A part, checked against this run. Raises PartError."""
        part = read_part(path, self.hash)
        number = part_number(path.name)
        expected = len(self.samples(number)) if number < self.chunk_count else 0
        if len(part.rows) != expected:
            raise PartError(f"{path}: found {len(part.rows)} samples, expected {expected}")
        shape = tuple(self.config["survey"]["shape"])
        if sorted(part.maps) != sorted(self.map_names):
            raise PartError(f"{path}: found maps {[*part.maps]}, expected {self.map_names}")
        if any(values.shape[1:] != shape for values in part.maps.values()):
            raise PartError(f"{path}: found maps of another shape, expected {shape}")
        return part

    def add(self, number, part):
        """Stores the results of a chunk. Raises OSError."""
        write_part(self.parts_folder, number, part, self.hash)

    def recover(self, chunks: Iterable[int]) -> Iterator[tuple[int, Part]]:
        """Finished chunks among `chunks`. Removes what a killed process or a bad disk left.

        Only for the process that has claimed these chunks.
        """
        for path in self.temporaries():
            if temporary_number(path.name) in chunks:
                log.info("%s: left by a process that ended; removed", path)
                path.unlink(missing_ok=True)
        parts = self.parts()
        for number in chunks:
            good = None
            for path in parts.get(number, ()):
                try:
                    part = self.read(path)
                except PartError as error:
                    log.warning("%s; it is removed", error)
                    path.unlink()
                    continue
                if good is not None:
                    log.warning("%s: a second result of the same chunk; it is removed", path)
                    path.unlink()
                good = good or part
            if good is not None:
                yield number, good

    def temporaries(self) -> list[Path]:
        """Files that are being written, or were when their process ended."""
        names = sorted(self.parts_folder.iterdir())
        return [path for path in names if temporary_number(path.name) is not None]


def _strangers(path) -> bool:
    """Whether it holds what no run has; another process may just be making one."""
    own = {"parts", "shards", FILE}
    names = {entry.name for entry in path.iterdir()} - own
    return any(not is_temporary(name, FILE) for name in names)


def _read_config(path):
    """The table of a run, with the keys and types that this class relies on."""
    try:
        config = tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError as error:
        found = f"holds no {path.name}" if path.parent.is_dir() else "there is no such directory"
        raise InputError(f"{path.parent}: not a run directory ({found})") from error
    except (OSError, ValueError, RecursionError) as error:
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
