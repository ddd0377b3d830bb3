"""Training of the denoiser: its repeatability, checkpoints and script."""

import importlib.util
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from fwi_refine.priors import denoiser_training
from fwi_refine.priors.denoiser import Denoiser, load_denoiser
from fwi_refine.priors.denoiser_training import measure, train
from fwi_refine.synthetic import make_map


@pytest.fixture(scope="module")
def maps():
    return np.stack(
        [
            make_map("Style_B", np.random.default_rng([987654321, seed]))[25:45, 20:40]
            for seed in range(10, 18)
        ]
    )


@pytest.mark.slow
def test_training_lowers_the_loss_and_the_error(maps):
    told = []

    def watch(step, loss, network):
        told.append((step, loss))
        return False

    found = train(maps, steps=210, batch=2, watch=watch)
    assert [step for step, _ in told] == [100, 200, 210]
    assert told[1][1] < 0.97 * told[0][1]
    before, after = measure(Denoiser(), maps), measure(found, maps)
    assert after[150.0] < 0.95 * before[150.0]
    assert found.error(150.0) == pytest.approx(after[150.0], rel=1e-6)


def test_the_same_seed_gives_the_same_weights(maps):
    before = torch.random.get_rng_state()
    weights = [train(maps, steps=3, seed=seed, batch=2).state_dict() for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(weights[0][name], w) for name, w in weights[1].items())
    assert not torch.equal(weights[0]["head.weight"], weights[2]["head.weight"])


def test_training_ends_where_it_is_told_to_and_refuses_what_are_no_maps(maps, monkeypatch):
    monkeypatch.setattr(denoiser_training, "REPORT_STEP", 2)
    steps = []

    def watch(step, loss, network):
        steps.append(step)
        return True

    train(maps[:, :4, :4], steps=1000, batch=1, watch=watch)
    assert steps == [2]
    with pytest.raises(ValueError, match=re.escape("maps have shape (20, 20), expected (n, nz")):
        train(maps[0], steps=1)
    with pytest.raises(ValueError, match="the maps hold values that are not finite"):
        train(maps * np.nan, steps=1)


def test_training_that_was_cut_off_goes_on_to_the_same_weights(maps, tmp_path, monkeypatch):
    monkeypatch.setattr(denoiser_training, "REPORT_STEP", 2)
    kept, told = tmp_path / "state.pt", []

    def watch(step, loss, network):
        told.append((step, loss))
        return step == 2 and len(told) == 1

    go = partial(train, maps[:, :8, :8], batch=1, watch=watch)
    go(steps=5, checkpoint=kept)
    found = go(steps=5, checkpoint=kept)
    assert [step for step, _ in told] == [2, 4, 5]
    whole = go(steps=5)
    assert told[1:3] == told[4:]
    for ours, theirs in zip(found.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(ValueError, match=r"state\.pt: is of other maps, first weights or settings"):
        go(steps=6, checkpoint=kept)
    with pytest.raises(ValueError, match="delete it to begin anew"):
        go(steps=5, checkpoint=kept, first=whole)


def test_training_begins_with_other_weights(maps):
    first = load_denoiser()
    found = train(maps[:, :8, :8], steps=2, batch=1, rate=1e-3, first=first)
    for ours, theirs in zip(found.parameters(), first.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert not torch.equal(found.head.weight, first.head.weight)


@pytest.mark.slow
def test_the_script_repeats_itself(tmp_path, capsys):
    path = Path(__file__).parents[1] / "scripts" / "train_denoiser.py"
    spec = importlib.util.spec_from_file_location("train_denoiser", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    few = ["--maps", "3", "--held-back", "2", "--steps", "2", "--batch", "2", "--bfloat16"]
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        script.main(["--out", str(tmp_path / f"{name}.npz"), "--seed", seed, *few])
    a, b, c = ((tmp_path / f"{name}.npz").read_bytes() for name in "abc")
    assert a == b != c
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 maps in")
    errors = json.loads(lines[2])
    assert len(errors) == 12
    assert load_denoiser(tmp_path / "a.npz").error(150.0) == pytest.approx(errors["150"], rel=1e-3)
