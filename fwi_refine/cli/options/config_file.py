"""Defaults of options from a TOML file."""

from pathlib import Path
from typing import Any

import click

from fwi_refine.errors import InputError
from fwi_refine.files import read_toml


def read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
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
