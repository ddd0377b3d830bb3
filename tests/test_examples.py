"""The examples of the documentation run, and print what they say."""

import doctest
import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("api.refinement", marks=pytest.mark.slow),
        "api.simulation",
        "api.classification",
        "api.estimator",
        "wave.modules",
        "wave.jacobian.operator",
    ],
)
def test_examples_of_the_docstrings(name):
    result = doctest.testmod(importlib.import_module(f"fwi_refine.{name}"))
    assert result.attempted > 2
    assert result.failed == 0


def test_examples_of_the_readme(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search(r"^## From Python$(.*?)^## ", text, re.MULTILINE | re.DOTALL)[1]
    (block,) = re.findall(r"(?:^    .*\n|^\n(?=    ))+", section, re.MULTILINE)
    assert block.count(", max_evaluations=5") == 1
    block = block.replace(", max_evaluations=5", ", max_evaluations=2")  # it says the same, sooner
    names = {}
    exec(re.sub("^    ", "", block, flags=re.MULTILINE), names)
    assert not names["result"].failed
    assert names["again"].shape == (2, 5, 1000, 70)
    assert [str(family) for family in names["families"]] == routes()


@pytest.mark.slow
def test_the_example_of_training_with_the_physics():
    few = {"labelled": 6, "unlabelled": 4, "unseen": 2, "steps": 2, "warm-up": 1}
    options = [text for name, value in few.items() for text in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, "scripts/example_physics_guided.py", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    errors = [float(text) for text in re.findall(r"MAE +([0-9.]+) m/s", done.stdout)]
    assert len(errors) == 3
    assert all(0 < error < 2000 for error in errors)
    assert errors[1] != errors[2]  # the physics has changed something


def routes():
    """What data_samples says of its samples."""
    lines = (ROOT / "data_samples" / "samples.csv").read_text().splitlines()
    return [line.rpartition(",")[2] for line in lines[1:]]


def test_the_loss_of_the_example_of_records_falls():
    """A tiny network, trained through the physics without any true map."""
    names = runpy.run_path(str(ROOT / "examples" / "loss_of_records.py"))
    losses = names["train"]()
    assert losses[-1] < 0.2 * losses[0]
    assert losses[-1] < losses[len(losses) // 2] < losses[0]


def test_the_example_of_marmousi(tmp_path, capsys):
    """A user's raw file, traces down the columns, on a coarser grid."""
    names = runpy.run_path(str(ROOT / "examples" / "marmousi.py"))
    section = names["made_section"]((40, 60))
    assert section.min() >= 1500
    assert section.max() <= 4500
    raw = tmp_path / "velocity.bin"
    section.T.astype("<f4").tofile(raw)
    read = names["read_map"](raw, "60x40")
    np.testing.assert_allclose(read, section, rtol=1e-6)
    arguments = ["--raw", "60x40", "--rows", "14", "--columns", "21", "--shots", "2"]
    arguments += ["--steps", "200", "--blur", "3", "--max-evaluations", "60"]
    names["main"]([*arguments, "--map", str(raw), "--out", str(tmp_path)])
    before, after, runs = re.search(
        r"misfit (\S+) to (\S+), (\d+) runs", capsys.readouterr().out
    ).groups()
    assert float(after) < 0.7 * float(before)
    assert int(runs) <= 60
    assert np.load(tmp_path / "maps.npz")["refined"].shape == (14, 21)


def test_the_example_of_an_unknown_source(capsys):
    """The map is found with the source, and not without."""
    runpy.run_path(str(ROOT / "examples" / "unknown_source.py"))["main"]()
    start, known, fit = (
        float(x) for x in re.findall(r"([0-9.]+) m/s off", capsys.readouterr().out)
    )
    assert fit < 0.1 * start < 0.1 * known
