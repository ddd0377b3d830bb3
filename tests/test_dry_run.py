"""`refine --dry-run`: each message once with a count, numbers that add up, the checks of a run."""

import numpy as np
import pytest
import torch
from small_survey_cases import SURVEY

from fwi_refine.cli import run
from fwi_refine.errors import InputError
from fwi_refine.runs import executors
from fwi_refine.survey.toml import write_survey
from fwi_refine.wave import Simulator

HOW = ["--survey", "s.toml", "--family", "layered", "--method", "lbfgs", "--dry-run"]


@pytest.fixture
def record(tmp_path, monkeypatch, known_speed):
    """Of a map of two layers; the survey stands in s.toml, and eight maps in p.npy."""
    monkeypatch.chdir(tmp_path)
    write_survey(SURVEY, "s.toml")
    v = np.full(SURVEY.shape, 1800.0)
    v[9:] = 2600
    np.save("p.npy", np.repeat(v[None], 8, 0))
    return Simulator(SURVEY).forward(torch.from_numpy(v[None]))[0].numpy().astype("f4")


def test_messages_that_differ_in_numbers_and_files_alone_are_one(record, tmp_path, capsys):
    maps = np.load("p.npy")
    maps[1, 3, 4] = maps[2, 5, 6] = maps[2, 7, 8] = np.nan
    np.save("p.npy", maps)
    (tmp_path / "rec").mkdir()
    for k in range(8):
        np.save(tmp_path / "rec" / f"{k}.npy", record)
    for k in (3, 4, 5):
        (tmp_path / "rec" / f"{k}.npy").write_bytes(b"no array" * k)
    np.save(tmp_path / "rec" / "6.npy", record * np.nan)
    assert run(["p.npy", "rec", *HOW]) == 3
    captured = capsys.readouterr()
    told = [
        line for line in captured.err.splitlines() if "would fail, " in line or "fail: " in line
    ]
    assert len(told) == 3
    assert told[0].startswith("2 samples would fail, the first 1: found 1 of 500 values not finite")
    assert told[1].startswith("3 samples would fail, the first 3: ")
    assert "3.npy: not a readable .npy file" in told[1]
    assert told[2] == "6 would fail: found only NaN, expected a recorded wave"
    assert "8 samples: 2 to refine, 6 that would fail; at" in captured.err
    assert "layered,2,3," in captured.out


def test_a_scheduler_that_does_not_answer_is_refused(record, monkeypatch, capsys):
    def unreachable(address):
        raise InputError(f"--dask {address}: no scheduler answers (refused)")

    monkeypatch.setattr(executors, "Dask", unreachable)
    np.save("d.npy", np.repeat(record[None], 8, 0))
    assert run(["p.npy", "d.npy", *HOW, "--dask", "tcp://127.0.0.1:1"]) == 2
    assert "no scheduler answers" in capsys.readouterr().err
