"""`fwi-refine refine`: the main job."""

import contextlib
import logging
import os

import click

from fwi_refine.cli import options
from fwi_refine.cli.inputs import load_priors, open_inputs
from fwi_refine.cli.progress import Progress
from fwi_refine.cli.signals import SIGNALS
from fwi_refine.errors import InputError

log = logging.getLogger(__name__)


@click.command("refine")
@options.predictions
@options.records
@click.option(
    "--out",
    type=options.PATH,
    required=True,
    help="Where to write the refined maps: .npy, float32, shape and order of the predictions.",
)
@click.option(
    "--candidate",
    "candidates",
    type=options.PATH,
    multiple=True,
    help="More predictions; each sample starts from the one that fits best. Repeatable.",
)
@click.option(
    "--report", type=options.PATH, help="CSV, a row a sample. Default: --out with .csv as suffix."
)
@click.option(
    "--method",
    type=click.Choice(["auto", "gauss-newton", "lbfgs"]),
    default="auto",
    show_default=True,
    help="auto is gauss-newton; lbfgs is the published recipe.",
)
@click.option(
    "--family",
    type=click.Choice(["auto", *options.FAMILIES]),
    default="auto",
    show_default=True,
    help="Take every sample to be of this family instead of classifying it.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Samples at a time, each in a process of its own of up to 6 GB; 0: one for each core.",
)
@click.option(
    "--max-evaluations",
    type=click.IntRange(min=1),
    help="Misfit evaluations allowed for each sample.",
)
@click.option(
    "--time-budget",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Seconds allowed for each sample.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done and how long; write nothing.")
@options.ids
@options.limit
@options.shard
@options.priors
@options.device
@options.overwrite
@options.config
@options.logging_options
def command(
    predictions, records, out, candidates, report, method, family, jobs, max_evaluations,
    time_budget, dry_run, ids_file, limit, shard, priors_file, device, overwrite, config,
):  # fmt: skip
    """Refine the maps PREDICTIONS by inversion of RECORDS.

    \b
    PREDICTIONS  .npy (N,70,70) or (N,1,70,70); HDF5 with `velocity` and `ids`; a directory of
                 <id>.npy; or a submission .csv
    RECORDS      a directory of <id>.npy (5,1000,70); a directory of shards seis*.npy or data*.npy
                 (n,5,1000,70), with the truth in vel*.npy or model*.npy beside them; one such
                 array; or HDF5 with `records` and `ids`

    The n-th prediction belongs to the n-th record in sorted file order, unless the predictions
    have ids. With --limit or --shard the output holds those samples only.
    """
    from fwi_refine import io

    if out.suffix != ".npy":
        raise InputError(f"--out {out}: expected a name that ends in .npy")
    report = report or out.with_suffix(".csv")
    inputs = open_inputs(predictions, records, ids_file, candidates, limit, shard)
    if not inputs.pairs:
        raise InputError(f"--shard {shard[0]}/{shard[1]}: no samples in this part")
    if not dry_run:
        for path in (out, report):
            io.claim_output(path, overwrite)

    from fwi_refine import batch
    from fwi_refine.results import Results

    cores = _cores()
    jobs = min(jobs or cores, len(inputs.pairs))
    settings = batch.Settings(
        priors=load_priors(priors_file),
        family=family,
        method=method,
        max_evaluations=max_evaluations,
        time_budget=time_budget,
        threads=max(1, cores // jobs),
    )
    kernel = batch.kernel_name(settings)
    log.info("kernel: %s; %d jobs of %d threads", kernel, jobs, settings.threads)
    if dry_run:
        from fwi_refine.cli.plan import print_plan

        return print_plan(inputs, settings, jobs)
    results = Results(
        out,
        report,
        (len(inputs.pairs), *inputs.predictions.shape[1:]),
        settings.survey.shape,
        [pair.id for pair in inputs.pairs],
        overwrite,
    )
    with contextlib.closing(results):
        code = _refine(inputs, settings, jobs, results, progress=not _quiet())
    log.info("%s, report in %s", out, report)
    return code


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        return os.cpu_count() or 1


def _quiet() -> bool:
    return bool(click.get_current_context().params.get("quiet"))


def _refine(inputs, settings, jobs, results, progress) -> int:
    """Runs the samples and publishes their results; returns the exit code."""
    from fwi_refine import batch, io

    place = {pair.index: k for k, pair in enumerate(inputs.pairs)}
    with contextlib.closing(Progress(len(inputs.pairs), progress)) as bar:
        try:
            for k, pair in enumerate(inputs.pairs):
                results.start(k, io.read_start(inputs.predictions, pair.index, settings.survey))
            for outcome in batch.run(inputs.samples(), settings, jobs):
                with SIGNALS.shielded():
                    results.add(place[outcome.index], outcome.velocity, outcome.row)
                    bar.add(outcome.row)
            with SIGNALS.shielded(final=True):
                results.publish()
        except BaseException:
            _keep_partial(results)
            raise
    return bar.summary()


def _keep_partial(results):
    with SIGNALS.shielded(final=True):
        try:
            kept = results.keep_partial()
        except OSError as error:
            log.error("what was finished could not be kept: %s", error)
            return
    if kept is None:
        log.error("no sample was finished; nothing was written")
    else:
        log.error("finished samples are kept in %s, their report in %s", *kept)
