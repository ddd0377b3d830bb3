"""The benchmark of the priors of Style_B on a small part of a made map, and the plot of it."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
SMALL = ["--rows", "12", "--columns", "10", "--steps", "150", "--case", "1", "--linearised"]


def script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_of(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark", *SMALL, *map(str, arguments)])
    script("benchmark_style_priors").main()
    lines = capsys.readouterr().out.splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if not k.endswith("seconds")} for line in lines
    ]


@pytest.mark.slow
def test_a_kept_quadratic_gives_the_same_rows(tmp_path, monkeypatch, capsys):
    how = ("--keep", tmp_path, "--prior", "gp", "--prior", "tv", "--out", tmp_path)
    rows = rows_of(monkeypatch, capsys, *how)
    assert [row["prior"] for row in rows] == ["gp", "tv"]
    assert (tmp_path / "1_12_10_0.0_0.npz").exists()
    assert rows_of(monkeypatch, capsys, *how) == rows
    with np.load(tmp_path / "1_tv.npz") as file:
        error = np.abs(file["refined"] - file["truth"])
        assert rows[1]["within_one"] == pytest.approx((error < file["deviation"]).mean(), rel=1e-3)
    noisy = [
        rows_of(monkeypatch, capsys, "--prior", "gp", "--noise", noise, "--missing", missing)[0]
        for noise, missing in ((0.01, 0), (0.3, 0), (0.3, 6))
    ]
    errors = [rows[0]["expected"], *(row["expected"] for row in noisy)]
    assert errors == sorted(errors)
    assert errors[2] > 1.2 * errors[0]
    with pytest.raises(SystemExit):
        rows_of(monkeypatch, capsys, "--missing", 3)


@pytest.mark.slow
def test_the_plot_counts_cells_within_their_deviations(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    plot = script("plot_posterior")
    rng = np.random.default_rng(0)
    deviation = rng.uniform(5, 50, (30, 40))
    truth = rng.uniform(1500, 4500, deviation.shape)
    one = {"truth": truth, "refined": truth + deviation * rng.standard_normal(truth.shape)}
    one["deviation"] = deviation
    assert (plot.in_deviations(one) < 1).mean() == pytest.approx(0.683, abs=0.03)
    np.savez(tmp_path / "a.npz", **one)
    monkeypatch.setattr(
        sys, "argv", ["plot", str(tmp_path / "a.npz"), "--out", str(tmp_path / "a.png")]
    )
    plot.main()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
