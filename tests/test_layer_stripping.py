"""Flat layers from a record alone: the misfit of its beginning, and maps from the top down."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import others_slow

from fwi_refine.inversion import initial_model
from fwi_refine.inversion.initial_model import start_from_record
from fwi_refine.inversion.layer_stripping import SumOfSquaredDifferences, _windows, flat_layers
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.priors import load
from fwi_refine.routing import are_flat
from fwi_refine.survey import OPENFWI
from fwi_refine.synthetic import make_sample
from fwi_refine.wave import Simulator

SMALL = replace(
    OPENFWI,
    shape=(30, 24),
    absorbing_cells=30,
    velocity_bounds=(1000.0, 5500.0),
    n_steps=500,
    file_rows=500,
    sources=((1, 0), (1, 23)),
    receivers=tuple((1, column) for column in range(24)),
)


def test_windows_grow_to_the_whole_record():
    windows = list(_windows(OPENFWI))
    assert len(windows) > 10
    for before, after in pairwise(windows):
        assert (after >= before).all()
        # less than a period is new
        assert float((after - before).sum()) * OPENFWI.dt * OPENFWI.frequency < 1
    assert (windows[-1] == 1).all()
    assert float(windows[0].sum()) * OPENFWI.dt < 0.3


def test_the_prior_of_differences():
    prior = SumOfSquaredDifferences(2.0)
    rows = torch.tensor([1.0, 3.0, 7.0], dtype=torch.float64)
    assert float(prior.value(rows)) == 5.0
    assert prior.gradient(rows).tolist() == [-1.0, -1.0, 2.0]
    torch.testing.assert_close(prior.hessian(rows) @ rows, prior.gradient(rows))


@pytest.mark.parametrize(
    ("velocities", "rows"),
    others_slow([([1665.0, 2434.0, 3359.0], [4, 12, 14]), ([2400.0, 1800.0, 3600.0], [11, 9, 10])]),
    ids=["the first is thin", "one is slow"],
)
def test_layers_are_found_from_the_velocity_of_the_first(velocities, rows):
    layers = torch.from_numpy(np.repeat(velocities, rows))
    truth = layers[:, None].expand(SMALL.shape).contiguous()
    record = Simulator(SMALL).forward(truth[None])[0]
    found = flat_layers(record, velocities[0], SMALL)
    assert (found == found[:, :1]).all()
    assert (found - truth).abs().mean() < 0.1 * (layers - layers[0]).abs().mean()


def test_which_records_are_flat():
    priors, steps = load(), OPENFWI.n_steps
    record = np.random.default_rng(0).normal(size=OPENFWI.file_shape)
    assert not are_flat(record, priors)
    record[-1] = record[0, :, ::-1]
    assert are_flat(record, priors)
    record[0, steps:] += 1.0  # beyond the steps that are used
    assert are_flat(record, priors)
    assert not are_flat(record, priors, replace(OPENFWI, frequency=14.0))


def test_a_record_of_flat_layers_is_taken_for_one(monkeypatch):
    asked = []

    def instead(record, surface, survey, **how):
        asked.append(surface)
        return torch.full(survey.shape, 7000.0)

    monkeypatch.setattr(initial_model, "flat_layers", instead)
    sample = make_sample("FlatVel_B", seed=11)
    start = start_from_record(sample.record)
    assert asked == [pytest.approx(float(sample.truth[0, 0]), abs=1.0)]
    assert (start == OPENFWI.velocity_bounds[1]).all()


@pytest.mark.accuracy
@pytest.mark.parametrize("seed", [21, 22, 23])
@pytest.mark.usefixtures("much_memory")
def test_flat_layers_come_out_exactly_without_a_network(seed):
    sample = make_sample("FlatVel_B", seed=seed)
    start = start_from_record(sample.record)
    refined = refine_sample(start, sample.record)
    assert np.array_equal(refined.velocity, sample.truth)
