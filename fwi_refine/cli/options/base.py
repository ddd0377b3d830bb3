"""Commands whose help has headings, groups of options, and the paths that a command is given."""

import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from fwi_refine.errors import InputError
from fwi_refine.files import check_regular, is_same_file

Function = Callable[..., Any]  # that of a command, with or without some of its options
Decorator = Callable[[Function], Function]


class Input(click.Path):
    """The type of options and arguments that name what is read."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path. Fails for one that no file can have: with a NUL, which only Python can pass."""
        if "\0" in os.fsdecode(value):
            self.fail(f"{value!r}: no name of a file", param, ctx)
        return super().convert(value, param, ctx)


PATH = Input(path_type=Path)


class Output(Input):
    """The type of options that name what is written; every other path is an input."""


OUTPUT = Output(path_type=Path)
LARGEST_NUMBER = 2**53  # of an option; more has no use, and tables of runs could not hold it

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
    """The paths that the present command reads, with those that these name."""
    from fwi_refine.io.named_files import files_named_by

    given = [*_paths(ctx or click.get_current_context(), False)]
    return [*given, *(other for path in given for other in files_named_by(path))]


def claim(path: Path, overwrite: bool, what: str = "output") -> Path:
    """The path of an output, if it can be written and is neither an input nor the log; see
    io/outputs.py."""
    from fwi_refine.io import claim_output

    ctx = click.get_current_context()
    log_file = ctx.params.get("log_file")
    if log_file is not None and is_same_file(path, log_file):
        raise InputError(f"{what} {path}: is the --log-file as well; give each its own name")
    if sum(is_same_file(path, other) for other in _paths(ctx, True)) > 1:
        raise InputError(f"{what} {path}: two outputs with one name; give each its own")
    return claim_output(path, overwrite, what, inputs())


def refuse_input(path: Path, others: Sequence[Path], what: str = "output") -> None:
    """Raises InputError where an output is one of the inputs; see io/outputs.py."""
    if others:
        from fwi_refine.io.outputs import refuse_input

        refuse_input(path, others, what)


class Number(click.FloatRange):
    """A number in a range; not "not a number", which no comparison refuses.

    Parameters
    ----------
    finite : bool
        Whether infinity is refused, too.
    **limits
        Of the range, as `click.FloatRange` takes them.
    """

    def __init__(self, finite: bool = False, **limits: Any) -> None:
        super().__init__(**limits)
        self._finite = finite

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = super().convert(value, param, ctx)
        if math.isnan(number) or (self._finite and math.isinf(number)):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number

    def _describe_range(self) -> str:
        """For the help: click names a limit also where there is none."""
        return "" if self.min is None and self.max is None else super()._describe_range()


class Command(click.Command):
    """A command whose help lists its options under headings, see `under`.

    What it reads are files or folders, and what it writes is none of them: that is checked before
    it begins.
    """

    def invoke(self, ctx: click.Context) -> Any:
        _check_numbers(ctx)
        for path in _paths(ctx, False):
            check_regular(path)
        outputs = [*_paths(ctx, True)]
        given = inputs(ctx) if outputs else []
        for k, path in enumerate(outputs):
            refuse_input(path, given)
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


def _check_numbers(ctx: click.Context) -> None:
    """Raises InputError for whole numbers that are too large for anything."""
    for parameter in ctx.command.params:
        value = ctx.params.get(str(parameter.name))
        if type(value) is int and abs(value) >= LARGEST_NUMBER:
            raise InputError(f"{parameter.opts[0]}: found a number of {len(str(value))} digits")


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

        return with_options(wrap, heading, options)

    return decorate


def with_options(command: Function, heading: str, options: Sequence[Decorator]) -> Function:
    """The command with these options, in their order, under a heading."""
    for option in reversed(options):
        command = under(heading, option)(command)
    return command
