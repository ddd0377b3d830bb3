"""The page of a run: one HTML file that holds its pictures and asks the network for nothing.

Everything that comes from files is escaped, and a content security policy forbids whatever is not
in the file and every script but the page's own, which it knows by its digest. A page
made from somebody else's report is as harmless as text, and one whose script may not run is whole.
"""

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import jinja2
import tomli_w
from markupsafe import Markup
from matplotlib.figure import Figure

from fwi_refine.analysis import plots
from fwi_refine.analysis.opened_run import OpenedRun
from fwi_refine.io.history import Step
from fwi_refine.io.outcomes import count_outcomes, describe_outcomes
from fwi_refine.io.report import Row
from fwi_refine.version import __version__

TEMPLATE = Path(__file__).with_suffix(".html")
SCRIPT = Path(__file__).with_suffix(".js")
ALL = "all"
MAX_LISTED = 200  # failed samples and kinds of remarks that are listed
MAX_TABLE_ROWS = 2000  # samples of the table, the worst first
RESOLUTION = 160  # of pictures of maps, dots per inch; curves are SVG

# Columns of the table: title, column of the report, how its values are combined.
NUMBERS = (
    ("misfit before, rms", "misfit_before", median),
    ("misfit after, rms", "misfit_after", median),
    ("MAE before, m/s", "mae_before", fmean),
    ("MAE after, m/s", "mae_after", fmean),
    ("expected error, m/s", "expected_error", fmean),
    ("evaluations", "evaluations", fmean),
    ("seconds", "seconds", fmean),
)
NEEDED_OF_ALL = {"expected_error"}  # the worst have none: a mean would leave them out
STATUSES = ("refined", "unchanged", "failed")
# Columns of the table of samples: title, column of the report.
SAMPLE_COLUMNS = (
    ("id", "id"),
    ("family", "family"),
    ("status", "status"),
    *((title, column) for title, column, _ in NUMBERS),
    ("proven", "exact"),
    ("remarks", "flags"),
)


@dataclass(frozen=True)
class Group:
    """The samples of one family, as a row of the page's table.

    Attributes
    ----------
    family : str
        Its name.
    samples : int
        How many there are.
    status : dict
        How many have each status.
    numbers : list of float or None
        As `NUMBERS` lists them, None where not known.
    """

    family: str
    samples: int
    status: dict[str, int]
    numbers: list[float | None]


def summarise(rows: Sequence[Row]) -> list[Group]:
    """Summarise a report by family.

    Misfits are medians over the samples for which they are known, the other numbers means. The
    expected error is known where that of each map is that was refined or kept.

    Parameters
    ----------
    rows : sequence of Row
        The report.

    Returns
    -------
    list of Group
        One for each family, by name, and one of all samples.
    """
    families = sorted({row.family for row in rows})
    groups = [(name, [row for row in rows if row.family == name]) for name in families]
    return [_group(name or "not classified", part) for name, part in [*groups, (ALL, rows)]]


def _group(name: str, rows: Sequence[Row]) -> Group:
    numbers = []
    finished = sum(row.status in ("refined", "unchanged") for row in rows)
    for _, column, combine in NUMBERS:
        known = [row for row in rows if getattr(row, column) is not None]
        if column in NEEDED_OF_ALL and len(known) < finished:
            known = []
        numbers.append(combine(getattr(row, column) for row in known) if known else None)
    return Group(name, len(rows), Counter(row.status for row in rows), numbers)


def render(
    run: OpenedRun, sort: str, worst: int = 12, history: dict[str, list[Step]] | None = None
) -> str:
    """The page of a run.

    Parameters
    ----------
    run : OpenedRun
        The run.
    sort : str
        A key of run_view.SORTED_BY, by which the worst samples are chosen.
    worst : int
        How many samples have pictures.
    history : dict, optional
        Steps by id, as history.read_history gives them.

    Returns
    -------
    str
        HTML.
    """
    groups = summarise(run.rows)
    shown = [k for k in range(len(NUMBERS)) if any(g.numbers[k] is not None for g in groups)]
    order = run.order(sort)
    numeric = {column for _, column, _ in NUMBERS}
    known = {
        column
        for _, column in SAMPLE_COLUMNS
        if any(getattr(row, column) not in (None, "") for row in run.rows)
    }
    script = SCRIPT.read_text(encoding="utf-8")
    failed = [row for row in run.rows if row.status == "failed"]
    flags = Counter(flag for row in run.rows for flag in row.flags.split("; ") if flag)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["digits"] = digits
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        run=run,
        name=run.path.absolute().name,
        version=__version__,
        groups=groups,
        columns=[NUMBERS[k][0] for k in shown],
        shown=shown,
        statuses=STATUSES,
        histogram=_histogram(run.rows),
        convergence=history and _svg(plots.convergence(history)),
        sort=sort,
        worst=[_pictured(run, k, (history or {}).get(run.rows[k].id)) for k in order[:worst]],
        pictured=set(order[:worst]),
        listed=order[:MAX_TABLE_ROWS],
        sample_columns=[named for named in SAMPLE_COLUMNS if named[1] in known],
        numeric=numeric,
        script=Markup(script),
        script_hash=Markup(_digest(script)),
        failed=failed[:MAX_LISTED],
        failed_count=len(failed),
        flags=flags.most_common(MAX_LISTED),
        outcomes=describe_outcomes(count_outcomes(run.rows)),
        settings=_settings(run),
        table=tomli_w.dumps(run.config) if run.config else None,
    )


def digits(value: float | None) -> str:
    """A number as a table shows it: three digits; a dash where it is not known."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return str(value)
    return f"{value:.3g}" if not math.isfinite(value) or abs(value) < 1000 else f"{value:.0f}"


def _histogram(rows: Sequence[Row]) -> str | None:
    before, after = [row.misfit_before for row in rows], [row.misfit_after for row in rows]
    return _svg(plots.misfit_histogram(before, after)) if any(after) else None


def _pictured(run: OpenedRun, k: int, steps: list[Step] | None) -> tuple[int, str, str | None]:
    """A sample, its picture, and how its misfit fell, where that is known."""
    steps = steps or run.history(k)
    figure = plots.panels(run.view(k), [len(run.survey.sources) // 2])
    picture = _data_uri(plots.to_bytes(figure, "png", RESOLUTION), "image/png")
    return k, picture, _svg(plots.convergence({run.rows[k].id: steps})) if steps else None


def _digest(script: str) -> str:
    """A script as a content security policy names it."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _svg(figure: Figure) -> str:
    return _data_uri(plots.to_bytes(figure, "svg"), "image/svg+xml")


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _settings(run: OpenedRun) -> list[tuple[str, str]]:
    """The way in which the run was done: (name, value)."""
    found = []
    for table in ("program", "settings"):
        items = run.config.get(table, {}).items()
        found += [(name.replace("_", " "), value) for name, value in items]
    found += [(name, path) for name, path in vars(run.files).items() if path is not None]
    return [(name, str(value)) for name, value in found]
