"""Missing samples and weights: what is missing, and that it tells nothing anywhere."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import taylor_test
from misfit_cases import SURVEY as TINY
from misfit_cases import misfit_near, random
from noisy_cases import SURVEY, error, flat, layered, record_of

from fwi_refine import refine
from fwi_refine.errors import InputError
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.levels.exact import prove
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.inversion.uncertainty import Solution
from fwi_refine.objective.misfit import BandMisfit, DataMisfit
from fwi_refine.objective.parameterisation import Full
from fwi_refine.objective.weights import Weights
from fwi_refine.routing.classify import symmetry_rms
from fwi_refine.survey.weights import check_weights, missing_samples, sample_weights
from fwi_refine.wave import Simulator

RNG = np.random.default_rng(5)
SHAPE = TINY.record_shape
BY_TRACE = np.broadcast_to(RNG.uniform(0.2, 2, (SHAPE[0], 1, SHAPE[2])), SHAPE).copy()
BY_TRACE[1, :, 3] = 0
BY_SAMPLE = BY_TRACE * RNG.uniform(0.5, 1.5, SHAPE[1])[:, None]
BY_SAMPLE[:, 40:55, 2:5] = 0
WEIGHTS = {"traces": BY_TRACE, "samples": BY_SAMPLE}
weights_of = pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)


@pytest.fixture(scope="module")
def record():
    return record_of(layered()[0])


GAPS = {
    "NaN": ((1, 150, 12), np.nan, 1),
    "a dead trace": ((1, slice(None), 12), 0, 400),
    "a dead receiver": ((slice(None), slice(None), 12), 0, 3 * 400),
    "a dead shot": ((2,), 0, 400 * 25),
    "the last row": ((slice(None), -1), 0, 3 * 25),
    "a row": ((slice(None), 200), 0, 3 * 25),
    "a trace that ends early": ((0, slice(300, None), 4), 0, 100),
}


@pytest.mark.parametrize(("where", "value", "count"), GAPS.values(), ids=GAPS)
def test_what_is_missing(record, where, value, count):
    broken = record.copy()
    broken[where] = value
    missing = missing_samples(broken, SURVEY)
    assert missing.sum() == count
    assert missing[where].all()


def test_nothing_is_missing_of_a_record_as_it_was_simulated(record):
    assert not missing_samples(record, SURVEY).any()
    assert sample_weights(record, SURVEY) is None
    early = replace(SURVEY, n_steps=60, file_rows=60)  # most receivers were not reached
    assert not missing_samples(record * (np.abs(record) > 1e-6), early).any()


def test_weights_of_shots_receivers_traces_and_samples():
    for shape, found in {
        (3,): (3, 1, 1), (25,): (1, 1, 25), (3, 25): (3, 1, 25), (3, 1): (3, 1, 1),
        (3, 400, 25): (3, 400, 25), (1, 400, 1): (1, 400, 1),
    }.items():  # fmt: skip
        assert check_weights(np.ones(shape), SURVEY).shape == found


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.ones(4), r"found shape \(4,\), expected \(3,\) for shots"),
        (np.ones((3, 399, 25)), "expected .* for samples"),
        (-np.ones(3), "of at least 0"),
        (np.zeros(3), "not all of them 0"),
        (np.array([1, np.nan, 1]), "finite"),
        (np.array(["a"] * 3), "expected numbers"),
    ],
)
def test_weights_that_are_none(weights, words):
    with pytest.raises(InputError, match=words):
        check_weights(weights, SURVEY)


def test_weights_that_may_be_of_shots_or_receivers():
    square = replace(SURVEY, receivers=SURVEY.receivers[:3])
    with pytest.raises(InputError, match=r"expected \(3, 1\) for shots or \(1, 3\) for receivers"):
        check_weights(np.ones(3), square)


def test_the_scale_of_weights_does_not_matter(record):
    given = np.arange(1.0, 4.0)
    one, other = (
        sample_weights(record, SURVEY, check_weights(w, SURVEY)) for w in (given, 7 * given)
    )
    np.testing.assert_allclose(one, other)
    assert one.mean() == pytest.approx(1)
    assert sample_weights(record, SURVEY, check_weights(np.full(3, 2.0), SURVEY)) is None


def misfits(kind, weights):
    """(misfit with weights, the same with other values where there are none, x)."""
    plain, x, _ = misfit_near(Full((8, 10)), kind=kind)
    measured = plain._record[0].numpy() + 1e-3 * RNG.standard_normal(SHAPE)
    other = np.where(weights == 0, RNG.standard_normal(SHAPE), measured)
    made = (kind(plain.simulator, plain.parameters, d, Weights(weights)) for d in (measured, other))
    return *made, x


@weights_of
@pytest.mark.parametrize("kind", [DataMisfit, BandMisfit])
def test_gradient_and_gaps(weights, kind):
    misfit, other, x = misfits(kind, weights)
    value, gradient = misfit.value_and_gradient(x)
    found, same = other.value_and_gradient(x)
    assert found == pytest.approx(value, rel=1e-9)
    assert (gradient - same).norm() <= 1e-8 * gradient.norm()
    assert misfit(x) == pytest.approx(value, rel=1e-13)
    dx = random(x.numel(), seed=5)
    order = taylor_test(misfit.value_and_gradient, x, dx / dx.abs().max(), [4.0, 2.0, 1.0, 0.5])
    assert order == pytest.approx(2.0, abs=0.1)


@weights_of
def test_rows_of_the_jacobian_have_their_weights(weights):
    """The normal matrix of the full Jacobian is that of single columns, and so is J^T r."""
    misfit, _, x = misfits(BandMisfit, weights)
    normal, pull_back = misfit.linearise(x)
    columns = misfit.hessian(x)  # as there are few unknowns
    assert (normal - columns).norm() <= 2e-2 * columns.norm()
    plain = BandMisfit(misfit.simulator, misfit.parameters, misfit._record[0]).hessian(x)
    assert (normal - plain).norm() > 0.1 * columns.norm()
    r = misfit.residual(x)
    found, exact = pull_back(r), misfit.pull_back(x, r)
    assert (found - exact).norm() <= 1e-2 * exact.norm()


def test_a_trace_without_weight_is_none():
    """The misfit is that of the survey without the receiver."""
    weights = np.ones(SHAPE)
    weights[:, :, 4] = 0
    for kind in (DataMisfit, BandMisfit):
        misfit, _, x = misfits(kind, weights)
        kept = [k for k in range(10) if k != 4]
        fewer = replace(TINY, receivers=tuple(TINY.receivers[k] for k in kept))
        simulator = Simulator(fewer, imaging_step=1)
        without = kind(simulator, misfit.parameters, misfit._record[0][:, :, kept])
        assert misfit(x) == pytest.approx(without(x), rel=1e-12)
        difference = misfit.gradient(x) - without.gradient(x)
        assert difference.norm() <= 1e-9 * without.gradient(x).norm()


def test_the_posterior_counts_the_samples_that_are_there():
    hessian = 1e-3 * torch.eye(3, dtype=torch.float64)
    whole, half = (
        Solution(Full((1, 2)), hessian, 1e-6, None, TINY, samples_used=n).precision()
        for n in (1400, 700)
    )
    assert torch.allclose(whole - 1e-6 * torch.eye(3), 2 * (half - 1e-6 * torch.eye(3)))


def test_proof_and_routing_leave_gaps_out(record):
    v = torch.as_tensor(layered()[0])
    simulator = Simulator(SURVEY)
    released = simulator.released(v[None])[0].numpy()
    for receiver, untold in ((13, False), (12, None)):  # the other stands at a source
        broken = released.copy()
        broken[1, :, receiver] = 0
        missing = missing_samples(broken, SURVEY)
        assert prove(v, broken, simulator).exact is untold
        assert prove(v, broken, simulator, missing).exact is True
    symmetric = record_of(flat()[0])
    assert symmetry_rms(symmetric) < 1e-5
    symmetric[0, :, 3] = 0
    assert symmetry_rms(symmetric) > 0.1
    symmetric[0, :, 3] = np.nan
    assert symmetry_rms(symmetric) < 1e-5


def test_a_part_of_the_record_that_is_missing_stands_for_nothing(record):
    weights = np.ones(SURVEY.record_shape)
    weights[0] = 0
    data = Data.of_sample(record, torch.as_tensor(layered()[1]), Simulator(SURVEY), weights)
    first = replace(SURVEY, sources=SURVEY.sources[:1])
    assert not data.covers(first, 1)
    assert data.covers(SURVEY, 2)


def test_a_dead_trace_is_counted_and_costs_nothing():
    truth, start = flat()
    record = record_of(truth)
    record[1, :, 12] = 0
    how = {"survey": SURVEY, "family": "flat-vel", "threads": 1, "force": True}
    found = refine(start, record, method="gauss-newton", **how)
    assert found.reports[0].missing == 400
    assert error(found.velocity, truth) < 0.1


@pytest.mark.slow
def test_a_shot_without_weight_is_left_out():
    truth, start = flat()
    record = record_of(truth)
    record[1] = 1e-3
    how = {"survey": SURVEY, "family": "flat-vel", "threads": 1, "force": True}
    weighted = refine(start, record, weights=[1, 0, 1], method="gauss-newton", **how)
    assert weighted.reports[0].missing == 400 * 25
    assert error(weighted.velocity, truth) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gauss-newton", "preconditioned-lbfgs", "lbfgs"])
@pytest.mark.parametrize("gap", GAPS)
def test_gaps_by_every_method(record, method, gap):
    """Within 1.5 times the error of the complete record."""
    truth, start = layered()
    where, value, _ = GAPS[gap]
    broken = record.copy()
    broken[where] = value
    how = {"survey": SURVEY, "family": "layered", "method": method, "max_evaluations": 300}
    complete, found = (refine_sample(start, d, **how) for d in (record, broken))
    assert found.missing
    assert error(found.velocity, truth) < 1.5 * error(complete.velocity, truth) + 0.1
