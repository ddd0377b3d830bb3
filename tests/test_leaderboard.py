"""Three scores of a made leaderboard say what a subset is worth on it."""

import csv
import json

import numpy as np
import pytest

from fwi_refine import io
from fwi_refine.analysis.leaderboard import Shifted, least_shift, solve
from fwi_refine.cli import run
from fwi_refine.errors import InputError

MAPS, ROWS, COLUMNS = 60, 70, 70


class Leaderboard:
    """Sixty maps; the errors of a third of them are large, skewed and biased.

    It scores a random half of the maps, as a public leaderboard does, and a noisy classifier says
    which maps are of the bad third: every tenth answer is wrong.
    """

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.truth = rng.uniform(1500, 4500, (MAPS, ROWS, COLUMNS))
        self.bad = np.arange(MAPS) < MAPS // 3
        error = np.where(
            self.bad[:, None, None],
            rng.exponential(40, self.truth.shape) - 10,  # a bias of 30 m/s
            rng.laplace(0, 3, self.truth.shape),
        )
        self.maps = np.clip(self.truth + error, 1500, 4500).astype(np.float32)
        self.scored = rng.permutation(MAPS) < MAPS // 2
        self.classified = self.bad ^ (rng.uniform(size=MAPS) < 0.1)

    def score(self, maps, among=True):
        """Mean absolute error over the odd columns of the scored maps that are in `among`."""
        chosen = self.scored & among
        return np.abs(maps[chosen] - self.truth[chosen])[:, :, 1::2].mean()

    def scores(self, shifts, sign=None):
        """Scores of the maps as they are and shifted; sign: a constant one instead of random."""
        found = [self.score(self.maps)]
        for shift in shifts:
            maps = self.maps.astype(np.float64)
            for k in np.flatnonzero(self.classified):
                if sign is None:
                    maps[k] = Shifted(_Maps(self.maps), [k], shift, seed=3).read(k)
                else:
                    maps[k] += sign * shift
            found.append(self.score(maps))
        return found

    @property
    def share(self):
        return (self.scored & self.classified).sum() / self.scored.sum()


class _Maps:
    path, ids = "maps", None

    def __init__(self, maps):
        self._maps, self.count = maps, len(maps)

    def read(self, k):
        return self._maps[k]


@pytest.fixture(scope="module")
def board():
    board = Leaderboard()
    assert (board.bad != board.classified).any()
    return board


SHIFTS = (3000.0, 100_000.0)


def test_share_and_errors_are_recovered_in_spite_of_a_bias(board):
    values = board.scored.sum() * ROWS * COLUMNS // 2
    found = solve(board.scores(SHIFTS), SHIFTS, values=values)
    error = board.score(board.maps, board.classified)
    assert found.share.value == pytest.approx(board.share, rel=1e-12)
    assert 0 < found.sign_error < 2
    assert abs(found.error.value - error) < 3 * found.sign_error
    assert found.contribution.value == pytest.approx(found.share.value * found.error.value)
    rest = board.score(board.maps, ~board.classified)
    assert abs(found.rest.value - rest) < 3 * found.sign_error


def test_with_one_sign_for_all_values_the_bias_is_taken_for_a_smaller_error(board):
    found = solve(board.scores(SHIFTS, sign=1), SHIFTS)
    chosen = board.scored & board.classified
    bias = (board.maps[chosen] - board.truth[chosen])[:, :, 1::2].mean()
    assert bias > 20
    error = board.score(board.maps, board.classified)
    assert found.share.value == pytest.approx(board.share, rel=1e-12)
    assert found.error.value == pytest.approx(error - bias, abs=1e-6)


@pytest.mark.parametrize("decimals", [0, 1, 2, 3])
def test_the_interval_of_rounded_scores_holds_the_exact_result(board, decimals):
    exact = solve(board.scores(SHIFTS), SHIFTS)
    scores = np.round(board.scores(SHIFTS), decimals).tolist()
    half = 0.5 * 10.0**-decimals
    found = solve(scores, SHIFTS, rounding=half)
    for name in ("share", "error", "contribution", "rest"):
        estimate, expected = getattr(found, name), getattr(exact, name).value
        assert estimate.low <= expected <= estimate.high
        assert estimate.low < estimate.value < estimate.high
    assert found.error.high - found.error.low == pytest.approx(
        4 * half / found.share.value, rel=0.1
    )


def test_the_interval_is_no_wider_than_the_scores_that_round_to_it(board):
    scores = np.round(board.scores(SHIFTS), 1)
    found = solve(scores.tolist(), SHIFTS, rounding=0.05)
    rng = np.random.default_rng(0)
    drawn = [solve((scores + rng.uniform(-0.05, 0.05, 3)).tolist(), SHIFTS) for _ in range(2000)]
    for name in ("share", "error", "contribution", "rest"):
        values = [getattr(one, name).value for one in drawn]
        estimate = getattr(found, name)
        assert estimate.low <= min(values)
        assert max(values) <= estimate.high
        assert max(values) - min(values) > 0.7 * (estimate.high - estimate.low)


def test_a_shift_smaller_than_some_errors_is_off_by_what_the_docstring_says(board):
    shifts = (60.0, 100_000.0)
    found = solve(board.scores(shifts), shifts)
    chosen = board.scored & board.classified
    errors = np.abs(board.maps[chosen] - board.truth[chosen])[:, :, 1::2]
    excess = np.maximum(errors - shifts[0], 0).mean()
    assert excess > 1
    assert found.share.value == pytest.approx(
        board.share * (1 - excess / (shifts[1] - shifts[0])), rel=1e-5
    )
    assert found.error.value == pytest.approx(errors.mean() - excess, abs=1)


def test_the_error_of_the_signs_is_as_large_as_stated():
    """Over many seeds the result scatters by rms / sqrt(n), within the stated bound."""
    rng = np.random.default_rng(2)
    error = rng.exponential(40, (ROWS, COLUMNS)) - 10
    truth = np.full((ROWS, COLUMNS), 3000.0)
    source = _Maps((truth + error)[None])
    found = []
    for seed in range(100):
        shifted = [Shifted(source, [0], shift, seed).read(0) for shift in SHIFTS]
        scores = [np.abs(v - truth).mean() for v in (source.read(0), *shifted)]
        found.append(solve(scores, SHIFTS, values=error.size))
    values = [one.error.value for one in found]
    expected = np.sqrt(np.mean(error**2) / error.size)
    assert np.std(values) == pytest.approx(expected, rel=0.25)
    assert abs(np.mean(values) - np.abs(error).mean()) < 4 * expected / 10
    assert found[0].rest is None
    assert expected < found[0].sign_error < 10 * expected


def test_signs_may_push_a_small_error_below_zero_and_that_is_no_mistake():
    scores = (1.0, 0.1 * 3000.002 + 0.9, 0.1 * 100_000.002 + 0.9)
    assert solve(scores, SHIFTS).error.value == pytest.approx(0.998)
    low = (0.9, *scores[1:])  # an error of -0.002 m/s
    assert solve(low, SHIFTS, values=2_000_000).error.value == pytest.approx(-0.002, abs=1e-6)
    with pytest.raises(InputError, match=r"an error of -0.002"):
        solve(low, SHIFTS, values=2_000_000_000)
    assert np.isnan(solve(scores, SHIFTS).sign_error)


def test_signs_are_drawn_for_each_map_and_stay_the_same():
    source = _Maps(np.zeros((3, ROWS, COLUMNS), np.float32))
    shifted = Shifted(source, [0, 1], 2.0, seed=0)
    assert set(shifted.read(0).ravel()) == {-2.0, 2.0}
    assert (shifted.read(0) != shifted.read(1)).mean() == pytest.approx(0.5, abs=0.05)
    assert not shifted.read(2).any()
    np.testing.assert_array_equal(shifted.read(0), Shifted(source, [0], 4.0, seed=0).read(0) / 2)
    assert (shifted.read(0) != Shifted(source, [0], 2.0, seed=1).read(0)).any()


def test_least_shift():
    assert least_shift(1600, 4400, (1500, 4500)) == 2900
    assert least_shift(2000, 4500, (1500, 4500)) == 3000
    assert least_shift(1500, 2000, (1500, 4400)) == 2900


@pytest.mark.parametrize(
    ("scores", "shifts", "rounding", "words"),
    [
        ((7.6, 291.3, 9603.3), (3000, 3000), 0, "expected 0 < first < second"),
        ((7.6, 291.3, 9603.3), (0, 3000), 0, "expected 0 < first < second"),
        ((7.6, 7.6, 7.6), SHIFTS, 0, "is not among the scored samples"),
        ((7.6, 291.3, 291.35), SHIFTS, 0.05, "is not among the scored samples"),
        ((291.3, 7.6, 9603.3), SHIFTS, 0.05, "expected the scores in the order"),
        ((7.6, 291.3, 999999.0), SHIFTS, 0.05, "a share of 10.3"),
        ((7.6, 391.3, 9603.3), SHIFTS, 0.05, "an error of -1"),
        ((float("nan"), 1, 2), SHIFTS, 0, "expected three numbers"),
        ((-1, 1, 2), SHIFTS, 0, "none negative"),
    ],
)
def test_scores_that_no_subset_can_give(scores, shifts, rounding, words):
    with pytest.raises(InputError, match=words):
        solve(scores, shifts, rounding=rounding)


def read_csv(path):
    source = io.open_predictions(path)
    return {name: source.read(k) for k, name in enumerate(source.ids)}


def test_the_command_writes_three_submissions_and_solves_them(board, tmp_path, capsys):
    np.save(tmp_path / "maps.npy", board.maps)
    names = [f"{k:010x}" for k in range(MAPS)]
    (tmp_path / "ids").write_text("\n".join(names))
    rows = [
        f"{n},{'style-b' if c else 'layered'}" for n, c in zip(names, board.classified, strict=True)
    ]
    (tmp_path / "families.csv").write_text("\n".join(["id,family", *rows]))
    out = tmp_path / "probe"
    arguments = ["probe", "write", str(tmp_path / "maps.npy"), "--ids", str(tmp_path / "ids")]
    arguments += ["--families", str(tmp_path / "families.csv"), "--out", str(out)]
    assert run([*arguments, "--family", "style-c"]) == 2
    assert "only ['layered', 'style-b']" in capsys.readouterr().err
    assert run([*arguments, "--family", "style-b"]) == 0
    assert f"{board.classified.sum()} of 60 maps are shifted" in capsys.readouterr().err
    plan = json.loads((out / "probe.json").read_text())
    assert plan["files"] == ["unchanged.csv", "shifted_by_3000.csv", "shifted_by_100000.csv"]
    assert sorted(path.name for path in out.iterdir()) == sorted([*plan["files"], "probe.json"])
    scores = []
    for file in plan["files"]:
        found = read_csv(out / file)
        scores.append(board.score(np.stack([found[name] for name in names])))
    assert run([*arguments, "--family", "style-b"]) == 2
    assert "unchanged.csv exists already" in capsys.readouterr().err

    published = [f"{score:.2f}" for score in scores]
    arguments = ["probe", "solve", str(out), *published, "--scored", "0.5"]
    assert run(arguments) == 0
    captured = capsys.readouterr()
    table = {row["quantity"]: row for row in csv.DictReader(captured.out.splitlines())}
    assert list(table) == ["share", "error", "contribution", "rest"]
    assert "scores to within 0.005" in captured.err
    share, error = table["share"], table["error"]
    assert float(share["low"]) <= board.share * (1 + 1e-5)
    assert float(share["high"]) >= board.share * (1 - 1e-5)
    expected = board.score(board.maps, board.classified)
    assert float(error["low"]) - 1 < expected < float(error["high"]) + 1
    assert run([*arguments, "--json", "--rounding", "0.5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["family"] == "style-b"
    assert found["rounding"] == 0.5
    assert found["error"]["high"] - found["error"]["low"] > 2
    assert 0 < found["sign_error"] < 3


def test_a_shift_that_an_error_may_exceed_is_warned_of(board, tmp_path, capsys):
    np.save(tmp_path / "maps.npy", board.maps[:2])
    (tmp_path / "families.csv").write_text("id,family\na,A\nb,B\n")
    (tmp_path / "ids").write_text("a\nb\n")
    arguments = ["probe", "write", str(tmp_path / "maps.npy"), "--ids", str(tmp_path / "ids")]
    arguments += ["--families", str(tmp_path / "families.csv"), "--family", "A"]
    assert run([*arguments, "--out", str(tmp_path / "p"), "--shifts", "100", "5000"]) == 0
    assert "an error may be 3000 m/s, more than the first shift" in capsys.readouterr().err
    assert run([*arguments, "--out", str(tmp_path / "q"), "--shifts", "5000", "100"]) == 2
    assert "expected the first to be smaller" in capsys.readouterr().err
    assert run([*arguments, "--out", str(tmp_path / "q"), "--shifts", "5000", "5000.0000001"]) == 2
    assert not (tmp_path / "q").exists()
    a, b = read_csv(tmp_path / "p" / "shifted_by_100.csv").values()
    difference = (a - board.maps[0])[:, 1::2]
    np.testing.assert_allclose(np.abs(difference), 100, atol=1e-3)
    assert 1000 < (difference > 0).sum() < 1450
    np.testing.assert_array_equal(b[:, 1::2].astype(np.float32), board.maps[1][:, 1::2])


PLAN = '{"family": "a", "shifts": [1, 2], "share_of_maps": 1, "samples": '


@pytest.mark.parametrize(
    "text",
    ["{}", "[1]", "x", '{"family": "a", "shifts": [1], "samples": 3}', PLAN + "-3}", PLAN + "0.5}"],
)
def test_a_folder_without_a_plan(tmp_path, capsys, text):
    (tmp_path / "probe.json").write_text(text)
    assert run(["probe", "solve", str(tmp_path), "1", "2", "3"]) == 2
    assert "no plan of probe write" in capsys.readouterr().err


def test_a_score_that_is_no_number(tmp_path, capsys):
    plan = {"family": "a", "shifts": [1, 2], "samples": 3, "share_of_maps": 0.5}
    (tmp_path / "probe.json").write_text(json.dumps(plan))
    assert run(["probe", "solve", str(tmp_path), "1", "2", "three"]) == 2
    assert "'three': expected a number" in capsys.readouterr().err


def test_the_range_holds_the_truth_whatever_the_signs():
    """Few values, as in a small subset: the signs move the result by more than the rounding."""
    rng = np.random.default_rng(11)
    inside = 0
    for _ in range(200):
        error = rng.laplace(0, 60, 4000)
        chosen = np.arange(4000) < 1200
        signs = rng.choice([-1, 1], 4000)
        scores = [np.abs(error + chosen * signs * a).mean() for a in (0, 3000, 100_000)]
        found = solve(np.round(scores, 3).tolist(), (3000, 100_000), rounding=5e-4, values=4000)
        true = np.abs(error[chosen]).mean(), np.abs(error[~chosen]).mean()
        held = found.error.low <= true[0] <= found.error.high
        inside += held and found.rest.low <= true[1] <= found.rest.high
        assert found.contribution.low <= 0.3 * true[0] <= found.contribution.high or not held
    assert inside >= 196
