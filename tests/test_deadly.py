"""A sample that ends the process which works on it fails alone, however the run is started."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
from process_cases import HERE, dask_cluster
from run_cases import DEADLY, expected_maps, write_inputs

# one death by default: tests/test_executors.py, a sample that kills its worker
pytestmark = pytest.mark.process

NAMES = ["a", f"{DEADLY}1", "b", "bad", "c"]
# The program with samples that take no time; those called deadly kill their process.
PROGRAM = """
from run_cases import trivial
from fwi_refine.runs import one_sample
one_sample.refine_one = trivial
from fwi_refine.cli import main
main()
"""


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("case"), NAMES)


KEPT = ["--run-dir", "run", "--chunk-size", "3"]


@pytest.mark.parametrize("more", [["--jobs", "1", *KEPT], ["--jobs", "2"]])
def test_only_the_deadly_sample_fails(case, tmp_path, more):
    check_run(case, tmp_path, more)


def test_only_the_deadly_sample_fails_on_dask(case, tmp_path):
    with dask_cluster(tmp_path, ALLOWED_FAILURES=1) as address:
        check_run(case, tmp_path, ["--dask", address, *KEPT])


def check_run(case, folder, more):
    inputs = [case / "starts.npy", case / "seismic", "--ids", case / "ids.txt"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *inputs, "--force", "--out", "o.npy", *more],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": HERE},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 3, done.stderr
    assert np.load(folder / "o.npy").tobytes() == expected_maps(case).tobytes()
    with open(folder / "o.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == NAMES
    for row in rows:
        failed = row["id"].startswith((DEADLY, "bad"))
        assert row["status"] == ("failed" if failed else "refined")
        assert ("its worker process died" in row["reason"]) == row["id"].startswith(DEADLY)
