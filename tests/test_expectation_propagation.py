"""Marginals of unknowns at levels: against sums over all choices, and planted answers."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from level_cases import BETWEEN, blurred, problem

from fwi_refine.optimise import expectation_propagation
from fwi_refine.optimise.expectation_propagation import (
    BETWEEN_STRETCH,
    LEVEL_DEVIATION,
    MIN_BETWEEN_DEVIATION,
)


def of_all_choices(p, levels):
    """(probabilities (K + 1, n), mean (n,)) by the sum over all choices of a part for each."""
    K, n = levels.shape
    low, high = levels.min(0), levels.max(0)
    spread = np.maximum(BETWEEN_STRETCH * (high - low) / np.sqrt(12), MIN_BETWEEN_DEVIATION) ** 2
    centres, variances = (
        np.vstack([levels, (low + high) / 2]),
        np.vstack([LEVEL_DEVIATION**2 + 0 * levels, spread]),
    )
    fractions = np.append(np.full(K, (1 - BETWEEN) / K), BETWEEN)
    choices, logs, means = list(itertools.product(range(K + 1), repeat=n)), [], []
    for choice in choices:
        part = np.array(choice), np.arange(n)
        prior = np.diag(1 / variances[part])
        precision = p.matrix.numpy() + prior
        pull = prior @ centres[part] - p.gradient
        mean = np.linalg.solve(precision, pull)
        constant = -0.5 * centres[part] @ prior @ centres[part] + 0.5 * pull @ mean
        size = -0.5 * np.log(variances[part]).sum() - 0.5 * np.linalg.slogdet(precision)[1]
        logs.append(np.log(fractions[list(choice)]).sum() + constant + size)
        means.append(mean)
    weights = np.exp(np.array(logs) - max(logs))
    weights /= weights.sum()
    chosen = np.array(choices)
    probabilities = np.array([weights @ (chosen == k) for k in range(K + 1)])
    return probabilities, weights @ np.array(means)


def test_unknowns_that_do_not_meet_are_exact():
    rng = np.random.default_rng(0)
    levels = np.array([[-200.0] * 6, [0.0] * 6, [150.0] * 6])
    p = problem(np.diag(rng.uniform(1e-4, 1e-2, 6)), rng.uniform(-1, 1, 6), levels)
    found = expectation_propagation(p, 200)
    probabilities, _ = of_all_choices(p, levels)
    np.testing.assert_allclose(found.probabilities, probabilities, rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_it_comes_close_to_the_sum_over_all_choices(seed):
    p, levels, _ = blurred(6, seed)
    found = expectation_propagation(p, 100)
    probabilities, mean = of_all_choices(p, levels)
    np.testing.assert_allclose(found.probabilities, probabilities, rtol=0, atol=0.01)
    np.testing.assert_allclose(found.mean, mean, rtol=0, atol=0.5)


@pytest.mark.parametrize("seed", range(4))
def test_a_planted_answer_is_found(seed):
    p, _, answer = blurred(120, seed)
    blind = -np.linalg.solve(p.matrix.numpy() + 1e-4 * np.eye(120), p.gradient)
    found = expectation_propagation(p, 60)
    assert np.abs(blind - answer).mean() > 50
    assert np.abs(found.mean - answer).mean() < 5


def test_neighbours_break_a_tie():
    levels = np.array([[-100.0], [100.0]])
    p = problem(np.array([[1e-3]]), np.zeros(1), levels)
    even = expectation_propagation(p).probabilities
    assert even[0] == pytest.approx(even[1])
    neighbour_term = np.array([[1.0], [0.0], [0.0]])
    odd = expectation_propagation(
        replace(p, neighbour_term=lambda before: neighbour_term)
    ).probabilities
    assert odd[0] == pytest.approx(np.e * odd[1])


def test_levels_that_are_off_are_found_with_the_unknowns():
    """All unknowns are at levels that lie 7 higher than they were thought to."""
    n = 40
    rng = np.random.default_rng(1)
    levels = np.array([[-200.0] * n, [150.0] * n])
    answer = levels[rng.integers(0, 2, n), np.arange(n)] + 7.0
    matrix = np.zeros((n + 1, n + 1))
    matrix[:n, :n] = np.eye(n) + 0.5 * np.eye(n, k=1) + 0.5 * np.eye(n, k=-1)
    p = problem(matrix, np.append(-matrix[:n, :n] @ answer, 0.0), levels)
    p = replace(p, others=1, width=10.0, levels=lambda others: levels + others)
    # what the level is seen by: one more datum of the sum of both
    p.matrix[-1, -1] += 1.0
    p.gradient[-1] -= 7.0
    found = expectation_propagation(p, 60)
    assert found.mean[-1] == pytest.approx(7.0, abs=0.2)
    np.testing.assert_allclose(found.mean[:n], answer, atol=0.2)
    assert (found.probabilities[:2].max(0) > 0.9).all()


@pytest.mark.parametrize("allowed", [[True, False], [False, False]])
def test_less_than_two_levels_leave_all_the_room_between(allowed):
    """A cell cut by a fault, far from the other layer."""
    p = problem(
        np.array([[1.0]]), np.array([-60.0]), np.array([[0.0], [100.0]]), np.array([allowed]).T
    )
    found = expectation_propagation(p, 60)
    assert (found.low, found.high) == (0.0, 100.0)
    assert found.mean[0] == pytest.approx(60.0, abs=0.5)
    assert found.probabilities[-1] > 0.99
    assert found.probabilities[1] == 0.0


def test_nothing_is_found_where_the_matrix_is_not_positive_definite_or_when_it_is_to_stop():
    p, _, _ = blurred(6, 0)
    assert expectation_propagation(replace(p, matrix=-p.matrix)) is None
    asked = iter([False, False, True])
    assert expectation_propagation(p, should_stop=lambda: next(asked)) is None
