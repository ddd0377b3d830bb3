"""`fwi-refine merge`: maps and report from the parts of a run."""

import click

from fwi_refine.cli import options
from fwi_refine.cli.run_directory import merge_runs
from fwi_refine.errors import InputError


@click.command("merge")
@click.argument("run_dirs", metavar="RUN...", type=options.PATH, nargs=-1, required=True)
@click.option("--out", type=options.PATH, required=True, help="Maps to write: .npy, float32.")
@click.option(
    "--report", type=options.PATH, help="CSV, a row a sample. Default: --out with .csv as suffix."
)
@options.overwrite
@options.config
@options.logging_options
def command(run_dirs, out, report, overwrite, config):
    """Put the parts of the finished run RUN together, as refine --out does.

    Where machines without a common disk have worked on shards of one run, give all their
    directories. Exit code 1 if parts are missing or damaged; nothing is written then.
    """
    from fwi_refine import io

    if out.suffix != ".npy":
        raise InputError(f"--out {out}: expected a name that ends in .npy")
    report = report or out.with_suffix(".csv")
    for path in (out, report):
        io.claim_output(path, overwrite)
    quiet = click.get_current_context().params.get("quiet")
    return merge_runs(run_dirs, out, report, overwrite, visible=not quiet)
