"""Many samples in one figure: a row for each, or a sheet of small maps."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fwi_refine.analysis.metrics import mean_absolute_error
from fwi_refine.analysis.plots import style
from fwi_refine.survey import Survey

if TYPE_CHECKING:
    from fwi_refine.analysis.run_view import RunView

MAX_ASPECT = 1.35  # a contact sheet has so many more rows than columns, as a page has
MIN_COLUMNS = 4
# Inches: room for the labels at the left, between maps, for titles, for the labels below.
LEFT, GAP, ABOVE, BELOW = 0.62, 0.06, 0.52, 0.38
HEADING = 0.38  # of that, above a map: where the line about its sample begins
MIN_WIDTH = 5.4  # of a page, inches: the line about a sample has room
BAR = sum(style.Page.BAR)
SIZE = (style.WIDTH - LEFT - 2 * GAP - 3 * BAR) / 5  # width of a map


def samples(run_views: Sequence["RunView"]) -> Figure:
    """A row for each sample: start, refined map, truth, difference, expected error.

    The difference is that to the truth; where no sample has one, to the start. A line above each
    row says which sample it is, with misfits and errors. The maps of a row share one colour scale.
    What no sample has is left out.

    Parameters
    ----------
    run_views : sequence of RunView
        What is known of each sample, all of one survey.

    Returns
    -------
    Figure
    """
    known = [
        name
        for name in ("start", "refined", "truth", "deviation")
        if any(getattr(view, name) is not None for view in run_views)
    ]
    kinds = [name for name in known if name != "deviation"]
    other = next((name for name in ("truth", "start") if name in known), None)
    singles = (other is not None) + ("deviation" in known)
    height = style.map_height(run_views[0].survey, SIZE)
    with style.styled():
        page = style.Page(
            max(
                MIN_WIDTH,
                LEFT + SIZE * (len(kinds) + singles) + GAP * (len(kinds) - 1) + BAR * (1 + singles),
            ),
            (ABOVE + height) * len(run_views) + BELOW,
        )
        for k, view in enumerate(run_views):
            row = _Row(
                page, view, ABOVE + (ABOVE + height) * k, height, last=k + 1 == len(run_views)
            )
            row.velocities(kinds)
            if other is not None:
                title = f"{view.name}\n− {other}"
                row.single(title, _difference(view, other), style.difference_scale)
            if "deviation" in known:
                row.single("expected\nerror", view.deviation, style.error_scale)
    return page.figure


class _Row:
    """The maps of one sample, placed from left to right."""

    def __init__(
        self, page: style.Page, view: "RunView", top: float, height: float, last: bool
    ) -> None:
        self.page, self.view, self.top, self.height, self.last = page, view, top, height, last
        self.left, self.named = LEFT, False
        line = style.plain(style.heading(view.row), int(15 * (page.width - 0.2)))
        page.figure.text(
            0.1 / page.width, 1 - (top - HEADING) / page.height, line, va="bottom", size=7,
            parse_math=False,
        )  # fmt: skip

    def velocities(self, kinds: Sequence[str]) -> None:
        view = self.view
        maps = [(kind, getattr(view, kind)) for kind in kinds]
        scale = style.velocity_scale(*(v for _, v in maps))
        for k, (kind, v) in enumerate(maps):
            if v is not None:
                title = view.name if kind == "refined" else kind
                if kind != "truth" and view.truth is not None:
                    error = mean_absolute_error(v, view.truth)
                    title += f"\nMAE {style.number(error)} m/s"
                image = self._draw(v, scale, title)
            self.left += SIZE + (GAP if k + 1 < len(maps) else 0)
        self._bar(image, scale)

    def single(
        self,
        title: str,
        values: NDArray[Any] | None,
        make_scale: Callable[[NDArray[Any]], style.Scale],
    ) -> None:
        """A map with a colour scale of its own; nothing where it is not known."""
        if values is None or not np.isfinite(values).any():
            self.left += SIZE + BAR
            return
        scale = make_scale(values)
        image = self._draw(values, scale, title)
        self.left += SIZE
        self._bar(image, scale)

    def _draw(self, values: NDArray[Any], scale: style.Scale, title: str) -> Any:
        ax = self.page.axes(self.left, self.top, SIZE, self.height)
        image = scale.draw(ax, values, style.map_extent(self.view.survey))
        ax.set_title(title, size=7, pad=3)
        first, self.named = not self.named, True
        ax.tick_params(labelleft=first, labelbottom=self.last, length=2)
        style.few_ticks(ax, SIZE, self.height)
        if first:
            ax.set_ylabel("depth, m", size=7)
        if self.last:
            ax.set_xlabel("position, m", size=7)
        return image

    def _bar(self, image: Any, scale: style.Scale) -> None:
        self.page.bar(image, scale, self.left, self.top, self.height)
        self.left += BAR


def _difference(view: "RunView", other: str) -> NDArray[Any] | None:
    """The map minus its truth or start; None where that is not known, or is the map itself."""
    v: NDArray[Any] | None = getattr(view, other)
    return None if v is None or view.name == other else view.refined - v


def contact_sheet(
    maps: Sequence[NDArray[Any]],
    captions: Sequence[str],
    survey: Survey,
    difference: bool = False,
    what: str = "maps",
) -> Figure:
    """Many small maps in reading order, with a line of text below each and one colour scale.

    Parameters
    ----------
    maps : sequence of ndarray, (nz, nx)
        The maps, m/s.
    captions : sequence of str
        One for each map.
    survey : Survey
        That of the maps.
    difference : bool
        They are differences, with a sign, and not velocities.
    what : str
        What they are, in the plural, and by what they are sorted.

    Returns
    -------
    Figure
    """
    captions = [style.plain(caption) for caption in captions]
    columns = max(MIN_COLUMNS, math.ceil(math.sqrt(len(maps) / MAX_ASPECT)))
    rows = math.ceil(len(maps) / columns)
    nz, nx = survey.shape
    size = (style.WIDTH - 0.2) / (columns * 1.06)
    height = style.map_height(survey, size)
    letters = min(7.0, 72 * size / (0.6 * max(map(len, captions))))  # points
    scale = (style.difference_scale if difference else style.velocity_scale)(*maps)
    below = letters / 72 + 0.09
    with style.styled():
        page = style.Page(style.WIDTH, 0.3 + (height + below) * rows + 0.5)
        for k, (v, caption) in enumerate(zip(maps, captions, strict=True)):
            left = 0.1 + size * 1.06 * (k % columns)
            ax = page.axes(left, 0.3 + (height + below) * (k // columns), size, height)
            image = scale.draw(ax, v, style.map_extent(survey))
            ax.set(xticks=[], yticks=[])
            ax.set_xlabel(caption, size=letters, labelpad=2, parse_math=False)
        width, depth = survey.spacing * nx, survey.spacing * nz
        text = f"{len(maps)} {what}, each {width:g} m wide and {depth:g} m deep"
        page.figure.text(0.1 / page.width, 1 - 0.08 / page.height, text, va="top", size=9)
        ax = page.axes(style.WIDTH / 4, page.height - 0.45, style.WIDTH / 2, 0.09)
        bar = page.figure.colorbar(
            image, cax=ax, label=scale.label, extend=scale.extend, orientation="horizontal"
        )
        bar.outline.set_linewidth(0.6)
    return page.figure
