"""A sample that ends the process which works on it fails alone, however the run is started."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
from run_cases import DEADLY, expected_maps, write_inputs
from test_executors import HERE, dask_cluster

NAMES = ["a", f"{DEADLY}1", "b", "bad", "c", f"{DEADLY}2"]
# The program with samples that take no time; those called deadly kill their process.
PROGRAM = """
from run_cases import trivial
from fwi_refine import batch
batch.refine_one = trivial
from fwi_refine.cli import main
main()
"""


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("case"), NAMES)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with dask_cluster(tmp_path_factory.mktemp("cluster"), ALLOWED_FAILURES=1) as address:
        yield address


@pytest.mark.parametrize("where", ["jobs-1", "jobs-2", "dask"])
@pytest.mark.parametrize("kept", ["out", "run-dir"])
def test_only_the_deadly_samples_fail(case, tmp_path, request, where, kept):
    inputs = [case / "starts.npy", case / "seismic", "--ids", case / "ids.txt"]
    kept = ["--run-dir", "run", "--chunk-size", "4"] if kept == "run-dir" else []
    if where == "dask":
        where = ["--dask", request.getfixturevalue("cluster")]
    else:
        where = ["--jobs", where[-1]]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *inputs, "--out", "o.npy", *where, *kept],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": HERE},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 3, done.stderr
    assert np.load(tmp_path / "o.npy").tobytes() == expected_maps(case).tobytes()
    with open(tmp_path / "o.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == NAMES
    for row in rows:
        failed = row["id"].startswith((DEADLY, "bad"))
        assert row["status"] == ("failed" if failed else "refined")
        assert ("its worker process died" in row["reason"]) == row["id"].startswith(DEADLY)
