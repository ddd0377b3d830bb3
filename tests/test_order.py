"""Predictions in another order than their records, or than the truth, are noticed wherever the
samples stand that are looked at first."""

import numpy as np
import pytest
from small_survey_cases import SURVEY

from fwi_refine import InputError, refine, simulate
from fwi_refine.cli import run
from fwi_refine.io.predictions import check_id
from fwi_refine.routing.checks.inputs import check_both, check_pairs
from fwi_refine.routing.checks.recognise import checked_positions, more_positions
from fwi_refine.survey.toml import write_survey

COUNT = 14
OTHER = "of other samples"


def truths(count=COUNT):
    """Three layers each, no two alike."""
    random = np.random.default_rng(4)
    maps = np.empty((count, *SURVEY.shape))
    for v in maps:
        top, bottom = random.integers(4, 9), random.integers(11, 16)
        v[:top], v[top:bottom], v[bottom:] = np.sort(random.uniform(1600, 4200, 3))[:, None, None]
    return maps


def predicted(maps, error=20.0):
    """As a network gives them: blurred a little, and wrong by `error` m/s."""
    random = np.random.default_rng(5)
    return 0.85 * maps + 0.15 * np.roll(maps, 1, 1) + random.normal(0, error, (len(maps), 1, 1))


def turned(count=COUNT):
    """Every sample takes the next one's place, but those that are looked at first."""
    order = np.arange(count)
    rest = np.setdiff1d(order, checked_positions(count))
    order[rest] = np.roll(rest, -1)
    return order


@pytest.fixture
def case(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_survey(SURVEY, "s.toml")
    maps = truths()
    (tmp_path / "records").mkdir()
    for k, record in enumerate(simulate(maps, survey=SURVEY)):
        np.save(f"records/{check_id(f's{k:02}')}.npy", record)
    np.save("t.npy", maps.astype("f4"))
    np.save("p.npy", predicted(maps).astype("f4"))
    np.save("wrong.npy", predicted(maps)[turned()].astype("f4"))
    return tmp_path


COMMANDS = [
    "refine {} records --dry-run --family layered",
    "evaluate {} t.npy",
    "blend {} t.npy --median --out o.npy --overwrite",
    "evaluate {} {} --records records",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_notices(case, capsys, command):
    def code(name):
        return run([*command.format(*[name] * command.count("{}")).split(), "--survey", "s.toml"])

    assert code("p.npy") == 0, capsys.readouterr().err
    capsys.readouterr()
    assert code("wrong.npy") == 2
    assert OTHER in capsys.readouterr().err


def test_arrays_of_python(case):
    records = np.stack([np.load(f"records/s{k:02}.npy") for k in range(COUNT)])
    with pytest.raises(InputError, match=OTHER):
        refine(np.load("wrong.npy"), records, survey=SURVEY, family="layered")


def test_samples_of_a_large_set():
    """Each of those that are read has its partner next to it."""
    count = 5000
    order, maps = turned(count), {}
    random = np.random.default_rng(6)
    levels = random.uniform(1600, 4200, (count, 3))

    def true(k):
        if k not in maps:
            maps[k] = np.repeat(levels[k], [6, 7, 7])[:, None] * np.ones(SURVEY.shape)
        return maps[k]

    def look(one):
        check_both(count, one, true, ("the maps", "the true maps"), SURVEY)

    look(lambda k: true(k) * 1.03)
    with pytest.raises(InputError, match=OTHER):
        look(lambda k: true(order[k]) * 1.03)
    assert len(maps) < 250


def test_poor_predictions_are_in_order():
    """Some are as near to the sample of another as that one's own, and far from theirs."""
    maps = truths()
    poor = predicted(maps)
    assert {7, 9, 13} < {*checked_positions(COUNT), *more_positions(COUNT)}
    poor[7], poor[13], poor[9] = poor[12] + 5.0, poor[4] + 5.0, poor[0] + 5.0
    records = simulate(maps, survey=SURVEY)
    ids = [str(k) for k in range(COUNT)]
    check_pairs(ids, lambda k: poor[k], lambda k: records[k], SURVEY)
    check_both(COUNT, lambda k: poor[k], lambda k: maps[k], ("maps", "true maps"), SURVEY)


def test_further_samples_are_spread():
    assert more_positions(0) == more_positions(4) == []
    assert more_positions(6) == [k for k in range(6) if k not in checked_positions(6)]
    for count in (12, 999, 65818):
        found = more_positions(count)
        assert found == more_positions(count)
        assert 5 <= len(found) <= 6
        assert not {*found} & {*checked_positions(count)}
        assert min(found) < count / 3
        assert max(found) > count / 2
