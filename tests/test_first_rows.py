"""What first rows, turned maps and odd units tell: each is found, and what is as it should be is
not."""

from dataclasses import replace

import numpy as np
import pytest
from small_survey_cases import SURVEY as TWO_SHOTS

from fwi_refine import InputError, SampleError, classify, simulate
from fwi_refine.api.options import families_of
from fwi_refine.io.convert import Conversion, ConvertedRecords, is_outside
from fwi_refine.io.samples import Sample, load_record
from fwi_refine.routing.checks.first_rows import recognise_first_rows, scales
from fwi_refine.routing.checks.form import recognise_maps
from fwi_refine.routing.checks.recognise import recognise
from fwi_refine.survey import OPENFWI

SURVEY = replace(TWO_SHOTS, sources=((1, 2), (1, 9), (1, 20)))
ROW, COLUMN = np.mgrid[:20, :25]


@pytest.fixture(scope="module")
def pairs():
    """Two starts, interfaces a row too deep, and the records of their truths."""
    left = COLUMN < 6
    top, other_top = np.where(left, 1700.0, 2200.0), np.where(left, 2400.0, 1800.0)
    truth = np.stack(
        [
            np.select([ROW < 7 + COLUMN // 3, ROW < 17], [top, 2300.0], 3100.0),
            np.select([ROW < 14 - COLUMN // 3, ROW < 17], [other_top, 2600.0], 3400.0),
        ]
    )
    start = np.roll(truth, 1, axis=1)
    start[:, 0] = truth[:, 0]
    return list(start), [d.astype(np.float64) for d in simulate(truth, survey=SURVEY)]


def late(d):
    return np.concatenate([0 * d[:, :1], d[:, :-1]], axis=1)


def early(d):
    return np.concatenate([d[:, 1:], 0 * d[:, :1]], axis=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: 1.02 * d, "1.02 times as large"),
        (lambda d: 0.97 * d, "0.97 times as large"),
        (late, "begin late"),
        (early, "scaled, or of another wavelet or start"),
        (lambda d: d - d.mean(1, keepdims=True), "levels of their own"),
    ],
)
def test_a_record_that_contradicts_its_first_rows(pairs, change, words):
    _, records = pairs
    (finding,) = recognise_first_rows([change(d) for d in records], SURVEY)
    assert words in finding.text


@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
def test_noise_and_rounding_are_no_finding(pairs, noise):
    _, records = pairs
    rng = np.random.default_rng(3)
    for _ in range(4):
        noisy = [d + noise * rng.standard_normal(d.shape) for d in records]
        assert recognise_first_rows(noisy, SURVEY) == []
    for decimals in (3, 4, 5, 6):
        assert recognise_first_rows([d.round(decimals) for d in records], SURVEY) == []


def test_the_scale_is_exact_in_layers(pairs):
    _, records = pairs
    found, _ = scales(1.02 * records[0], SURVEY)
    np.testing.assert_allclose(found, 1.02, rtol=1e-5)


@pytest.mark.parametrize(
    ("of_map", "of_record", "words"),
    [
        (lambda v: v[::-1], lambda d: d, "upside down"),
        (lambda v: v[:, ::-1], lambda d: d, "mirrored"),
        (lambda v: v, lambda d: d[:, ::-1], "their time reversed"),
        (lambda v: v, lambda d: d[:, :, ::-1], "their receivers reversed"),
        (lambda v: v, lambda d: d[::-1], "their shots reversed"),
        (lambda v: 1 / v, lambda d: d, "slowness, s/m"),
        (lambda v: 1000 / v, lambda d: d, "slowness, s/km"),
        (lambda v: 3.28084 * v, lambda d: d, "they seem to be ft/s"),
        (lambda v: v, lambda d: 1.02 * d, "1.02 times"),
    ],
)
def test_turned_inputs_and_other_quantities(pairs, of_map, of_record, words):
    maps, records = pairs
    maps = [np.ascontiguousarray(of_map(v)) for v in maps]
    found = recognise(maps, [np.ascontiguousarray(of_record(d)) for d in records], SURVEY)
    assert words in found[0].text
    assert recognise(*pairs, SURVEY) == []


def test_some_maps_in_other_units(pairs):
    maps, _ = pairs
    finding, undo = recognise_maps([maps[0], maps[1] / 1000], SURVEY)
    assert "1 of the 2 maps" in finding.text
    assert undo is None
    assert recognise_maps([maps[0], np.full_like(maps[1], 1e6)], SURVEY) == (None, None)


class Beside:
    """A record with a true map beside it."""

    path, ids, named, order = None, ["a"], True, None

    def __init__(self, record, truth):
        self._record, self._truth = record, truth

    def where(self, k):
        return "here"

    def read(self, k):
        return self._record

    def truth(self, k):
        return self._truth


def test_a_truth_in_other_units_is_converted_or_left_out(pairs):
    maps, records = pairs
    for factor, conversion, kept in (
        (1.0, Conversion("km/s"), True),
        (1e-3, Conversion("km/s"), True),
        (1e-3, Conversion("-1..1"), False),
        (1e-3, Conversion(record_scale=2.0), False),
    ):
        source = ConvertedRecords(Beside(records[0], factor * maps[0]), conversion, SURVEY)
        found = load_record(Sample(0, "a", source=source), SURVEY).truth
        assert (found is not None) == kept
        if kept:
            np.testing.assert_allclose(found, maps[0])
    plain = load_record(Sample(0, "a", source=Beside(records[0], maps[0] / 1000)), SURVEY)
    assert plain.truth is None
    assert not is_outside(np.array(["x"]), SURVEY)


def test_arrays_of_python_are_looked_at_too():
    flat = np.full((70, 70), 2000.0)
    flat[30:] = 2600.0
    records = simulate(flat)
    with pytest.raises(InputError, match="km/s"):
        classify(flat / 1000, records)
    with pytest.raises(InputError, match="other sign"):
        classify(flat, -records)
    assert classify(flat, -records, force=True).family
    with pytest.raises(SampleError, match=r"found velocities.*seem to be km/s"):
        simulate(flat / 1000)


def test_families_have_the_names_of_the_command_line():
    assert families_of("Style_A", 2, OPENFWI) == "style-a"
    assert families_of(["FlatVel-B", "auto"], 2, OPENFWI) == ("flat-vel", "auto")
    with pytest.raises(InputError, match=r"expected one of auto.*CurveFault_B"):
        families_of("Style_C", 1, OPENFWI)
