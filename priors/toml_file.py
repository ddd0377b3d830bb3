"""The TOML file of the priors' hyper-parameters and the routing's thresholds."""

import math
import reprlib
import tomllib
import warnings
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path

from .gaussian_process import GaussianProcess
from .hyperparameters import Learned, Priors, Routing, Variation

OPENFWI_FILE = Path(__file__).with_name("openfwi.toml")

_SECTIONS = {
    "style_a": tuple(f.name for f in fields(GaussianProcess) if f.name != "shape"),
    "style_b": tuple(f.name for f in fields(GaussianProcess) if f.name != "shape"),
    "style_b_variation": tuple(f.name for f in fields(Variation)),
    "style_b_learned": tuple(f.name for f in fields(Learned)),
    "routing": tuple(f.name for f in fields(Routing)),
}
# Keys that no test asks for any more: read with a warning, for one more release.
_RETIRED = {"routing": ("area_tolerance", "two_velocity_cells")}
_MAY_BE_ZERO = ("constant", "slope")
_MAY_HAVE_ANY_SIGN = ("mean", "style_a_log_energy")


def load(path: str | Path | None = None) -> Priors:
    """Priors and thresholds of a file.

    Parameters
    ----------
    path : str or Path, optional
        TOML file with all or some of the sections and keys of `openfwi.toml`, from which the
        others are taken. By default all are.

    Returns
    -------
    Priors

    Raises
    ------
    ValueError
        For a file that cannot be read as TOML or holds nothing, for keys that do not exist and for
        values that are not possible. The message has the file, the key, what was found and what
        was expected.
    OSError
        If the file cannot be opened.
    """
    table = _read(OPENFWI_FILE)
    if path is not None:
        given = _read(Path(path))
        if not any(given.values()):  # a file that was cut, maybe
            raise ValueError(f"{path}: holds no numbers, expected some of {_listed(_SECTIONS)}")
        for section, values in given.items():
            table[section] |= values
    return Priors(
        style_a=GaussianProcess(**table["style_a"]),  # type: ignore[arg-type]  # no "shape" there
        style_b=GaussianProcess(**table["style_b"]),  # type: ignore[arg-type]
        style_b_variation=Variation(**table["style_b_variation"]),  # type: ignore[arg-type]
        style_b_learned=Learned(**table["style_b_learned"]),  # type: ignore[arg-type]
        routing=Routing(**table["routing"]),  # type: ignore[arg-type]
    )


def to_table(priors: Priors) -> dict[str, dict[str, float | str]]:
    """Sections and keys of the file that `load` reads.

    Parameters
    ----------
    priors : Priors
        Priors and thresholds.

    Returns
    -------
    dict of dict
        For a TOML writer.
    """
    numbers = asdict(priors)
    return {name: {key: numbers[name][key] for key in keys} for name, keys in _SECTIONS.items()}


def _read(path: Path) -> dict[str, dict[str, float | str]]:
    """The checked sections of one file, numbers as floats, the name of a file from its folder."""
    try:
        if path.exists() and not path.is_file():  # a pipe may be waited for for ever
            raise ValueError("expected a regular file")
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a TOML file: {error}") from error
    checked = {}
    for section, values in table.items():
        if section not in _SECTIONS:
            raise ValueError(
                f"{path}: found [{section}], expected only the sections {_listed(_SECTIONS)}"
            )
        if not isinstance(values, dict):
            raise ValueError(f"{path}: {section} is {values!r}, expected a section [{section}]")
        retired = [key for key in _RETIRED.get(section, ()) if key in values]
        if retired:
            warnings.warn(
                f"{path}: {_listed(retired)} in [{section}] no longer counts; maps with blended "
                "edges are told by blended_edges",
                FutureWarning,
                stacklevel=3,
            )
        values = {key: value for key, value in values.items() if key not in retired}
        for key in values:
            if key not in _SECTIONS[section]:
                raise ValueError(
                    f"{path}: found key {key} in [{section}], expected only "
                    f"{_listed(_SECTIONS[section])}"
                )
        checked[section] = {
            key: _value(path, f"{section}.{key}", value) for key, value in values.items()
        }
    return checked


def _value(path: Path, name: str, value: object) -> float | str:
    """The number of one key, or the file that it names, checked."""
    if name != "style_b_learned.weights":
        return _number(path, name, value)
    if not isinstance(value, str):
        raise ValueError(f"{path}: {name} is {reprlib.repr(value)}, expected the name of a file")
    return str(path.resolve().parent / value) if value else ""


def _number(path: Path, name: str, value: object) -> float:
    """The number of one key, checked."""
    key = name.rpartition(".")[2]
    number = _as_float(value)
    if key in _MAY_HAVE_ANY_SIGN:
        expected, fits = "a finite number", math.isfinite(number)
    elif key in _MAY_BE_ZERO:
        expected, fits = "a number of at least 0", 0 <= number < math.inf
    else:
        expected, fits = "a number above 0", 0 < number < math.inf
    if not fits:
        raise ValueError(f"{path}: {name} is {reprlib.repr(value)}, expected {expected}")
    return number


def _as_float(value: object) -> float:
    """NaN for what is no number; integers may be too large to be one."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
