"""What inputs seem to be: each transformation is found, and starts of any kind raise no alarm."""

from dataclasses import fields, replace

import numpy as np
import pytest
from helpers import others_slow
from small_survey_cases import SURVEY as SMALL

from fwi_refine import InputError, Refined, load_priors
from fwi_refine import refine as refine_arrays
from fwi_refine.cli import run
from fwi_refine.io.convert import AXES, Conversion, conversion_of, forward_log
from fwi_refine.io.samples import Sample
from fwi_refine.routing.checks.recognise import checked_positions, recognise
from fwi_refine.runs import one_sample
from fwi_refine.runs.one_sample import refine_one
from fwi_refine.runs.settings import Settings
from fwi_refine.survey import OPENFWI
from fwi_refine.synthetic import make_sample
from fwi_refine.synthetic.samples import FAMILIES
from fwi_refine.wave import Simulator

LOW, HIGH = -26.95, 52.77


@pytest.fixture(scope="module")
def simulator():
    return Simulator(OPENFWI, threads=1)


@pytest.fixture(scope="module")
def samples():
    """Three samples of a family and hardness, made once."""
    known = {}

    def made(family, hardness=1.0):
        key = family, hardness
        if key not in known:
            known[key] = [make_sample(family, 77, k, hardness) for k in range(3)]
        return [s.start for s in known[key]], [s.record for s in known[key]]

    return made


def found(maps, records, simulator, survey=OPENFWI):
    named = [(str(k), d) for k, d in enumerate(records)]
    return recognise(maps, records, survey, lambda: named, simulator)


def pairs_slow(pairs):
    return [pytest.param(*pair, marks=pytest.mark.slow) for pair in pairs]


def normalise(x, low, high):
    return ((x - low) / (high - low) - 0.5) * 2


def identity(x):
    return x


# name: (what is done to maps, to records, options that undo it)
CHANGES = {
    "km/s": (lambda v: v / 1000, identity, ["--units km/s"]),
    "-1..1": (lambda v: (v - 3000) / 1500, identity, ["--units -1..1"]),
    "0..1": (lambda v: (v - 1500) / 3000, identity, ["--units 0..1"]),
    "standardised": (lambda v: (v - v.mean()) / v.std() * 3, identity, [""]),
    "transposed": (lambda v: v.T.copy(), identity, ["--transpose"]),
    "logarithms": (identity, lambda d: forward_log(d, 1.0), ["--record-log 1"]),
    "normalised": (identity, lambda d: normalise(d, LOW, HIGH), ["--record-range -2"]),
    "normalised logarithms": (
        identity,
        lambda d: normalise(forward_log(d, 1), forward_log(LOW, 1), forward_log(HIGH, 1)),
        ["--record-range -2"],
    ),
    "large": (identity, lambda d: 1000 * d, ["--record-scale 0.00"]),
    "small": (identity, lambda d: 0.1 * d, ["--record-scale "]),
    "other sign": (identity, lambda d: -d, ["--record-scale -1"]),
    "shots, receivers, time": (identity, lambda d: d.transpose(0, 2, 1), ["--record-axes srt"]),
    "time, shots, receivers": (identity, lambda d: d.transpose(1, 0, 2), ["--record-axes tsr"]),
    "all of a loader": (
        lambda v: (v - 3000) / 1500,
        lambda d: normalise(forward_log(d, 1), forward_log(LOW, 1), forward_log(HIGH, 1)),
        ["--units -1..1", "--record-range -2"],
    ),
}


FEW = ["CurveFault_B", "FlatVel_A", "Style_A"]


@pytest.mark.parametrize("family", others_slow(FEW))
@pytest.mark.parametrize("name", CHANGES)
def test_every_transformation_is_recognised(name, family, samples, simulator):
    maps, records = samples(family)
    of_map, of_record, options = CHANGES[name]
    findings = found([of_map(v) for v in maps], [of_record(d) for d in records], simulator)
    assert len(findings) == len(options)
    for finding, option in zip(findings, options, strict=True):
        assert finding.option.startswith(option)
        assert finding.text


@pytest.mark.parametrize(
    ("family", "hardness"),
    [
        *((family, 1.0) for family in FEW),
        *pairs_slow((f, hard) for f in FAMILIES for hard in (1.0, 3.0) if f not in FEW or hard > 1),
    ],
)
def test_no_family_is_taken_for_something_else(family, hardness, samples, simulator):
    maps, records = samples(family, hardness)
    assert found(maps, records, simulator) == []
    assert found(maps[:2], records[:2], simulator) == []
    assert found(maps[:1], records[:1], simulator) == []
    assert found([], records, simulator) == []  # as for `start`
    assert found(maps, [], simulator) == []


@pytest.mark.parametrize("family", others_slow(FEW))
@pytest.mark.parametrize("noise", others_slow([1e-2, 0.0, 0.3]))
def test_starts_without_a_network_are_no_finding(family, noise, samples, simulator):
    _, records = samples(family)
    rng = np.random.default_rng(0)
    records = [d + noise * rng.standard_normal(d.shape) for d in records]
    trend = np.repeat(np.linspace(0, 2000, 70)[:, None], 70, axis=1)
    for starts in ([1500, 1500, 1500], [3000, 3000, 3000], [2000, 3000, 4400]):
        constant = [np.full((70, 70), float(v)) for v in starts]
        assert found(constant, records, simulator) == []
        assert found([v + trend for v in constant], records, simulator) == []


@pytest.mark.parametrize("family", others_slow(["Style_A", "FlatVel_A", "CurveVel_B", "Style_B"]))
def test_another_order_is_recognised(family, samples, simulator):
    maps, records = samples(family)
    (finding,) = found(maps, records[1:] + records[:1], simulator)
    assert "another order" in finding.text
    (finding,) = found(maps[:2], records[1::-1], simulator)
    assert "another order" in finding.text


def test_records_that_are_scaled_one_by_one_have_no_factor(samples, simulator):
    maps, records = samples("CurveFault_B")
    (finding,) = found(maps, [d / np.abs(d).max() for d in records], simulator)
    assert "a factor of its own" in finding.text
    assert finding.option == ""


@pytest.mark.parametrize("change", ["small", "other sign", "normalised"])
def test_the_record_alone_tells_some(change, samples, simulator):
    _, records = samples("CurveFault_B")
    constant = [np.full((70, 70), 3000.0)] * 3
    records = [CHANGES[change][1](d) for d in records]
    assert len(found(constant, records, simulator)) >= 1
    assert len(found([], records, simulator)) >= 1


def test_other_surveys_are_no_finding():
    between = replace(SMALL, sources=((3, 2),), receivers=tuple((0, c) for c in range(0, 25, 7)))
    truth = np.where(np.arange(20)[:, None] < 9, 1800.0, 2600.0) * np.ones((20, 25))
    truth[12:, 10:] = 3000
    for survey in (SMALL, between):
        simulator = Simulator(survey, threads=1)
        record = np.asarray(simulator.forward(_tensor(truth))[0])
        start = np.roll(truth, 1, axis=0)
        assert found([start], [record], simulator, survey) == []
        assert found([start, truth], [record, record], simulator, survey) == []
        (finding,) = found([start], [-record], simulator, survey)
        assert finding.option == "--record-scale -1"


def _tensor(v):
    import torch

    return torch.from_numpy(v[None])


def test_few_samples_are_looked_at():
    assert checked_positions(1) == [0]
    assert checked_positions(2) == [0, 1]
    assert checked_positions(65818) == [0, 21939, 43878, 65817]


# The options undo what they say


def test_a_conversion_undoes_what_a_loader_does():
    rng = np.random.default_rng(0)
    v, d = rng.uniform(1500, 4500, (70, 70)), rng.normal(0, 3, (5, 100, 7))
    ends = (forward_log(LOW, 1.0), forward_log(HIGH, 1.0))
    stored = normalise(forward_log(-d / 7, 1.0), *ends).transpose(2, 0, 1)
    given = Conversion("km/s", True, "rst", (LOW, HIGH), 1.0, -7.0)
    np.testing.assert_allclose(given.velocity(v.T / 1000), v, rtol=1e-14)
    np.testing.assert_allclose(given.record(stored), d, rtol=1e-10, atol=1e-12)
    assert conversion_of(given.differences()) == given
    assert Conversion().differences() == {}
    assert Conversion().record(d) is d
    assert Conversion().velocity(v) is v
    assert Conversion().record_axes == AXES


# Commands


@pytest.fixture
def stored(made, tmp_path):
    """The made samples in km/s, with records of the other sign."""
    np.save(tmp_path / "km.npy", made.starts / 1000)
    (tmp_path / "rec").mkdir()
    for name, record in zip(made.ids, made.records, strict=True):
        np.save(tmp_path / "rec" / f"{name}.npy", -record)
    return tmp_path


def test_refine_stops_and_names_the_options_that_work(stored, baseline, refine, capsys):
    out = stored / "out.npy"
    assert refine(stored / "km.npy", stored / "rec", out).code == 2
    message = capsys.readouterr().err
    assert "--units km/s" in message
    assert "--record-scale -1" in message
    assert "--force" in message
    assert not out.exists()
    options = ("--units", "km/s", "--record-scale", "-1")
    result = refine(stored / "km.npy", stored / "rec", out, *options, "--limit", 1)
    assert result.code == 0
    np.testing.assert_allclose(result.maps, baseline.maps[:1], atol=0.5)
    forced = stored / "km.npy", stored / "rec", stored / "f.npy", "--force"
    assert refine(*forced, "--max-evaluations", 1).code in (0, 3)
    assert "km/s" in capsys.readouterr().err


def test_the_conversion_belongs_to_a_run(stored, refine, capsys):
    line = [stored / "km.npy", stored / "rec", "--run-dir", stored / "run", "--limit", 1]
    line += ["--method", "lbfgs", "--max-evaluations", 1]
    options = ["--units", "km/s", "--record-scale", "-1"]
    assert run([str(x) for x in [*line, *options]]) == 0
    assert run([str(x) for x in [*line, *options]]) == 0
    assert run([str(x) for x in [*line, *options, "--record-axes", "srt", "--force"]]) == 2
    assert "conversion.record_axes" in capsys.readouterr().err
    report = ["report", stored / "run", "--out", stored / "run.html"]
    pytest.importorskip("matplotlib")
    assert run([str(x) for x in report]) == 0


@pytest.mark.parametrize(
    "line",
    [
        "refine km.npy rec --dry-run",
        "classify km.npy rec",
        "start rec --out s.npy",
        "simulate km.npy --out made",
        "evaluate km.npy km.npy",
        "blend km.npy km.npy --median --out b.npy",
    ],
)
def test_every_command_looks_first(line, stored, monkeypatch, capsys):
    monkeypatch.chdir(stored)
    assert run(line.split()) == 2
    assert "the inputs are not what they are taken for" in capsys.readouterr().err
    assert not [path for name in ("s.npy", "made", "b.npy") if (path := stored / name).exists()]


def test_arrays_are_looked_at_too(made):
    with pytest.raises(InputError, match="km/s"):
        refine_arrays(made.starts / 1000, made.records, method="lbfgs", max_evaluations=1)


def test_a_start_that_is_not_improved_keeps_its_own_numbers(made, monkeypatch):
    start = made.starts[0].astype(float)
    start[69, 0] = 6500.5  # beyond the bounds: what is simulated, and compared, is 6000 m/s there

    def nothing_better(v, *more, **how):
        names = [field.name for field in fields(Refined)]
        values = dict.fromkeys(names, 0.0) | {"velocity": v.clip(1000, 6000), "evidence": {}}
        values["source"] = None
        return Refined(**values | {"status": "unchanged", "flags": (), "reason": "nothing better"})

    monkeypatch.setattr(one_sample, "refine_sample", nothing_better)
    sample = Sample(0, "a1", (("start", start),), made.records[0])
    outcome = refine_one(sample, Settings(load_priors()))
    np.testing.assert_array_equal(outcome.velocity, start)
