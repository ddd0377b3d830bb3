"""A result in a notebook: a table, and pictures where matplotlib is installed."""

import base64
import html
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from fwi_refine.analysis.run_view import RunView
from fwi_refine.io.outcomes import count_outcomes, describe_outcomes
from fwi_refine.io.report import Row
from fwi_refine.survey import Survey

ROWS, PICTURES = 20, 3  # of the table, and samples with a picture, the first ones
RESOLUTION = 110  # dots per inch
COLUMNS = (
    ("id", "id"),
    ("family", "family"),
    ("status", "status"),
    ("misfit before, rms", "misfit_before"),
    ("misfit after, rms", "misfit_after"),
    ("expected error, m/s", "expected_error"),
    ("proven", "exact"),
    ("evaluations", "evaluations"),
    ("seconds", "seconds"),
    ("remarks", "flags"),
)


def result_as_html(
    rows: Sequence[Row],
    velocity: NDArray[Any],
    start: NDArray[Any] | None,
    deviation: NDArray[Any],
    survey: Survey,
) -> str:
    """A table of the samples, and pictures of the first.

    Parameters
    ----------
    rows : sequence of Row
        The report.
    velocity, start, deviation : ndarray, (N, nz, nx)
        Maps, m/s; start None where it is not known.
    survey : Survey
        Of the maps.

    Returns
    -------
    str
        HTML; all text from outside is escaped.
    """
    unit = "sample" if len(rows) == 1 else "samples"
    heading = f"{len(rows)} {unit}: {describe_outcomes(count_outcomes(rows))}"
    head = "".join(f"<th>{title}</th>" for title, _ in COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(getattr(row, name))}</td>" for _, name in COLUMNS) + "</tr>"
        for row in rows[:ROWS]
    )
    more = f"<p>and {len(rows) - ROWS} more</p>" if len(rows) > ROWS else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"
    return f"<p>{heading}</p>{table}{_picture(rows, velocity, start, deviation, survey)}"


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return html.escape(f"{value:.3g}" if isinstance(value, float) else str(value))


def _picture(
    rows: Sequence[Row],
    velocity: NDArray[Any],
    start: NDArray[Any] | None,
    deviation: NDArray[Any],
    survey: Survey,
) -> str:
    """The first samples as an image; empty without matplotlib."""
    try:
        from fwi_refine.analysis import plots
    except ModuleNotFoundError:
        return ""
    run_views = [
        RunView(rows[k], velocity[k], survey, None if start is None else start[k],
                deviation=deviation[k])
        for k in range(min(PICTURES, len(rows)))
    ]  # fmt: skip
    data = base64.b64encode(plots.to_bytes(plots.samples(run_views), "png", RESOLUTION)).decode()
    return f'<img alt="Maps of the first samples" src="data:image/png;base64,{data}">'
