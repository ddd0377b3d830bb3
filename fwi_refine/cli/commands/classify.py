"""`fwi-refine classify`: the routing alone."""

import csv
import logging
import sys
from collections import Counter
from pathlib import Path

import click

from fwi_refine.cli import OK, SAMPLES_FAILED, options
from fwi_refine.cli.check_inputs import check_inputs
from fwi_refine.cli.options.files import load_priors
from fwi_refine.errors import SampleError
from fwi_refine.io.convert import Conversion
from fwi_refine.io.inputs import open_inputs

log = logging.getLogger(__name__)


@options.command("classify")
@options.predictions
@options.records
@click.option(
    "--truth",
    type=options.PATH,
    help="CSV with the columns id and family: print how often each family went which way.",
)
@options.ids
@options.limit
@options.shard
@options.conversion()
@options.priors
@options.config
@options.logging_options
def command(
    predictions: Path,
    records: Path,
    truth: Path | None,
    ids_file: Path | None,
    limit: int | None,
    shard: tuple[int, int] | None,
    conversion: Conversion,
    force: bool,
    priors_file: Path | None,
    config: Path | None,
) -> int:
    """Say as which family each sample is refined, and why.

    \b
    Example:
      fwi-refine classify predictions.npy seismic/ > families.csv

    The table on stdout is CSV: id, family, confidence, evidence. It is what other commands take
    as --families. PREDICTIONS and RECORDS have the forms that `refine` takes. The confidence is 0
    where a measured number stands on its threshold and nears 1 far from it; it is no probability.
    """
    from fwi_refine import io

    families = io.read_families(truth) if truth else None
    inputs = open_inputs(
        predictions, records, ids_file, limit=limit, shard=shard, conversion=conversion
    )
    check_inputs(inputs, inputs.survey, force)
    from fwi_refine.inversion.routes import classify
    from fwi_refine.io.report import describe_evidence

    priors = load_priors(priors_file)
    writer = csv.writer(sys.stdout)
    writer.writerow(["id", "family", "confidence", "evidence"])
    failed = 0
    confusion: Counter[tuple[str, str]] = Counter()
    for sample in inputs.samples():
        try:
            if sample.problem is not None:
                raise SampleError(sample.problem)
            assert sample.record is not None  # a sample without a record has a problem
            found = classify(sample.starts[0][1], sample.record, priors)
        except SampleError as error:
            failed += 1
            log.error("%s failed: %s", sample.id, error)
            writer.writerow([sample.id, "", "", str(error)])
            continue
        evidence = describe_evidence(found.reason, found.evidence)
        writer.writerow([sample.id, found.family, f"{found.confidence:.4f}", evidence])
        if families is not None:
            confusion[families.get(sample.id, "unknown"), str(found.family)] += 1
    if families is not None:
        print_confusion(confusion)
    return SAMPLES_FAILED if failed else OK


def print_confusion(confusion: Counter[tuple[str, str]]) -> None:
    """A row for each true family, a column for each route, on stderr.

    A true family is one of OpenFWI's ten, FlatVel_A or flatvel-a, or the name of a route.
    """
    from fwi_refine.inversion.families import inferred
    from fwi_refine.routing import route_of

    routes = inferred()
    rows = sorted({truth for truth, _ in confusion})
    width = max(len("family"), *map(len, rows)) if rows else 0
    click.echo("  ".join([f"{'family':{width}}", *routes]), err=True)
    for truth in rows:
        cells = [f"{confusion[truth, name]:>{len(name)}}" for name in routes]
        click.echo("  ".join([f"{truth:{width}}", *cells]), err=True)
    known = {key: n for key, n in confusion.items() if route_of(key[0]) or key[0] in routes}
    if known:
        right = sum(n for (truth, found), n in known.items() if (route_of(truth) or truth) == found)
        total = sum(known.values())
        click.echo(f"{right} of {total} as expected ({right / total:.1%})", err=True)
