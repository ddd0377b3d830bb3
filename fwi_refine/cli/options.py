"""Arguments and options that several commands share, each in one place."""

import functools
import tomllib
from pathlib import Path

import click

from fwi_refine.cli import logs
from fwi_refine.errors import InputError

# The names of routing.Family, listed here because importing that module takes seconds.
FAMILIES = ("flat-vel", "style-a", "style-b", "two-velocity", "layered")

PATH = click.Path(path_type=Path)


def _read_config(ctx, parameter, path):
    """Option defaults from a TOML file. An unknown key is an error, not a silent no-op."""
    if path is None:
        return None
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"--config {path}: cannot be read ({error})") from error
    names = {
        option.lstrip("-"): p.name
        for p in ctx.command.params
        if isinstance(p, click.Option) and p.name not in ("config", "help")
        for option in p.opts
        if option.startswith("--")
    }
    defaults = {}
    for key, value in values.items():
        name = names.get(key.replace("_", "-"))
        if name is None:
            known = ", ".join(sorted(names))
            raise InputError(f"--config {path}: unknown key {key!r}, expected one of: {known}")
        defaults[name] = value
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    return path


def _shard(ctx, parameter, text):
    if text is None:
        return None
    first, mark, last = text.partition("/")
    if mark and first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last):
        return int(first), int(last)
    raise click.BadParameter(f"{text!r}: expected I/N with 1 <= I <= N, for instance 3/8")


def _device(ctx, parameter, text):
    if text in ("auto", "cpu"):
        return text
    kind, _, number = text.partition(":")
    if kind == "cuda" and (number.isdecimal() or ":" not in text):
        raise click.BadParameter(
            f"{text}: the GPU kernels are not built in this version; use cpu or auto"
        )
    raise click.BadParameter(f"{text!r}: expected auto, cpu, cuda or cuda:<number>")


def logging_options(command):
    """-v, -q and --log-file, which take effect before the command runs."""

    @functools.wraps(command)
    def wrap(*args, verbose, quiet, log_file, **kwargs):
        logs.set_up(verbose, quiet, log_file)
        return command(*args, **kwargs)

    for option in (
        click.option("--log-file", type=PATH, help="Write the log to this file as well."),
        click.option("-q", "--quiet", count=True, help="Errors only."),
        click.option("-v", "--verbose", count=True, help="More detail."),
    ):
        wrap = option(wrap)
    return wrap


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
priors = click.option(
    "--priors", "priors_file", type=PATH, help="TOML file of fit-priors, instead of the built-in."
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
    callback=_device,
    metavar="auto|cpu|cuda[:N]",
    help="Where to compute.",
)
config = click.option(
    "--config",
    type=PATH,
    is_eager=True,
    callback=_read_config,
    help="TOML file of option defaults, such as: jobs = 4. Unknown keys are errors.",
)
