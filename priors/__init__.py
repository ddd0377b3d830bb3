"""Priors: what a velocity map is expected to look like, and the numbers that this was fitted to.

`load` reads the hyper-parameters and the routing thresholds. Each prior acts on one map and has
`value`, `gradient`, `value_and_gradient` and `hessian` (`base.Prior`); see `total_variation`,
`variational_total_variation`, `shared_levels` and `gaussian_process`.
"""

import math
import reprlib
import sys
import tomllib
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

from .denoiser import DENOISER_FILE, load_denoiser
from .gaussian_process import GaussianProcess
from .learned import LearnedPrior
from .shared_levels import SharedLevels
from .total_variation import TotalVariation1D, TotalVariation2D
from .variational_total_variation import VariationalTotalVariation

__all__ = [
    "GaussianProcess",
    "Learned",
    "LearnedPrior",
    "Priors",
    "Routing",
    "SharedLevels",
    "TotalVariation1D",
    "TotalVariation2D",
    "Variation",
    "VariationalTotalVariation",
    "load",
    "to_table",
]


def _refuse_another_copy() -> None:
    """Raises ImportError where this folder is not the priors of the fwi_refine that is in use.

    It stands beside that package in a checkout and in it where that is installed. Python may find
    one copy of the program first and another's priors: results would be those of neither.
    """
    if __name__ != "fwi_refine.priors":
        raise ImportError(f"{__name__} from {__file__}: import it as fwi_refine.priors")
    package = Path(sys.modules["fwi_refine"].__file__ or "").resolve().parent
    here = Path(__file__).resolve().parent
    if here not in {(folder / "priors").resolve() for folder in (package, package.parent)}:
        raise ImportError(
            f"fwi_refine is that in {package}, but fwi_refine.priors would be that in {here}, of "
            "another copy of the program; install the copy that is to be used, or take the other "
            "one out of Python's path"
        )


_refuse_another_copy()

CELL = 10.0  # m, in which lengths and slopes of the files count
OPENFWI_FILE = Path(__file__).with_name("openfwi.toml")


@dataclass(frozen=True)
class Routing:
    """Thresholds of the tests that send a sample to its family; see `openfwi.toml`.

    Parameters
    ----------
    symmetry_rms : float
        Largest rms asymmetry of the record of a flat map, in the unit of the record.
    style_a_log_energy : float
        Natural logarithm of the largest Style A energy; the only threshold that may be negative.
    style_b_bin : float
        Width of the bins in which velocities are counted, in m/s.
    style_b_cells : float
        Largest number of cells in a bin of a Style B map.
    blended_edges : float
        Least fraction of blended edges of a resized map.
    """

    symmetry_rms: float
    style_a_log_energy: float
    style_b_bin: float
    style_b_cells: float
    blended_edges: float


@dataclass(frozen=True)
class Variation:
    """The total variation of Style B maps about their trend in depth; see `openfwi.toml`.

    Parameters
    ----------
    scale : float
        Scale parameter of the Laplace density of differences along rows and columns, in m/s.
    diagonal_scale : float
        Scale parameter along both diagonals, in m/s.
    spread : float
        Factor of the expected errors: what the normal approximation of this prior leaves out.
    """

    scale: float
    diagonal_scale: float
    spread: float

    def prior(self) -> VariationalTotalVariation:
        """The prior before the data have told anything."""
        return VariationalTotalVariation(
            scale=self.scale, diagonal_scale=self.diagonal_scale, spread=self.spread
        )


@dataclass(frozen=True)
class Learned:
    """The learned prior of Style B maps; see `openfwi.toml`.

    Parameters
    ----------
    spread : float
        Factor of the expected errors: what the chains leave out.
    weights : str
        File of the denoiser's weights; the program's own if it is empty.
    """

    spread: float
    weights: str = ""

    @property
    def file(self) -> Path:
        """The file of the weights that are used."""
        return Path(self.weights) if self.weights else DENOISER_FILE

    def prior(self) -> LearnedPrior:
        """The prior before the data have told anything."""
        return LearnedPrior(load_denoiser(self.file), spread=self.spread)


@dataclass(frozen=True)
class Priors:
    """The priors of the Style families and the routing thresholds.

    Parameters
    ----------
    style_a, style_b : GaussianProcess
        Gaussian processes of the two families.
    style_b_variation : Variation
        Total variation of Style B.
    style_b_learned : Learned
        Learned prior of Style B, the same on any grid.
    routing : Routing
        Thresholds.
    """

    style_a: GaussianProcess
    style_b: GaussianProcess
    style_b_variation: Variation
    style_b_learned: Learned
    routing: Routing

    def with_process(self, key: str, process: GaussianProcess) -> "Priors":
        """The same priors with another Gaussian process.

        Parameters
        ----------
        key : {"style_a", "style_b"}
            Section of the process that is replaced.
        process : GaussianProcess
            The new one.

        Returns
        -------
        Priors
        """
        if key not in ("style_a", "style_b"):
            raise ValueError(f"found {key!r}, expected 'style_a' or 'style_b'")
        return replace(self, **{key: process})  # type: ignore[arg-type]

    def on_grid(self, shape: tuple[int, int], spacing: float) -> "Priors":
        """The same priors for maps on another grid.

        The length and the slope of `load` count in cells of 10 m. Texture is as coarse, and
        velocity rises as fast, in metres on any grid. So does the variation over an area: there
        are more differences on a finer grid, and each counts less.

        Parameters
        ----------
        shape : tuple of int
            (nz, nx) of the maps.
        spacing : float
            Size of a cell in m.

        Returns
        -------
        Priors
        """
        if shape == self.style_a.shape == self.style_b.shape and spacing == CELL:
            return self
        return replace(
            self,
            style_a=_on_grid(self.style_a, shape, spacing),
            style_b=_on_grid(self.style_b, shape, spacing),
            style_b_variation=replace(
                self.style_b_variation,
                scale=self.style_b_variation.scale * CELL / spacing,
                diagonal_scale=self.style_b_variation.diagonal_scale * CELL / spacing,
            ),
        )


@lru_cache(maxsize=8)
def _on_grid(process: GaussianProcess, shape: tuple[int, int], spacing: float) -> GaussianProcess:
    """Cached, because a process keeps what it has computed."""
    return replace(
        process,
        length=process.length * CELL / spacing,
        slope=process.slope * spacing / CELL,
        shape=shape,
    )


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
