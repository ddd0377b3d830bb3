"""`fwi-refine verify`: is everything sound that a run directory holds?"""

import logging
from pathlib import Path

import click

from fwi_refine.cli import FAILURE, OK, options

log = logging.getLogger(__name__)


@options.command("verify")
@options.run_argument
@options.logging_options
def command(
    run_dir: Path,
) -> int:
    """Check that every byte of the run RUN is as it was written.

    \b
    Example:
      fwi-refine verify run

    RUN is the directory that `refine` was given as --run-dir. Parts of it that are damaged are
    named on stdout, a line each. Exit code 1 if there is one; `refine` removes it and refines its
    samples anew. Parts that are not there yet are no damage. Changes nothing.
    """
    from fwi_refine import runs

    run = runs.RunDirectory(run_dir)
    sound = damaged = 0
    for _, problem in runs.check_parts(run):
        if problem is None:
            sound += 1
        else:
            damaged += 1
            click.echo(problem)
    log.info("%d of %d parts are there and sound, %d damaged, %d files being written or left over",
             sound, run.chunk_count, damaged, len(run.temporaries()))  # fmt: skip
    return FAILURE if damaged else OK
