"""The files that `refine` and `merge` write, with the options that name them."""

from dataclasses import dataclass
from pathlib import Path

import click

from fwi_refine.cli import options
from fwi_refine.errors import InputError
from fwi_refine.files import is_same_file
from fwi_refine.io.map_writer import check_map_name


@dataclass(frozen=True)
class Outputs:
    """Where the results go; None for what is not wanted.

    The report stands beside the maps unless it was named. Raises InputError for names that do
    not fit.
    """

    out: Path | None
    report: Path | None
    deviation: Path | None
    overwrite: bool

    def __post_init__(self) -> None:
        for name, path in (("out", self.out), ("deviation", self.deviation)):
            check_map_name(path, f"--{name}")
        for name, path in (("report", self.report), ("deviation", self.deviation)):
            if path is not None and self.out is None:
                raise InputError(f"--{name} {path}: needs --out; see also the merge command")
        if self.report is None and self.out is not None:
            object.__setattr__(self, "report", self.out.with_suffix(".csv"))

    def claim(self, history: Path | None = None, again: bool = False) -> None:
        """Raises OutputExistsError or InputError if one of them, or a history, may not be written,
        is an input, or has the name of another, as the report may that was not named. again:
        whether those that exist are the run's own."""
        files = [*filter(None, (self.out, self.report, self.deviation, history))]
        for k, path in enumerate(files):
            if any(is_same_file(path, other) for other in files[:k]):
                raise InputError(f"{path}: two outputs with one name; give each its own")
            options.claim(path, self.overwrite or again)


def output_options(required: bool) -> options.Decorator:
    """The options, given to a command as `outputs`. required: whether --out is."""
    without = "" if required else " Needed without --run-dir and --dry-run."
    return options.grouped(
        Outputs,
        "outputs",
        "Results",
        click.option(
            "--out",
            type=options.OUTPUT,
            required=required,
            help="Where to write the refined maps: .npy, or .npz with `velocity` and `ids`; m/s, "
            f"shape and order of the predictions.{without}",
        ),
        click.option(
            "--report",
            type=options.OUTPUT,
            help="Report to write: CSV, a row for each sample. Default: --out with .csv as suffix.",
        ),
        click.option(
            "--deviation",
            type=options.OUTPUT,
            help="Also write the expected rms error of each cell, in m/s: .npy or .npz like --out, "
            "NaN where it is not known.",
        ),
        options.overwrite,
    )
