"""`fwi-refine merge`: maps and report from the parts of a run."""

from pathlib import Path

import click

from fwi_refine.cli import options
from fwi_refine.cli.options.outputs import Outputs, output_options
from fwi_refine.cli.run_directory import merge_runs


@options.command("merge")
@click.argument("run_dirs", metavar="RUN...", type=options.PATH, nargs=-1, required=True)
@output_options(required=True)
@options.config
@options.logging_options
def command(
    run_dirs: tuple[Path, ...],
    outputs: Outputs,
    config: Path | None,
) -> int:
    """Merge the parts of the finished run RUN.

    \b
    Example:
      fwi-refine merge run --out refined.npy

    RUN is the directory that `refine` was given as --run-dir. Writes maps and report, as refine
    --out does.

    Where machines without a common disk have worked on shards of one run, give all their
    directories. Exit code 1 if parts are missing or damaged; nothing is written then. --deviation
    is for runs that were begun with --keep-deviation or --deviation.
    """
    outputs.claim()
    return merge_runs(run_dirs, outputs)
