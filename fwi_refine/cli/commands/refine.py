"""`fwi-refine refine`: the main job."""

import contextlib
import logging

import click

from fwi_refine.cli import options
from fwi_refine.cli.look import look_at_inputs
from fwi_refine.cli.options import refine as refine_options
from fwi_refine.cli.options.files import need_some
from fwi_refine.cli.options.outputs import output_options
from fwi_refine.cli.progress import Progress, is_wanted
from fwi_refine.cli.run_directory import RunJob, merge_runs
from fwi_refine.cli.signals import SIGNALS
from fwi_refine.errors import InputError

log = logging.getLogger(__name__)


@options.command("refine")
@options.predictions
@options.records
@output_options(required=False)
@refine_options.choice
@options.conversion()
@refine_options.recipe
@refine_options.place
@refine_options.kept
@options.under(
    "Results",
    click.option(
        "--history",
        type=options.PATH,
        help="Also write how the misfit of each sample fell: CSV, which plot convergence draws. "
        "Not with --run-dir.",
    ),
)
@options.under(
    "Results",
    click.option(
        "--dry-run", is_flag=True, help="Say what would be done and how long; write nothing."
    ),
)
@options.config
@options.logging_options
def command(
    predictions, records, outputs, choice, conversion, force, recipe, place, kept, history,
    dry_run, config,
):  # fmt: skip
    """Refine the velocity maps PREDICTIONS until they explain RECORDS.

    \b
    Examples:
      fwi-refine predictions.npy seismic/ --out refined.npy
      fwi-refine predictions.npy seismic/ --dry-run

    Each sample is a predicted map and the seismic record that it was predicted from. Waves are
    simulated through the map, and the map is changed until the simulated record matches the
    measured one. Beside the maps stands a report, refined.csv, with a row for each sample.

    \b
    PREDICTIONS  maps in m/s, rows = depth: .npy (N,70,70) or (N,1,70,70); HDF5 with `velocity`
                 and `ids`; a directory of <id>.npy; or a submission .csv
    RECORDS      (shots, time steps, receivers): a directory of <id>.npy (5,1000,70); a directory
                 of shards seis*.npy or data*.npy (n,5,1000,70), with the truth in vel*.npy or
                 model*.npy beside them; one such array; or HDF5 with `records` and `ids`

    The n-th prediction belongs to the n-th record in sorted file order, unless the predictions
    have ids. With --limit or --shard the output holds those samples only; with --run-dir, --limit
    is that of the whole run, and --shard gets its share of that. The shapes are those of OpenFWI;
    with --survey they are as that file says.
    """
    check(outputs, kept, choice.shard, history, dry_run)
    survey = recipe.survey()
    inputs = choice.open(
        predictions,
        records,
        survey,
        absolute=bool(kept.run_dir or place.dask),
        shard=None if kept.run_dir else choice.shard,
        conversion=conversion,
    )
    need_some(inputs.pairs, choice.shard, "samples")
    from fwi_refine.runs import batch

    if outputs.out is not None or not dry_run:
        outputs.claim((predictions, records, *choice.candidates, choice.ids_file), history)

    look_at_inputs(inputs, survey, force)
    place = place.for_samples(len(inputs.pairs))
    settings = recipe.settings(place, kept.keep_deviation or bool(outputs.deviation), survey)
    log.info("kernel: %s; %s", batch.kernel_name(settings), place)
    batch.check_memory(settings)
    if kept.run_dir:
        job = RunJob(kept.run_dir, inputs, settings, kept.chunk_size, choice.shard)
        if dry_run:
            return job.plan(place.jobs)
        with place.executor() as executor:
            bar = job.refine(executor)
        return merge_runs([kept.run_dir], outputs) if outputs.out else bar.summary()
    if dry_run:
        from fwi_refine.cli.plan import print_plan

        return print_plan(inputs, settings, place.jobs)
    return refine(inputs, settings, place, outputs, history)


def check(outputs, kept, shard, history, dry_run):
    """Raises UsageError or InputError where the options contradict each other."""
    out, run_dir = outputs.out, kept.run_dir
    if out is None and run_dir is None and not dry_run:
        raise click.UsageError("Missing option '--out' (or '--run-dir').")
    if kept.keep_deviation and run_dir is None:
        raise InputError("--keep-deviation: needs --run-dir; without one, see --deviation")
    if history is not None and run_dir is not None:
        raise InputError(f"--history {history}: not with --run-dir")
    if out is not None and run_dir is not None and shard is not None:
        raise InputError(
            f"--out {out}: one shard is not the whole run; leave it out, and when all shards are "
            f"done: fwi-refine merge {run_dir} --out {out}"
        )


def refine(inputs, settings, place, outputs, history=None) -> int:
    """Refines the samples without a run directory; returns the exit code."""
    from fwi_refine.io.results import Results

    results = Results(
        outputs.out,
        outputs.report,
        (len(inputs.pairs), *inputs.predictions.shape[1:]),
        settings.survey.shape,
        [pair.id for pair in inputs.pairs],
        outputs.overwrite,
        outputs.deviation,
        history,
    )
    with contextlib.closing(results), place.executor() as executor:
        size = place.chunk_size(len(inputs.pairs))
        code = _fill(results, inputs, settings, size, executor)
    log.info("%s, report in %s", outputs.out, outputs.report)
    return code


def _fill(results, inputs, settings, size, executor) -> int:
    """Runs the samples, `size` to a task, and publishes their results; returns the exit code."""
    from fwi_refine import io
    from fwi_refine.runs import batch

    place = {pair.index: k for k, pair in enumerate(inputs.pairs)}
    with contextlib.closing(Progress(len(inputs.pairs), is_wanted())) as bar:
        try:
            for k, pair in enumerate(inputs.pairs):
                results.start(k, io.read_start(inputs.predictions, pair.index, settings.survey))
            chunks = inputs.chunks(range(-(-len(inputs.pairs) // size)), size)
            for _, outcomes in batch.run(chunks, settings, executor):
                with SIGNALS.shielded():
                    for outcome in outcomes:
                        results.add(
                            place[outcome.index],
                            outcome.velocity,
                            outcome.row,
                            outcome.deviation,
                            outcome.history,
                        )
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
