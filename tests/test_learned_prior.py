"""The learned prior: the denoiser, and the chains with it."""

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from jacobian_cases import SMALL
from scipy.ndimage import gaussian_filter
from small_samples import SETTINGS, small_chunk

from fwi_refine.inversion.chains import likelihood_of, settled_by_chains
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.objective import Full, PriorTerm
from fwi_refine.objective.constraints import WithFixedCells
from fwi_refine.objective.vmin_prior import VminPrior
from fwi_refine.priors import LearnedPrior, VariationalTotalVariation, load
from fwi_refine.priors.denoiser import (
    DENOISER_FILE,
    SPREAD,
    Denoiser,
    load_denoiser,
    save_denoiser,
    trend_of,
)
from fwi_refine.priors.learned import Likelihood
from fwi_refine.synthetic import make_map

SHAPE = (6, 5)
PART = (20, 20)  # of a made map


def process_of(shape):
    return load().on_grid(shape, 10.0).style_b


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@lru_cache
def made(seed):
    """A part of a made Style_B map that no weights were trained on, (20, 20) float64."""
    v = make_map("Style_B", np.random.default_rng([987654321, seed]))
    return torch.from_numpy(v[25 : 25 + PART[0], 20 : 20 + PART[1]].copy())


def posterior_of(matrix, right, precision):
    """Mean and covariance, dense."""
    covariance = torch.linalg.inv(matrix + precision)
    return covariance @ right, covariance


# the denoiser


def test_an_untrained_tail_leaves_the_linear_part_of_the_formula():
    network = Denoiser()
    torch.nn.init.zeros_(network.tail.weight)
    torch.nn.init.zeros_(network.tail.bias)
    v = 3000 + 100 * normal(2, 9, 10).float()
    sigma = torch.tensor([20.0, 90.0])
    trend = trend_of(v)
    kept = (SPREAD**2 / (SPREAD**2 + sigma**2))[:, None, None]
    torch.testing.assert_close(network(v, sigma), trend + kept * (v - trend))


def test_a_trend_passes_unchanged():
    network = load_denoiser()
    v = made(0)[None].float()
    line = 300.0 + 12.0 * torch.arange(PART[0])[:, None].float()
    sigma = torch.tensor([40.0])
    torch.testing.assert_close(
        network(v + line, sigma), network(v, sigma) + line, rtol=0, atol=0.05
    )
    depth = np.arange(PART[0])
    slope, constant = np.polyfit(depth, v[0].numpy().mean(1), 1)
    np.testing.assert_allclose(trend_of(v)[0, :, 0], constant + slope * depth, rtol=1e-5)


@pytest.mark.parametrize("sigma", [10.0, 30.0, 90.0])
def test_it_removes_more_noise_than_any_blur(sigma):
    clean = np.stack([made(seed).numpy() for seed in range(4)])
    noisy = clean + sigma * np.random.default_rng(1).standard_normal(clean.shape)
    with torch.no_grad():
        found = load_denoiser()(torch.from_numpy(noisy).float(), torch.full((4,), sigma)).numpy()

    def rms(v):
        return np.sqrt(np.mean((v - clean) ** 2))

    trend = trend_of(torch.from_numpy(noisy)).numpy()
    blurred = [
        trend + keep * gaussian_filter(noisy - trend, (0, width, width))
        for width in (0.0, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
        for keep in (0.8, 0.9, 1.0)
    ]
    assert rms(found) < 0.93 * min(rms(v) for v in blurred)


def test_its_error_is_known():
    clean = torch.stack([made(k).float() for k in range(4)])
    network = load_denoiser()
    for sigma in (3.0, 30.0, 100.0):
        noise = normal(*clean.shape, seed=2).float()
        error = network(clean + sigma * noise, torch.full((4,), sigma)) - clean
        assert float(error.square().mean().sqrt()) == pytest.approx(network.error(sigma), rel=0.2)
        assert network.error(sigma) < sigma


def test_the_weights_are_small_and_no_pickle():
    assert DENOISER_FILE.stat().st_size < 3e6
    with np.load(DENOISER_FILE, allow_pickle=False) as file:
        assert {file[name].dtype for name in file.files} == {np.dtype(np.float16)}


def test_weights_are_written_and_read(tmp_path):
    network = Denoiser()
    save_denoiser(network, tmp_path / "a.npz")
    found = load_denoiser(tmp_path / "a.npz")
    for ours, theirs in zip(found.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-3, atol=1e-6)
        assert not ours.requires_grad
    kept = dict(np.load(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", **(kept | {"tail.bias": np.array([np.nan], np.float16)}))
    with pytest.raises(ValueError, match=r"b\.npz: holds weights that are not finite"):
        load_denoiser(tmp_path / "b.npz")
    kept.pop("tail.bias")
    np.savez(tmp_path / "c.npz", **kept)
    np.savez(tmp_path / "d.npz", **{"tail.bias": np.array([{}], dtype=object)})
    (tmp_path / "e.npz").write_bytes(b"PK nothing")
    for name in "cde":
        with pytest.raises(ValueError, match=rf"{name}\.npz: not the weights of a denoiser"):
            load_denoiser(tmp_path / f"{name}.npz")


# the likelihood


def a_likelihood(seed=0):
    cells = math.prod(SHAPE)
    operator = normal(cells // 2, cells, seed=seed) / 20
    centre = 3000 + 50 * normal(*SHAPE, seed=seed + 1)
    matrix, right = operator.T @ operator, normal(cells, seed=seed + 2)
    return matrix, right, centre


def test_posterior_means_are_those_of_dense_matrices():
    matrix, right, centre = a_likelihood()
    z = 3000 + 80 * normal(3, *SHAPE, seed=5)
    found = Likelihood.of(matrix, right, centre).posterior(z, 25.0)
    precision = torch.eye(len(matrix)).double() / 25.0**2
    for mean, prior in zip(found, z, strict=True):
        off = (prior - centre).flatten()
        expected, _ = posterior_of(matrix, right + precision @ off, precision)
        torch.testing.assert_close(mean, centre + expected.reshape(SHAPE))


def test_posterior_draws_have_the_covariance_of_dense_matrices():
    matrix, right, centre = a_likelihood()
    data = Likelihood.of(matrix, right, centre)
    z = centre.expand(20000, -1, -1)
    found = data.posterior(z, 25.0, normal(20000, *SHAPE, seed=9)).flatten(1)
    _, expected = posterior_of(matrix, right, torch.eye(len(matrix)).double() / 25.0**2)
    assert (torch.cov(found.T) - expected).abs().max() < 0.05 * expected.max()


def test_draws_are_of_the_posterior_with_a_process():
    matrix, right, centre = a_likelihood()
    process = process_of(SHAPE)
    data = Likelihood.of(matrix, right, centre)
    found = data.draws(process, normal(20000, *SHAPE, seed=9)).flatten(1)
    precision = process.hessian(centre) / 2
    pull = right - precision @ (centre - process.mean).flatten()
    mean, expected = posterior_of(matrix, pull, precision)
    middle = data.draws(process, torch.zeros(1, *SHAPE).double())
    torch.testing.assert_close(middle[0], centre + mean.reshape(SHAPE))
    assert (torch.cov(found.T) - expected).abs().max() < 0.05 * expected.max()


def test_the_slope_is_that_of_the_logarithm():
    matrix, right, centre = a_likelihood()
    v = centre + 30 * normal(*SHAPE, seed=3)
    slope = Likelihood.of(matrix, right, centre).slope(v)
    torch.testing.assert_close(slope.flatten(), right - matrix @ (v - centre).flatten())


def test_vmin_is_integrated_out():
    """Against the marginal of the dense posterior of all unknowns."""
    parameters = Full(SHAPE)
    cells, weight = math.prod(SHAPE), 3e-4
    operator = normal(40, cells + 1, seed=3)
    v = 3000 + 50 * normal(*SHAPE)
    x = parameters.from_velocity(v, 2800.0)
    data = normal(40, seed=4)
    hessian = 2 / 40 * operator.T @ operator
    gradient = 2 / 40 * operator.T @ data
    penalty = VminPrior(2810.0, 20.0)
    likelihood = likelihood_of(hessian.clone(), gradient, penalty, x, weight, parameters)
    found = likelihood.posterior(v[None], 30.0)
    full = hessian / (2 * weight)
    full[-1, -1] += 1 / 20.0**2
    right = -gradient / (2 * weight)
    right[-1] += 10.0 / 20.0**2
    precision = torch.diag(torch.cat((torch.full((cells,), 30.0**-2), torch.zeros(1)))).double()
    expected, _ = posterior_of(full, right, precision)
    torch.testing.assert_close(found[0], v + expected[:-1].reshape(SHAPE))


def test_fixed_cells_stay():
    """And the others are those of a problem without them."""
    fixed = torch.zeros(SHAPE, dtype=torch.bool)
    fixed[2, 1:4] = True
    v = 3000 + 50 * normal(*SHAPE)
    parameters = WithFixedCells(Full(SHAPE), fixed, v)
    x = parameters.from_velocity(v, 2800.0)
    operator = normal(40, parameters.size, seed=3) / 10
    hessian, gradient = 2 / 40 * operator.T @ operator, normal(parameters.size, seed=4)
    likelihood = likelihood_of(hessian, gradient, VminPrior(2800.0), x, 3e-3, parameters)
    found = likelihood.posterior(v[None] + 20 * normal(1, *SHAPE, seed=7), 30.0)[0]
    assert (found - v)[fixed].abs().max() < 1e-3
    rest = v.flatten()[~fixed.flatten()].reshape(3, 9)
    cells = Full((3, 9))
    y = cells.from_velocity(rest, 2800.0)
    alone = likelihood_of(hessian, gradient, VminPrior(2800.0), y, 3e-3, cells)
    z = (v + 20 * normal(1, *SHAPE, seed=7)[0])[~fixed].reshape(3, 9)
    torch.testing.assert_close(found[~fixed].reshape(3, 9), alone.posterior(z[None], 30.0)[0])


# the prior


class Problem:
    """Blurred means of a part of a made map, the deep ones few, as records have it."""

    def __init__(self, seed, noise=10.0):
        self.truth = made(seed)
        cells = math.prod(PART)
        rows = []
        for z in range(PART[0]):
            width = 0.5 + z / 8
            unit = torch.zeros(PART[1], *PART)
            unit[torch.arange(PART[1]), z, torch.arange(PART[1])] = 1.0
            rows.append(gaussian_filter(unit.numpy(), (0, width, width)).reshape(-1, cells))
        self.operator = torch.from_numpy(np.concatenate(rows)).double()
        self.noise = noise
        self.data = self.operator @ self.truth.flatten() + noise * normal(cells, seed=seed + 70)
        self.matrix = self.operator.T @ self.operator / noise**2
        self.right = self.operator.T @ self.data / noise**2

    def by_total_variation(self):
        prior, v = VariationalTotalVariation(), torch.full(PART, 3000.0).double()
        for _ in range(5):
            mean, covariance = posterior_of(self.matrix, self.right, prior.hessian(v) / 2)
            v = mean.reshape(PART)
            prior = prior.update(covariance, PART)
        return v

    def by_process(self):
        process = process_of(PART)
        precision = process.hessian(self.truth) / 2
        right = self.right + precision @ torch.full((math.prod(PART),), process.mean).double()
        return posterior_of(self.matrix, right, precision)[0].reshape(PART)

    def likelihood(self, centre):
        return Likelihood.of(self.matrix, self.right - self.matrix @ centre.flatten(), centre)

    def error(self, v):
        return float((v - self.truth).abs().mean())

    def chi_square(self, v):
        """Mean square residual in units of the noise."""
        residual = self.operator @ v.flatten() - self.data
        return float(residual.square().mean()) / self.noise**2


PROBLEMS = [Problem(seed) for seed in range(3)]


class Negated(Denoiser):
    """A denoiser that adds what it should take away."""

    def forward(self, v, sigma):
        return 2 * v - load_denoiser()(v, sigma)


@pytest.fixture(scope="module")
def seen():
    """The prior of each problem, once it has seen the data."""
    found = []
    for problem in PROBLEMS:
        centre = problem.by_process()
        found.append(
            LearnedPrior(load_denoiser(), process_of(PART), chains=16).update(
                problem.likelihood(centre)
            )
        )
    return found


def test_it_beats_total_variation_and_the_process_on_made_maps(seen):
    ours = [problem.error(prior.mean) for problem, prior in zip(PROBLEMS, seen, strict=True)]
    variation = [problem.error(problem.by_total_variation()) for problem in PROBLEMS]
    process = [problem.error(problem.by_process()) for problem in PROBLEMS]
    assert np.mean(ours) < 0.95 * np.mean(variation)
    assert np.mean(ours) < 0.9 * np.mean(process)


def test_a_denoiser_of_the_wrong_sign_is_worse_than_none(seen):
    problem = PROBLEMS[0]
    wrong = LearnedPrior(Negated(), process_of(PART), chains=4).update(
        problem.likelihood(problem.by_process())
    )
    assert not problem.error(wrong.mean) < problem.error(problem.by_process())


def test_samples_fit_the_data_within_the_noise(seen):
    for problem, prior in zip(PROBLEMS, seen, strict=True):
        for v in (prior.mean, *prior.samples(4, 1)):
            assert problem.chi_square(v) < 1.3


def test_the_deviation_says_how_far_off_the_map_is(seen):
    errors = [(p.truth - q.mean).abs() / q.deviation for p, q in zip(PROBLEMS, seen, strict=True)]
    within = torch.stack(errors)
    assert 0.5 < float((within < 1).double().mean()) < 0.85
    assert float((within < 2).double().mean()) > 0.8


@pytest.mark.slow
def test_the_same_data_give_the_same_samples(seen):
    prior, problem = seen[0], PROBLEMS[0]
    again = LearnedPrior(load_denoiser(), process_of(PART), chains=16).update(
        problem.likelihood(problem.by_process())
    )
    assert torch.equal(again.mean, prior.mean)
    assert torch.equal(prior.samples(3, 5), prior.samples(3, 5))
    assert not torch.equal(prior.samples(3, 5), prior.samples(3, 6))
    spread = prior.samples(16, 7)
    assert float(spread.std(0).mean() / prior.deviation.mean()) == pytest.approx(1.0, abs=0.15)


def test_pairs_of_chains_leave_no_randomness_in_what_is_linear(monkeypatch):
    """With a linear denoiser two chains have the mean of many."""
    # each level rounds to float32
    monkeypatch.setattr("fwi_refine.priors.learned.LEVELS", 15)
    network = Denoiser().requires_grad_(False)
    torch.nn.init.zeros_(network.tail.weight)
    torch.nn.init.zeros_(network.tail.bias)
    matrix, right, centre = a_likelihood()
    data = Likelihood.of(matrix, right, centre)
    few, many = (LearnedPrior(network, process_of(SHAPE), chains=n).update(data) for n in (2, 40))
    torch.testing.assert_close(few.mean, many.mean, rtol=0, atol=0.01)
    alone = many.samples(40, 1)
    assert float(many.deviation.mean() / alone.std(0).mean()) == pytest.approx(1.0, abs=0.15)
    off = (alone.mean(0) - many.mean).abs().mean()
    assert off < 0.3 * many.deviation.mean()  # it is the mean of draws by themselves


def test_the_estimate_is_the_mean_of_the_chains(seen):
    few = replace(seen[0], chains=4).update(seen[0].likelihood)
    chains = few._ends(few.likelihood, 4, 0, opposed=True)
    torch.testing.assert_close(few.mean, chains.mean(0))
    torch.testing.assert_close(few.deviation, chains.std(0, correction=0))


def test_value_gradient_and_hessian_are_of_one_normal_density(seen):
    prior = seen[0]
    v = prior.mean + 5 * normal(*PART)
    value, gradient = prior.value_and_gradient(v)
    off = ((v - prior.site) / prior.deviation.clamp_min(1.0)).square()
    torch.testing.assert_close(value, off.sum())
    step = normal(*PART, seed=1)
    after, _ = prior.value_and_gradient(v + step)
    second = step.flatten() @ prior.hessian(v) @ step.flatten() / 2
    torch.testing.assert_close(after - value, (gradient * step).sum() + second)
    before = LearnedPrior(load_denoiser(), process_of(PART))
    assert float(before.value_and_gradient(v)[0]) == 0
    assert not before.hessian(v).any()
    with pytest.raises(ValueError, match="found no likelihood"):
        before.samples(2, 0)
    odd = ({"chains": 3}, "chains is 3, expected an even number")
    for wrong, words in (({"chains": 0}, "chains is 0"), odd, ({"spread": 0.0}, r"spread is 0\.0")):
        with pytest.raises(ValueError, match=words):
            LearnedPrior(load_denoiser(), process_of(PART), **wrong)


def test_the_data_count_once(seen):
    """With the density that stands for the prior their posterior mean is the estimate, and a change
    of what they pull moves it by the posterior covariance."""
    prior, data = seen[0], seen[0].likelihood
    precision = prior.hessian(prior.mean) / 2
    pull = (prior.site - data.centre).flatten() * precision.diagonal()
    right = data.vectors @ data.pull + pull
    mean, covariance = posterior_of(data.matrix, right, precision)
    torch.testing.assert_close(data.centre + mean.reshape(PART), prior.mean)
    change = normal(math.prod(PART), seed=3) / 30
    moved, _ = posterior_of(data.matrix, right + change, precision)
    torch.testing.assert_close(moved - mean, covariance @ change)
    twice = data.vectors @ data.pull
    twice += (prior.mean - data.centre).flatten() * precision.diagonal()
    wrong, _ = posterior_of(data.matrix, twice, precision)
    assert (wrong - mean).abs().mean() > 0.1  # m/s


def test_long_waves_are_as_uncertain_as_the_data_leave_them():
    """Of a noise with which a process errs by 80 m/s: chains that begin at one map stay there."""
    scores, errors, theirs = [], [], []
    for seed in range(3):
        problem = Problem(seed, noise=800.0)
        data = problem.likelihood(torch.full(PART, 3000.0).double())
        found = LearnedPrior(load_denoiser(), process_of(PART), chains=16).update(data)
        scores.append((problem.truth - found.mean).abs() / found.deviation)
        errors.append(problem.error(found.mean))
        theirs.append(problem.error(problem.by_process()))
    assert 0.5 < float((torch.stack(scores) < 1).double().mean()) < 0.9
    assert np.mean(errors) < 1.05 * np.mean(theirs)


def test_a_stage_ends_at_the_estimate(seen):
    """Of data that are linear; it does not follow them twice."""
    problem = PROBLEMS[0]
    parameters, centre = Full(PART), problem.by_process()
    x = parameters.from_velocity(centre)
    columns = torch.cat((problem.operator, torch.zeros(len(problem.operator), 1)), 1)
    count = len(columns)
    residual = columns @ x - problem.data
    hessian, gradient = 2 / count * columns.T @ columns, 2 / count * columns.T @ residual
    penalty, term = (
        VminPrior(float(x[-1])),
        PriorTerm(LearnedPrior(load_denoiser(), process_of(PART), chains=16), parameters),
    )
    prior, step, solve = settled_by_chains(
        hessian, gradient, None, x, problem.noise**2 / count, first=term, penalties=penalty
    )
    v = parameters.velocity(x + step)
    found = prior.terms[0][1].prior
    torch.testing.assert_close(found.mean, seen[0].mean, rtol=0, atol=0.5)
    torch.testing.assert_close(v, found.mean, rtol=0, atol=1e-3)
    weight = problem.noise**2 / count
    rest = gradient + hessian @ step + weight * prior.gradient(x + step)
    assert rest.abs().max() < 1e-6 * gradient.abs().max()
    assert solve(gradient).shape == x.shape


def test_a_recipe_ends_with_two_jacobians_by_chains(monkeypatch):
    """The second is taken where the first has led."""
    sample = small_chunk(1).samples[0]
    told = []

    def watched(*arguments, **how):
        told.append(how["first"].parameters.velocity(arguments[3]))
        return settled_by_chains(*arguments, **how)

    monkeypatch.setattr("fwi_refine.inversion.by_jacobian.settled_by_chains", watched)
    start, record = sample.starts[0][1], sample.record
    refine_sample(
        start, record, survey=SMALL, family="style-b", prior="learned", priors=SETTINGS.priors
    )
    assert len(told) == 2
    assert not torch.equal(*told)
