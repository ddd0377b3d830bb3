"""Write BENCHMARKS.md, docs/measurements.md and the results in README.md from benchmarks/.

    python scripts/render_benchmarks.py [--check]

The texts are benchmarks/template.md and benchmarks/measurements.md. Two kinds of places in them are
filled in:

    {{ file.key.key }}             a value of benchmarks/file.json; a number counts rows
    {{ file.rows[a; b].key }}      of the first row that has the values a and b
    {{ file.key.key:.2f }}         the same with a format
    {{ table name }}               a table, from `TABLES` below

The table in README.md stands between two comments. A result file is a JSON object: date, commit,
machine, command, for made records their arithmetic ("records"), and the rows. With --check, nothing
is written, and the exit code is 1 where a text differs from what would be written.
"""

import argparse
import difflib
import json
import re
import sys
import textwrap
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
PLACE = re.compile(
    r"\{\{ *(?:table (?P<table>\w+)|"
    r"(?P<path>[\w.]+(?:\[[^]]*\][\w.]+)?)(?::(?P<format>[^} ]+))?) *\}\}"
)
NEEDED = {"date", "commit", "machine", "command"}
SPEED_COLUMNS = ("seconds", "ratio")


class ResultError(ValueError):
    """A result file is missing or has another form than expected."""


@cache
def result(name: str) -> dict:
    """The content of one result file.

    Raises
    ------
    ResultError
        If the file cannot be read, is no JSON object, or lacks a part of its provenance.
    """
    path = RESULTS / f"{name}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ResultError(f"{path}: found a list, expected an object with rows and provenance")
    if missing := NEEDED - content.keys():
        raise ResultError(f"{path}: lacks {', '.join(sorted(missing))}")
    return content


def value(path: str):
    """The value at a path such as speed.settings.threads or made_maps.rows[Style_A; 9001].start."""
    name, *keys = re.findall(r"\[[^]]*\]|\w+", path)
    found = result(name)
    for key in keys:
        try:
            if key[0] == "[":
                wanted = set(key[1:-1].split("; "))
                found = next(row for row in found if wanted <= {*map(str, row.values())})
            else:
                found = found[int(key)] if isinstance(found, list) else found[key]
        except (KeyError, IndexError, TypeError, ValueError, StopIteration) as error:
            raise ResultError(f"benchmarks/{name}.json: has no {'.'.join(keys)}") from error
    return "not recorded" if found is None else found


def number(x: float | int | None, spec: str) -> str:
    """A number in a format, nothing for None."""
    return "" if x is None else format(x, spec)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table without a line end."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def by_family(rows: list[dict]) -> dict[str, list[dict]]:
    """Rows of each family, in the order of the file."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(row["family"], []).append(row)
    return found


def spread(values: list[float]) -> str:
    """The mean, with the range where there are several different values."""
    text = short(mean(values))
    if min(values) < max(values):
        text += f" ({short(min(values))} to {short(max(values))})"
    return text


def to(least: int, most: int) -> str:
    """A range of counts, one number where both ends are equal."""
    return f"{least}" if least == most else f"{least} to {most}"


def short(x: float) -> str:
    """Two decimals at most: 30.1, 1.25, 0.0."""
    return str(round(float(x), 2))


def second_place(family: str, row: dict) -> str:
    left = family in result("real_maps").get("second_place_unrefined", ())
    return f"{row['second_place']:g}" + (" (not refined)" if left else "")


def real_maps_by_family() -> str:
    """README: one line for each family."""
    lines = [
        [*errors_of_family(family, group), second_place(family, group[0])]
        for family, group in by_family(result("real_maps")["rows"]).items()
    ]
    return table(["family (maps)", "start", "refined", "2nd place"], lines)


def errors_of_family(family: str, rows: list[dict]) -> list[str]:
    """Name, errors of starts and errors of refined maps."""
    errors = (spread([row[key] for row in rows]) for key in ("start", "refined"))
    return [f"{family} ({len(rows)})", *errors]


def real_families() -> str:
    """BENCHMARKS.md: one line for each family."""
    lines = []
    for family, rows in by_family(result("real_maps")["rows"]).items():
        proven = sum(row["exact"] is True for row in rows)
        place = second_place(family, rows[0])
        lines.append([*errors_of_family(family, rows), f"{proven or ''}", place])
    return table(["family (maps)", "start", "refined", "proven", "2nd place"], lines)


def real_maps() -> str:
    """One line for each map; columns without any value are left out."""
    optional = {
        "misfit, rms": ("misfit_rms", ".1e"),
        "evaluations": ("evaluations", "d"),
        "seconds": ("seconds", ".0f"),
    }
    rows = result("real_maps")["rows"]
    measured = {
        title: how
        for title, how in optional.items()
        if any(row[how[0]] is not None for row in rows)
    }
    lines = []
    for row in rows:
        refined = "exact" if row["exact"] is True else short(row["refined"])
        more = [number(row[key], spec) for key, spec in measured.values()]
        place = second_place(row["family"], row)
        lines.append([row["family"], row["case"], short(row["start"]), refined, *more, place])
    return table(["family", "map", "start", "refined", *measured, "2nd place"], lines)


def made_maps() -> str:
    """One line for each family of made maps: means of its maps."""
    lines = []
    for family, rows in by_family(result("made_maps")["rows"]).items():
        means = [mean(row[key] for row in rows) for key in ("start", "refined")]
        lines.append(
            [
                f"{family} ({len(rows)})",
                *(short(error) for error in means),
                f"{sum(row['exact'] is True for row in rows) or ''}",
                f"{mean(row['misfit_after'] for row in rows):.1e}",
                f"{mean(row['evaluations'] for row in rows):.0f}",
            ]
        )
    return table(["family (maps)", "start", "refined", "proven", "rms", "evaluations"], lines)


def real_seconds() -> str:
    """Times of real maps in a sentence."""
    rows = [row for row in result("real_maps")["rows"] if row["seconds"] is not None]
    flat = [row["seconds"] for row in rows if row["family"].startswith("FlatVel")]
    other = [row["seconds"] for row in rows if not row["family"].startswith("FlatVel")]
    return (
        f"flat layers took {to(min(flat), max(flat))} s, other real maps "
        f"{to(min(other), max(other))} s"
    )


def published() -> str:
    """The published recipe beside the default method: one line for each family."""
    lines = []
    for family, rows in by_family(result("ablations")["rows"]).items():
        runs = {row["what"]: row for row in rows}
        pair = [runs["default"], runs["published"]]
        lines.append(
            [
                family,
                short(pair[0]["start"]),
                *(short(row["refined"]) for row in pair),
                *(f"{row['misfit_after']:.1e}" for row in pair),
                *(f"{row['evaluations']}" for row in pair),
            ]
        )
    head = ["family", "start", "refined", "published", "rms", "published", "evaluations"]
    return table([*head, "published"], lines)


def ablations() -> str:
    lines = [
        [row["family"], row["what"], short(row["refined"]), f"{row['evaluations']}"]
        for row in result("ablations")["rows"]
        if row["what"] != "published"
    ]
    return table(["family", "variant", "refined", "evaluations"], lines)


def speed() -> str:
    """One line for each program, with its time over that of fwi-refine."""
    rows = result("speed")["rows"]
    runs = [*dict.fromkeys(row["what"] for row in rows)]
    own = {row["what"]: str(row["fwi_refine"]) for row in rows}
    lines = [["fwi-refine", *(cell for run in runs for cell in (own[run], ""))]]
    for other in dict.fromkeys(row["other"] for row in rows):
        times = {row["what"]: row for row in rows if row["other"] == other}
        cells = [
            str(times[run][key]) if run in times else "" for run in runs for key in SPEED_COLUMNS
        ]
        lines.append([other, *cells])
    head = [cell for run in runs for cell in (f"{run}, s", "ratio")]
    return table(["program", *head], lines)


def gpu() -> str:
    """What scripts/benchmark_gpu.py has measured on a card, if it has."""
    if not (RESULTS / "gpu.json").exists():
        return "Not measured yet."
    found = result("gpu")
    lines = [
        [f"{row['what']} a second, {row['precision']}", f"{row['rate']:.0f}"]
        for row in found.get("speed", ())
        if "rate" in row
    ]
    lines += [
        [f"{row['what']}, s", f"{row['seconds']:.3f}"]
        for row in found.get("step", ())
        if "seconds" in row
    ]
    for row in found.get("samples", ()):
        if "rate" in row:
            name = f"samples a second, {row['at_a_time']} at a time"
            lines.append([name, f"{row['rate']:.3f}"])
            lines.append(["projected hours for 65,818 samples", f"{row['hours_for_test_set']:.1f}"])
    tests = found.get("self_test", ())
    passed = sum(row["passed"] for row in tests if "passed" in row)
    lines.append(["self-tests passed", f"{passed} of {len(tests)}"])
    return f"{found['machine']}, {found['date']}:\n\n" + table(["what", "value"], lines)


def size() -> str:
    """One line for each case of one step: time and memory against cells."""
    lines = [
        [
            row["case"],
            row["method"],
            f"{row['shots']}",
            f"{row['evaluations']:.0f}",
            f"{row['seconds']:.0f}",
            f"{1e6 * row['seconds'] / row['evaluations'] / row['shots'] / row['cells']:.1f}",
            f"{row['peak_memory_gb']:.1f}",
        ]
        for row in result("size")["rows"]
    ]
    head = ["cells", "method", "shots", "evaluations", "s", "µs a cell, shot and evaluation", "GB"]
    return table(head, lines)


def pairs() -> str:
    """One line for each real pair of a large map."""
    lines = [
        [
            row["case"],
            f"{row['start']:.1f}",
            number(row["peer"], ".1f"),
            f"{row['refined']:.1f}",
            f"{row['misfit_after']:.1e}",
            f"{row['evaluations']}",
            f"{row['seconds']}",
            f"{row['peak_memory_gb']:.1f}",
        ]
        for row in result("size")["pairs"]
    ]
    head = ["pair", "start", "RED-DiffEq", "refined", "rms", "evaluations", "s", "GB"]
    return table(head, lines)


def faults() -> str:
    """One line for each fault of a small record."""
    lines = [
        [
            row["case"],
            f"{row['refined']:.2f}",
            f"{row['misfit_after']:.1e}",
            f"{row['noise']:.1e}" if row["noise"] else "none",
            f"{row['evaluations']}",
            ", ".join(row["flags"]),
        ]
        for row in result("faults")["rows"]
    ]
    head = ["record, `--source`", "error, m/s", "rms", "noise found", "evaluations", "flags"]
    return table(head, lines)


def real_search() -> str:
    """One line for each real map: before and after the search for a proven map."""
    lines = [
        [
            row["case"],
            f"{row['wrong_before']}",
            f"{row['equal_before']:.1%}",
            f"{row['equal_after']:.1%}",
            f"{row['inversion_evaluations']}",
            f"{row['inversion_seconds']}",
            f"{row['search_evaluations']:.0f}",
            f"{row['search_seconds']}",
        ]
        for row in result("real_search")["rows"]
    ]
    head = ["map", "wrong cells before", "equal samples before", "after"]
    head += ["evaluations before", "seconds before", "of the search", "its seconds"]
    return table(head, lines)


def poor_fits() -> str:
    """One line for each thing that is wrong: of its maps, the fraction of the start's misfit that
    is left, and errors before and after."""
    cases: dict[str, list[dict]] = {}
    for row in result("poor_fits")["rows"]:
        cases.setdefault(row["case"], []).append(row)
    maps = [f"{row['family']}" for row in next(iter(cases.values()))]
    lines = [
        [case, *(f"{r['left']:.2f}: {r['start']:.0f} -> {r['refined']:.0f}" for r in rows)]
        for case, rows in cases.items()
    ]
    return table(["wrong", *maps], lines)


def step_ways() -> str:
    """One line for each way to make a Gauss-Newton step faster."""
    ways = result("gauss_newton_step")["ways"]
    lines = [[row[key] for key in ("way", "found", "taken")] for row in ways]
    return table(["way", "found", "taken"], lines)


def style_priors() -> str:
    """One line for each part of a real Style_B map, and means of those not tuned on."""
    found = result("style_priors")["linearised_parts"]
    names = ("gp", "tv", "learned", "tv_expected", "learned_expected")
    shares = ("learned_within_one", "learned_within_two")
    rows = found["rows"]
    reported = [row for row in rows if row["case"] not in found["tuning"]]
    average = {key: mean(row[key] for row in reported) for key in (*names, *shares)}
    lines = [
        [
            row["case"],
            *(f"{row[key]:.1f}" for key in names),
            *(f"{100 * row[key]:.0f} %" for key in shares),
        ]
        for row in (*rows, {"case": "mean of reported", **average})
    ]
    expected = ["expected by `tv`", "by `learned`", "within one deviation", "within two"]
    return table(["map", "`gp`", "`tv`", "`learned`", *expected], lines)


def style_ways() -> str:
    """Mean errors of ways to an estimate on the same parts: tuning maps, reported ones."""
    found = result("style_priors")["ways"]
    lines = [
        [row["way"], *(_two_digits(row[case]) for case in ("r47", "r49", "reported", "r47_whole"))]
        for row in found["rows"]
    ]
    return table(["estimate", "r47", "r49", "reported (5)", "r47, whole"], lines)


def style_inversions() -> str:
    """Whole inversions of parts, the last stage with two estimates by the learned prior."""
    lines = []
    for row in result("style_priors")["learned_part"]["rows"]:
        errors = [f"{row[key]:.1f}" for key in ("start", "with_tv", "chains", "expected")]
        shares = [f"{100 * row[key]:.0f} %" for key in ("within_one", "within_two")]
        lines.append([row["case"], *errors, *shares])
    expected = ["expected", "within one deviation", "within two"]
    return table(["map", "start", "with `tv`", "chains", *expected], lines)


def _two_digits(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def expected_errors() -> str:
    """Expected and real errors of made and of real maps that are not proven."""
    groups = {}
    for maps in ("made", "real"):
        for row in result(f"{maps}_maps")["rows"]:
            if row.get("expected") is not None and row["exact"] is not True:
                kind = row["family"] if row["family"].startswith("Style") else "layers"
                groups.setdefault(f"{kind}, {maps}", []).append(row)
    lines = []
    for name, rows in groups.items():
        means = [f"{mean(row[key] for row in rows):.2f}" for key in ("expected", "refined")]
        lines.append([name, *means, f"{len(rows)}"])
    return table(["maps", "expected", "real", "number"], lines)


def behind() -> str:
    """The real maps that end above the 2nd place's mean, in a sentence."""
    found = [
        f"{row['family']} {row['case']} ({short(row['refined'])}, {row['second_place']:g} m/s)"
        for row in result("real_maps")["rows"]
        if row["refined"] > row["second_place"]
    ]
    return ", ".join(found) or "none"


TABLES: dict[str, Callable[[], str]] = {
    function.__name__: function
    for function in (
        real_maps,
        real_families,
        behind,
        made_maps,
        real_seconds,
        published,
        ablations,
        speed,
        expected_errors,
        gpu,
        size,
        pairs,
        faults,
        poor_fits,
        real_search,
        step_ways,
        style_priors,
        style_ways,
        style_inversions,
    )
}


def fill(place: re.Match) -> str:
    """The text for one place of the template."""
    if name := place["table"]:
        if name not in TABLES:
            raise ResultError(f"benchmarks/*.md: no table {name!r}")
        return TABLES[name]()
    found = value(place["path"])
    return format(found, place["format"]) if place["format"] else str(found)


def page(template: str) -> str:
    """A whole page: BENCHMARKS.md, for example."""
    text = PLACE.sub(fill, (RESULTS / template).read_text(encoding="utf-8"))
    return "\n\n".join(map(wrapped, text.strip().split("\n\n"))) + "\n"


def wrapped(block: str) -> str:
    """A paragraph or a list in lines of 100 signs at most; all else as it is."""
    if block.startswith(("|", "#", "<", "    ")):
        return block
    items = re.split(r"^(?=- )", block, flags=re.MULTILINE)
    return "\n".join(
        textwrap.fill(
            " ".join(item.split()),
            width=100,
            subsequent_indent="  " if item.startswith("- ") else "",
            break_on_hyphens=False,
            break_long_words=False,
        )
        for item in items
        if item.strip()
    )


def readme(text: str) -> str:
    """The README with its table of results renewed."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ResultError(f"README.md: lacks {BEGIN} or {END}")
    page = "[BENCHMARKS.md](BENCHMARKS.md)"
    maps = "[Single maps](docs/measurements.md#real-maps)"
    note = f"Mean absolute error, m/s. {maps}; protocol, speed, failures: {page}."
    return f"{before}{BEGIN}\n{real_maps_by_family()}\n\n{note}\n{END}{after}"


def rendered() -> dict[Path, str]:
    """What each of the three files should hold."""
    path = ROOT / "README.md"
    return {
        ROOT / "BENCHMARKS.md": page("template.md"),
        ROOT / "docs" / "measurements.md": page("measurements.md"),
        path: readme(path.read_text(encoding="utf-8")),
    }


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a text differs")
    options = parser.parse_args(arguments)
    try:
        texts = rendered()
    except ResultError as error:
        print(error, file=sys.stderr)
        return 2
    different = 0
    for path, text in texts.items():
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        if old == text:
            continue
        different = 1
        if options.check:
            names = f"{path.name}, as it is", f"{path.name}, as rendered"
            lines = difflib.unified_diff(old.splitlines(), text.splitlines(), *names, lineterm="")
            print("\n".join(lines))
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.name}")
    return different if options.check else 0


if __name__ == "__main__":
    sys.exit(main())
