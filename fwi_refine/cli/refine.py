"""`fwi-refine refine`: the main job."""

import contextlib
import logging
import os

import click

from fwi_refine.cli import options
from fwi_refine.cli.inputs import load_priors, open_inputs
from fwi_refine.cli.progress import Progress
from fwi_refine.cli.run_directory import RunJob, merge_runs
from fwi_refine.cli.signals import SIGNALS
from fwi_refine.errors import InputError

log = logging.getLogger(__name__)


@click.command("refine")
@options.predictions
@options.records
@click.option(
    "--out",
    type=options.PATH,
    help="Where to write the refined maps: .npy, float32, shape and order of the predictions. "
    "Needed without --run-dir.",
)
@click.option(
    "--run-dir",
    type=options.PATH,
    help="Keep finished parts in this directory. The same command continues a run that was "
    "stopped; with --shard, several machines share one.",
)
@click.option(
    "--chunk-size",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Samples of a part of --run-dir.",
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
    "--deviation",
    type=options.PATH,
    help="Also write the expected rms error of each cell, in m/s: .npy like --out, NaN where it "
    "is not known. Not with --run-dir.",
)
@click.option(
    "--history",
    type=options.PATH,
    help="Also write how the misfit of each sample fell: CSV, which plot convergence draws. Not "
    "with --run-dir.",
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
    "--threads",
    type=click.IntRange(min=1),
    help="Threads of each job. Default: the cores divided by --jobs; with --dask, 1.",
)
@click.option(
    "--dask",
    metavar="ADDRESS",
    help="Use the workers of the Dask scheduler at ADDRESS, such as tcp://host:8786.",
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
    predictions, records, out, run_dir, chunk_size, candidates, report, deviation, history,
    method, family, jobs, threads, dask, max_evaluations, time_budget, dry_run, ids_file, limit,
    shard, priors_file, device, overwrite, config,
):  # fmt: skip
    """Refine the maps PREDICTIONS by inversion of RECORDS.

    \b
    PREDICTIONS  .npy (N,70,70) or (N,1,70,70); HDF5 with `velocity` and `ids`; a directory of
                 <id>.npy; or a submission .csv
    RECORDS      a directory of <id>.npy (5,1000,70); a directory of shards seis*.npy or data*.npy
                 (n,5,1000,70), with the truth in vel*.npy or model*.npy beside them; one such
                 array; or HDF5 with `records` and `ids`

    The n-th prediction belongs to the n-th record in sorted file order, unless the predictions
    have ids. With --limit or --shard the output holds those samples only; with --run-dir, --limit
    is that of the whole run, and --shard gets its share of that.
    """
    from fwi_refine import io

    report = check_outputs(out, report, run_dir, shard)
    if deviation is not None and (run_dir is not None or deviation.suffix != ".npy"):
        raise InputError(
            f"--deviation {deviation}: expected a name that ends in .npy, and no --run-dir"
        )
    if history is not None and run_dir is not None:
        raise InputError(f"--history {history}: not with --run-dir")
    if run_dir or dask:  # other processes, and later ones, find them from another folder
        predictions, records = predictions.absolute(), records.absolute()
        candidates = [path.absolute() for path in candidates]
    part = None if run_dir else shard
    inputs = open_inputs(predictions, records, ids_file, candidates, limit, part)
    if not inputs.pairs:
        raise InputError(f"--shard {shard[0]}/{shard[1]}: no samples in this part")
    if out and not dry_run:
        for path in filter(None, (out, report, deviation, history)):
            io.claim_output(path, overwrite)

    from fwi_refine import batch
    from fwi_refine.results import Results

    jobs = min(jobs or _cores(), len(inputs.pairs))
    settings = batch.Settings(
        priors=load_priors(priors_file),
        family=family,
        method=method,
        max_evaluations=max_evaluations,
        time_budget=time_budget,
        threads=threads or (1 if dask else max(1, _cores() // jobs)),
    )
    where = f"workers of {dask}" if dask else f"{jobs} jobs"
    log.info("kernel: %s; %s, %d threads each", batch.kernel_name(settings), where,
             settings.threads)  # fmt: skip
    visible = not _quiet()
    if run_dir:
        job = RunJob(run_dir, inputs, settings, chunk_size, shard)
        if dry_run:
            return job.plan(jobs)
        with opened_executor(jobs, settings.threads, dask) as executor:
            bar = job.refine(executor, visible)
        return merge_runs([run_dir], out, report, overwrite, visible) if out else bar.summary()
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
        deviation,
        history,
    )
    with (
        contextlib.closing(results),
        opened_executor(jobs, settings.threads, dask) as executor,
    ):
        code = _refine(inputs, settings, executor, results, progress=visible)
    log.info("%s, report in %s", out, report)
    return code


def check_outputs(out, report, run_dir, shard):
    """The name of the report. Raises InputError where the options do not go together."""
    if out is None and run_dir is None:
        raise click.UsageError("Missing option '--out' (or '--run-dir').")
    if out is not None and out.suffix != ".npy":
        raise InputError(f"--out {out}: expected a name that ends in .npy")
    if out is None and report is not None:
        raise InputError(
            f"--report {report}: needs --out; with --run-dir see also the merge command"
        )
    if out is not None and run_dir is not None and shard is not None:
        raise InputError(
            f"--out {out}: one shard is not the whole run; leave it out, and when all shards are "
            f"done: fwi-refine merge {run_dir} --out {out}"
        )
    return report or (out and out.with_suffix(".csv"))


@contextlib.contextmanager
def opened_executor(jobs, threads, dask):
    """What the samples are refined on; see executors.py."""
    from fwi_refine import executors

    if dask:
        with contextlib.closing(executors.Dask(dask)) as executor:
            yield executor
    else:
        yield executors.Processes(jobs, threads) if jobs > 1 else executors.Serial()


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        return os.cpu_count() or 1


def _quiet() -> bool:
    return bool(click.get_current_context().params.get("quiet"))


def _refine(inputs, settings, executor, results, progress) -> int:
    """Runs the samples and publishes their results; returns the exit code."""
    from fwi_refine import batch, io

    place = {pair.index: k for k, pair in enumerate(inputs.pairs)}
    with contextlib.closing(Progress(len(inputs.pairs), progress)) as bar:
        try:
            for k, pair in enumerate(inputs.pairs):
                results.start(k, io.read_start(inputs.predictions, pair.index, settings.survey))
            chunks = inputs.chunks(range(len(inputs.pairs)), 1)
            for _, (outcome,) in batch.run(chunks, settings, executor):
                with SIGNALS.shielded():
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
