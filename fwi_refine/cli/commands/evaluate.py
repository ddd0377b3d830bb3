"""`fwi-refine evaluate`: how far maps are from the truth."""

import csv
import functools
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fwi_refine.cli import OK, SAMPLES_FAILED, options
from fwi_refine.cli.check_inputs import check_both_of, check_maps_of, check_source
from fwi_refine.cli.options.files import load_priors, load_survey
from fwi_refine.errors import InputError, SampleError
from fwi_refine.io.convert import Conversion
from fwi_refine.io.inputs import (
    AUTO,
    known_families,
    open_converted_predictions,
    open_true_maps,
)
from fwi_refine.io.predictions import Predictions
from fwi_refine.survey import Survey

if TYPE_CHECKING:
    import numpy as np

    from fwi_refine.analysis.evaluation import MapRecords

    Map = np.ndarray[Any, np.dtype[np.float64]]  # (nz, nx), m/s

log = logging.getLogger(__name__)


@options.command("evaluate")
@click.argument("pred", type=options.PATH)
@click.argument("truth", type=options.PATH)
@options.families
@click.option(
    "--records", type=options.PATH, help="Measure the misfit of PRED against these records too."
)
@click.option(
    "--by",
    type=click.Choice(["family", "depth", "sample"]),
    default="family",
    show_default=True,
    help="What a row of the table is: a family, a row of the maps of a family, or a sample.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of CSV.")
@options.survey
@options.ids
@options.limit
@options.conversion()
@options.priors
@options.config
@options.logging_options
def command(
    pred: Path,
    truth: Path,
    families: Path | None,
    records: Path | None,
    by: str,
    as_json: bool,
    survey_file: Path | None,
    ids_file: Path | None,
    limit: int | None,
    conversion: Conversion,
    force: bool,
    priors_file: Path | None,
    config: Path | None,
) -> int:
    """Measure the error of the maps PRED against the maps TRUTH.

    \b
    Examples:
      fwi-refine evaluate refined.npy truth.npy
      fwi-refine evaluate refined.npy truth.npy --families families.csv --by depth

    Prints a table, CSV, on stdout. Both are in m/s, in any form that the predictions of `refine`
    have. Maps are matched by id where both have ids; --ids gives those of PRED, or of TRUTH where
    PRED has its own, as a submission has.

    \b
    Over all samples and by family:
      mae, rmse    over all cells, m/s; OpenFWI's papers have them divided by 1500
      score        mae over the odd columns, m/s: what a leaderboard measures of a submission
      ssim         as OpenFWI has it
      misfit_rms   with --records: simulated minus given records, in their units
      exact        with --records: fraction of maps that make their record to the last bit
    --by depth: mae, rmse and bias (positive where PRED is too fast) of each row, m/s.
    """
    from fwi_refine import io
    from fwi_refine.analysis.evaluation import TABLES, ComparedMap, MapRecords, match

    survey = load_survey(survey_file)
    maps = open_converted_predictions(pred, survey, conversion)
    true_maps = open_true_maps(truth, survey, conversion)
    names, indices = match(maps, true_maps, io.read_ids(ids_file) if ids_file else None)
    check_source(maps, survey, force)
    check_source(true_maps, survey, force)
    words = ("the maps", "the true maps")
    check_both_of((maps, range(maps.count)), (true_maps, indices), words, survey, force)
    order = getattr(maps, "order", None)
    seen = MapRecords(records, names, maps.count, survey, conversion, order) if records else None
    if seen:
        check_maps_of(maps, seen.pairs, seen.records, survey, force)
    family_of = _families(families, names, maps, seen, priors_file)

    table = TABLES[by](survey)
    failed = 0
    for k, index in enumerate(indices[:limit]):
        name = names[k] if names else f"number {k + 1}"
        try:
            v, true = _read(maps, k, survey), _read(true_maps, index, survey)
            compare = functools.partial(seen.compare, k) if seen else None
            table.add(ComparedMap(name, family_of(k, v), v, true, compare))
        except SampleError as error:
            failed += 1
            log.error("%s failed: %s", name, error)
    _print(table.rows(), as_json)
    return SAMPLES_FAILED if failed else OK


def _print(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """The table on stdout."""
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif rows:
        writer = csv.DictWriter(sys.stdout, rows[0].keys())
        writer.writeheader()
        writer.writerows(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
        )


def _families(
    path: Path | None,
    names: Sequence[str] | None,
    maps: Predictions,
    seen: "MapRecords | None",
    priors_file: Path | None,
) -> "Callable[[int, Map], str | None]":
    """A function of (index, map) that gives the family, None where it is not asked for."""
    if path is None:
        return lambda k, v: None
    if str(path) != AUTO:
        known = known_families(path, names, maps.count)
        return lambda k, v: known[k]
    if seen is None:
        raise InputError(f"--families {AUTO}: needs --records, the family is told from both")
    from fwi_refine.inversion.routes import classify
    from fwi_refine.routing import NO_FAMILY, can_classify

    if not can_classify(seen.survey):
        raise InputError(f"--families {AUTO}: {NO_FAMILY}")
    priors = load_priors(priors_file)
    return lambda k, v: str(classify(v, seen.read(k), priors, seen.survey).family)


def _read(maps: Predictions, k: int, survey: Survey) -> "Map":
    """Map k, checked. Raises SampleError."""
    from fwi_refine.survey.validate import check_prediction

    return check_prediction(maps.read(k), survey=survey, where=maps.where(k))
