"""`fwi-refine plot`: pictures of samples, and of a run."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fwi_refine.cli import OK, options
from fwi_refine.cli.options import opened
from fwi_refine.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from fwi_refine.analysis.opened_run import OpenedRun
    from fwi_refine.io.report import Row

log = logging.getLogger(__name__)

sample_option = click.option(
    "--sample", "ids", multiple=True, metavar="ID", help="Only this sample. Repeatable."
)


def count_option(default: int) -> options.Decorator:
    """--count, with its default."""
    return click.option(
        "--count", type=click.IntRange(min=1), default=default, show_default=True, metavar="N",
        help="How many samples, the worst first.",
    )  # fmt: skip


def figure_options(command: options.Function) -> options.Function:
    """--out and what belongs to it, and the options that every command has."""
    added: tuple[options.Decorator, ...] = (
        options.logging_options,
        options.config,
        options.overwrite,
        click.option(
            "--dpi", type=click.IntRange(50, 1200), default=300, show_default=True, metavar="N",
            help="Dots per inch of a PNG.",
        ),
        click.option(
            "--out",
            type=options.OUTPUT,
            required=True,
            help="Picture to write: .png, .pdf or .svg.",
        ),
    )  # fmt: skip
    for option in added:
        command = option(command)
    return command


@click.group("plot", cls=options.CommandGroup)
def command() -> None:
    """Draw samples of a run, or the run as a whole.

    Needs the extra [plot]: pip install "fwi-refine[plot]".

    \b
    Examples:
        fwi-refine plot panels refined.npy --start predictions.npy --records seismic \\
            --sample 3d2953a3fb --out sample.pdf
        fwi-refine plot contact run --out run.png

    RUN is a run directory, or the maps that refine wrote with their report beside them; maps
    alone, of a network for instance, can be drawn too. What is not given is left out.
    """


@command.command("panels")
@opened.run_options
@sample_option
@opened.sort_option
@count_option(1)
@click.option(
    "--shot", "shots", default="middle", show_default=True, metavar="N|middle|all|none",
    help="Which shots of the record to show, counted from 1.",
)  # fmt: skip
@figure_options
def panels(
    given: opened.Given,
    ids: tuple[str, ...],
    sort: str | None,
    count: int,
    shots: str,
    out: Path,
    dpi: int,
    overwrite: bool,
    config: Path | None,
) -> int:
    """Draw all that is known of a sample on one page.

    \b
    Example:
      fwi-refine plot panels run --sample 3d2953a3fb --out sample.pdf

    Start, refined map and truth; their differences; real and expected error; the record as
    measured, as simulated, and the residual. Several samples are the pages of a PDF, or files
    <name>-<id>.png.
    """
    plots = load_plots(out)
    run = opened.open_run(given)
    chosen = choose(run, ids, sort, count)
    pages = len(chosen) == 1 or out.suffix.lower() == ".pdf"
    names = [out] if pages else [beside(out, run.rows[k].id) for k in chosen]
    claim(names, overwrite)
    shown = read_shots(shots, len(run.survey.sources))
    figures = [plots.panels(run.view(k, with_record=bool(shown)), shown) for k in chosen]
    for k, name in enumerate(names):
        plots.save(figures if pages else [figures[k]], name, dpi)
        log.info("%s", name)
    return OK


@command.command("samples")
@opened.run_options
@sample_option
@opened.sort_option
@count_option(5)
@figure_options
def samples(
    given: opened.Given,
    ids: tuple[str, ...],
    sort: str | None,
    count: int,
    out: Path,
    dpi: int,
    overwrite: bool,
    config: Path | None,
) -> int:
    """Draw several samples, a row each.

    \b
    Example:
      fwi-refine plot samples run --sort misfit --count 5 --out samples.png

    A row shows start, refined map, truth, their difference and the expected error, as far as they
    are known.
    """
    plots = load_plots(out)
    claim([out], overwrite)
    run = opened.open_run(given)
    chosen = choose(run, ids, sort, count)
    plots.save([plots.samples([run.view(k, with_record=False) for k in chosen])], out, dpi)
    log.info("%d samples in %s", len(chosen), out)
    return OK


@command.command("contact")
@opened.run_options
@sample_option
@opened.sort_option
@count_option(100)
@click.option(
    "--show", type=click.Choice(["refined", "start", "truth", "difference"]), default="refined",
    show_default=True, help="Which map; difference: refined - truth.",
)  # fmt: skip
@figure_options
def contact(
    given: opened.Given,
    ids: tuple[str, ...],
    sort: str | None,
    count: int,
    show: str,
    out: Path,
    dpi: int,
    overwrite: bool,
    config: Path | None,
) -> int:
    """Draw many maps on one sheet, the worst first.

    \b
    Example:
      fwi-refine plot contact run --sort misfit --out run.png
    """
    plots = load_plots(out)
    claim([out], overwrite)
    run = opened.open_run(given)
    chosen = choose(run, ids, sort, count)
    maps, captions = [], []
    for k in chosen:
        v = difference(run, k) if show == "difference" else run.map(show, k)
        if v is None:
            raise InputError(f"--show {show}: not known of the sample {run.rows[k].id!r}")
        maps.append(v)
        captions.append(caption(run.rows[k], opened.sort_of(run, sort)))
    what = f"{'differences refined − truth' if show == 'difference' else f'maps ({show})'}"
    sheet = plots.contact_sheet(maps, captions, run.survey, show == "difference", what)
    plots.save([sheet], out, dpi)
    log.info("%d samples in %s", len(chosen), out)
    return OK


@command.command("convergence")
@click.argument("history", type=options.PATH)
@sample_option
@figure_options
def convergence(
    history: Path,
    ids: tuple[str, ...],
    out: Path,
    dpi: int,
    overwrite: bool,
    config: Path | None,
) -> int:
    """Draw how the misfit fell with the evaluations.

    \b
    Example:
      fwi-refine plot convergence history.csv --out convergence.svg

    HISTORY is the file that `refine --history` writes.
    """
    plots = load_plots(out)
    claim([out], overwrite)
    from fwi_refine.io.history import read_history

    steps = read_history(history)
    absent = [name for name in ids if name not in steps]
    if absent or not steps:
        raise InputError(f"{history}: found no sample {', '.join(map(repr, absent))}")
    plots.save([plots.convergence({name: steps[name] for name in ids or steps})], out, dpi)
    log.info("%d samples in %s", len(ids or steps), out)
    return OK


def load_plots(out: Path) -> Any:
    """The module of the figures, if `out` is a name that it can write. Raises InputError."""
    plots = opened.load("plots")
    if out.suffix.lower() not in plots.SUFFIXES:
        raise InputError(f"--out {out}: expected a name that ends in {', '.join(plots.SUFFIXES)}")
    return plots


def beside(out: Path, name: str) -> Path:
    """The file of one sample of several."""
    return out.with_name(f"{out.stem}-{name}{out.suffix}")


def claim(names: Sequence[Path], overwrite: bool) -> None:
    """Raises OutputExistsError or InputError if one of the pictures may not be written."""
    for name in names:
        options.claim(name, overwrite, "--out")


def choose(run: "OpenedRun", ids: Sequence[str], sort: str | None, count: int) -> list[int]:
    """The numbers of the samples to draw."""
    if ids:
        return [run.find(name) for name in dict.fromkeys(ids)]
    return run.order(opened.sort_of(run, sort))[:count]


def difference(run: "OpenedRun", k: int) -> "np.ndarray[Any, np.dtype[Any]] | None":
    """Refined map minus truth, (nz, nx) in m/s; None where the truth is not known."""
    v, truth = run.map("refined", k), run.map("truth", k)
    return None if v is None or truth is None else v - truth


def caption(row: "Row", sort: str) -> str:
    """The id of a sample with the value by which it is sorted."""
    if sort == "misfit":
        return row.id if row.misfit_after is None else f"{row.id}: {row.misfit_after:.2g} rms"
    value = row.mae_after if sort == "error" else row.expected_error
    name = "MAE" if sort == "error" else "expected"
    return row.id if value is None else f"{row.id}: {name} {value:.3g} m/s"


def read_shots(text: str, count: int) -> list[int]:
    """Shots counted from 0. Raises InputError."""
    known: dict[str, Sequence[int]] = {"all": range(count), "none": (), "middle": (count // 2,)}
    if text in known:
        return [*known[text]]
    if text.isdecimal() and 1 <= int(text) <= count:
        return [int(text) - 1]
    raise InputError(f"--shot {text}: expected 1 to {count}, middle, all or none")
