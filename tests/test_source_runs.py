"""Whole samples whose source is not known: refined, reported, and told of before."""

import csv
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from jacobian_cases import relative
from scipy.ndimage import gaussian_filter

from fwi_refine.analysis import diagnose
from fwi_refine.api import refine
from fwi_refine.cli import run
from fwi_refine.errors import InputError
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.model import Model
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.inversion.source import found_source
from fwi_refine.inversion.stage_result import Curvature
from fwi_refine.inversion.uncertainty import Solution
from fwi_refine.io.samples import Sample
from fwi_refine.objective.parameterisation import Full
from fwi_refine.objective.source_misfit import FreeSourceMisfit
from fwi_refine.priors import GaussianProcess, load
from fwi_refine.routing.checks.recognise import recognise
from fwi_refine.routing.checks.source import source_near, warning
from fwi_refine.runs.one_sample import refine_one
from fwi_refine.runs.settings import Settings
from fwi_refine.survey import OPENFWI, write_survey
from fwi_refine.wave import Simulator

SURVEY = replace(
    OPENFWI,
    shape=(10, 16),
    absorbing_cells=20,
    velocity_bounds=(1400.0, 4500.0),
    n_steps=280,
    file_rows=280,
    sources=((1, 2), (1, 13)),
    receivers=tuple((1, column) for column in range(16)),
)
PROCESS = GaussianProcess(3.0, 200.0, 20.0, 400.0, 30.0, 2300.0, SURVEY.shape)
PRIORS = replace(load(), style_a=PROCESS, style_b=PROCESS)


def ricker(frequency=15.0, delay=0.0):
    t = (np.arange(SURVEY.n_steps) - SURVEY.wavelet_centre) * SURVEY.dt - delay
    b = (np.pi * frequency * t) ** 2
    return (1 - 2 * b) * np.exp(-b)


@pytest.fixture(scope="module")
def smooth():
    """A smooth map and its start."""
    random = np.random.default_rng(3)
    field = gaussian_filter(random.standard_normal(SURVEY.shape), 3.0)
    truth = 2000 + 30.0 * np.arange(10)[:, None] + 150 * field / field.std()
    error = gaussian_filter(random.standard_normal(SURVEY.shape), 2.0)
    return truth, truth + 40 * error / np.abs(error).mean()


def record_of(v, wavelet):
    simulator = Simulator(SURVEY.with_wavelet(wavelet))
    return simulator.forward(torch.from_numpy(np.asarray(v))[None])[0].numpy().astype(np.float32)


def error_of(smooth, wavelet, **how):
    truth, start = smooth
    record = record_of(truth, wavelet)
    how = {"survey": SURVEY, "priors": PRIORS, "family": "style-a"} | how
    found = refine_sample(start, record, **how)
    return float(np.abs(found.velocity - truth).mean()), found


def test_another_source_spoils_a_map_unless_it_is_estimated(smooth):
    wavelet = 1.2 * ricker(13.0, 0.003)
    spoilt, _ = error_of(smooth, wavelet, max_evaluations=30)
    fit, found = error_of(smooth, wavelet, source="fit")
    assert fit < 1.0
    assert fit < 0.02 * spoilt
    assert found.source.wavelets.shape == (1, SURVEY.n_steps)
    assert np.abs(found.source.wavelets[0] - wavelet).max() < 2e-3
    assert found.source.amplitude_deviation < 1e-3
    assert 0 < found.source.added_error < found.expected_error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("amplitude", "frequency", "delay"),
    [(1.02, 15.0, 0.0), (-7.0, 15.0, 0.0), (1.0, 15.0, 0.005), (1.0, 15.0, -0.002), (1.0, 18.0, 0)],
)
@pytest.mark.parametrize("method", ["gauss-newton", "preconditioned-lbfgs"])
def test_every_kind_of_another_source(smooth, amplitude, frequency, delay, method):
    fit, found = error_of(smooth, amplitude * ricker(frequency, delay), source="fit", method=method)
    assert fit < (1.0 if method == "gauss-newton" else 3.0)
    assert found.source.shape.frequency == pytest.approx(frequency, abs=0.5)


def test_the_misfit_is_in_the_unit_of_the_record(smooth):
    """A record 1000 times as large gives the same map with a misfit 1000 times as large."""
    (one, first), (other, second) = (
        error_of(smooth, amplitude * ricker(), source="fit", max_evaluations=120)
        for amplitude in (1.0, 1024.0)
    )
    assert other == pytest.approx(one, rel=1e-6)
    assert second.misfit_after == pytest.approx(1024 * first.misfit_after, rel=1e-3)
    assert second.misfit_before == pytest.approx(1024 * first.misfit_before, rel=1e-3)
    assert second.source.shape.amplitude == pytest.approx(1024, rel=1e-3)


GAPS = {
    "a dead trace": ((0, slice(None), 9), 0.0, 280),
    "a gap in time": ((slice(None), slice(150, 170), slice(3, 6)), np.nan, 2 * 20 * 3),
}


@pytest.mark.slow
@pytest.mark.parametrize("gap", GAPS)
def test_another_source_and_gaps_go_together(smooth, gap):
    """Within 1.5 times the error of a known source and a complete record."""
    truth, start = smooth
    wavelet = 1.2 * ricker(13.0, 0.003)
    record = record_of(truth, wavelet)
    how = {"priors": PRIORS, "family": "style-a"}
    known = refine_sample(start, record, survey=SURVEY.with_wavelet(wavelet), **how)
    where, value, count = GAPS[gap]
    record[where] = value
    found = refine_sample(start, record, survey=SURVEY, source="fit", **how)
    errors = [float(np.abs(r.velocity - truth).mean()) for r in (known, found)]
    assert found.missing == count
    assert errors[1] < 1.5 * errors[0]
    assert np.abs(found.source.wavelets[0] - wavelet).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("source", ["fit", "fit-each"])
@pytest.mark.parametrize("method", ["matrix-free", "lbfgs"])
def test_other_methods_with_another_source_and_a_gap(smooth, source, method):
    """About as near as with a known source, after as many evaluations."""
    truth, start = smooth
    wavelet = 1.2 * ricker(13.0, 0.003)
    record = record_of(truth, wavelet)
    record[GAPS["a dead trace"][0]] = 0.0
    how = {"priors": PRIORS, "family": "style-a", "method": method, "max_evaluations": 300}
    known = refine_sample(start, record, survey=SURVEY.with_wavelet(wavelet), **how)
    found = refine_sample(start, record, survey=SURVEY, source=source, **how)
    errors = [float(np.abs(r.velocity - truth).mean()) for r in (known, found)]
    assert errors[1] < 3 * errors[0]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["fit", "fit-each"])
@pytest.mark.parametrize(("frequency", "delay"), [(15.0, 0.0), (15.0, -0.002), (13.0, 0.003)])
def test_a_source_that_is_estimated_costs_little(smooth, source, frequency, delay):
    truth, start = smooth
    wavelet = 1.2 * ricker(frequency, delay)
    record = record_of(truth, wavelet)
    how = {"priors": PRIORS, "family": "style-a"}
    known = refine_sample(start, record, survey=SURVEY.with_wavelet(wavelet), **how)
    found = refine_sample(start, record, survey=SURVEY, source=source, **how)
    errors = [float(np.abs(r.velocity - truth).mean()) for r in (known, found)]
    assert errors[1] < 1.6 * errors[0]


@pytest.mark.slow
def test_each_shot_may_have_a_wavelet_of_its_own(smooth):
    truth, start = smooth
    record = record_of(truth, ricker())
    record[1] = 0.8 * record_of(truth, ricker(15.0, 0.003))[1]
    how = {"survey": SURVEY, "priors": PRIORS, "family": "style-a"}
    one = refine_sample(start, record, source="fit", **how)
    each = refine_sample(start, record, source="fit-each", **how)
    errors = [float(np.abs(r.velocity - truth).mean()) for r in (one, each)]
    assert each.source.wavelets.shape == (2, SURVEY.n_steps)
    assert errors[1] < 0.2 * errors[0]
    assert np.abs(each.source.wavelets[1] - 0.8 * ricker(15.0, 0.003)).max() < 5e-3


def test_the_known_source_is_the_default_and_changes_nothing(smooth):
    truth, start = smooth
    record = record_of(truth, SURVEY.wavelet)
    how = {"survey": SURVEY, "priors": PRIORS, "family": "style-a", "max_evaluations": 20}
    default = refine_sample(start, record, **how)
    known = refine_sample(start, record, source="known", **how)
    assert np.array_equal(default.velocity, known.velocity)
    assert default.source is known.source is None
    with pytest.raises(ValueError, match="source 'mine': expected one of known, fit, fit-each"):
        refine_sample(start, record, source="mine", **how)


def test_candidates_are_compared_with_their_own_sources(smooth):
    """With the survey's wavelet, a record of the other sign would fit slow maps best."""
    truth, start = smooth
    starts = (("slow", 0.8 * truth), ("near", start))
    sample = Sample(0, "s", starts, record_of(truth, -ricker()))
    settings = Settings(PRIORS, family="style-a", max_evaluations=1, survey=SURVEY)
    assert refine_one(sample, settings).row.start == "slow"
    assert refine_one(sample, replace(settings, source="fit")).row.start == "near"


def test_the_evaluations_are_never_more_than_allowed(smooth):
    for limit in (1, 3, 20):
        _, found = error_of(smooth, 1.1 * ricker(), source="fit", max_evaluations=limit)
        assert found.evaluations <= limit


def test_the_uncertainty_is_that_of_map_and_wavelets_together():
    """Against the inverse of the whole matrix."""
    survey = replace(SURVEY, shape=(6, 8), sources=((1, 1),), receivers=((1, 0), (1, 4), (1, 7)))
    simulator, parameters = Simulator(survey), Full(survey.shape)
    v = torch.full(survey.shape, 2000.0, dtype=torch.float64)
    v[3:] = 2600.0
    record = Simulator(survey.with_wavelet(1.1 * survey.wavelet)).forward(v[None])[0].numpy()
    record += 1e-3 * np.random.default_rng(0).standard_normal(record.shape)
    data, amplitude = Data.with_free_source(record, v, simulator)
    misfit = data.band_misfit(parameters)
    assert isinstance(misfit, FreeSourceMisfit)
    x = parameters.from_velocity(v)
    hessian, prior = misfit.hessian(x).clone(), 2e-4 * torch.eye(len(x)).double()
    source, left = misfit.last_source, misfit(x)
    solution = Solution(parameters, hessian.clone(), left, prior, survey, source=source)
    found = found_source(data, Model.of(v), Curvature(solution), amplitude, survey)
    unit = np.prod(survey.record_shape) / (2 * solution.variance)
    whole = hessian * unit + prior / 2
    whole[-1, -1] += 1e-6
    own, cross = source.own * unit, source.cross * unit
    whole += cross.T @ torch.linalg.solve(own, cross)
    both = torch.cat([torch.cat([whole, cross.T], dim=1), torch.cat([cross, own], dim=1)]).inverse()
    n = len(x)
    with_source = both.diagonal()[: n - 1].sqrt().mean()
    without = whole.inverse().diagonal()[: n - 1].sqrt().mean()
    expected = np.sqrt(2 / np.pi) * float(with_source - without)
    assert found.added_error == pytest.approx(expected, rel=1e-3)
    mean = data.source.model.mean
    d = data.source.model.basis.T @ mean / mean.square().sum()
    deviation = abs(amplitude) * float(d @ both[n:, n:] @ d) ** 0.5
    assert found.amplitude_deviation == pytest.approx(deviation, rel=1e-3)


def test_a_lower_frequency_keeps_the_source(smooth):
    """The wavelets of a low-passed record are the low-passed ones."""
    truth = torch.from_numpy(smooth[0])
    record = record_of(truth, 1.3 * ricker(14.0, 0.002))
    data, _ = Data.with_free_source(record, truth, Simulator(SURVEY))
    low = data.low_passed(0.6, Model.of(truth))
    misfit = low.band_misfit(Full(SURVEY.shape))
    x = Full(SURVEY.shape).from_velocity(truth)
    rms = float(np.sqrt(np.mean(np.square(low.record))))
    assert misfit.estimate(x).mean_square() ** 0.5 < 1e-3 * rms
    early = data.until(0.7)
    shorter = Full(SURVEY.shape)
    found = early.band_misfit(shorter).estimate(shorter.from_velocity(truth))
    assert found.mean_square() ** 0.5 < 1e-3 * rms
    part = data.subset(replace(SURVEY, sources=SURVEY.sources[:1]), 1)
    assert relative(part.source.model.mean, data.source.model.mean) == 0
    found = part.band_misfit(Full(SURVEY.shape)).estimate(x)
    assert found.mean_square() ** 0.5 < 1e-3 * rms


@pytest.fixture(scope="module")
def files(tmp_path_factory, smooth):
    folder = tmp_path_factory.mktemp("source")
    truth, start = smooth
    np.save(folder / "start.npy", start[None].astype(np.float32))
    np.save(folder / "record.npy", record_of(truth, 1.2 * ricker(13.0, 0.003))[None])
    np.save(folder / "true.npy", record_of(truth, ricker())[None])
    write_survey(SURVEY, folder / "survey.toml")
    return folder


def refine_files(folder, *more):
    return run(
        [
            "refine", str(folder / "start.npy"), str(folder / "record.npy"), "--family", "style-a",
            "--survey", str(folder / "survey.toml"), "--max-evaluations", "20", *more,
        ]
    )  # fmt: skip


def test_the_command_and_its_report(files, caplog):
    out = files / "refined.npy"
    (files / "run.toml").write_text('source = "fit"\n')
    more = ("--config", str(files / "run.toml"), "--run-dir", str(files / "run"))
    assert refine_files(files, "--out", str(out), *more) == 0
    (row,) = csv.DictReader(out.with_suffix(".csv").open())
    assert float(row["source_amplitude"]) == pytest.approx(1.2, rel=0.05)
    assert float(row["source_delay"]) == pytest.approx(3.0, abs=0.5)
    assert float(row["source_frequency"]) == pytest.approx(13.0, abs=0.5)
    assert float(row["source_amplitude_error"]) > 0
    assert float(row["source_shape"]) > 0.05
    # a run is continued with the source that it was begun with
    assert refine_files(files, "--out", str(files / "b.npy"), "--run-dir", str(files / "run")) != 0


def test_a_source_that_looks_different_is_told_of(smooth, caplog):
    truth, start = smooth
    record = record_of(truth, 1.2 * ricker(13.0, 0.003))
    text = warning([start], [record], SURVEY)
    assert "--source fit" in text
    assert "peak at 13" in text
    assert not warning([start], [record_of(truth, ricker())], SURVEY)
    # one that the others do not show is none of the survey
    assert not warning([start, start], [record, record_of(truth, ricker())], SURVEY)
    with caplog.at_level(logging.WARNING):
        refine(start, record, survey=SURVEY, family="style-a", max_evaluations=1, force=True)
        assert "--source fit" not in caplog.text


def test_where_the_source_is_estimated_another_scale_is_no_finding(smooth):
    truth, start = smooth
    record = record_of(truth, -7.0 * ricker())
    known = recognise([start], [record], SURVEY)
    assert known
    assert all(finding.of_source for finding in known)
    assert recognise([start], [record], SURVEY, source="fit") == []
    how = {"survey": SURVEY, "family": "style-a", "max_evaluations": 2}
    with pytest.raises(InputError, match="--source fit"):
        refine(start, record, **how)
    assert refine(start, record, source="fit", **how).column("status") != ["failed"]


@pytest.mark.parametrize("with_map", [True, False])
def test_the_doctor_tells_another_source(smooth, with_map):
    v = np.full(SURVEY.shape, 2200.0)
    simulator = Simulator(SURVEY)
    given = v if with_map else None
    fine = diagnose.check_source(record_of(v, ricker()), simulator, given)
    assert all(check.passed for check in fine)
    for wavelet, name in (
        (1.3 * ricker(), "amplitude"),
        (ricker(15.0, 0.003), "delay"),
        (ricker(12.0), "frequency"),
        (ricker(12.0), "shape"),
    ):
        checks = diagnose.check_source(record_of(v, wavelet), simulator, given)
        (found,) = (check for check in checks if name in check.name)
        assert found.passed is False


def test_where_the_first_arrivals_tell_nothing(smooth):
    truth, _ = smooth
    record = record_of(truth, ricker())
    far = replace(SURVEY, receivers=((9, 10),))
    assert source_near(record[..., 10:11], Simulator(far)) is None
    wrong = np.full(SURVEY.shape, 4000.0)
    assert source_near(record, Simulator(SURVEY), wrong) is None
    (check,) = diagnose.check_source(record, Simulator(SURVEY), wrong)
    assert check.passed is None
