"""`fwi-refine blend`: several predictions made into one."""

import contextlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from fwi_refine.cli import OK, SAMPLES_FAILED, options
from fwi_refine.cli.blend_weights import find_weights, read_table
from fwi_refine.cli.check_inputs import check_both_of, check_maps_of, check_source
from fwi_refine.cli.console import tracked
from fwi_refine.errors import SampleError
from fwi_refine.io.convert import Conversion
from fwi_refine.io.inputs import AUTO

if TYPE_CHECKING:
    import numpy as np

    from fwi_refine.analysis.ensemble import Ensemble
    from fwi_refine.analysis.mosaic import Mosaic
    from fwi_refine.io import MapWriter

    Map = np.ndarray[Any, np.dtype[Any]]  # (nz, nx), m/s
    MosaicMaker = Callable[[int, Sequence[Map]], Mosaic]

log = logging.getLogger(__name__)


@options.command("blend")
@click.argument("preds", metavar="A B ...", nargs=-1, required=True, type=options.PATH)
@click.option(
    "--out",
    type=options.OUTPUT,
    required=True,
    help="Where to write the maps: .npy, or .npz with `velocity` and `ids`. Beside it come .csv, "
    "a row for each sample, and .json, the weights.",
)
@options.dtype
@click.option("--records", type=options.PATH, help="Find the weights by the misfit to these.")
@click.option("--truth", type=options.PATH, help="Find the weights by the error from these maps.")
@click.option("--weights", type=options.PATH, help="Take the weights from a .json of blend.")
@click.option("--median", is_flag=True, help="No weights: the median of each cell.")
@click.option(
    "--mix",
    is_flag=True,
    help="With --records, then make a mosaic of the result and A, B, ..., area by area, where the "
    "misfit falls.",
)
@options.families
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    metavar="N",
    help="Find the weights of a family with N of its samples, drawn at random.  [default: "
    "1000 with --truth, else 16]",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    metavar="N",
    help="Steps of hill climbing; weights are fractions with denominators up to this.",
)
@click.option(
    "--max-simulations",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="Simulations that --mix may spend on each sample.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of the random draw of samples.",
)
@options.survey
@options.ids
@options.conversion()
@options.priors
@options.overwrite
@options.config
@options.logging_options
def command(
    preds: tuple[Path, ...],
    out: Path,
    dtype: str,
    records: Path | None,
    truth: Path | None,
    weights: Path | None,
    median: bool,
    mix: bool,
    families: Path | None,
    samples: int | None,
    rounds: int,
    max_simulations: int,
    seed: int,
    survey_file: Path | None,
    ids_file: Path | None,
    conversion: Conversion,
    force: bool,
    priors_file: Path | None,
    overwrite: bool,
    config: Path | None,
) -> int:
    """Blend several predictions A B ... of the same samples.

    \b
    Examples:
      fwi-refine blend a.npy b.npy --median --out blended.npy
      fwi-refine blend a.npy b.npy --records seismic/ --families auto --mix --out blended.npy

    Each family gets its own weights, found by hill climbing: against the truth, where there are
    labels, else against the records. The blend is never worse than the best of A, B, ... by that
    measure, on the samples that it was found with. Found on a labelled set, weights serve
    another set with --weights.

    A, B, ... have any form that predictions have, and the order of the first is that of the
    output. Without --families all samples are one family.
    """
    _check_usage(preds, records, truth, weights, median, mix, families)
    from fwi_refine import io
    from fwi_refine.analysis.ensemble import Ensemble, family_of_each
    from fwi_refine.cli.options.files import load_priors, load_survey

    io.check_map_name(out, "--out")
    outputs = {"--out": out, "the report": out.with_suffix(".csv")}
    if not median:
        outputs["the table of weights"] = out.with_suffix(".json")
    for what, path in outputs.items():
        options.claim(path, overwrite, what)
    ensemble = Ensemble(preds, ids_file, records, truth, load_survey(survey_file), conversion)
    _check_ensemble(ensemble, force)
    priors = load_priors(priors_file) if str(families) == AUTO else None
    family_of, problems = family_of_each(
        ensemble, families, priors, lambda numbers: tracked(numbers, "maps classified")
    )

    if median:
        table = None
    elif weights:
        table = read_table(weights, len(preds), family_of)
    else:
        samples = samples or (1000 if truth else 16)
        table = find_weights(ensemble, family_of, samples, rounds, seed)
    make = _mosaic_maker(ensemble, max_simulations, dtype) if mix else None
    writer = io.MapWriter(out, ensemble.shape, ensemble.survey.shape, dtype, ensemble.ids)
    failed = _write(ensemble, family_of, problems, table, make, writer, out)
    if table is not None:
        with io.atomic_path(out.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    log.info("%d maps in %s, a row for each in %s",
             ensemble.count - failed, out, out.with_suffix(".csv"))  # fmt: skip
    return SAMPLES_FAILED if failed else OK


def _check_usage(
    preds: Sequence[Path],
    records: Path | None,
    truth: Path | None,
    weights: Path | None,
    median: bool,
    mix: bool,
    families: Path | None,
) -> None:
    """Raises UsageError where the options contradict each other."""

    def refuse(text: str) -> NoReturn:
        raise click.UsageError(text)

    if len(preds) < 2:
        refuse("Found one prediction, expected two or more to blend.")
    if sum((bool(truth), bool(weights), median)) > 1:
        refuse("--truth, --weights and --median exclude one another.")
    if not (truth or weights or median or records):
        refuse("Give --truth or --records to find weights with, or --weights, or --median.")
    if mix and not records:
        refuse("--mix needs --records.")
    if families and str(families) == "auto" and not records:
        refuse("--families auto needs --records: the family is told from both.")


def _check_ensemble(ensemble: "Ensemble", force: bool) -> None:
    """Looks at a few maps of each member, with the records, the truth and each other.

    Raises InputError.
    """
    survey, first = ensemble.survey, ensemble.sources[0]
    for k, (source, indices) in enumerate(ensemble.sources):
        check_source(source, survey, force)
        if k:
            words = (ensemble.names[k], ensemble.names[0])
            check_both_of((source, indices), first, words, survey, force)
    if ensemble.has_records:
        check_maps_of(first[0], ensemble.pairs, ensemble.records, survey, force)
    if ensemble.true_maps is not None:
        check_source(ensemble.true_maps[0], survey, force)
        words = (ensemble.names[0], "the true maps")
        check_both_of(first, ensemble.true_maps, words, survey, force)


def _mosaic_maker(ensemble: "Ensemble", max_simulations: int, dtype: str) -> "MosaicMaker":
    """A function of (index, maps) that makes a mosaic of maps, rounded to the type of the file."""
    import numpy as np

    from fwi_refine.analysis.blend import misfits
    from fwi_refine.analysis.mosaic import make_mosaic

    def make(k: int, maps: "Sequence[Map]") -> "Mosaic":
        record = ensemble.record(k)
        found = make_mosaic(maps, record, ensemble.simulator, max_simulations=max_simulations)
        if dtype == "float32":
            return found
        rounded = found.velocity.astype(dtype).astype(np.float32)
        misfit = float(misfits(ensemble.simulator, [rounded], record)[0])
        return replace(found, velocity=rounded, misfit=misfit)

    return make


COLUMNS = ("id", "family", "status", "start", "misfit_start", "misfit", "cells_replaced", "reason")


def _write(
    ensemble: "Ensemble",
    family_of: Sequence[str | None],
    problems: Mapping[int, str],
    table: dict[str, Any] | None,
    make: "MosaicMaker | None",
    writer: "MapWriter",
    out: Path,
) -> int:
    """Writes the maps and the report; returns how many samples failed."""
    import csv

    from fwi_refine import io

    failed = 0
    with contextlib.ExitStack() as stack:
        stack.callback(writer.discard)
        temporary = stack.enter_context(io.atomic_path(out.with_suffix(".csv")))
        file = stack.enter_context(open(temporary, "w", newline="", encoding="utf-8"))
        rows = csv.DictWriter(file, COLUMNS, restval="")
        rows.writeheader()
        for k in tracked(range(ensemble.count), "maps"):
            row: dict[str, Any] = {
                "id": ensemble.ids[k] if ensemble.ids else "",
                "family": family_of[k],
            }
            try:
                if problems.get(k):
                    raise SampleError(problems[k])
                v, more = _blend_one(ensemble, k, table and table["families"][family_of[k]], make)
                row |= {"status": "blended", **more}
            except SampleError as error:
                failed += 1
                log.error("%s failed: %s", ensemble.describe(k), error)
                v = ensemble.first(k)
                row |= {"status": "failed", "reason": str(error)}
            rows.writerow(row)
            writer.write(k, v)
        file.close()
        writer.publish(out)
    return failed


def _blend_one(
    ensemble: "Ensemble", k: int, entry: dict[str, Any] | None, make: "MosaicMaker | None"
) -> "tuple[Map, dict[str, Any]]":
    """(map, what to report of it)."""
    from fwi_refine.analysis.blend import combine

    maps = ensemble.maps(k)
    v = combine(maps, entry["weights"] if entry else None)
    if make is None:
        return v, {}
    usable = [(name, m) for name, m in zip(ensemble.names, maps, strict=True) if m is not None]
    mosaic = make(k, [v, *(m for _, m in usable)])
    return mosaic.velocity, {
        "start": ["blend", *(name for name, _ in usable)][mosaic.start],
        "misfit_start": f"{mosaic.misfit_start**0.5:.6g}",
        "misfit": f"{mosaic.misfit**0.5:.6g}",
        "cells_replaced": int((mosaic.origin != mosaic.start).sum()),
    }
