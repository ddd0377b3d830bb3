"""The noise of a record: its level, and what follows from it."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from noisy_cases import KINDS, MAPS, SURVEY, error, flat, layered, noise, record_of, rms

from fwi_refine.inversion.data import Data
from fwi_refine.inversion.families import find_family, names
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.objective.noise import CLEAN, Noise, early_noise, misfit_of_noise
from fwi_refine.objective.source_cells import source_cells
from fwi_refine.routing.classify import asymmetry, symmetry_rms
from fwi_refine.survey import OPENFWI
from fwi_refine.synthetic import make_record
from fwi_refine.wave import Simulator, record_basis

LEVELS = (1e-5, 1e-4, 1e-3, 1e-2, 0.1)  # rms of the noise over that of the record


def coefficient_rms(values, survey):
    """Rms of the coefficients of the wavelet's band."""
    return rms(np.tensordot(record_basis(survey).numpy(), values, ([0], [1])))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", LEVELS)
def test_the_level_of_a_record(kind, level):
    record = record_of(layered()[0])
    added = level * rms(record) * noise(kind, record.shape)
    found = early_noise(record + added, SURVEY)
    assert found.sample == pytest.approx(rms(added), rel=0.2)
    assert found.coefficient == pytest.approx(coefficient_rms(added, SURVEY), rel=0.3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_level_on_the_survey_of_the_benchmark(kind):
    record = make_record(np.full((70, 70), 3000.0))
    assert early_noise(record, OPENFWI) == CLEAN
    added = 1e-3 * noise(kind, record.shape, survey=OPENFWI)
    found = early_noise(record + added, OPENFWI)
    assert found.sample == pytest.approx(1e-3, rel=0.1)
    assert found.coefficient == pytest.approx(coefficient_rms(added[:, :999], OPENFWI), rel=0.1)


@pytest.mark.parametrize("name", MAPS)
def test_records_as_they_are_simulated_are_clean(name):
    truth, start = MAPS[name]()
    record = record_of(truth)
    assert early_noise(record, SURVEY) == CLEAN
    data = Data.of_sample(record, torch.as_tensor(start), Simulator(SURVEY))
    assert data.noise == CLEAN
    assert data.misfit_limit(1e-4) == (1e-4 * SURVEY.unit) ** 2
    assert data.beyond_noise(0.123) == 0.123


def test_samples_without_weight_are_not_looked_at():
    record = record_of(layered()[0])
    record[1] += 1.0
    weights = np.ones(SURVEY.record_shape)
    weights[1] = 0
    assert early_noise(record, SURVEY).sample > 0.1
    assert early_noise(record, SURVEY, weights) == CLEAN


def test_weights_say_how_the_noise_of_samples_differs():
    """A shot of twice the noise has a quarter of the weight."""
    added = 1e-3 * noise("white", SURVEY.record_shape)
    added[1] *= 2
    weights = np.ones(SURVEY.record_shape)
    weights[1] = 0.25
    found = early_noise(added, SURVEY, weights)
    assert found.sample == pytest.approx(1e-3, rel=0.1)


def test_a_record_without_early_samples_tells_no_level():
    near = replace(SURVEY, receivers=((1, 2), (1, 3)), sources=((1, 2),))
    truth, start = layered()
    record = record_of(truth, near)
    assert early_noise(record, near) is None
    clean = Data.of_sample(record, torch.as_tensor(start), Simulator(near))
    assert clean.noise == CLEAN  # its first rows are what float64 makes of some velocity
    assert len(clean.source_cells[0]) == 1
    loud = record + 1e-2 * noise("white", record.shape)
    data = Data.of_sample(loud, torch.as_tensor(start), Simulator(near))
    assert data.noise is None
    assert not len(data.source_cells[0])
    residual = torch.from_numpy(1e-2 * noise("band", record.shape))
    assert data.with_noise_of(residual, 1e-4).noise.sample == pytest.approx(1e-2, rel=1e-6)
    assert data.with_noise_of(1e-3 * residual, 1e-4).noise == CLEAN


def test_velocities_at_the_sources_are_told_as_far_as_noise_allows():
    truth, start = layered()
    record, v = record_of(truth), torch.as_tensor(start)
    assert len(source_cells(record, v, SURVEY)[0]) == 3
    # 1e-6 puts them off by 1 / (2 v dt^2 w[0]) = 1.7 m/s
    assert len(source_cells(record, v, SURVEY, Noise(1e-7, 1e-7))[0]) == 3
    assert len(source_cells(record, v, SURVEY, Noise(1e-5, 1e-5))[0]) == 0


def test_tolerances_follow_from_the_noise():
    """Targets of stages grow by the misfit that noise makes, weights by those of densities."""
    level, samples = Noise(1e-3, 2e-3), 30000
    in_band = misfit_of_noise(level.coefficient**2, SURVEY)
    for name in names():
        for method in ("gauss-newton", "preconditioned-lbfgs", "lbfgs"):
            clean = find_family(name).recipe(method)
            assert clean.with_noise(CLEAN, SURVEY, samples) is clean
            assert clean.with_noise(None, SURVEY, samples) is clean
            noisy = clean.with_noise(level, SURVEY, samples)
            for before, after in zip(clean.stages, noisy.stages, strict=True):
                added = before.density * level.coefficient**2 / samples
                assert after.weight == pytest.approx(before.weight + added)
                if before.optimiser.target is not None:
                    more = level.misfit() if method == "lbfgs" else in_band
                    assert after.optimiser.target == pytest.approx(before.optimiser.target + more)
    assignment = find_family("layered").recipe("gauss-newton").assignment
    noisy = find_family("layered").recipe("gauss-newton").with_noise(level, SURVEY, samples)
    assert noisy.assignment.noise[0] == pytest.approx(math.hypot(assignment.noise[0], in_band**0.5))


def test_noise_does_not_hide_flat_layers():
    v = np.full((70, 70), 2000.0)
    v[30:] = 2600.0
    record = make_record(v)[:, :999]
    noisy = record + 1e-2 * noise("white", record.shape, survey=OPENFWI)
    assert symmetry_rms(noisy) > 1e-2
    assert asymmetry(noisy) < 1e-4
    v[30:, 30:] = 2500.0
    assert asymmetry(make_record(v)[:, :999] + noisy - record) > 1e-2


def test_flat_layers_under_noise():
    truth, start = flat()
    record = record_of(truth)
    noisy = record + 1e-3 * rms(record) * noise("white", record.shape)
    found = refine_sample(start, noisy, survey=SURVEY, family="flat-vel", method="gauss-newton")
    assert found.noise == pytest.approx(1e-3 * rms(record), rel=0.1)
    assert found.flags == ()
    assert error(found.velocity, truth) < 0.5


def test_a_poor_fit_has_no_expected_error():
    """That is known to first order about a map that explains the record."""
    truth, start = MAPS["style-b"]()
    how = {"survey": SURVEY, "family": "general", "method": "gauss-newton", "samples": 1}
    found = refine_sample(start, 1.05 * record_of(truth), **how, max_evaluations=60)
    assert (found.status, "poor fit" in found.flags) == ("refined", True)
    assert (found.expected_error, found.deviation, found.samples) == (None, None, None)


def test_a_start_is_kept_where_the_best_fit_leaves_much_of_its_misfit():
    """The record is of another source: two samples late. Its map would be 45 % worse."""
    truth, start = MAPS["style-b"]()
    late = np.roll(record_of(truth), 2, axis=1)
    how = {"survey": SURVEY, "family": "style-b", "method": "gauss-newton", "force": True}
    found = refine_sample(start, late, **how)
    assert (found.status, found.flags) == ("unchanged", ("poor fit",))
    assert np.array_equal(found.velocity, start.astype(np.float32))
    assert re.fullmatch(r"the best fit leaves \d\d% of .*: the start is likelier .*", found.reason)


# rms of noise over that of the record, up to which a route errs hardly more than without: measured
HARDLY = {"layered": 1e-4, "flat-vel": 1e-4}


@pytest.mark.slow
@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_route_under_noise(name, kind):
    """Noise costs what the data cannot tell any more, and no more than that: the fit ends at the
    noise, and the error stays below the start's, or the result is flagged: a start may be nearer
    than a record with noise in the wavelet's band of a tenth of its rms can tell, and such a fit
    may end above the noise."""
    truth, start = MAPS[name]()
    record = record_of(truth)
    how = {"survey": SURVEY, "family": name, "method": "gauss-newton", "max_evaluations": 400}
    clean = error(refine_sample(start, record, **how).velocity, truth)
    for level in LEVELS:
        added = level * rms(record) * noise(kind, record.shape)
        found = refine_sample(start, (record + added).astype(np.float32), **how)
        assert found.misfit_after < max(1.1 * rms(added), 2e-3) or "poor fit" in found.flags
        left = error(found.velocity, truth)
        assert left < error(start, truth) or "poor fit" in found.flags
        if level <= HARDLY.get(name, 0.0):
            assert left < 1.5 * clean + 0.5
