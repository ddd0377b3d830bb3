"""Single records at the place of others, in a shard that is right but for them."""

import numpy as np
import pytest
from small_survey_cases import SURVEY

from fwi_refine import refine, simulate
from fwi_refine.errors import InputError
from fwi_refine.routing.checks import inputs as look
from fwi_refine.routing.checks.recognise import checked_positions, more_positions

COUNT = 40
RNG = np.random.default_rng(5)
UNSEEN = [k for k in range(COUNT) if k not in {*checked_positions(COUNT), *more_positions(COUNT)}]


@pytest.fixture(scope="module")
def samples():
    """Maps of two layers, predictions some 20 m/s and a row off, and records."""
    top, bottom = RNG.uniform(1500, 2300, COUNT), RNG.uniform(2500, 3500, COUNT)
    depth = RNG.integers(6, 13, COUNT)
    rows = np.arange(SURVEY.shape[0])[None, :, None]
    layers = np.where(rows < depth[:, None, None], top[:, None, None], bottom[:, None, None])
    truth = np.broadcast_to(layers, (COUNT, *SURVEY.shape))
    maps = truth + RNG.normal(0, 3, truth.shape)
    return maps, np.asarray(simulate(truth, survey=SURVEY))


def looked_at_all(maps, records, force=False):
    ids = [f"s{k}" for k in range(COUNT)]
    look.check_pairs(ids, lambda k: maps[k], lambda k: records[k], SURVEY, force=force, each=True)


def moved(records, order):
    changed = records.copy()
    for place, record in order.items():
        changed[place] = records[record]
    return changed


def test_records_that_stand_where_they_belong_are_left(samples, caplog):
    looked_at_all(*samples)
    assert not caplog.records


def test_two_that_were_exchanged_are_named(samples, caplog):
    maps, records = samples
    a, b = UNSEEN[2], UNSEEN[11]
    wrong = moved(records, {a: b, b: a})
    with pytest.raises(InputError, match=rf"(s{a} and s{b}|s{b} and s{a}) seem to be exchanged"):
        looked_at_all(maps, wrong)
    looked_at_all(maps, wrong, force=True)
    assert "seem to be exchanged" in caplog.text
    with pytest.raises(InputError, match="seem to be exchanged"):
        refine(maps, wrong, survey=SURVEY, family="layered", method="lbfgs", max_evaluations=1)


def test_three_that_took_each_others_place_are_told(samples):
    maps, records = samples
    a, b, c = UNSEEN[1], UNSEEN[7], UNSEEN[20]
    with pytest.raises(InputError, match="so do 2 others"):
        looked_at_all(maps, moved(records, {a: b, b: c, c: a}))


def test_only_those_are_simulated_that_may_belong_to_each_other(samples, monkeypatch):
    maps, records = samples
    asked = set()
    fit_of_pairs = look.fit_of_pairs

    def watched(pair, survey):
        fit = fit_of_pairs(pair, survey)
        return lambda i, j: asked.add(i) or fit(i, j)

    monkeypatch.setattr(look, "fit_of_pairs", watched)
    a, b = UNSEEN[2], UNSEEN[11]
    with pytest.raises(InputError):
        looked_at_all(maps, moved(records, {a: b, b: a}))
    assert {a, b} <= asked
    assert len(asked) <= 6


def test_a_record_from_elsewhere_is_told_of(samples, caplog):
    maps, records = samples
    other = records.copy()
    other[UNSEEN[4]] = simulate(np.full(SURVEY.shape, 4000.0), survey=SURVEY)
    looked_at_all(maps, other)
    assert f"for instance s{UNSEEN[4]}" in caplog.text


def test_a_source_of_another_size_hides_nothing(samples):
    maps, records = samples
    a, b = UNSEEN[3], UNSEEN[9]
    wrong = 1.03 * moved(records, {a: b, b: a})
    ids = [f"s{k}" for k in range(COUNT)]
    with pytest.raises(InputError, match="seem to be exchanged"):
        look.check_pairs(ids, lambda k: maps[k], lambda k: wrong[k], SURVEY, source="fit",
                           each=True)  # fmt: skip


@pytest.mark.parametrize(
    ("factor", "words"), [(0.5, "with 0.5 times its size"), (-1.0, "of the other sign")]
)
def test_records_of_another_form_among_others(samples, caplog, factor, words):
    maps, records = samples
    one, many = records.copy(), records.copy()
    one[UNSEEN[6]] *= factor
    looked_at_all(maps, one)
    assert f"records of 1 of {COUNT} samples" in caplog.text
    assert f"that of s{UNSEEN[6]}" in caplog.text
    assert words in caplog.text
    many[UNSEEN[:6]] *= factor
    with pytest.raises(InputError, match=words):
        looked_at_all(maps, many)


def test_what_tells_nothing_is_no_finding(samples, caplog):
    """Bad samples, predictions that are constant."""
    maps, records = samples
    looked_at_all(np.full_like(maps, 2000.0), records)
    bad = [*records]
    bad[UNSEEN[0]], bad[UNSEEN[1]] = np.full((2, 3), np.nan), np.full_like(records[0], np.nan)
    looked_at_all(maps, bad)
    assert "seem" not in caplog.text


def test_two_maps_that_were_exchanged_beside_others(samples):
    maps, _ = samples
    rng = np.random.default_rng(2)
    others = maps + rng.normal(0, 20, maps.shape)

    def look_at(others, force=False):
        words = ("predictions", "true maps")
        look.check_both(COUNT, lambda k: maps[k], lambda k: others[k], words, SURVEY, force)

    look_at(others)
    a, b = sorted((UNSEEN[2], UNSEEN[11]))
    wrong = moved(others, {a: b, b: a})
    with pytest.raises(InputError, match=f"true maps number {a + 1} and {b + 1} seem"):
        look_at(wrong)
    look_at(wrong, force=True)
    look_at(np.full_like(others, 2000.0))
