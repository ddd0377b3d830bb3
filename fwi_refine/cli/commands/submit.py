"""`fwi-refine submit`: maps as the competition's CSV."""

import logging
from pathlib import Path

import click

from fwi_refine.cli import OK, options
from fwi_refine.cli.check_inputs import check_source
from fwi_refine.cli.console import bar
from fwi_refine.errors import InputError
from fwi_refine.io.convert import Conversion
from fwi_refine.io.inputs import open_converted_predictions
from fwi_refine.survey import OPENFWI

log = logging.getLogger(__name__)


@options.command("submit")
@click.argument("pred", type=options.PATH)
@click.option("--out", type=options.OUTPUT, required=True, help="CSV to write.")
@click.option(
    "--like", type=options.PATH, help="Sample submission; its lines give the ids and their order."
)
@click.option(
    "--decimals",
    type=click.IntRange(0, 6),
    metavar="N",
    help="Round velocities to N decimals, for a smaller file. Default: as exact as float32 is.",
)
@options.ids
@options.conversion(records=False)
@options.overwrite
@options.config
@options.logging_options
def command(
    pred: Path,
    out: Path,
    like: Path | None,
    decimals: int | None,
    ids_file: Path | None,
    conversion: Conversion,
    force: bool,
    overwrite: bool,
    config: Path | None,
) -> int:
    """Write the maps PRED as a submission to the competition.

    \b
    Example:
      fwi-refine submit refined.npy --ids refined.csv --like sample_submission.csv --out my.csv

    The lines are oid_ypos,x_1,x_3,...,x_69, in m/s. The maps need ids: their own, or those of
    --ids (the report of `refine` will do). Nothing is written if an id is missing or a map is not
    finite. The file is read back and compared with the maps before it gets its name.
    """
    from fwi_refine import io
    from fwi_refine.io.submission import write_submission

    maps = open_converted_predictions(pred, conversion=conversion)
    ids = io.resolve_ids(maps.ids, io.read_ids(ids_file) if ids_file else None, maps.count, pred)
    if ids is None:
        raise InputError(f"{pred}: the maps have no ids; give them with --ids")
    if out.suffix.lower() != ".csv":
        raise InputError(f"--out {out}: expected a name that ends in .csv")
    options.claim(out, overwrite, "--out")
    check_source(maps, OPENFWI, force)
    with bar(2 * maps.count, "maps, written and read back") as advance:
        written = write_submission(
            maps, ids, out, like=like, decimals=decimals, advance=lambda: advance(1)
        )
    if written < maps.count:
        log.warning("%d of %d maps are not in %s and were left out",
                    maps.count - written, maps.count, like)  # fmt: skip
    log.info("%d maps in %s", written, out)
    return OK
