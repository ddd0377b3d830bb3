"""Common parts of figures: fonts, colour scales, axes of maps, and how a figure is written."""

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from fwi_refine.io.outputs import atomic_path
from fwi_refine.io.report import Row
from fwi_refine.survey import Survey

SUFFIXES = (".png", ".pdf", ".svg")
WIDTH = 7.2  # inches, both columns of a journal's page

# Text is 7 to 9 points at that width; text in a PDF or SVG can be searched and edited.
_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "figure.titlesize": 9,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "image.interpolation": "nearest",
    "image.resample": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "fwi-refine",
}
# Okabe and Ito (2008), told apart with any colour vision; black and yellow left out.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")

TICK_WIDTH, TICK_HEIGHT = 0.5, 0.3  # inches that a number takes, with the room about it
MIN_ASPECT = 0.4  # height of a map in widths, at least
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

SHOWN_FRACTION = 0.995  # fraction of the values that a scale shows where single ones lie far out
SHOWN_FRACTION_OF_RECORD = 0.97


@dataclass(frozen=True)
class Scale:
    """How values are coloured, and what the colour bar says.

    Attributes
    ----------
    label : str
        Of the colour bar, with the unit.
    colours : str
        Name of a colour map of matplotlib.
    low, high : float
        Values at its ends.
    extend : str
        Which ends stand for values beyond them too: "neither", "both" or "max".
    """

    label: str
    colours: str
    low: float
    high: float
    extend: str = "neither"

    def draw(
        self,
        ax: Any,
        values: NDArray[Any],
        extent: tuple[float, float, float, float],
        aspect: str = "auto",
    ) -> Any:
        """Draws values as an image; cells without a value are grey.

        Parameters
        ----------
        ax : matplotlib.axes.Axes
            Where it is drawn.
        values : ndarray, (rows, columns)
            In the unit of the label.
        extent : tuple of float
            Left, right, bottom and top edge, in the units of the axes.
        aspect : str
            "auto": the frame of the axes is what the image fills.

        Returns
        -------
        matplotlib.image.AxesImage
        """
        colours = matplotlib.colormaps[self.colours].with_extremes(bad="0.7")
        limits = {"vmin": self.low, "vmax": self.high}
        return ax.imshow(values, colours, extent=extent, aspect=aspect, **limits)


class Page:
    """A figure on which axes are placed in inches from its upper left corner.

    Maps are square or not, rows have one map or five: so the maps of all rows stand in columns,
    and the bars beside them are as high as they are.

    Parameters
    ----------
    width, height : float
        Inches.
    """

    BAR = (0.07, 0.08, 0.63)  # before a colour bar, its width, its labels

    def __init__(self, width: float, height: float) -> None:
        self.figure, self.width, self.height = Figure(figsize=(width, height)), width, height

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        """Axes whose frame is this rectangle, inches from the upper left corner."""
        w, h = self.width, self.height
        return self.figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))

    def bar(
        self,
        image: Any,
        scale: Scale,
        left: float,
        top: float,
        height: float,
    ) -> None:
        """The colour bar of an image that ends at `left`."""
        gap, width, _ = self.BAR
        ax = self.axes(left + gap, top, width, height)
        bar: Any = self.figure.colorbar(image, cax=ax, extend=scale.extend, extendfrac=0.04)
        bar.set_label(scale.label, size=7, labelpad=3)
        bar.outline.set_linewidth(0.6)
        bar.ax.tick_params(length=2)
        bar.locator = MaxNLocator(max(1, int(height / TICK_HEIGHT)))
        bar.update_ticks()


def velocity_scale(*maps: ArrayLike | None) -> Scale:
    """From the slowest to the fastest cell of some maps."""
    values = _finite(maps)
    low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
    if low == high:
        low, high = low - 1, high + 1
    return Scale("velocity, m/s", "viridis", low, high)


def difference_scale(
    *maps: ArrayLike | None,
    label: str = "difference, m/s",
    colours: str = "RdBu_r",
    clipped: float = SHOWN_FRACTION,
) -> Scale:
    """A scale centred on zero, for differences.

    Parameters
    ----------
    *maps : array_like or None
        Values that it is for; None is left out.
    label, colours : str
        Text beside the colour bar, and matplotlib's name of the colours.
    clipped : float
        Fraction of the values within the scale; the few beyond it have the colour of its ends.

    Returns
    -------
    Scale
    """
    high, extend = _limit(maps, clipped)
    return Scale(label, colours, -high, high, "both" if extend else "neither")


def error_scale(*maps: ArrayLike | None) -> Scale:
    """From zero upwards."""
    high, extend = _limit(maps)
    return Scale("error, m/s", "magma_r", 0.0, high, "max" if extend else "neither")


def record_scale(*records: ArrayLike | None) -> Scale:
    """Centred on zero; the direct wave, which is strong, is left to the ends of the scale."""
    label = "amplitude"
    return difference_scale(*records, label=label, colours="gray", clipped=SHOWN_FRACTION_OF_RECORD)


def _limit(maps: Iterable[ArrayLike | None], clipped: float = SHOWN_FRACTION) -> tuple[float, bool]:
    """The largest size that a scale shows, and whether anything is larger."""
    sizes = np.abs(_finite(maps))
    if not sizes.size or not sizes.any():
        return 1.0, False
    high = float(np.quantile(sizes, clipped)) or float(sizes.max())
    return high, bool(sizes.max() > 1.001 * high)


def _finite(maps: Iterable[ArrayLike | None]) -> NDArray[np.float64]:
    values = np.concatenate([np.asarray(m, np.float64).ravel() for m in maps if m is not None])
    return values[np.isfinite(values)]


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Within it, what is drawn has the style of this module."""
    with matplotlib.rc_context(_RC):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches that lays out its axes itself."""
    figure = Figure(figsize=(width, height), layout="constrained")
    layout: Any = figure.get_layout_engine()
    layout.set(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
    return figure


def map_extent(survey: Survey) -> tuple[float, float, float, float]:
    """Edges of a map in metres, as imshow takes them; depth grows downwards."""
    nz, nx = survey.shape
    return 0.0, survey.spacing * nx, survey.spacing * nz, 0.0


def few_ticks(ax: Any, width: float, height: float) -> None:
    """Set ticks whose labels do not meet, whatever their numbers are.

    The labels at the ends stay within the axes, as others begin there.

    Parameters
    ----------
    ax : matplotlib Axes
        The axes.
    width, height : float
        Their size, inches.
    """
    for axis, size, room in ((ax.xaxis, width, TICK_WIDTH), (ax.yaxis, height, TICK_HEIGHT)):
        low, high = sorted(axis.get_view_interval())
        ticks = MaxNLocator(max(1, int(size / room))).tick_values(low, high)
        axis.set_ticks([tick for tick in ticks if low <= tick <= high])
    low, high = ax.get_xlim()
    for place, tick in zip(ax.get_xticks(), ax.xaxis.get_major_ticks(), strict=True):
        side = {low: "left", high: "right"}.get(place, "center")
        tick.label1.set_horizontalalignment(side)


def map_height(survey: Survey, width: float) -> float:
    """Height of a map of so many inches, which are true to scale if it is not too flat for labels
    beside it."""
    nz, nx = survey.shape
    return width * max(nz / nx, MIN_ASPECT)


def power_of_ten(exponent: int) -> str:
    """A power of ten as figures write it."""
    return "10" + str(exponent).translate(SUPERSCRIPTS)


def heading(row: Row) -> str:
    """The heading of a sample: id, family, misfit, errors."""
    parts = [plain(row.id), plain(row.family or "").replace("_", " ")]
    if row.misfit_after is not None:
        parts.append(f"misfit {number(row.misfit_before)} → {number(row.misfit_after)} rms")
    if row.mae_after is not None:
        before = "" if row.mae_before is None else f"{number(row.mae_before)} → "
        parts.append(f"MAE {before}{number(row.mae_after)} m/s")
    if row.expected_error is not None:
        parts.append(f"expected error {number(row.expected_error)} m/s")
    return "   ".join(filter(None, parts))


def plain(text: object, length: int = 48) -> str:
    """Text from a file as a figure can show it: printable, and not too long."""
    shown = "".join(c if c.isprintable() else "?" for c in str(text))
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def number(value: float | None, unit: str = "") -> str:
    """Three digits, a dash where the value is not known."""
    return "–" if value is None else f"{value:.3g}{unit}"


def to_bytes(figure: Figure, kind: str = "png", dpi: float = 150) -> bytes:
    """A figure as a file; the same figure gives the same bytes.

    Parameters
    ----------
    figure : Figure
        The figure.
    kind : str
        "png", "pdf" or "svg".
    dpi : float
        Dots per inch of images.

    Returns
    -------
    bytes
    """
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=_no_date(kind))
    return buffer.getvalue()


def save(figures: Sequence[Figure], path: Path, dpi: float = 300) -> None:
    """Writes figures to a file: whole, or not at all.

    Parameters
    ----------
    figures : sequence of Figure
        Several figures are pages, which only PDF has.
    path : Path
        Ends in one of `SUFFIXES`.
    dpi : float
        Dots per inch of images.

    Raises
    ------
    ValueError
        For another suffix, or several figures in a file that is no PDF.
    """
    kind = path.suffix.lower()
    if kind not in SUFFIXES or (len(figures) > 1 and kind != ".pdf"):
        raise ValueError(f"{path}: {len(figures)} figures cannot be written as {kind!r}")
    with atomic_path(path) as temporary, styled():
        if kind == ".pdf":
            with PdfPages(temporary, metadata=_no_date("pdf")) as pages:
                for figure in figures:
                    pages.savefig(figure, dpi=dpi)
        else:
            temporary.write_bytes(to_bytes(figures[0], kind[1:], dpi))


def _no_date(kind: str) -> dict[str, Any]:
    return {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}[kind]
