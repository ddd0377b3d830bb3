"""Levels for unknowns: against all choices on small problems; a planted answer on larger ones."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fwi_refine.optimise import LevelProblem, level_search


def problem(n, seed, spread=0.3, price=6.0):
    """Unknowns that a planted answer explains, neighbours hard to tell apart; and the answer."""
    rng = np.random.default_rng(seed)
    levels = np.sort(rng.uniform(-300, 300, (2, n)), axis=0)
    answer = levels[rng.integers(0, 2, n), np.arange(n)]
    between = rng.random(n) < 0.15
    answer[between] = rng.uniform(*levels[:, between])
    blur = np.exp(-((np.arange(n) - np.arange(n)[:, None]) ** 2) * spread)
    matrix = blur.T @ blur / 4.0
    gradient = -matrix @ answer + 0.01 * blur.T @ rng.standard_normal(n)
    found = LevelProblem(
        matrix, gradient, levels, levels.mean(0), np.ptp(levels, axis=0) / 3.46 + 50, price
    )
    return found, answer, between


def windows(n, size):
    return [np.arange(k, min(k + size, n)) for k in range(0, n, max(1, size // 2))]


def best_of_all(p):
    """The lowest value over all choices of level or free for each unknown."""
    n = p.levels.shape[1]
    lowest = np.inf
    for choice in itertools.product(range(len(p.levels) + 1), repeat=n):
        free = np.array(choice) == len(p.levels)
        u = np.where(free, 0.0, p.levels[np.minimum(choice, len(p.levels) - 1), np.arange(n)])
        F = np.flatnonzero(free)
        inside = p.width[F] ** -2.0
        slope = (p.gradient + p.matrix @ u)[F] - p.centre[F] * inside
        u[F] = -np.linalg.solve(p.matrix[np.ix_(F, F)] + np.diag(inside), slope)
        lowest = min(lowest, p.value(u, free))
    return lowest


@pytest.mark.parametrize("seed", range(12))
def test_a_window_that_holds_everything_comes_close_to_the_best_of_all_choices(seed):
    p, _, _ = problem(6, seed)
    start = np.full(6, 10.0)
    found, free, _ = level_search(p, start, np.ones(6, bool), [np.arange(6), *windows(6, 3)])
    worst = p.value(*level_search(p, start, np.ones(6, bool), [])[:2])
    best = best_of_all(p)
    value = p.value(found, free)
    assert best - 1e-6 <= value
    assert value - best <= 0.02 * (worst - best) + 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_a_planted_answer_is_found_in_overlapping_windows(seed):
    p, answer, between = problem(120, seed)
    found, free, _ = level_search(p, np.zeros(120), np.ones(120, bool), windows(120, 8))
    assert (free != between).mean() < 0.05
    assert np.abs(found - answer).mean() < 3.0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(1, 9))
def test_it_never_rises_and_fixed_unknowns_stand_at_levels(seed, size):
    p, _, _ = problem(20, seed)
    rng = np.random.default_rng(seed)
    free = rng.random(20) < 0.4
    u = np.where(free, rng.uniform(-300, 300, 20), p.levels[0])
    before, settled, none = level_search(p, u, free, [])
    found, at, moves = level_search(p, u, free, windows(20, size))
    assert not (settled & ~free).any()  # who has to leave the bounds stands at one
    assert none == 0
    assert (moves == 0) == np.array_equal(found, before)
    if np.array_equal(settled, free):
        assert p.value(before, free) <= p.value(u, free) + 1e-9
    assert p.value(found, at) <= p.value(before, settled) + 1e-6
    assert p.outside(found).max() <= 1e-6
    assert np.isin(found[~at], p.levels[:, ~at]).all()


def test_so_many_moves_and_no_more():
    p, _, _ = problem(60, 3)
    start = np.zeros(60), np.ones(60, bool)
    values = [p.value(*level_search(p, *start, windows(60, 6), most=k)[:2]) for k in range(4)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 4
    assert level_search(p, *start, windows(60, 6), most=3)[2] == 3


def test_loose_unknowns_may_be_beyond_their_levels_until_they_are_decided_on():
    p, _, _ = problem(20, 1)
    start = np.full(20, 500.0), np.ones(20, bool)
    assert p.outside(start[0]).all()
    loose = replace(p, loose=np.arange(20) < 10)
    settled, free, _ = level_search(loose, *start, [])
    assert p.outside(settled)[10:].max() <= 1e-6
    assert p.outside(settled)[:10].max() > 0
    assert free[:10].all()
    found, free, moves = level_search(loose, settled, free, windows(20, 6))
    assert moves > 0
    assert np.isin(found[~free], p.levels[:, ~free]).all()


def test_it_stops_when_told_to():
    p, _, _ = problem(20, 0)
    asked = []

    def stop():
        asked.append(True)
        return len(asked) == 3

    level_search(p, np.zeros(20), np.ones(20, bool), windows(20, 4), should_stop=stop)
    assert len(asked) == 3


def test_an_unknown_without_levels_stays_free():
    p, _, _ = problem(8, 1)
    p.levels[:, 3] = np.inf
    found, free, _ = level_search(p, np.zeros(8), np.zeros(8, bool), windows(8, 4))
    assert free[3]
    assert np.isfinite(found).all()
