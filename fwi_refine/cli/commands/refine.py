"""`fwi-refine refine`: the main job."""

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fwi_refine.cli import options
from fwi_refine.cli.check_inputs import check_inputs
from fwi_refine.cli.options import opened
from fwi_refine.cli.options import refine as refine_options
from fwi_refine.cli.options import resources as resource_options
from fwi_refine.cli.options.files import need_some
from fwi_refine.cli.options.outputs import Outputs, output_options
from fwi_refine.cli.pictures import check_folder, drawing
from fwi_refine.cli.plan import print_plan
from fwi_refine.cli.progress import RunProgress
from fwi_refine.cli.run_directory import RunJob, hidden_directory, merge_runs, missing_samples
from fwi_refine.cli.signals import SIGNALS
from fwi_refine.errors import InputError
from fwi_refine.io.convert import Conversion

if TYPE_CHECKING:
    from fwi_refine.io.results import Results
    from fwi_refine.runs.directory.parts import Part
    from fwi_refine.runs.executors import Executor
    from fwi_refine.runs.settings import Settings

log = logging.getLogger(__name__)


@options.command("refine")
@options.predictions
@options.records
@output_options(required=False)
@refine_options.choice
@options.conversion()
@refine_options.recipe
@resource_options.resources
@refine_options.kept
@options.under(
    "Results",
    click.option(
        "--history",
        type=options.OUTPUT,
        help="Also write how the misfit of each sample fell: CSV, which plot convergence draws. "
        "Needs --out.",
    ),
)
@options.under(
    "Results",
    click.option(
        "--pictures",
        type=options.OUTPUT,
        metavar="DIR",
        help="Also draw each sample as soon as it is finished: DIR/<id>.png. Needs the extra "
        "[plot].",
    ),
)
@options.dtype
@options.under(
    "Results",
    click.option(
        "--dry-run", is_flag=True, help="Say what would be done and how long; write nothing."
    ),
)
@options.config
@options.logging_options
def command(
    predictions: Path,
    records: Path,
    outputs: Outputs,
    choice: refine_options.SampleOptions,
    conversion: Conversion,
    force: bool,
    recipe: refine_options.RecipeOptions,
    resources: resource_options.Resources,
    kept: refine_options.Kept,
    history: Path | None,
    pictures: Path | None,
    dtype: str,
    dry_run: bool,
    config: Path | None,
) -> int:
    """Refine the velocity maps PREDICTIONS until they explain RECORDS.

    \b
    Examples:
      fwi-refine predictions.npy seismic/ --out refined.npy
      fwi-refine predictions.npy seismic/ --dry-run

    Each sample is a predicted map and the seismic record that it was predicted from. Waves are
    simulated through the map, and the map is changed until the simulated record matches the
    measured one. Beside the maps stands a report, refined.csv, with a row for each sample.

    \b
    PREDICTIONS  maps in m/s, rows = depth: .npy (N,70,70) or (N,1,70,70); HDF5 or .npz with
                 `velocity` and `ids`; a directory of <id>.npy; or a submission .csv
    RECORDS      (shots, time steps, receivers): a directory of <id>.npy (5,1000,70); a directory
                 of shards seis*.npy or data*.npy (n,5,1000,70), with the truth in vel*.npy or
                 model*.npy beside them; the folder above such of several families; one such
                 array; or HDF5 or .npz with `records` and `ids`

    The n-th prediction belongs to the n-th record in sorted file order, unless the predictions
    have ids. With --limit or --shard the output holds those samples only; with --run-dir, --limit
    is that of the whole run, and --shard takes its part of that. The shapes are those of OpenFWI;
    with --survey they are as that file says.
    """
    check(outputs, kept, choice.shard, history, dry_run)
    survey = recipe.survey()
    inputs = choice.open(
        predictions,
        records,
        survey,
        absolute=bool(kept.run_dir or resources.dask),
        shard=None if kept.run_dir else choice.shard,
        conversion=conversion,
    )
    need_some(inputs.pairs, choice.shard, "samples")
    if outputs.out is not None or not dry_run:
        outputs.claim(history)
    check_inputs(inputs, survey, force, recipe.source)
    hidden = kept.run_dir is None
    folder = kept.run_dir or (outputs.out and hidden_directory(outputs.out))
    shard = None if hidden else choice.shard
    # those of an earlier process leave cores to the rest, and so do other shards
    missing = missing_samples(folder, len(inputs.pairs), kept.chunk_size, shard)
    left = max(1, len(missing))
    resources = resources.for_samples(left)
    deviation = kept.keep_deviation or bool(outputs.deviation)
    settings = replace(recipe.settings(resources, deviation, survey), dtype=dtype)
    check_settings(settings, outputs, resources)
    if pictures:
        opened.load("plots")
        check_folder(pictures)
    if dry_run:
        resources.check()
    assert resources.jobs is not None  # see `Resources.for_samples`
    if folder is None:  # see `check`
        return print_plan(inputs, settings, resources.jobs)
    task_size = resources.chunk_size(left)
    job = RunJob(folder, inputs, settings, kept.chunk_size, shard, task_size, hidden)
    if dry_run:
        return plan(job, outputs, resources.jobs)
    draw = picture_maker(pictures, job, outputs)
    if hidden:
        return refine(job, resources, outputs, history, draw)
    with resources.executor() as executor:
        bar = job.refine(executor, draw)
    return merge_runs([folder], outputs, history) if outputs.out else bar.summary()


def check(
    outputs: Outputs,
    kept: refine_options.Kept,
    shard: tuple[int, int] | None,
    history: Path | None,
    dry_run: bool,
) -> None:
    """Raises UsageError or InputError where the options contradict each other."""
    out, run_dir = outputs.out, kept.run_dir
    if out is None and run_dir is None and not dry_run:
        raise click.UsageError("Missing option '--out' (or '--run-dir').")
    if kept.keep_deviation and run_dir is None:
        raise InputError("--keep-deviation: needs --run-dir; without one, see --deviation")
    if history is not None and out is None:
        raise InputError(f"--history {history}: needs --out")
    if out is not None and run_dir is not None and shard is not None:
        raise InputError(
            f"--out {out}: one shard is not the whole run; leave it out, and when all shards are "
            f"done: fwi-refine merge {run_dir} --out {out}"
        )


def check_settings(
    settings: "Settings", outputs: Outputs, resources: resource_options.Resources
) -> None:
    """Raises an error where the posterior's maps may not be written or memory does not suffice;
    logs where and how the samples are refined."""
    from fwi_refine.io.outputs import samples_path
    from fwi_refine.runs.settings import check_memory, kernel_name

    if settings.samples and outputs.out is not None:
        options.claim(samples_path(outputs.out), outputs.overwrite)
    log.info("kernel: %s; %s", kernel_name(settings), resources)
    check_memory(settings)


def plan(job: RunJob, outputs: Outputs, jobs: int) -> int:
    """Prints what a run would do, and writes nothing. Returns the exit code."""
    if not job.hidden:
        return job.plan(jobs)
    job.make_room(outputs.overwrite, dry=True)
    return print_plan(job.inputs, job.settings, jobs)


def picture_maker(
    pictures: Path | None, job: RunJob, outputs: Outputs
) -> "Callable[[Sequence[int], Part], None]":
    """A function that is told indices and results, and draws them where pictures are asked for."""
    if pictures is None:
        return no_drawing
    goes_on = (job.path / "run.toml").exists()
    return drawing(pictures, job.inputs, goes_on, outputs.overwrite)


def no_drawing(indices: Sequence[int], part: "Part") -> None:
    """Draws nothing."""


def refine(
    job: RunJob,
    resources: resource_options.Resources,
    outputs: Outputs,
    history: Path | None = None,
    draw: "Callable[[Sequence[int], Part], None]" = no_drawing,
) -> int:
    """Refines the samples without a run directory of the user's.

    Finished samples are kept in a hidden one beside the output, from which the same command goes
    on, until that is written.

    Parameters
    ----------
    job : RunJob
        The samples, and the hidden directory.
    resources : Resources
        Where they are refined.
    outputs : Outputs
        What is written; the maps are asked for.
    history : Path, optional
        Where the course of the misfits is written.
    draw : callable
        Told indices and results as they are finished.

    Returns
    -------
    int
        The exit code.
    """
    from fwi_refine.io.results import Results

    assert outputs.out is not None  # see `check`
    assert outputs.report is not None

    inputs, settings = job.inputs, job.settings
    job.make_room(outputs.overwrite)
    results = Results(
        outputs.out,
        outputs.report,
        (len(inputs.pairs), *inputs.predictions.shape[1:]),
        settings.survey.shape,
        [pair.id for pair in inputs.pairs],
        outputs.overwrite,
        outputs.deviation,
        history,
        settings.samples,
        settings.dtype,
    )
    with contextlib.closing(results), resources.executor() as executor:
        bar = _fill(results, job, executor, draw)
    job.remove()
    code = bar.summary()
    log.info("%s, report in %s", outputs.out, outputs.report)
    return code


def _fill(
    results: "Results",
    job: RunJob,
    executor: "Executor",
    draw: "Callable[[Sequence[int], Part], None]",
) -> RunProgress:
    """Runs the samples and publishes their results."""
    from fwi_refine import io

    def store(indices: Sequence[int], part: "Part") -> None:
        for k, (index, row) in enumerate(zip(indices, part.rows, strict=True)):
            error, drawn = part.one("deviation", k), part.one("samples", k)
            results.add(index, part.one("velocity", k), row, error, part.history(k), drawn)
        draw(indices, part)

    inputs = job.inputs
    try:
        for k, pair in enumerate(inputs.pairs):
            results.start(k, io.read_start(inputs.predictions, pair.index, job.settings.survey))
        bar = job.refine(executor, store)
        with SIGNALS.shielded(final=True):
            results.publish()
    except BaseException:
        _keep_partial(results)
        raise
    return bar


def _keep_partial(results: "Results") -> None:
    """Keeps what there is of results under names that say so."""
    with SIGNALS.shielded(final=True):
        try:
            kept = results.keep_partial()
        except OSError as error:
            log.error("the finished maps could not be written beside the output: %s", error)
            return
    if kept is None:
        log.error("no sample was finished; nothing was written")
    else:
        log.error("the maps so far are in %s, their report in %s", *kept)
