"""One look at maps and records, in every command and function that takes them."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from small_survey_cases import SURVEY

from fwi_refine import (
    FamilyClassifier,
    InputError,
    RecordMisfit,
    WaveSimulator,
    jacobian_operator,
    refine,
    simulate,
)
from fwi_refine.cli import run
from fwi_refine.routing.checks.other_maps import recognise_other_maps
from fwi_refine.routing.checks.recognise import recognise
from fwi_refine.routing.fit import fit_priors
from fwi_refine.survey import write_survey

ROWS, COLUMNS = np.arange(20)[:, None], np.arange(25)[None]


def layers(k):
    """A ground of two layers, of which the second has a step and a block."""
    v = np.where(6 + k + COLUMNS // 8 * (k % 2) > ROWS, 1800.0 + 130 * k, 2600.0 + 50 * k)
    v[14:, 10:] = 3300
    return v


TRUE = np.stack([layers(k) for k in range(6)])
MAPS = np.stack([gaussian_filter(v, 1.0, mode="nearest") for v in TRUE])


@pytest.fixture(scope="module")
def records():
    return simulate(TRUE, survey=SURVEY)


@pytest.fixture
def case(tmp_path, monkeypatch, records):
    monkeypatch.chdir(tmp_path)
    write_survey(SURVEY, "s.toml")
    np.save("records.npy", records)
    np.save("maps.npy", MAPS.astype("f4"))
    np.save("true.npy", TRUE.astype("f4"))
    return tmp_path


def found(maps, records):
    return [f"{f.text} {f.option}" for f in recognise([*maps], [*records], SURVEY)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: 2.1 * v, "2.1 times those that the records tell: maps seem to be another"),
        (lambda v: 0.28 * v**1.25, "such as impedance"),
        (lambda v: 3e6 / v - 1e-9, "maps seem to be slowness"),
        (lambda v: v / 0.3048, "--units ft/s"),
    ],
)
def test_other_quantities_within_the_bounds(records, change, words):
    maps = change(MAPS[:4])
    assert words in found(maps, records[:4])[0]


@pytest.mark.parametrize(
    "maps",
    [
        np.full_like(MAPS, 3300.0),
        np.full_like(MAPS, 2000 * 2.236936),
        0.9 * MAPS,
        np.repeat(MAPS[:1], 6, axis=0),
        MAPS + 300 * np.sin(COLUMNS + ROWS),
    ],
)
def test_poor_starts_are_no_other_quantity(maps, records):
    assert found(maps[:4], records[:4]) == []


def test_a_map_that_is_too_fast_is_not_in_feet():
    maps = [MAPS[0], np.full_like(MAPS[1], 9000.0)]
    assert recognise(maps, [], SURVEY) == []


EACH = [
    ("upside down", lambda v: v[:, ::-1]),
    ("mirrored", lambda v: v[:, :, ::-1]),
    ("times as large", lambda v: 1.5 * v),
]


@pytest.mark.parametrize(("words", "change"), EACH)
def test_maps_beside_other_maps(words, change):
    pairs = [*zip(change(TRUE), TRUE, strict=True)]
    assert words in recognise_other_maps(pairs, ("maps", "others"))[0].text
    assert recognise_other_maps([*zip(MAPS, TRUE, strict=True)], ("maps", "others")) == []


def test_maps_in_the_order_of_others():
    order = [1, 2, 3, 4, 5, 0]
    pairs = [*zip(TRUE[order], TRUE, strict=True)]
    finding = recognise_other_maps(pairs, ("maps", "others"), lambda: TRUE)[0]
    assert "in another order" in finding.text


OTHERS = {
    "upside down": MAPS[:, ::-1],
    "km/s": MAPS / 1000,
    "ft/s": MAPS / 0.3048,
    "other order": TRUE[[3, 4, 5, 0, 1, 2]],
}
COMMANDS = {
    "evaluate": "evaluate other.npy true.npy",
    "evaluate, truth": "evaluate true.npy other.npy",
    "blend": "blend true.npy other.npy --median --out b.npy",
    "blend, truth": "blend true.npy true.npy --truth other.npy --out b.npy",
    "plot": "plot panels other.npy --truth true.npy --out c.png",
    "candidate": "true.npy records.npy --family layered --dry-run --candidate other.npy",
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("other", OTHERS)
def test_each_command_looks_at_maps_together(case, capsys, command, other):
    if command == "plot":
        pytest.importorskip("matplotlib", reason="the extra [plot] is not installed")
    np.save("other.npy", OTHERS[other].astype("f4"))
    before = sorted(case.iterdir())
    assert run([*COMMANDS[command].split(), "--survey", "s.toml"]) == 2
    assert "the inputs are not what they are taken for" in capsys.readouterr().err
    assert sorted(case.iterdir()) == before


@pytest.mark.parametrize(
    "command",
    [
        "evaluate maps.npy true.npy --records other.npy",
        "blend maps.npy true.npy --records other.npy --out b.npy",
        "plot panels maps.npy --records other.npy --out c.png",
    ],
)
def test_each_command_looks_at_maps_with_their_records(case, capsys, records, command):
    if command.startswith("plot"):
        pytest.importorskip("matplotlib", reason="the extra [plot] is not installed")
    for other in (records[[3, 4, 5, 0, 1, 2]], -records, 10 * records):
        np.save("other.npy", other)
        assert run([*command.split(), "--survey", "s.toml"]) == 2
        assert "the inputs are not what they are taken for" in capsys.readouterr().err


def test_truth_in_the_units_of_the_maps(case, capsys):
    np.save("feet.npy", (MAPS / 0.3048).astype("f4"))
    np.save("true_feet.npy", (TRUE / 0.3048).astype("f4"))
    more = ["--survey", "s.toml", "--by", "sample"]
    tables = []
    for names in (["maps.npy", "true.npy"], ["feet.npy", "true_feet.npy", "--units", "ft/s"]):
        assert run(["evaluate", *names, *more]) == 0
        rows = capsys.readouterr().out.splitlines()[1:]
        tables.append([float(row.split(",")[1]) for row in rows])
    np.testing.assert_allclose(*tables, rtol=1e-4)


def test_doctor_tells_units(case, capsys):
    np.save("other.npy", MAPS[:1] / 1000)
    assert run(["doctor", "records.npy", "other.npy", "--survey", "s.toml"]) == 1
    assert "--units km/s" in capsys.readouterr().out


def test_the_classifier_looks():
    maps = np.full((4, 70, 70), 2.0)
    with pytest.raises(InputError, match="km/s"):
        FamilyClassifier().fit([(v, None) for v in maps], ["layered"] * 4)
    forced = FamilyClassifier(force=True).fit([(v, None) for v in maps], ["layered"] * 4)
    assert forced.get_params()["force"]


def test_priors_are_not_fitted_to_kilometres(tmp_path):
    (tmp_path / "Style_A").mkdir()
    np.save(tmp_path / "Style_A" / "model1.npy", np.full((2, 70, 70), 2.0, "f4"))
    with pytest.raises(InputError, match="km/s"):
        fit_priors(tmp_path, None, {})


def test_tensors_of_other_types_and_units(records):
    v = torch.from_numpy(MAPS[:1])
    d = torch.from_numpy(records[:1])
    for bad in (v.to(torch.complex64), v > 0, MAPS[:1]):
        for call in (WaveSimulator(SURVEY), lambda v: RecordMisfit(SURVEY)(v, d)):
            with pytest.raises(ValueError, match=r"expected a (float type|torch\.Tensor)"):
                call(bad)
    with pytest.raises(ValueError, match="expected a float type"):
        jacobian_operator(MAPS[0].astype(complex), survey=SURVEY)
    with pytest.warns(UserWarning, match="km/s or scaled"):
        jacobian_operator(MAPS[0] / 1000, survey=SURVEY)


def test_values_behind_a_mask_are_not_used(records):
    masked = np.ma.masked_less(MAPS[:2].astype("f4"), 1850)
    assert masked[0].mask.any()
    assert not masked[1].mask.any()
    how = {"survey": SURVEY, "family": "layered", "method": "lbfgs", "max_evaluations": 1}
    result = refine(masked, records[:2], **how)
    assert "not finite" in result.failed[0]
    assert 1 not in result.failed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"jobs": 10**11}, "expected at most"),
        ({"jobs": 2.5}, "whole number"),
        ({"jobs": True}, "whole number"),
        ({"threads": 10**6}, "1 to 4096"),
        ({"samples": 10**11}, "0 to 10000"),
        ({"samples": "3"}, "whole number"),
        ({"max_evaluations": float("nan")}, "whole number"),
        ({"time_budget": "5"}, "more than 0 seconds"),
        ({"family": 3}, "a name, or a list of names"),
        ({"records": iter([])}, "a length and records"),
    ],
)
def test_numbers_without_use(records, options, words):
    given = {"records": records[:1], "survey": SURVEY, "family": "layered"} | options
    with pytest.raises(InputError, match=words):
        refine(MAPS[:1], given.pop("records"), **given)
