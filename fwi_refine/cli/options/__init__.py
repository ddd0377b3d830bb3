"""Arguments and options that several commands share, each in one place."""

import difflib
import functools
import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from fwi_refine.cli import logs
from fwi_refine.errors import InputError
from fwi_refine.files import check_regular, is_same_file, read_toml
from fwi_refine.inversion import families as registry

log = logging.getLogger(__name__)

Function = Callable[..., Any]  # that of a command, with or without some of its options
Decorator = Callable[[Function], Function]

FAMILIES = registry.NAMES

PATH = click.Path(path_type=Path)


class Output(click.Path):
    """The type of options that name what is written; every other path is an input."""


OUTPUT = Output(path_type=Path)
DEVICES = ("auto", "cpu", "cuda")


def _read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Option defaults from a TOML file. An unknown key is an error, not a silent no-op."""
    if path is None:
        return None
    try:
        values = read_toml(path)
    except (OSError, ValueError) as error:
        raise InputError(f"--config {path}: cannot be read ({error})") from error
    named = {
        option.lstrip("-"): p
        for p in ctx.command.params
        if isinstance(p, click.Option) and p.name not in ("config", "help")
        for option in p.opts
        if option.startswith("--")
    }
    defaults: dict[str, Any] = {}
    for key, value in values.items():
        parameter = named.get(key.replace("_", "-"))
        if parameter is None:
            known = ", ".join(sorted(named))
            raise InputError(f"--config {path}: unknown key {key!r}, expected one of: {known}")
        text, fits = _as_typed(value, parameter)
        if not fits:
            raise InputError(f"--config {path}: {key} is {value!r}, which this option cannot be")
        defaults[str(parameter.name)] = text
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    return path


def _as_typed(value: Any, option: click.Option) -> tuple[Any, bool]:
    """(what would stand on the command line, whether that is possible): click expects text."""
    if isinstance(value, bool):
        return value, option.is_flag or option.count
    values = value if option.multiple and isinstance(value, list) else [value]
    fits = all(type(v) in (int, float, str) and "\0" not in str(v) for v in values)
    return [*map(str, values)] if option.multiple else str(value), fits


def _shard(
    ctx: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found and 1 <= int(found[1]) <= int(found[2]):
        return int(found[1]), int(found[2])
    raise click.BadParameter(f"{text!r}: expected I/N with 1 <= I <= N, for instance 3/8")


def _device(ctx: click.Context, parameter: click.Parameter, text: str) -> str:
    if text in DEVICES[:2] or ctx.resilient_parsing:  # a tab key must not wait for torch
        return text
    if not re.fullmatch("cuda(:[0-9]{1,4})?", text):
        raise click.BadParameter(f"{text!r}: expected auto, cpu, cuda or cuda:<number>")
    from fwi_refine.wave import devices, gpu_problem

    found, number = devices(), text.partition(":")[2]
    if not found:
        raise click.BadParameter(f"{text}: {gpu_problem()}; use cpu or auto")
    if number and int(number) >= len(found):
        raise click.BadParameter(f"{text}: there are {len(found)} GPUs, numbered from 0")
    return text


@functools.cache
def gpus(device: str) -> list[str]:
    """The GPUs that --device stands for, as CUDA_VISIBLE_DEVICES names them; empty for the CPU."""
    if device == "cpu":
        return []
    from fwi_refine.wave import devices, gpu_problem

    found, number = devices(), device.partition(":")[2]
    if not found and gpu_is_there():
        log.warning("computing on the CPU, although there is a GPU: %s", gpu_problem())
    return [found[int(number)]] if number else found


def gpu_is_there() -> bool:
    """Whether torch finds a GPU, usable or not."""
    import torch

    return torch.cuda.is_available()


def torch_device(device: str) -> str:
    """What torch calls the device of --device; with several GPUs, the first of them."""
    if device == "auto":
        return "cuda" if gpus(device) else "cpu"
    return device


class FamilyName(click.ParamType):  # type: ignore[type-arg]  # not generic in older click
    """A route, or one of OpenFWI's families, which stands for the route that it takes."""

    name = "family"

    def __init__(self, *others: str) -> None:
        self.choices = (*others, *FAMILIES)

    def convert(
        self, value: str, parameter: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        if value in self.choices:
            return value
        from fwi_refine.routing.families import OPENFWI_FAMILIES

        plain = {_plain(name): str(route) for name, route in OPENFWI_FAMILIES.items()}
        plain |= {_plain(name): name for name in self.choices}
        if _plain(value) in plain:
            return plain[_plain(value)]
        known = (*self.choices, *OPENFWI_FAMILIES)
        near = difflib.get_close_matches(_plain(value), plain, n=1, cutoff=0.6)
        hint = f" Did you mean {next(n for n in known if _plain(n) == near[0])}?" if near else ""
        names = ", ".join(map(repr, known))
        self.fail(f"{value!r} is not one of {names}.{hint}", parameter, ctx)

    def shell_complete(
        self, ctx: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        found = [name for name in self.choices if name.startswith(incomplete)]
        return [CompletionItem(name) for name in found]


def _plain(name: str) -> str:
    """A family's name without its case and signs: OpenFWI's own are written in several ways."""
    return "".join(c for c in name.lower() if c.isalnum())


GENERAL = "General options"


def _paths(ctx: click.Context, written: bool) -> Iterator[Path]:
    """The paths that a command was given, those that it writes or the others."""
    for parameter in ctx.command.params:
        value = ctx.params.get(str(parameter.name))
        if isinstance(parameter.type, Output) == written:
            for item in value if isinstance(value, (tuple, list)) else [value]:
                if isinstance(item, Path):
                    yield item


def inputs(ctx: click.Context | None = None) -> list[Path]:
    """The paths that the present command reads."""
    return [*_paths(ctx or click.get_current_context(), False)]


def claim(path: Path, overwrite: bool, what: str = "output") -> Path:
    """The path of an output, if it can be written and is no input; see io/outputs.py."""
    from fwi_refine.io import claim_output

    return claim_output(path, overwrite, what, inputs())


def refuse_input(path: Path, others: Sequence[Path], what: str = "output") -> None:
    """Raises InputError where an output is one of the inputs; see io/outputs.py."""
    if others:
        from fwi_refine.io.outputs import refuse_input

        refuse_input(path, others, what)


class Number(click.FloatRange):
    """A number in a range; not "not a number", which no comparison refuses."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


class Command(click.Command):
    """A command whose help lists its options under headings, see `under`.

    What it reads are files or folders, and what it writes is none of them: that is checked before
    it begins.
    """

    def invoke(self, ctx: click.Context) -> Any:
        for path in inputs(ctx):
            check_regular(path)
        outputs = [*_paths(ctx, True)]
        for k, path in enumerate(outputs):
            refuse_input(path, inputs(ctx))
            if any(is_same_file(path, other) for other in outputs[:k]):
                raise InputError(f"{path}: two outputs with one name; give each its own")
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings: dict[str, list[tuple[str, str]]] = {}
        for option in self.params:
            record = option.get_help_record(ctx) if isinstance(option, click.Option) else None
            if record is not None:
                headings.setdefault(getattr(option, "heading", "Options"), []).append(record)
        general = headings.pop(GENERAL, [])  # last, wherever they were declared
        help_option = self.get_help_option(ctx)
        record = help_option.get_help_record(ctx) if help_option else None
        headings[GENERAL] = [*general, *([record] if record else [])]
        for heading, records in headings.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class CommandGroup(click.Group):
    """Commands of a command, listed in the order in which they stand in the source."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands]


command = functools.partial(click.command, cls=Command)


def under(heading: str, option: Decorator) -> Decorator:
    """An option, with the heading that it stands under in the help."""

    def decorate(command: Function) -> Function:
        decorated: Any = option(command)
        decorated.__click_params__[-1].heading = heading
        return decorated

    return decorate


def grouped(kind: type[Any], name: str, heading: str, *options: Decorator) -> Decorator:
    """Options that belong to one group: a command gets them as one argument, `name`.

    Parameters
    ----------
    kind : type
        The dataclass that it is, with a field for the value of each option.
    name : str
        Of the argument.
    heading : str
        What the options stand under in the help.
    *options
        As `click.option` gives them.
    """

    def decorate(command: Function) -> Function:
        @functools.wraps(command)
        def wrap(*args: Any, **kwargs: Any) -> Any:
            values = {field.name: kwargs.pop(field.name) for field in fields(kind)}
            return command(*args, **{name: kind(**values)}, **kwargs)

        return _with_options(wrap, heading, options)

    return decorate


def _with_options(command: Function, heading: str, options: Sequence[Decorator]) -> Function:
    """The command with these options, in their order, under a heading."""
    for option in reversed(options):
        command = under(heading, option)(command)
    return command


def conversion(maps: bool = True, records: bool = True) -> Decorator:
    """The options that say in which units, scale and order the inputs are stored; the command gets
    them as `conversion`, and `force`."""
    options: list[Decorator] = [
        *(_OF_MAPS if maps else ()),
        *(_OF_RECORDS if records else ()),
        _FORCE,
    ]

    def decorate(command: Function) -> Function:
        @functools.wraps(command)
        def wrap(*args: Any, force: bool, **kwargs: Any) -> Any:
            from fwi_refine.io.convert import Conversion

            names = [field.name for field in fields(Conversion) if field.name in kwargs]
            given = Conversion(**{name: kwargs.pop(name) for name in names})
            return command(*args, conversion=given, force=force, **kwargs)

        return _with_options(wrap, "How the inputs are stored", options)

    return decorate


def _axes(ctx: click.Context, parameter: click.Parameter, text: str) -> str:
    if sorted(text) != sorted("str"):
        raise click.BadParameter(f"{text!r}: expected the letters s, t and r, such as srt")
    return text


def _factor(ctx: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not (value and math.isfinite(value)):
        raise click.BadParameter(f"{value}: expected a number other than 0")
    return value


def _ends(
    ctx: click.Context, parameter: click.Parameter, value: tuple[float, float] | None
) -> tuple[float, float] | None:
    if value is not None and not -math.inf < value[0] < value[1] < math.inf:
        raise click.BadParameter(f"{value[0]} {value[1]}: expected LOW < HIGH")
    return value


_OF_MAPS = (
    click.option(
        "--units",
        type=click.Choice(["m/s", "km/s", "-1..1", "0..1"]),
        default="m/s",
        show_default=True,
        help="Units of the given maps; -1..1 and 0..1 stand for 1500 to 4500 m/s, as in OpenFWI's "
        "loaders. What is written is in m/s.",
    ),
    click.option("--transpose", is_flag=True, help="The given maps have depth along their rows."),
)
_OF_RECORDS = (
    click.option(
        "--record-axes",
        default="str",
        show_default=True,
        callback=_axes,
        metavar="ORDER",
        help="Order of the axes of a record: s shots, t time rows, r receivers.",
    ),
    click.option(
        "--record-range",
        type=float,
        nargs=2,
        callback=_ends,
        metavar="LOW HIGH",
        help="Records were normalised so that LOW, in their own units, is -1 and HIGH is 1.",
    ),
    click.option(
        "--record-log",
        type=click.FloatRange(min=0, min_open=True),
        metavar="K",
        help="Records d are stored as sign(d) ln(1 + K abs(d)), before any normalisation.",
    ),
    click.option(
        "--record-scale",
        type=float,
        default=1.0,
        show_default=True,
        callback=_factor,
        metavar="X",
        help="Factor that gives records their own units; -1 for the other sign.",
    ),
)
_FORCE = click.option(
    "--force",
    is_flag=True,
    help="Go on where the inputs look like other units, another scale or another order.",
)


def logging_options(command: Function) -> Function:
    """-v, -q and --log-file, which take effect before the command runs."""

    @functools.wraps(command)
    def wrap(*args: Any, verbose: int, quiet: int, log_file: Path | None, **kwargs: Any) -> Any:
        logs.set_up(verbose, quiet, log_file)
        return command(*args, **kwargs)

    added = (
        click.option("-v", "--verbose", count=True, help="Say more."),
        click.option("-q", "--quiet", count=True, help="Say errors only."),
        click.option("--log-file", type=OUTPUT, help="Write the log to this file as well."),
    )
    return _with_options(wrap, GENERAL, added)


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
    shell_complete=lambda ctx, parameter, text: [d for d in DEVICES if d.startswith(text)],
    metavar="auto|cpu|cuda[:N]",
    help="Where to compute; auto: on all GPUs, on the CPU where there is none.",
)
config = under(
    GENERAL,
    click.option(
        "--config",
        type=PATH,
        is_eager=True,
        callback=_read_config,
        help="TOML file of defaults for these options, such as: jobs = 4. Unknown keys are errors.",
    ),
)
