"""Options of the commands that look at a run, and how they open it."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fwi_refine.cli import options
from fwi_refine.cli.check_inputs import check_source
from fwi_refine.cli.options.files import load_survey
from fwi_refine.errors import InputError
from fwi_refine.io.convert import AS_THEY_ARE, Conversion

if TYPE_CHECKING:
    from fwi_refine.analysis.opened_run import OpenedRun


@dataclass(frozen=True)
class Given:
    """The arguments that `run_options` gives a command: RUN, the files by their name in
    run_view.Files, the survey, how maps and records are stored, and whether to go on where they
    look like something else."""

    run: Path
    files: dict[str, Path | None]
    survey_file: Path | None
    conversion: Conversion
    force: bool


SORTS = ("error", "misfit", "expected-error")  # keys of run_view.SORTED_BY, which imports torch
EXTRAS = ("matplotlib", "jinja2")

sort_option = click.option(
    "--sort",
    type=click.Choice(SORTS),
    help="By what the worst samples are found. Default: the error, or without truth the misfit.",
)


def run_options(command: options.Function) -> options.Function:
    """RUN and what belongs to it; the command gets `given`, for `open_run`."""

    @functools.wraps(command)
    def wrap(
        *args: Any,
        run: Path,
        report: Path | None,
        start: Path | None,
        records: Path | None,
        truth: Path | None,
        deviation: Path | None,
        ids_file: Path | None,
        survey_file: Path | None,
        conversion: Conversion,
        force: bool,
        **kwargs: Any,
    ) -> Any:
        given = {
            "report": report, "start": start, "records": records, "truth": truth,
            "deviation": deviation, "ids": ids_file,
        }  # fmt: skip
        all_given = Given(run, given, survey_file, conversion, force)
        return command(*args, given=all_given, **kwargs)

    wrapped: options.Function = wrap
    for option in (
        options.conversion(),
        options.survey,
        options.ids,
        click.option(
            "--deviation", type=options.PATH, help="Expected errors, as refine --deviation writes."
        ),
        click.option(
            "--truth",
            type=options.PATH,
            help="True maps. Default: those beside the records, as training sets have them.",
        ),
        click.option("--records", type=options.PATH, help="Default: those of the run directory."),
        click.option(
            "--start",
            type=options.PATH,
            help="Maps that were refined. Default: the predictions of the run directory.",
        ),
        click.option(
            "--report", type=options.PATH, help="Default: RUN with .csv as suffix, if it is there."
        ),
        click.argument("run", type=options.PATH),
    ):
        wrapped = option(wrapped)
    return wrapped


def open_run(given: Given) -> "OpenedRun":
    """The run_view.OpenedRun that a command was given. Raises InputError."""
    from fwi_refine.analysis.opened_run import OpenedRun
    from fwi_refine.analysis.run_files import Files

    path, files, survey_file = given.run, given.files, given.survey_file
    if files["report"] is None and path.is_file():
        beside = path.with_suffix(".csv")
        if beside != path and beside.is_file() and is_report(beside):
            files = files | {"report": beside}
    if survey_file is not None and OpenedRun.is_run_directory(path):
        raise InputError(f"--survey {survey_file}: {path} is a run directory and has its own")
    if given.conversion != AS_THEY_ARE and OpenedRun.is_run_directory(path):
        raise InputError(f"{path}: is a run directory and knows how its inputs are stored")
    run = OpenedRun(path, Files(**files), load_survey(survey_file), given.conversion)
    for source in run.maps_given:
        check_source(source, run.survey, given.force)
    check_run(run, given.force)
    return run


def check_run(run: "OpenedRun", force: bool) -> None:
    """Looks at a few maps of a run with their records, starts and truths. Raises InputError."""
    from fwi_refine.errors import SampleError
    from fwi_refine.routing.checks.inputs import check_both, check_pairs

    def read(name: str, k: int) -> Any:
        values = run.map(name, k)
        if values is None or run.rows[k].status == "failed":
            raise SampleError(f"{run.rows[k].id}: has no {name}")
        return values

    refined = functools.partial(read, "refined")
    if run.records_given:
        names = [row.id for row in run.rows]
        check_pairs(names, refined, run.record, run.survey, force)
    for name, words in (("start", "the starts"), ("truth", "the true maps")):
        other = functools.partial(read, name)
        check_both(len(run), refined, other, ("the maps", words), run.survey, force)


def is_report(path: Path) -> bool:
    """Whether a CSV is a report, and not a submission for instance."""
    with open(path, "rb") as file:
        return file.readline(100).startswith(b"id,family,")


def sort_of(run: "OpenedRun", asked: str | None) -> str:
    """The key that samples are sorted by: as asked, else the error where it is known."""
    if asked:
        return asked
    return "error" if any(row.mae_after is not None for row in run.rows) else "misfit"


def load(name: str) -> Any:
    """The module `plots` or `page`. Raises InputError where its packages are not installed."""
    try:
        if name == "plots":
            from fwi_refine.analysis import plots

            return plots
        from fwi_refine.analysis import html_report

        return html_report
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing not in EXTRAS:
            raise
        raise InputError(f'pictures need {missing}: pip install "fwi-refine[plot]"') from error
