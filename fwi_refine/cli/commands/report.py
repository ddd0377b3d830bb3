"""`fwi-refine report`: the page of a run."""

import logging
from pathlib import Path

import click

from fwi_refine.cli import OK, options
from fwi_refine.cli.options import opened
from fwi_refine.errors import InputError

log = logging.getLogger(__name__)


@options.command("report")
@opened.run_options
@click.option("--out", type=options.OUTPUT, required=True, help="Page to write: .html.")
@click.option("--history", type=options.PATH, help="Show it too; as refine --history writes it.")
@click.option(
    "--worst", type=click.IntRange(min=0), default=12, show_default=True, metavar="N",
    help="The N worst samples get a picture.",
)  # fmt: skip
@opened.sort_option
@options.overwrite
@options.config
@options.logging_options
def command(
    given: opened.Given,
    out: Path,
    history: Path | None,
    worst: int,
    sort: str | None,
    overwrite: bool,
    config: Path | None,
) -> int:
    """Make a page of a run: one HTML file, which needs no network.

    \b
    Examples:
      fwi-refine report run --out run.html
      fwi-refine report refined.npy --start predictions.npy --records seismic --out run.html

    Needs the extra [plot]: pip install "fwi-refine[plot]".

    A table by family, misfits before and after, failed samples and why, a table of the samples that
    a click sorts, the worst samples with pictures that a click enlarges, settings. RUN is a run
    directory, finished or not, or the maps that refine wrote with their report beside them.
    """
    page = opened.load("page")
    from fwi_refine import io
    from fwi_refine.io.history import read_history

    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {out}: expected a name that ends in .html")
    options.claim(out, overwrite, "--out")
    run = opened.open_run(given)
    if not any(row.status for row in run.rows):
        raise InputError(f"{run.path}: has no report beside it; give it with --report")
    steps = history and read_history(history)
    text = page.render(run, opened.sort_of(run, sort), worst, steps)
    with io.atomic_path(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    log.info("%d samples in %s", len(run), out)
    return OK
