"""A run made to be looked at, with numbers that are easy to add up and texts that mean harm."""

import csv

import numpy as np

from fwi_refine.analysis.opened_run import OpenedRun
from fwi_refine.analysis.run_files import Files
from fwi_refine.io.report import COLUMNS, Row, format_row

HARMFUL = '<img src="http:x" onerror="document.title=1">'
REASON = '</td><script>document.title = "taken"</script> & "so" it failed'
FLAG = "<b>odd</b> & poor fit"

ROWS = (
    Row("a", "layered", "e", "refined", 4e-2, 1e-4, 10, 2, 1.5, 1500.0, 3.0, "s", "", FLAG),
    Row("b", "layered", "e", "refined", 1e-2, 3e-4, 20, 3, 2.5, 1500.0, 5.0, "s"),
    Row("c", "layered", "e", "unchanged", 2e-2, 2e-2, 60, 4, 5.0, 1500.0, None, "s", "none", FLAG),
    Row(HARMFUL, "style-b", "e", "refined", 5e-1, 4e-3, 30, 5, 7.0, 1500.0, 40.0, "s"),
    Row("d", "", "", "failed", reason=REASON),
)


def write_run(folder):
    """Files of a run in a folder: r.npy, r.csv, starts.npy, truth.npy; the run_view.Files of
    them."""
    random = np.random.default_rng(4)
    truth = random.uniform(1500, 4500, (len(ROWS), 70, 70)).astype("f4")
    np.save(folder / "truth.npy", truth)
    offsets = np.array([2, 4, 6, 8, 10], "f4")[:, None, None]
    np.save(folder / "starts.npy", truth + offsets)
    np.save(folder / "r.npy", truth + np.where(np.arange(5) < 4, 0.5, 1)[:, None, None] * offsets)
    with open(folder / "r.csv", "w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *map(format_row, ROWS)])
    return Files(folder / "r.csv", start=folder / "starts.npy", truth=folder / "truth.npy")


def open_run(folder) -> OpenedRun:
    return OpenedRun(folder / "r.npy", write_run(folder))


# The table by family as the page must show it: medians of the misfits, means of the rest.
HEADINGS = (
    "family", "samples", "refined", "unchanged", "failed", "misfit before, rms",
    "misfit after, rms", "MAE before, m/s", "MAE after, m/s", "expected error, m/s",
    "evaluations", "seconds",
)  # fmt: skip
TABLE = [
    ["not classified", "1", "0", "0", "1", "–", "–", "10", "10", "–", "–", "–"],
    ["layered", "3", "2", "1", "0", "0.02", "0.0003", "4", "2", "–", "30", "3"],
    ["style-b", "1", "1", "0", "0", "0.5", "0.004", "8", "4", "40", "30", "7"],
    ["all", "5", "3", "1", "1", "0.03", "0.00215", "6", "4", "–", "30", "4"],
]
