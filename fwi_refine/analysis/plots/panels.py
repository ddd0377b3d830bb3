"""All that is known of one sample, on one page: maps, differences, expected errors, records."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fwi_refine.analysis.plots import style
from fwi_refine.analysis.plots.style import Scale
from fwi_refine.survey import Survey

if TYPE_CHECKING:
    from fwi_refine.analysis.run_view import RunView

# Inches: room for the labels at the left, between panels, for a title, for the labels below.
LEFT, GAP, ABOVE, BELOW = 0.55, 0.13, 0.22, 0.42
LINE, LETTERS = 0.15, 14  # of the heading: its height, letters to the inch
SIZE = (style.WIDTH - LEFT - 2 * GAP - sum(style.Page.BAR)) / 3  # width of a panel
RECORD = 1.1  # height of a record, in widths; of many, half of that


@dataclass(frozen=True)
class _Panels:
    """One row of a page: images, (title, values) each, with one colour scale."""

    images: list[tuple[str, NDArray[Any]]]
    scale: Scale
    record: bool = False


def panels(view: "RunView", shots: Sequence[int] = ()) -> Figure:
    """One sample on a page: a row for each quantity, with one colour scale.

    Start, refined map and truth; their differences; real and expected error; and for each shot
    the measured record, the simulated one, and the residual, which is simulated - measured.

    Parameters
    ----------
    view : RunView
        The sample.
    shots : sequence of int
        Shots to show, counted from 0.

    Returns
    -------
    Figure
    """
    found = [_velocities(view), _differences(view), _errors(view)]
    rows = [row for row in found if row is not None]
    if view.measured is not None:
        rows += [_record(view.measured, view.simulated, shot) for shot in shots]
    columns = max(len(row.images) for row in rows)
    record = RECORD if len(shots) <= 2 else RECORD / 2
    heights = [SIZE * record if row.record else style.map_height(view.survey, SIZE) for row in rows]
    letters = iter(ascii_lowercase)
    width = LEFT + SIZE * columns + GAP * (columns - 1) + sum(style.Page.BAR)
    heading = textwrap.wrap(style.heading(view.row), int(LETTERS * (width - LEFT)))
    top = LINE * (len(heading) + 0.5)
    with style.styled():
        page = style.Page(width, top + sum(heights) + (ABOVE + BELOW) * len(rows))
        page.figure.text(
            LEFT / page.width, 1 - 0.06 / page.height, "\n".join(heading), va="top",
            parse_math=False,
        )  # fmt: skip
        for row, height in zip(rows, heights, strict=True):
            top += ABOVE
            for column, (title, values) in enumerate(row.images):
                left = LEFT + (SIZE + GAP) * column
                ax = page.axes(left, top, SIZE, height)
                image = _draw(ax, values, row, view.survey)
                ax.set_title(f"({next(letters, '…')}) {title}")
                ax.tick_params(labelleft=column == 0)
                style.few_ticks(ax, SIZE, height)
                ax.set_ylabel(ax.get_ylabel() if column == 0 else "")
            page.bar(image, row.scale, left + SIZE, top, height)
            top += height + BELOW
    return page.figure


def _draw(ax: Any, values: NDArray[Any], row: _Panels, survey: Survey) -> Any:
    if not row.record:
        ax.set_xlabel("position, m")
        ax.set_ylabel("depth, m")
        return row.scale.draw(ax, values, style.map_extent(survey))
    label, left, right = _receiver_axis(survey)
    ax.set_xlabel(label)
    ax.set_ylabel("time, s")
    extent = (left, right, survey.dt * len(values), 0.0)
    return row.scale.draw(ax, values, extent, aspect="auto")


def _receiver_axis(survey: Survey) -> tuple[str, float, float]:
    """Label and ends of the axis of receivers: metres where they are a row with even steps."""
    rows, columns = np.array(survey.receivers).T
    steps = np.unique(np.diff(columns)) if len(columns) > 1 else np.array([1])
    if len({*rows}) == 1 and len(steps) == 1 and steps[0] > 0:
        left, right = columns[0], columns[-1] + steps[0]
        return "receiver position, m", float(survey.spacing * left), float(survey.spacing * right)
    return "receiver", 0.5, len(columns) + 0.5


def _velocities(view: "RunView") -> _Panels:
    maps = [("start", view.start), (view.name, view.refined), ("truth", view.truth)]
    images = [(title, v) for title, v in maps if v is not None]
    return _Panels(images, style.velocity_scale(*(v for _, v in images)))


def _differences(view: "RunView") -> _Panels | None:
    images: list[tuple[str, NDArray[Any]]] = []
    for title, v in (("start", view.start), (view.name, view.refined)):
        if v is not None and view.truth is not None:
            images.append((f"{title} − truth", v - view.truth))
    if view.start is not None and not np.array_equal(view.refined, view.start):
        images.append((f"{view.name} − start", view.refined - view.start))
    return _Panels(images, style.difference_scale(*(v for _, v in images))) if images else None


def _errors(view: "RunView") -> _Panels | None:
    images: list[tuple[str, NDArray[Any]]] = []
    if view.truth is not None:
        error = np.abs(view.refined - view.truth)
        images.append((f"error, rms {style.number(_rms(error))} m/s", error))
    if view.deviation is not None and np.isfinite(view.deviation).any():
        title = f"expected, rms {style.number(_rms(view.deviation))} m/s"
        images.append((title, view.deviation))
    return _Panels(images, style.error_scale(*(v for _, v in images))) if images else None


def _record(records: NDArray[Any], others: NDArray[Any] | None, shot: int) -> _Panels:
    """The measured record of a shot, and the simulated one where it is known."""
    measured = records[shot]
    images = [(f"measured, shot {shot + 1}", measured)]
    scale = style.record_scale(measured)
    if others is not None:
        residual = others[shot] - measured
        times = _magnification(residual, scale)
        title = "residual" + (f" × {style.power_of_ten(times)}" if times else "")
        title = title if residual.any() else "no residual"
        images += [("simulated", others[shot]), (title, 10.0**times * residual)]
    return _Panels(images, scale, record=True)


def _magnification(residual: NDArray[Any], scale: Scale) -> int:
    """The exponent of ten that makes a residual as visible as the record it is left of."""
    size = float(np.quantile(np.abs(residual), style.SHOWN_FRACTION_OF_RECORD))
    if not 0 < size < scale.high:
        return 0
    return int(np.floor(np.log10(scale.high / size)))


def _rms(values: NDArray[Any]) -> float:
    return float(np.sqrt(np.nanmean(np.square(values))))
