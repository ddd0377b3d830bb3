"""Error measures against closed forms, scikit-image, and a plain convolution."""

import numpy as np
import pytest
import torch
from skimage import metrics as skimage_metrics

from fwi_refine.analysis.metrics import (
    error_by_depth,
    leaderboard_error,
    mean_absolute_error,
    root_mean_square_error,
    similarity,
    structural_similarity,
)


def two_maps(seed):
    rng = np.random.default_rng(seed)
    base = np.cumsum(rng.normal(0, 30, (70, 70)), axis=0) + 3000
    return tuple(np.clip(base + rng.normal(0, 100, (70, 70)), 1500, 4500) for _ in range(2))


def test_errors_of_a_known_difference():
    truth = np.full((70, 70), 2000, np.float32)
    v = truth.copy()
    v[:35] += 3
    v[35:] -= 1
    assert mean_absolute_error(v, truth) == 2
    assert root_mean_square_error(v, truth) == pytest.approx(np.sqrt(5))


def test_the_leaderboard_sees_odd_columns_only():
    truth = np.full((70, 70), 2000.0)
    v = truth.copy()
    v[:, ::2] += 7
    assert leaderboard_error(v, truth) == 0
    v[:, 1] -= 35
    assert leaderboard_error(v, truth) == 1


def test_errors_of_each_row():
    rng = np.random.default_rng(1)
    truth = rng.uniform(1500, 4500, (70, 70))
    shift = rng.normal(0, 50, 70)
    found = error_by_depth((truth + shift[:, None]).astype(np.float32), truth)
    np.testing.assert_allclose(found["bias"], shift, atol=1e-4)
    np.testing.assert_allclose(found["mae"], np.abs(shift), atol=1e-4)
    np.testing.assert_allclose(found["mse"], shift**2, atol=1e-2)
    v = truth + rng.normal(0, 50, truth.shape)
    found = error_by_depth(v, truth)
    assert found["mae"].mean() == pytest.approx(mean_absolute_error(v, truth))
    assert found["mse"].mean() == pytest.approx(root_mean_square_error(v, truth) ** 2)


def test_float32_maps_are_measured_in_float64():
    truth = np.full((70, 70), 4000, np.float32)
    error = mean_absolute_error(truth.astype(np.float64) + 1e-6, truth)
    assert error == pytest.approx(1e-6, rel=1e-3)


def test_equal_maps_have_a_similarity_of_one():
    v, truth = two_maps(0)
    assert structural_similarity(v, v) == pytest.approx(1, abs=1e-12)
    assert structural_similarity(v, truth) < 0.9


@pytest.mark.parametrize("seed", range(3))
def test_similarity_is_that_of_scikit_image_inside(seed):
    scaled = [(m - 1500) / 3000 for m in two_maps(seed)]
    _, expected = skimage_metrics.structural_similarity(
        *scaled,
        data_range=1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    inside = (slice(5, -5), slice(5, -5))
    np.testing.assert_allclose(similarity(*two_maps(seed))[inside], expected[inside], rtol=1e-9)


def test_similarity_has_zeros_outside_the_map():
    a, b = (torch.as_tensor((m - 1500) / 3000)[None, None] for m in two_maps(4))
    x = torch.arange(-5, 6, dtype=torch.float64)
    window = torch.exp(-(x**2) / 4.5)
    window = torch.outer(window, window) / window.sum() ** 2

    def blur(m):
        return torch.nn.functional.conv2d(m, window[None, None], padding=5)

    mean_a, mean_b = blur(a), blur(b)
    numerator = (2 * mean_a * mean_b + 1e-4) * (2 * (blur(a * b) - mean_a * mean_b) + 9e-4)
    variances = blur(a * a) - mean_a**2 + blur(b * b) - mean_b**2
    expected = numerator / ((mean_a**2 + mean_b**2 + 1e-4) * (variances + 9e-4))
    np.testing.assert_allclose(similarity(*two_maps(4)), expected[0, 0], rtol=1e-9)
