"""Refining in a run directory, and merging its parts: what `refine` and `merge` share."""

import contextlib
import functools
import logging
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwi_refine.cli import command_line
from fwi_refine.cli.console import bar
from fwi_refine.cli.progress import RunProgress, is_wanted
from fwi_refine.cli.signals import SIGNALS
from fwi_refine.errors import InputError

if TYPE_CHECKING:
    from fwi_refine.cli.options.outputs import Outputs
    from fwi_refine.io.inputs import Inputs
    from fwi_refine.io.report import Row
    from fwi_refine.runs.directory.parts import Part
    from fwi_refine.runs.executors import Executor
    from fwi_refine.runs.settings import Settings

PUBLISHING = "publishing"

log = logging.getLogger(__name__)


def hidden_directory(out: Path) -> Path:
    """Where the finished samples of a run without a run directory are, until it is done."""
    return out.with_name(f".{out.name}.run")


def publishing_mark(out: Path) -> Path:
    """A file in the hidden directory while the outputs get their names: those that have theirs, as
    the process was killed between two, are the run's own."""
    return hidden_directory(out) / PUBLISHING


def missing_samples(
    path: Path | None, count: int, chunk_size: int, shard: tuple[int, int] | None
) -> list[int]:
    """Indices of the samples of a shard that are still to be refined, by the names of files.

    Parameters
    ----------
    path : Path or None
        The run directory; there may be none yet, or that of another run, which is refused later.
    count, chunk_size : int
        Samples of the whole run, and of a part.
    shard : (int, int) or None
        Part i of n, counted from 1; None for the whole.
    """
    from fwi_refine import runs

    done: set[int] = set()
    pieces: set[int] = set()
    if path is not None and (path / "run.toml").exists():
        with contextlib.suppress(InputError):
            run = runs.RunDirectory(path)
            if (run.count, run.config["samples"]["chunk_size"]) == (count, chunk_size):
                done, pieces = set(run.parts()), set(run.pieces())
    numbers = runs.shard_chunks(shard or (1, 1), -(-count // chunk_size))
    return [
        index
        for n in numbers
        if n not in done
        for index in range(n * chunk_size, min((n + 1) * chunk_size, count))
        if index not in pieces
    ]


class RunJob:
    """One shard of a run.

    Parameters
    ----------
    path : Path
        The run directory.
    inputs : Inputs
        The samples of the whole run.
    settings : Settings
        What is done to each.
    chunk_size : int
        Samples of a part.
    shard : (int, int) or None
        Part i of n, counted from 1; None for the whole.
    task_size : int
        Samples that are handed out at a time.
    hidden : bool
        Whether the directory is only for this run to go on.
    """

    def __init__(
        self,
        path: Path,
        inputs: "Inputs",
        settings: "Settings",
        chunk_size: int,
        shard: tuple[int, int] | None,
        task_size: int = 1,
        hidden: bool = False,
    ) -> None:
        from fwi_refine import runs

        self.path, self.inputs, self.settings = path, inputs, settings
        self.shard = shard or (1, 1)
        self.task_size, self.hidden = task_size, hidden
        self.config: dict[str, Any] = runs.describe(inputs, settings, chunk_size)

    def plan(self, jobs: int) -> int:
        """Prints the plan of what is missing; writes nothing. Returns the exit code.

        Raises InputError for what `refine` would refuse.
        """
        from fwi_refine import runs
        from fwi_refine.cli.plan import print_plan

        size = self.config["samples"]["chunk_size"]
        count = -(-len(self.inputs.pairs) // size)
        if (self.path / "run.toml").exists():
            runs.RunDirectory(self.path).check(self.config)
        else:
            runs.check_place(self.path)
        mine = runs.shard_chunks(self.shard, count)
        self._need_parts(len(mine), count)
        indices = missing_samples(self.path, len(self.inputs.pairs), size, self.shard)
        there = len(mine) - len({index // size for index in indices})
        log.info("%s: %d of %d parts are there", self.path, there, len(mine))
        pairs = [self.inputs.pairs[index] for index in indices]
        return print_plan(replace(self.inputs, pairs=pairs), self.settings, jobs)

    def _need_parts(self, mine: int, count: int) -> None:
        """Raises InputError where a shard holds none of the parts of a run."""
        if not mine:
            raise InputError(
                f"--shard {self.shard[0]}/{self.shard[1]}: no parts: the run has only "
                f"{count}, of {self.config['samples']['chunk_size']} samples; "
                "fewer shards, or a new run with a smaller --chunk-size"
            )

    def make_room(self, overwrite: bool, dry: bool = False) -> None:
        """Refuses, or with --overwrite removes, a hidden directory of another run; dry: leaves it
        where it would be removed."""
        from fwi_refine import runs

        if not (self.path / "run.toml").exists():
            return
        try:
            run = runs.RunDirectory(self.path)
        except InputError as error:
            if not overwrite:
                raise InputError(f"{error}; begin anew with --overwrite") from error
            log.warning("%s; removed", error)
            _remove(self.path)
            return
        lines = runs.differences(run.config, self.config)
        if not lines:
            return
        if not overwrite:
            count = runs.read_state(run).done
            raise InputError(
                f"{self.path}: holds {count} finished samples of an earlier run to the same "
                f"output, which was another: {lines[0]}; continue that one, give another --out, or "
                "begin anew with --overwrite"
            )
        if dry:
            return
        with runs.claimed(run.shards_folder, (1, 1), run.chunk_count, needs_locks=False):
            log.warning("%s: an earlier run to the same output, removed", self.path)
            _remove(self.path)

    def remove(self) -> None:
        """Removes the hidden directory of a run that is done."""
        with SIGNALS.shielded(final=True), contextlib.suppress(OSError):
            _remove(self.path)

    def refine(
        self,
        executor: "Executor",
        stored: Callable[[Sequence[int], "Part"], object] = lambda indices, part: None,
    ) -> RunProgress:
        """Completes the shard.

        Parameters
        ----------
        executor : Executor
            Where the samples are refined.
        stored : callable
            Told indices and results of all samples, also of those finished before.

        Returns
        -------
        RunProgress
            Knows how it went.

        Raises
        ------
        InputError
            If the shard holds no part.
        """
        from fwi_refine import runs
        from fwi_refine.cli import logs

        run = runs.RunDirectory.prepare(self.path, self.config, needs_locks=not self.hidden)
        samples = [len(run.samples(number)) for number in run.chunks(self.shard)]
        self._need_parts(len(samples), run.chunk_count)
        if not run.is_archive(run.chunks(self.shard)):
            logs.add_file(runs.log_file(run, self.shard))
        work = runs.Work(
            self.inputs,
            self.settings,
            executor,
            self.shard,
            task_size=self.task_size,
            needs_locks=not self.hidden,
        )
        kept: list[int] = []

        def keep(indices: Sequence[int], part: "Part") -> None:
            kept.append(len(indices))
            stored(indices, part)

        counts = RunProgress(sum(samples), is_wanted())
        with counts.shown(runs.running_files(run.shards_folder, self.shard)):
            try:
                runs.carry_out(
                    run,
                    work,
                    found=_each(counts.found),
                    added=_each(counts.add),
                    shielded=SIGNALS.shielded,
                    stored=keep,
                )
            except BaseException:
                if kept:
                    log.error("%d of %d samples are finished and kept in %s; to go on: %s",
                              sum(kept), sum(samples), self.path, command_line())  # fmt: skip
                raise
        self._warn_of_changes()
        return counts

    def _warn_of_changes(self) -> None:
        """Warns of inputs that are not what they were when the run was begun."""
        from fwi_refine import runs

        with contextlib.suppress(OSError):  # all of them were read
            size = self.config["samples"]["chunk_size"]
            lines = runs.differences(self.config, runs.describe(self.inputs, self.settings, size))
            if lines:
                log.warning("the inputs were changed while they were refined: what was read before "
                            "and after it may not belong together (%s)", lines[0])  # fmt: skip


def _remove(path: Path) -> None:
    """Removes a hidden directory. A kill amidst that leaves one that the same command can go on
    from, or replace: the table goes last, and first what says that the outputs are its own."""
    (path / PUBLISHING).unlink(missing_ok=True)
    shutil.rmtree(path / "parts", ignore_errors=True)
    shutil.rmtree(path)


def _each(count: "Callable[[Row], None]") -> "Callable[[Iterable[Row]], None]":
    """A function of several rows that counts each of them."""

    def counted(rows: "Iterable[Row]") -> None:
        for row in rows:
            count(row)

    return counted


def merge_runs(paths: Sequence[Path], outputs: "Outputs", history: Path | None = None) -> int:
    """Merges run directories.

    Parameters
    ----------
    paths : sequence of Path
        The run directories.
    outputs : Outputs
        What is written, see options/outputs.py.
    history : Path, optional
        Where the course of the misfits is written.

    Returns
    -------
    int
        The exit code.
    """
    from fwi_refine import runs

    assert outputs.out is not None
    assert outputs.report is not None  # it is where --out is given
    found = [runs.RunDirectory(path) for path in paths]
    counts = RunProgress(found[0].count, visible=False)
    with bar(found[0].count, "samples", is_wanted()) as advance:

        def report(rows: "Sequence[Row]") -> None:
            _each(counts.found)(rows)
            advance(len(rows))

        beside = runs.merge(
            found,
            outputs.out,
            outputs.report,
            outputs.overwrite,
            outputs.deviation,
            report_rows=report,
            shielded=functools.partial(SIGNALS.shielded, final=True),
            history=history,
        )
    if beside:
        log.error("no sample could be refined: the earlier results stay as they are")
    log.info("%s, report in %s", *(beside or (outputs.out, outputs.report)))
    return counts.summary()
