"""Variational Gauss-Newton: on linear problems, on a small survey, within its budget."""

import dataclasses
import math
from functools import partial

import pytest
import torch
from jacobian_cases import SMALL, textured
from small_samples import PROCESS

from fwi_refine.inversion.families import PRIORS, find_family
from fwi_refine.inversion.method import choose_prior
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.objective.base import PriorTerm, SumOfSquaredResiduals
from fwi_refine.objective.parameterisation import Full
from fwi_refine.optimise import Status, variational_gauss_newton
from fwi_refine.optimise.variational import settled
from fwi_refine.priors import SharedLevels, VariationalTotalVariation, load
from fwi_refine.wave import Simulator

SHAPE = (9, 8)
CELLS = math.prod(SHAPE)
NOISE = 20.0


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


class Linear(SumOfSquaredResiduals):
    """Weighted means of a map with a jump, vmin unseen."""

    def __init__(self):
        self.matrix = torch.cat([normal(40, CELLS, seed=1), torch.zeros(40, 1)], dim=1)
        truth = 3000.0 + 10.0 * normal(*SHAPE)
        truth[4:, 3:] += 500.0
        self.truth = truth
        x = torch.cat([truth.flatten(), torch.zeros(1)])
        self.data = self.matrix @ x + NOISE * normal(40, seed=2)
        self.jacobians = 0

    def residual(self, x):
        return self.matrix @ x - self.data

    def pull_back(self, x, r):
        return 2 / len(r) * self.matrix.T @ r

    def hessian(self, x, weight=None):
        self.jacobians += 1
        return 2 / 40 * self.matrix.T @ self.matrix


class Tie(SumOfSquaredResiduals):
    """Of vmin: its square."""

    quadratic = True

    def residual(self, x):
        return x[-1:]

    def pull_back(self, x, r):
        return torch.cat([torch.zeros(CELLS).double(), 2 * r])

    def hessian(self, x, weight=None):
        return torch.diag(self.pull_back(x, torch.ones(1).double()))


PARAMETERS = Full(SHAPE)
START = torch.cat([torch.full((CELLS,), 3000.0), torch.ones(1)]).double()


def minimise(misfit, jacobians=2, **options):
    first = VariationalTotalVariation()

    def renew(covariance):
        prior = first.update(covariance[:-1, :-1], SHAPE)
        return PriorTerm(prior, PARAMETERS) + Tie()

    weight = NOISE**2 / 40
    return variational_gauss_newton(
        misfit,
        PriorTerm(first, PARAMETERS) + Tie(),
        START,
        settle=partial(settled, renew=renew, rounds=5),
        weight=jacobians * [lambda misfit, prior: weight],
        **options,
    )


def by_dense_matrices(misfit, rounds):
    """The iteration written in terms of mean and covariance."""
    prior, v = VariationalTotalVariation(), START[:-1].reshape(SHAPE)
    a = misfit.matrix[:, :-1]
    for _ in range(rounds):
        covariance = torch.linalg.inv(a.T @ a / NOISE**2 + prior.hessian(v) / 2)
        v = (covariance @ a.T @ misfit.data / NOISE**2).reshape(SHAPE)
        prior = prior.update(covariance, SHAPE)
    return prior


def test_the_prior_is_that_of_the_iteration_by_mean_and_covariance():
    misfit = Linear()
    _, last = minimise(misfit, jacobians=1)
    found, expected = last.terms[0][1].prior, by_dense_matrices(misfit, 5)
    for ours, theirs in zip(found.variances, expected.variances, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0.0)


def test_it_ends_where_the_objective_of_the_last_prior_is_lowest():
    misfit = Linear()
    result, last = minimise(misfit, corrections=60)
    gradient = misfit.gradient(result.x) + NOISE**2 / 40 * last.gradient(result.x)
    start = misfit.gradient(START) + NOISE**2 / 40 * last.gradient(START)
    assert gradient.norm() < 1e-2 * start.norm()
    assert result.value == pytest.approx(misfit(result.x) + NOISE**2 / 40 * last(result.x))
    assert misfit.jacobians == 2 == result.iterations


def test_a_prior_without_a_covariance_is_settled_by_its_majoriser():
    """Total variation with no levels: rounds with one Jacobian lead to the lowest objective, where
    a step with the majoriser of the start alone ends above it."""
    misfit, weight = Linear(), NOISE**2 / 40
    none, near = torch.zeros(0).double(), torch.zeros(0, *SHAPE, dtype=torch.bool)
    edges = PriorTerm(SharedLevels(none, near, 1.0, 20.0, 0.1), PARAMETERS) + Tie()
    hessian, gradient = misfit.hessian(START), misfit.gradient(START)

    def objective(rounds):
        last, step, _ = settled(hessian, gradient, edges, START, weight, rounds=rounds)
        assert last is edges
        return misfit(START + step) + weight * float(edges(START + step))

    first, some, more = (objective(rounds) for rounds in (0, 40, 80))
    assert more <= some * (1 + 1e-12)
    assert some - more < 0.01 * (first - some)


class Bent(SumOfSquaredResiduals):
    """A valley along x1 = exp(-x0) to x0 = 3, whose sides become e^3 times as steep."""

    def residual(self, x):
        return torch.stack([1e3 * (x[1] * torch.exp(x[0]) - 1.0), 3.0 - x[0]])

    def jacobian(self, x):
        up = float(torch.exp(x[0]))
        return torch.tensor([[1e3 * float(x[1]) * up, 1e3 * up], [-1.0, 0.0]]).double()

    def pull_back(self, x, r):
        return self.jacobian(x).T @ r

    def hessian(self, x, weight=None):
        return self.jacobian(x).T @ self.jacobian(x)


class Small(SumOfSquaredResiduals):
    """Prior that hardly matters."""

    quadratic = True

    def residual(self, x):
        return x

    def pull_back(self, x, r):
        return r

    def hessian(self, x, weight=None):
        return torch.eye(2).double()


def test_where_corrections_of_a_whole_step_diverge_newtons_path_is_followed():
    """At the end of the step they overshoot 20 times, so that not even a small part of it leads
    down; on the path a third of it does."""
    start = torch.tensor([0.0, 1.0]).double()
    weight = [lambda misfit, prior: 1e-9]
    result, _ = variational_gauss_newton(
        Bent(), Small(), start, settle=settled, weight=weight, corrections=20
    )
    assert result.value < 0.8 * Bent()(start)
    assert abs(result.x[1] * torch.exp(result.x[0]) - 1.0) < 1e-3


@pytest.mark.parametrize("limit", [1, 3, 14, 16, 20, 50])
def test_the_budget_is_kept(limit):
    misfit = Linear()
    result, _ = minimise(misfit, max_evaluations=limit, hessian_cost=10)
    assert result.evaluations <= limit
    assert misfit.jacobians <= limit // 10
    assert (result.status == Status.MAX_EVALUATIONS) == (limit < 50)


def test_a_callback_ends_it():
    seen = []

    def watch(result):
        seen.append(result)
        return True

    result, _ = minimise(Linear(), callback=watch, hessian_cost=10)
    assert result.status == Status.STOPPED
    assert len(seen) == 1
    assert result.evaluations >= seen[0].evaluations > 10


def test_a_start_without_a_misfit_is_returned():
    misfit = Linear()
    misfit.data = misfit.data * math.nan
    result, _ = minimise(misfit)
    assert result.status == Status.NOT_FINITE
    assert torch.equal(result.x, START)
    assert misfit.jacobians == 0


PRIORS_OF_SMALL = dataclasses.replace(load(), style_a=PROCESS, style_b=PROCESS)


@pytest.fixture(scope="module")
def sample():
    """(truth, start, record) of a small survey."""
    truth = textured(SMALL, 5, rough=5.0)
    start = truth + 60.0 * torch.sin(torch.arange(12.0).double()[:, None] / 2)
    return truth.numpy(), start.numpy(), Simulator(SMALL).forward(truth[None])[0].numpy()


@pytest.mark.parametrize(
    ("family", "prior"), [("style-a", "tv"), *(("style-b", prior) for prior in PRIORS[1:])]
)
def test_a_small_survey_with_each_prior(sample, family, prior):
    _, start, record = sample
    options = {"survey": SMALL, "priors": PRIORS_OF_SMALL, "family": family}
    found = refine_sample(start, record, prior=prior, **options)
    assert found.status == "refined"
    assert found.objective_after < found.objective_before
    assert found.misfit_after < 0.1 * found.misfit_before
    assert found.deviation is not None
    assert (found.deviation > 0).all()


@pytest.mark.parametrize("limit", [30, 110])
def test_a_small_survey_within_a_budget(sample, limit):
    _, start, record = sample
    found = refine_sample(
        start, record, survey=SMALL, priors=PRIORS_OF_SMALL, family="style-b", max_evaluations=limit
    )
    assert found.evaluations <= limit
    assert found.objective_after <= found.objective_before


def test_the_prior_is_chosen():
    style_b = find_family("style-b")
    assert style_b.recipe("auto") == style_b.recipe("auto", "learned")
    assert style_b.recipe("auto") != style_b.recipe("auto", "tv")
    assert style_b.recipe("auto", "gp") == style_b.gauss_newton
    coarse = dataclasses.replace(SMALL, spacing=12.0)
    assert [choose_prior("auto", survey) for survey in (SMALL, coarse)] == ["auto", "tv"]
    assert choose_prior("learned", coarse) == "learned"  # a denoiser of one's own
    assert len(style_b.recipe("auto").stages) > len(style_b.gauss_newton.stages)
    assert style_b.recipe("lbfgs", "tv") == style_b.published
    layered = find_family("layered")
    assert layered.recipe("auto", "tv") == layered.gauss_newton
    with pytest.raises(ValueError, match="prior 'none': expected one of auto, gp, tv"):
        refine_sample([[0.0]], [[[0.0]]], prior="none")
