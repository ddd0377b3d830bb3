"""`refine --pictures`: a picture of each sample as soon as it is finished."""

import numpy as np
import pytest
import torch
from small_survey_cases import SURVEY

from fwi_refine.cli import run
from fwi_refine.survey.toml import write_survey
from fwi_refine.wave import Simulator

pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra [plot])")


@pytest.fixture
def line(tmp_path, monkeypatch):
    """A command that refines two samples of a small survey, with few evaluations."""
    monkeypatch.chdir(tmp_path)
    truth = np.full(SURVEY.shape, 1800.0)
    truth[9:] = 2600
    record = Simulator(SURVEY).forward(torch.from_numpy(truth[None]))[0].numpy().astype("f4")
    write_survey(SURVEY, tmp_path / "s.toml")
    np.savez(tmp_path / "p.npz", velocity=np.stack([truth, truth + 20]), ids=["a", "b"])
    np.savez(tmp_path / "d.npz", records=np.stack([record] * 2), ids=["a", "b"])
    inputs = ["p.npz", "d.npz", "--survey", "s.toml", "--family", "layered"]
    return [*inputs, "--method", "lbfgs", "--max-evaluations", "2", "--out", "r.npy"]


def test_each_sample_is_drawn_when_it_is_finished(line, tmp_path, capsys):
    assert run([*line, "--pictures", "pictures"]) == 0
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["a.png", "b.png"]
    assert (tmp_path / "pictures" / "a.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().err
    assert said.index("pictures/a.png") < said.index("report in r.csv")
    assert "as layered: misfit" in said  # a line for each of the first samples
    (tmp_path / "pictures" / "a.png").write_text("mine")
    assert run([*line, "--overwrite", "--pictures", "pictures"]) == 0
    # a picture of another run would not be that of this one
    assert (tmp_path / "pictures" / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("known_speed")
def test_a_dry_run_draws_nothing_and_a_bad_folder_is_refused(line, tmp_path, capsys):
    assert run([*line, "--pictures", "pictures", "--dry-run"]) == 0
    assert not (tmp_path / "pictures").exists()
    (tmp_path / "file").write_text("mine")
    for folder, reason in (("file", "it is no directory"), ("no/folder", "there is no directory")):
        for more in ([], ["--dry-run"]):
            assert run([*line, "--pictures", folder, *more]) == 2
            said = capsys.readouterr().err
            assert f"--pictures {folder}: cannot be made ({reason}" in said
