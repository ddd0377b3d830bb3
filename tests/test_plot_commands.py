"""plot and report as a user runs them."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra [plot])")

import report_page_cases
import run_cases
from matplotlib.image import imread

from fwi_refine.cli import run
from fwi_refine.cli.commands.plot import read_shots
from fwi_refine.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run directory of three samples, one of them failed."""
    folder = run_cases.write_inputs(tmp_path_factory.mktemp("plots"), ("a", "bad1", "c"))
    run_cases.refine_all(folder, run_cases.prepare(folder, folder / "run"))
    return folder


def call(*arguments):
    return run([str(argument) for argument in arguments])


def looks_drawn(path) -> bool:
    pixels = imread(path)[..., :3]
    return np.mean(pixels.min(axis=2) < 0.95) > 0.05


def test_panels_of_a_run_directory(folder, tmp_path, capsys):
    out = tmp_path / "p.png"
    assert call("plot", "panels", folder / "run", "--sample", "c", "--out", out, "--dpi", 60) == 0
    assert looks_drawn(out)
    before = out.read_bytes()
    assert call("plot", "panels", folder / "run", "--out", out) == 2
    assert f"{out} exists already" in capsys.readouterr().err
    assert out.read_bytes() == before
    tall = imread(out).shape[0]
    more = ("--overwrite", "--dpi", "60", "--shot", "none")
    assert call("plot", "panels", folder / "run", "--sample", "c", "--out", out, *more) == 0
    assert imread(out).shape[0] < tall - 60  # no row for a record


def test_panels_of_several_samples(folder, tmp_path):
    out = tmp_path / "p.svg"
    arguments = [
        "plot",
        "panels",
        folder / "run",
        "--shot",
        "none",
        "--sample",
        "c",
        "--sample",
        "a",
    ]
    assert call(*arguments, "--out", out) == 0
    assert sorted(os.listdir(tmp_path)) == ["p-a.svg", "p-c.svg"]
    assert call(*arguments, "--out", tmp_path / "p.pdf") == 0
    assert len(re.findall(rb"/Type /Page\b", (tmp_path / "p.pdf").read_bytes())) == 2


def test_samples_and_contact_sheets(folder, tmp_path):
    truth = tmp_path / "truth.npy"
    np.save(truth, np.load(folder / "starts.npy") + 3)
    for name, *more in (
        ("samples", "--count", 2),
        ("contact", "--sort", "expected-error"),
        ("contact", "--show", "difference", "--truth", truth),
    ):
        out = tmp_path / f"{name}{len(more)}.png"
        assert call("plot", name, folder / "run", "--out", out, "--dpi", 60, *more) == 0
        assert looks_drawn(out)


def test_maps_alone_and_a_report_beside_them(folder, tmp_path, capsys):
    maps = tmp_path / "m.npy"
    np.save(maps, np.load(folder / "starts.npy"))
    out = tmp_path / "m.png"
    assert call("plot", "contact", maps, "--out", out, "--dpi", 60) == 0
    assert call("report", maps, "--out", tmp_path / "m.html") == 2
    assert "m.npy: has no report beside it; give it with --report" in capsys.readouterr().err
    (tmp_path / "m.csv").write_text("oid_ypos,x_1\na_y_0,1\n")  # a submission is no report
    assert call("plot", "contact", maps, "--out", out, "--overwrite", "--dpi", 60) == 0
    (tmp_path / "m.csv").write_text("id,family,status\nq,layered,refined\n")
    capsys.readouterr()
    assert call("plot", "contact", maps, "--out", out, "--overwrite") == 2
    assert f"found 3 maps in {maps} and 1 samples in" in capsys.readouterr().err


def test_convergence(tmp_path, capsys):
    history, out = tmp_path / "h.csv", tmp_path / "c.pdf"
    history.write_text("id,stage,evaluations,misfit\na,0,1,0.5\na,1,9,0.25\nb,0,1,0.5\n")
    assert call("plot", "convergence", history, "--out", out) == 0
    assert out.read_bytes().startswith(b"%PDF")
    assert call("plot", "convergence", history, "--sample", "z", "--out", tmp_path / "d.png") == 2
    assert "found no sample 'z'" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["c.pdf", "h.csv"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plot", "panels", "{run}", "--out", "p.jpg"], "expected a name that ends in .png, .pdf"),
        (["plot", "panels", "{run}", "--out", "p.png", "--shot", "6"], "--shot 6: expected 1 to 5"),
        (["plot", "panels", "{run}", "--out", "p.png", "--sample", "z"], "found no sample 'z'"),
        (["plot", "panels", "absent", "--out", "p.png"], "absent: no such file"),
        (["plot", "contact", "{run}", "--out", "p.png", "--show", "truth"], "--show truth: not"),
        (["plot", "samples", "{run}", "--out", "x/p.png"], "there is no directory x"),
        (["plot", "convergence", "{run}/run.toml", "--out", "p.png"], "not a history of refine"),
        (["plot", "nothing"], "No such command 'nothing'"),
        (["report", "{run}", "--out", "p.txt"], "expected a name that ends in .html"),
        (["report", "{run}", "--report", "{run}/run.toml", "--out", "p.html"], "has its own"),
    ],
)
def test_usage_errors(folder, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert call(*(a.format(run=folder / "run") for a in arguments)) == 2
    assert words in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_looking_changes_nothing(folder, tmp_path):
    def tree():
        return {p: p.read_bytes() for p in (folder / "run").rglob("*") if p.is_file()}

    before = tree()
    assert call("report", folder / "run", "--out", tmp_path / "r.html") == 0
    assert tree() == before
    assert os.listdir(tmp_path) == ["r.html"]


def test_shots():
    assert read_shots("all", 3) == [0, 1, 2]
    assert read_shots("none", 3) == []
    assert read_shots("middle", 5) == [2]
    assert read_shots("3", 3) == [2]
    for text in ("0", "4", "-1", "first"):
        with pytest.raises(InputError, match=f"--shot {text}: expected 1 to 3"):
            read_shots(text, 3)


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_without_the_extra(tmp_path, missing):
    report_page_cases.write_run(tmp_path)
    code = f"""
import sys
sys.modules[{missing!r}] = None  # as if it were not installed
from fwi_refine.cli import run
sys.exit(run(["report", {str(tmp_path / "r.npy")!r}, "--out", {str(tmp_path / "r.html")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 2, done.stderr
    assert f'pictures need {missing}: pip install "fwi-refine[plot]"' in done.stderr
    assert not (tmp_path / "r.html").exists()


@pytest.mark.slow
def test_the_picture_of_the_readme(tmp_path):
    root = os.path.dirname(os.path.dirname(__file__))
    samples, out = os.path.join(root, "data_samples"), tmp_path / "p.png"
    done = subprocess.run(
        [sys.executable, "scripts/make_picture.py", samples, f"{samples}/truth.npy", "--out", out],
        cwd=root, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert looks_drawn(out)
