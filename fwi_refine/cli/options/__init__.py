"""Arguments and options that several commands share, each in one place."""

import functools
import re
from pathlib import Path
from typing import Any

import click

from fwi_refine.cli import logs
from fwi_refine.cli.options.base import (
    GENERAL,
    OUTPUT,
    PATH,
    CommandGroup,
    Decorator,
    Function,
    Input,
    Number,
    Output,
    claim,
    command,
    grouped,
    inputs,
    refuse_input,
    under,
    with_options,
)
from fwi_refine.cli.options.config_file import read_config
from fwi_refine.cli.options.devices import (
    DEVICES,
    KERNELS,
    check_kernel,
    device_name,
    gpus,
    torch_device,
)
from fwi_refine.cli.options.effect import warn_of_no_effect
from fwi_refine.cli.options.family_name import FAMILIES, FamilyName
from fwi_refine.cli.options.stored import conversion, low_and_high

__all__ = [
    "FAMILIES",
    "OUTPUT",
    "PATH",
    "CommandGroup",
    "Decorator",
    "FamilyName",
    "Function",
    "Input",
    "Number",
    "Output",
    "check_kernel",
    "claim",
    "command",
    "config",
    "conversion",
    "device",
    "dtype",
    "families",
    "gpus",
    "grouped",
    "ids",
    "inputs",
    "kernel",
    "limit",
    "logging_options",
    "low_and_high",
    "overwrite",
    "predictions",
    "priors",
    "records",
    "refuse_input",
    "run_argument",
    "shard",
    "survey",
    "torch_device",
    "under",
]


def _shard(
    ctx: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found and 1 <= int(found[1]) <= int(found[2]):
        return int(found[1]), int(found[2])
    raise click.BadParameter(f"{text!r}: expected I/N with 1 <= I <= N, for instance 3/8")


def logging_options(command: Function) -> Function:
    """-v, -q and --log-file, which take effect before the command runs; options without effect are
    told of."""

    @functools.wraps(command)
    def wrap(*args: Any, verbose: int, quiet: int, log_file: Path | None, **kwargs: Any) -> Any:
        logs.set_up(verbose, quiet, log_file)
        warn_of_no_effect()
        return command(*args, **kwargs)

    added = (
        click.option("-v", "--verbose", count=True, help="Say more."),
        click.option("-q", "--quiet", count=True, help="Say errors only."),
        click.option("--log-file", type=OUTPUT, help="Write the log to this file as well."),
    )
    return with_options(wrap, GENERAL, added)


predictions = click.argument("predictions", type=PATH)
records = click.argument("records", type=PATH)
ids = click.option(
    "--ids",
    "ids_file",
    type=PATH,
    help="Ids of the samples, in the order of the predictions: a line each, or a CSV with a "
    "column 'id'.",
)
families = click.option(
    "--families",
    type=PATH,
    metavar="FILE|auto",
    help="CSV with the columns id and family, such as classify prints; auto: tell them from the "
    "maps and the records.",
)
survey = click.option(
    "--survey",
    "survey_file",
    type=PATH,
    metavar="FILE",
    help="TOML file of the survey: grid, steps, wavelet, sources, receivers. Default: OpenFWI's.",
)
priors = click.option(
    "--priors", "priors_file", type=PATH, help="TOML file of fit-priors, instead of the built-in."
)
dtype = under(
    "Results",
    click.option(
        "--dtype",
        type=click.Choice(["float32", "float16"]),
        default="float32",
        show_default=True,
        help="Type of the maps that are written. float16 halves the file and rounds velocities to "
        "2 m/s, from 4096 m/s on to 4; what is reported is that of the rounded maps.",
    ),
)
overwrite = click.option("--overwrite", is_flag=True, help="Replace files that exist.")
limit = click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N samples."
)
shard = click.option(
    "--shard",
    callback=_shard,
    metavar="I/N",
    help="Only part I of N, counted from 1; the parts' outputs, one after another, are the whole.",
)
run_argument = click.argument("run_dir", metavar="RUN", type=PATH)
device = click.option(
    "--device",
    default="auto",
    show_default=True,
    callback=device_name,
    shell_complete=lambda ctx, parameter, text: [d for d in DEVICES if d.startswith(text)],
    metavar="auto|cpu|cuda[:N]",
    help="Where to compute; auto: on all GPUs, on the CPU where there is none.",
)
kernel = click.option(
    "--kernel",
    type=click.Choice(KERNELS),
    default="auto",
    show_default=True,
    help="What computes waves. auto: on a GPU the CUDA kernels, or torch where their self-test "
    "fails, on the CPU the compiled kernel. torch: torch's own operations, on any device. "
    "reference: the specification, slow.",
)
config = under(
    GENERAL,
    click.option(
        "--config",
        type=PATH,
        is_eager=True,
        callback=read_config,
        help="TOML file of defaults for these options, such as: jobs = 4. Unknown keys are errors.",
    ),
)
