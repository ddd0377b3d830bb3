"""Gaussian process: the structured algebra against dense matrices, draws, modes and the fit."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from fwi_refine import priors
from fwi_refine.priors import GaussianProcess
from fwi_refine.priors.covariance import Covariance

SMALL = GaussianProcess(2.2, 150.0, 5.0, 400.0, 30.0, 3000.0, (13, 10))
STYLES = {"style_a": priors.load().style_a, "style_b": priors.load().style_b}


def white(seed):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(SMALL.shape))


def test_covariance_is_the_formula():
    z, x = np.divmod(np.arange(130), 10)
    square = (z[:, None] - z) ** 2 + (x[:, None] - x) ** 2
    depth = z - 6.0
    expected = 150.0**2 * np.exp(-square / (2 * 2.2**2)) + 25.0 * np.eye(130)
    expected += 400.0**2 + 30.0**2 * np.outer(depth, depth)
    torch.testing.assert_close(SMALL.covariance(), torch.from_numpy(expected), rtol=1e-12, atol=0)


@pytest.mark.parametrize("changes", [{}, {"constant": 0.0}, {"slope": 0.0, "noise": 0.5}])
def test_energy_gradient_hessian_and_likelihood_against_dense_algebra(changes):
    process = replace(SMALL, **changes)
    v = process.sample(3) + 10.0 * white(4)
    covariance, x = process.covariance(), (v - 3000.0).flatten()
    solved = torch.linalg.solve(covariance, x)
    value, gradient = process.value_and_gradient(v)
    assert value.dim() == 0
    assert value.item() == pytest.approx((x @ solved).item(), rel=1e-9)
    torch.testing.assert_close(gradient.flatten(), 2 * solved, rtol=1e-5, atol=1e-9)
    assert torch.equal(process.value(v), value)
    assert torch.equal(process.gradient(v), gradient)
    identity = process.hessian(v) @ covariance / 2
    torch.testing.assert_close(identity, torch.eye(130, dtype=torch.float64), rtol=0, atol=1e-7)
    normal = torch.distributions.MultivariateNormal(torch.zeros_like(x), covariance)
    likelihood = process.log_likelihood(v).item()
    assert likelihood == pytest.approx(normal.log_prob(x).item(), rel=1e-10)


def test_gradient_and_hessian_are_exact_for_any_step():
    v, dv = SMALL.sample(0), 500.0 * white(1)
    value, gradient = SMALL.value_and_gradient(v)
    quadratic = 0.5 * dv.flatten() @ SMALL.hessian(v) @ dv.flatten()
    expected = value + (gradient * dv).sum() + quadratic
    assert SMALL.value(v + dv).item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("style", STYLES)
def test_published_hyper_parameters_on_a_full_map(style):
    process = STYLES[style]
    covariance = process.covariance()
    factor = torch.linalg.cholesky(covariance)
    for seed in range(3):
        v = process.sample(seed)
        z = torch.linalg.solve_triangular(factor, (v - 3000.0).reshape(-1, 1), upper=False)
        assert process.value(v).item() == pytest.approx((z**2).sum().item(), rel=1e-6)
    # Energy of a draw is chi-squared with 4900 degrees of freedom.
    energies = np.array([process.value(process.sample(seed)).item() for seed in range(100)])
    assert energies.mean() == pytest.approx(4900.0, abs=4 * np.sqrt(2 * 4900 / 100))
    assert energies.std() == pytest.approx(np.sqrt(2 * 4900), rel=0.3)


def test_draws_have_the_covariance():
    rng = np.random.default_rng(0)
    draws = torch.stack([SMALL.sample(rng) for _ in range(20000)]).flatten(1) - 3000.0
    found, expected = draws.T @ draws / len(draws), SMALL.covariance()
    spread = torch.sqrt(torch.outer(expected.diagonal(), expected.diagonal()) * 2 / len(draws))
    assert ((found - expected).abs() / spread).max() < 6
    assert torch.equal(SMALL.sample(7), SMALL.sample(np.random.default_rng(7)))


def test_modes_are_the_truncated_decomposition_of_the_covariance():
    mean, vectors, scales = SMALL.modes(threshold=20.0)
    variances = torch.linalg.eigvalsh(SMALL.covariance()).flip(0)
    kept = variances[variances > 400.0]
    torch.testing.assert_close(scales**2, kept, rtol=1e-9, atol=0)
    assert torch.equal(mean, torch.full((13, 10), 3000.0, dtype=torch.float64))
    eye = torch.eye(len(kept), dtype=torch.float64)
    torch.testing.assert_close(vectors.T @ vectors, eye, rtol=0, atol=1e-12)
    error = SMALL.covariance() @ vectors - vectors * scales**2
    assert error.abs().max() < 1e-7 * kept[0]


def test_style_a_has_as_many_modes_as_published():
    process = STYLES["style_a"]
    _, vectors, scales = process.modes()
    # The published recipe counts 1073 unknowns: these and vmin.
    assert vectors.shape == (4900, 1072)
    assert scales.min() > 1.0
    # In mode coordinates the energy is that of the full process, for maps made of modes.
    z = torch.from_numpy(np.random.default_rng(0).standard_normal(1072))
    v = (vectors @ (scales * z)).reshape(70, 70) + 3000.0
    assert process.value(v).item() == pytest.approx((z @ z).item(), rel=1e-5)
    # A draw is made of modes, up to the noise that was cut off.
    x = (process.sample(0) - 3000.0).flatten()
    rest = x - vectors @ (vectors.T @ x)
    assert rest.pow(2).mean().sqrt() < 0.25


def test_gradient_of_the_log_likelihood_by_taylor_remainder():
    maps = torch.stack([SMALL.sample(seed) for seed in range(4)]).numpy() - 3000.0
    logs, step = np.log([2.0, 140.0, 8.0, 500.0, 20.0]), np.array([0.3, -0.2, 0.5, 0.4, -0.6])

    def likelihood(logs):
        return Covariance(*np.exp(logs), (13, 10)).log_likelihood(maps)

    value, gradient = likelihood(logs)
    sizes = [2.0**-k for k in range(4, 9)]
    rests = [abs(likelihood(logs + h * step)[0] - value - h * gradient @ step) for h in sizes]
    orders = np.diff(np.log(rests)) / np.diff(np.log(sizes))
    assert np.all(np.abs(orders - 2.0) < 0.1), orders
    for k in range(5):
        e = 1e-5 * np.eye(5)[k]
        slope = (likelihood(logs + e)[0] - likelihood(logs - e)[0]) / 2e-5
        assert gradient[k] == pytest.approx(slope, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("style", STYLES)
def test_fit_recovers_the_texture_from_a_few_draws(style):
    process = STYLES[style]
    maps = np.stack([process.sample(seed).numpy() for seed in range(8)])
    fitted = GaussianProcess.fit(maps)
    for name in ("length", "sigma", "noise"):
        assert getattr(fitted, name) == pytest.approx(getattr(process, name), rel=0.1), name
    assert fitted.mean == pytest.approx(maps.mean())
    # Nothing is more likely: not the truth either.
    likelihood = [
        sum(p.log_likelihood(torch.from_numpy(v)).item() for v in maps)
        for p in (fitted, replace(process, mean=fitted.mean))
    ]
    assert likelihood[0] > likelihood[1]


@pytest.mark.parametrize("style", STYLES)
def test_fit_recovers_all_hyper_parameters_from_many_draws(style):
    # A map is one sample of `constant` and one of `slope`: 800 give them to 2.5 % (one sigma).
    process = replace(STYLES[style], shape=(30, 30))
    rng = np.random.default_rng(1)
    maps = np.stack([process.sample(rng).numpy() for _ in range(800)])
    fitted = GaussianProcess.fit(maps, mean=3000.0)
    for name in ("length", "sigma", "noise", "constant", "slope"):
        assert getattr(fitted, name) == pytest.approx(getattr(process, name), rel=0.1), name
    assert (fitted.mean, fitted.shape) == (3000.0, (30, 30))


def test_fit_copes_with_maps_without_noise():
    process = replace(SMALL, noise=0.05, shape=(30, 30))
    maps = np.stack([process.sample(seed).numpy() for seed in range(6)])
    rounded = np.round(maps)  # rounding to integers is white noise of 1 / sqrt(12)
    assert GaussianProcess.fit(maps).noise == pytest.approx(0.05, rel=0.1)
    assert GaussianProcess.fit(rounded).noise == pytest.approx(np.sqrt(1 / 12), rel=0.1)


def test_errors_say_what_was_expected():
    with pytest.raises(ValueError, match=r"noise is 0.*above 0"):
        replace(SMALL, noise=0.0)
    with pytest.raises(ValueError, match=r"slope is -1.*at least 0"):
        replace(SMALL, slope=-1.0)
    with pytest.raises(ValueError, match=r"shape \(70, 70\), expected \(13, 10\)"):
        SMALL.value(torch.zeros(70, 70))
    with pytest.raises(ValueError, match=r"shape \(1, 30, 30\)"):
        GaussianProcess.fit(np.zeros((1, 30, 30)))
    with pytest.raises(ValueError, match=r"nothing to fit"):
        GaussianProcess.fit(np.full((3, 30, 30), 2000.0))
    with pytest.raises(ValueError, match=r"1 values of the maps are not finite"):
        GaussianProcess.fit(np.where(np.arange(2700).reshape(3, 30, 30) == 5, np.nan, 1.0))


def test_pickles_hold_the_numbers_only():
    process = replace(SMALL)
    small = len(pickle.dumps(process))
    process.hessian(process.sample(0))
    copy = pickle.loads(pickle.dumps(process))
    assert copy == process
    assert len(pickle.dumps(process)) == small < 500


def test_load_gives_the_published_numbers():
    loaded = priors.load()
    a, b, routing = loaded.style_a, loaded.style_b, loaded.routing
    assert a.length == pytest.approx(np.log(32.4), abs=1e-6)
    assert (a.sigma, a.noise, a.constant, a.slope) == (183.4, 0.1, 520.0, 31.4)
    assert (b.length, b.sigma, b.noise, b.constant, b.slope) == (1.96, 158.0, 58.0, 1239.0, 92.0)
    assert (routing.symmetry_rms, routing.style_a_log_energy) == (1e-4, 13.0)
    assert (routing.style_b_cells, routing.blended_edges) == (76, 0.85)


def test_a_file_may_change_some_keys_only(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[style_b]\nnoise = 40\n[routing]\nstyle_b_cells = 80\n")
    default, mine = priors.load(), priors.load(path)
    assert mine.style_a == default.style_a
    assert mine.style_b == replace(default.style_b, noise=40.0)
    assert mine.routing == replace(default.routing, style_b_cells=80.0)
    tables = {name: dict(keys) for name, keys in priors.to_table(mine).items()}
    assert tables["style_b"]["noise"] == 40.0
    assert set(tables["style_a"]) == {"length", "sigma", "noise", "constant", "slope", "mean"}


def test_a_file_names_weights_from_its_own_folder(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[style_b_learned]\nweights = "w.npz"\n')
    mine = priors.load(path)
    assert mine.style_b_learned == replace(
        priors.load().style_b_learned, weights=str(tmp_path / "w.npz")
    )
    assert priors.to_table(mine)["style_b_learned"]["weights"] == str(tmp_path / "w.npz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[style_b_learned]\nweights = 3",
            r"weights is 3, expected the name of a file",
        ),
        ("[style_a]\nlength = ", r"mine.toml: not a TOML file"),
        ("[style_c]\nlength = 1.0", r"mine.toml: found \[style_c\], expected .*style_a, style_b"),
        ("style_a = 3", r"mine.toml: style_a is 3, expected a section"),
        ("[style_a]\nlenght = 1.0", r"mine.toml: found key lenght in \[style_a\].*length, sigma"),
        ("[style_a]\nlength = 0.0", r"mine.toml: style_a.length is 0.0, expected .* above 0"),
        ("[style_a]\nmean = inf", r"mine.toml: style_a.mean is inf, expected a finite number"),
        ("[style_b]\nslope = -1", r"mine.toml: style_b.slope is -1, expected .* at least 0"),
        ("[routing]\nstyle_b_cells = 'x'", r"mine.toml: routing.style_b_cells is 'x', expected"),
        ("[routing]\nstyle_b_bin = true", r"mine.toml: routing.style_b_bin is True, expected"),
    ],
)
def test_errors_of_a_priors_file_name_file_key_found_and_expected(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        priors.load(path)
