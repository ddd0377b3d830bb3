"""Refining in a run directory, and merging its parts: what `refine` and `merge` share."""

import contextlib
import functools
import logging
from dataclasses import replace

from fwi_refine.cli.progress import Progress, is_wanted
from fwi_refine.cli.signals import SIGNALS
from fwi_refine.errors import InputError

log = logging.getLogger(__name__)


class RunJob:
    """One shard of a run. shard: (i, n), i from 1, or None for the whole."""

    def __init__(self, path, inputs, settings, chunk_size, shard):
        from fwi_refine import runs

        self.path, self.inputs, self.settings = path, inputs, settings
        self.shard = shard or (1, 1)
        self.config = runs.describe(inputs, settings, chunk_size)

    def plan(self, jobs) -> int:
        """Prints the plan of what is missing; writes nothing. Returns the exit code."""
        from fwi_refine import runs
        from fwi_refine.cli.plan import print_plan

        done, size = set(), self.config["samples"]["chunk_size"]
        chunks = range(-(-len(self.inputs.pairs) // size))
        if (self.path / "run.toml").exists():
            run = runs.RunDirectory(self.path)
            run.check(self.config)
            done = set(run.parts())
        mine = runs.shard_chunks(self.shard, len(chunks))
        numbers = [number for number in mine if number not in done]
        pairs = [pair for n in numbers for pair in self.inputs.pairs[n * size : (n + 1) * size]]
        log.info("%s: %d of %d parts are there", self.path, len(mine) - len(numbers), len(mine))
        return print_plan(replace(self.inputs, pairs=pairs), self.settings, jobs)

    def refine(self, executor) -> Progress:
        """Completes the shard; what is returned knows how it went."""
        from fwi_refine import runs
        from fwi_refine.cli import logs

        run = runs.RunDirectory.prepare(self.path, self.config)
        samples = [len(run.samples(number)) for number in run.chunks(self.shard)]
        if not samples:
            raise InputError(
                f"--shard {self.shard[0]}/{self.shard[1]}: no parts: the run has only "
                f"{run.chunk_count}, of {self.config['samples']['chunk_size']} samples; "
                "fewer shards, or a new run with a smaller --chunk-size"
            )
        logs.add_file(runs.log_file(run, self.shard))
        work = runs.Work(self.inputs, self.settings, executor, self.shard)
        with contextlib.closing(Progress(sum(samples), is_wanted())) as bar:
            runs.carry_out(
                run,
                work,
                found=lambda rows: [bar.found(row) for row in rows],
                added=lambda rows: [bar.add(row) for row in rows],
                shielded=SIGNALS.shielded,
            )
        return bar


def merge_runs(paths, outputs) -> int:
    """Merges run directories into `outputs`, see options/outputs.py; returns the exit code."""
    from fwi_refine import runs

    found = [runs.RunDirectory(path) for path in paths]
    with contextlib.closing(Progress(found[0].count, is_wanted())) as bar:
        runs.merge(
            found,
            outputs.out,
            outputs.report,
            outputs.overwrite,
            outputs.deviation,
            told=lambda rows: [bar.found(row) for row in rows],
            shielded=functools.partial(SIGNALS.shielded, final=True),
        )
    log.info("%s, report in %s", outputs.out, outputs.report)
    return bar.summary()
