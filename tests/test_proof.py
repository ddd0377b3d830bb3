"""Maps of integers that their records prove, from start to report."""

import csv

import numpy as np
import pytest
import torch
from wave_cases import NATIVE, THREE_SHOTS, tilted_layers

from fwi_refine.cli import run
from fwi_refine.inversion.accept import proven
from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.model import Model
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.survey.toml import write_survey
from fwi_refine.wave import Simulator, released_record

pytestmark = NATIVE


@pytest.fixture(scope="module")
def truth():
    return tilted_layers()


@pytest.fixture(scope="module")
def record(truth):
    return released_record(truth, survey=THREE_SHOTS).numpy()


def off(truth):
    """The same with every layer 1 % too fast, a start that layers are found from."""
    return (1.01 * truth).numpy()


def refined(truth, record, samples=0):
    return refine_sample(off(truth), record, survey=THREE_SHOTS, family="layered", samples=samples)


def test_the_right_map_is_proven_and_expected_to_have_no_error(truth, record):
    found = refined(truth, record, samples=2)
    assert np.array_equal(found.velocity, truth.numpy())
    assert np.array_equal(found.samples, [found.velocity] * 2)
    assert found.exact is True
    assert found.equal_samples == 1.0
    assert found.expected_error == 0.0
    assert not found.deviation.any()
    assert not found.flags


@pytest.mark.parametrize("other", ["float64", "one sample"])
def test_another_record_proves_nothing(other, truth, record):
    """One of other software, and one that differs by an ulp in its last row."""
    if other == "float64":
        record = Simulator(THREE_SHOTS).forward(truth[None])[0].numpy()
    else:
        record = record.copy()
        record[1, -1, 4] = np.nextafter(record[1, -1, 4], np.float32(9))
    found = refined(truth, record)
    assert np.array_equal(found.velocity, truth.numpy())
    assert found.exact is (None if other == "float64" else False)
    if other == "one sample":
        assert 1 - 2 / record.size < found.equal_samples < 1


def test_what_fits_far_too_badly_is_not_searched_from(truth, record):
    data, budget = Data.of_sample(record, truth, Simulator(THREE_SHOTS)), Budget()
    far = Model.of(truth + 50)
    assert proven(far, data.misfit(far, budget), data, budget)[2].exact is None
    assert budget.evaluations == 1


def test_wrong_cells_are_searched_for_within_the_budget(truth, record, monkeypatch):
    monkeypatch.setattr(
        "fwi_refine.inversion.accept.MAX_RMS_FOR_SEARCH", 1.0
    )  # a cell is much of a small map
    wrong = truth.clone()
    wrong[6, 2], wrong[10, 9] = 1700, 2301
    data = Data.of_sample(record, truth, Simulator(THREE_SHOTS))
    model, budget = Model.of(wrong), Budget(200)
    budget.charge(100)  # of the inversion before it: the search may take as much
    misfit = data.misfit(model, budget)
    found, after, certificate = proven(model, misfit, data, budget)
    assert certificate.exact
    assert torch.equal(found.v, truth)
    assert after < 1e-3 * misfit
    assert budget.evaluations <= 200
    poor = Budget(3)
    poor.charge(2)
    same, _, nothing = proven(model, misfit, data, poor)
    assert same is model
    assert nothing.exact is None
    assert poor.evaluations == 2


def test_the_report_and_the_summary_tell_proven_maps(truth, record, tmp_path, capsys):
    write_survey(THREE_SHOTS, tmp_path / "survey.toml")
    np.save(tmp_path / "p.npy", np.float32(off(truth))[None])
    np.save(tmp_path / "d.npy", record[None])
    paths = [str(tmp_path / name) for name in ("p.npy", "d.npy", "survey.toml", "o.npy")]
    arguments = [*paths[:2], "--survey", paths[2], "--out", paths[3], "--family", "layered"]
    assert run(arguments) == 0
    assert "1 proven by their records" in capsys.readouterr().err
    with open(tmp_path / "o.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["exact"], row["equal_samples"], row["expected_error"]) == ("yes", "1", "0.0000")


def test_cells_hardly_off_are_set_right_without_a_search(truth, record):
    """Two neighbours, a metre a second too fast and too slow: less than the record's rounding."""
    wrong = truth.clone()
    wrong[10, 5] += 1
    wrong[11, 5] -= 1
    data, model = Data.of_sample(record, truth, Simulator(THREE_SHOTS)), Model.of(wrong)
    budget = Budget(200)
    budget.charge(100)
    found, _, certificate = proven(model, data.misfit(model, budget), data, budget)
    assert certificate.exact
    assert torch.equal(found.v, truth)
    assert budget.evaluations <= 105
