"""How inputs are stored: the options of units, axes and scales."""

import functools
import math
from dataclasses import fields
from typing import Any

import click

from fwi_refine.cli.options.base import Decorator, Function, Number, with_options


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

        return with_options(wrap, "How the inputs are stored", options)

    return decorate


def _axes(ctx: click.Context, parameter: click.Parameter, text: str) -> str:
    if sorted(text) != sorted("str"):
        raise click.BadParameter(f"{text!r}: expected the letters s, t and r, such as srt")
    return text


def _factor(ctx: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not (value and math.isfinite(value)):
        raise click.BadParameter(f"{value}: expected a number other than 0")
    return value


def low_and_high(
    ctx: click.Context, parameter: click.Parameter, value: tuple[float, float] | None
) -> tuple[float, float] | None:
    """The two ends of a range. Raises BadParameter where the first is not the smaller."""
    if value is not None and not -math.inf < value[0] < value[1] < math.inf:
        raise click.BadParameter(f"{value[0]} {value[1]}: expected LOW < HIGH")
    return value


_OF_MAPS = (
    click.option(
        "--units",
        type=click.Choice(["m/s", "km/s", "ft/s", "-1..1", "0..1"]),
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
        callback=low_and_high,
        metavar="LOW HIGH",
        help="Records were normalised so that LOW, in their own units, is -1 and HIGH is 1.",
    ),
    click.option(
        "--record-log",
        type=Number(min=0, min_open=True),
        callback=_factor,
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
