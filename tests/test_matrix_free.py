"""Gauss-Newton without a matrix: products, their diagonal, and conjugate gradients."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from jacobian_cases import textured
from least_squares import START, Energy, Quadratic, Rosenbrock, descent
from misfit_cases import SURVEY, random
from small_survey_cases import SURVEY as SMALL
from wave_cases import NATIVE

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.families.choices import every_cell, layers_smoothed
from fwi_refine.inversion.model import Model
from fwi_refine.inversion.optimisers import KrylovGaussNewton
from fwi_refine.inversion.recipe import Stage, Subset
from fwi_refine.inversion.stages import run_stage
from fwi_refine.objective.base import PriorTerm
from fwi_refine.objective.matrix_free import DampedPrior, MatrixFreeMisfit
from fwi_refine.objective.misfit import BandMisfit
from fwi_refine.objective.parameterisation import Full, Regions
from fwi_refine.objective.source_cells import SourceCells
from fwi_refine.objective.vmin_prior import VminPrior
from fwi_refine.optimise import Status, gauss_newton_krylov
from fwi_refine.priors import TotalVariation1D, TotalVariation2D, load
from fwi_refine.wave import Simulator

SHAPE = SURVEY.shape


@pytest.fixture(scope="module")
def misfit_and_hessian():
    simulator, parameters = Simulator(SMALL, threads=1), Full(SMALL.shape)
    v = textured(SMALL)
    misfit = MatrixFreeMisfit(simulator, parameters, simulator.forward(v[None])[0])
    x = parameters.from_velocity(v + 10)
    return misfit, x, BandMisfit.hessian(misfit, x)


@NATIVE
def test_products_are_those_of_the_hessian(misfit_and_hessian):
    misfit, x, hessian = misfit_and_hessian
    for seed in range(3):
        dx = random(len(x), seed=seed)
        product = misfit.hessian_product(x, dx)
        assert float((product - hessian @ dx).norm() / product.norm()) < 1e-5


@NATIVE
def test_the_diagonal_is_near_that_of_the_hessian(misfit_and_hessian):
    misfit, x, hessian = misfit_and_hessian
    found, expected = misfit.hessian_diagonal(x), hessian.diagonal()
    assert float(found.min()) > 0
    assert float(found[-1] / expected[-1]) == pytest.approx(1, abs=0.02)
    assert 0.5 < float(found.sum() / expected.sum()) < 2
    ratio = found / expected
    assert float(ratio.quantile(0.9) / ratio.quantile(0.1)) < 30
    spread = expected.quantile(0.9) / expected.quantile(0.1)
    assert float(spread) > 30  # which the diagonal takes away


@pytest.mark.parametrize("kind", [TotalVariation1D, TotalVariation2D])
@pytest.mark.parametrize("epsilon", [0.1, 30.0])
def test_total_variation_without_its_zeros(kind, epsilon):
    prior = kind(epsilon)
    v = 2500 + 100 * random(*SHAPE[: prior.dimensions], seed=1)
    dense, sparse = prior.hessian(v), prior.sparse_hessian(v)
    assert np.abs(sparse.toarray() - dense.numpy()).max() <= 1e-15 * float(dense.max())
    assert sparse.nnz == int((dense != 0).sum())


@pytest.mark.parametrize("parameters", [Full(SHAPE), Regions(torch.arange(80).reshape(SHAPE) // 7)])
def test_sums_without_their_zeros(parameters):
    v = 2500 + 100 * random(*SHAPE, seed=1)
    cells = torch.tensor([1, 4]), torch.tensor([0, 5]), torch.tensor([2000.0, 2100.0]).double()
    terms = PriorTerm(TotalVariation2D(1.0), parameters) + VminPrior(1500.0)
    terms = 3.0 * (terms + SourceCells(cells, parameters))
    x = parameters.from_velocity(v)
    dense = terms.hessian(x)
    assert np.allclose(terms.sparse_hessian(x).toarray(), dense, atol=1e-14 * float(dense.max()))


class WithProducts:
    """A problem of `least_squares` as conjugate gradients see it; counts."""

    def __init__(self, problem):
        self.problem, self.count = problem, 0

    def residual(self, x):
        self.count += 1
        return self.problem.residual(x)

    def mean_square(self, r):
        return self.problem.mean_square(r)

    def pull_back(self, x, r):
        self.count += 1
        return self.problem.pull_back(x, r)

    def hessian_product(self, x, dx):
        self.count += 2
        return self.problem.hessian(x) @ dx

    def hessian_diagonal(self, x):
        self.count += self.diagonal_cost()
        return self.problem.hessian(x).diagonal().clamp_min(1e-12)

    def diagonal_cost(self):
        return 3


def minimise(problem, start=START, **options):
    misfit = WithProducts(problem)
    settings, more = descent({"max_iterations": 200, "relative_decrease": 0.0} | options)
    damped = partial(DampedPrior, Energy())
    result = gauss_newton_krylov(misfit, Energy(), damped, start, settings, **more)
    assert misfit.count == result.evaluations
    return result


def test_rosenbrock():
    result = minimise(Rosenbrock())
    assert torch.allclose(result.x, torch.ones(2, dtype=torch.float64), atol=1e-5)
    assert all(b < a for a, b in zip(result.history, result.history[1:], strict=False))
    assert len(result.history) == result.iterations + 1


def test_the_minimum_with_a_prior_is_that_of_the_sum():
    result = minimise(Rosenbrock(), weight=0.3)
    gradient = Rosenbrock().gradient(result.x) + 0.3 * Energy().gradient(result.x)
    assert gradient.abs().max() < 1e-5
    assert result.value == pytest.approx(result.misfit + 0.3 * Energy()(result.x))


def test_the_diagonal_takes_a_condition_away():
    start = torch.zeros(3, dtype=torch.float64)
    result = minimise(Quadratic(), start, products=1, max_iterations=6)
    assert torch.allclose(result.x, torch.full((3,), 3.0, dtype=torch.float64), atol=1e-4)


@pytest.mark.parametrize("limit", range(1, 40, 3))
def test_evaluations_are_limited(limit):
    result = minimise(Rosenbrock(), max_evaluations=limit)
    assert result.evaluations <= limit
    assert result.value <= Rosenbrock()(START)


def test_why_it_ends():
    nowhere = minimise(Rosenbrock(), torch.full((2,), torch.nan).double())
    assert nowhere.status == Status.NOT_FINITE
    assert nowhere.iterations == 0
    assert minimise(Rosenbrock(), target=1e-2).status == Status.CONVERGED
    assert minimise(Rosenbrock(), max_iterations=2).status == Status.MAX_ITERATIONS
    assert minimise(Rosenbrock(), callback=lambda result: True).iterations == 1
    assert minimise(Rosenbrock(), callback=lambda result: True).status == Status.STOPPED
    assert minimise(Rosenbrock(), torch.ones(2).double()).status == Status.STALLED


@NATIVE
def test_a_stage_looks_at_a_part_of_the_time():
    """Its misfit is that of the first samples, and it is charged for these."""
    simulator = Simulator(SURVEY, threads=1)
    truth = torch.full(SHAPE, 2500.0, dtype=torch.float64)
    truth[4:] = 3000.0
    record = simulator.forward(truth[None])[0].numpy()
    record[:, 50:] = 100.0  # which nothing explains
    start = torch.full(SHAPE, 2480.0, dtype=torch.float64)
    data = Data.of_sample(record, start, simulator)
    early = data.until(0.7)
    assert early.survey.n_steps == 49
    assert float(early.cost) == 0.7
    how = KrylovGaussNewton(3)
    stage = Stage(every_cell, layers_smoothed(30.0), 1e-10, how, 0.1, Subset(until=0.7))
    budget = Budget()
    found = run_stage(stage, data, Model.of(start), load(), budget)
    assert found.traces[0][-1][1] < 0.5 * float(early.misfit(Model.of(start), Budget())) ** 0.5
    whole = run_stage(replace(stage, data=Subset()), data, Model.of(start), load(), Budget())
    assert whole.traces[0][-1][1] > 1.0


@NATIVE
def test_a_stage_ends_at_a_fraction_of_the_record():
    simulator = Simulator(SURVEY, threads=1)
    truth = torch.full(SHAPE, 2500.0, dtype=torch.float64)
    truth[4:] = 3000.0
    record = simulator.forward(truth[None])[0].numpy()
    start = Model.of(torch.full(SHAPE, 2480.0, dtype=torch.float64))
    data = Data.of_sample(record, start.v, simulator)
    rms = data.energy**0.5
    assert rms == pytest.approx(np.sqrt((record**2).mean()))
    stage = Stage(every_cell, layers_smoothed(30.0), 1e-10, KrylovGaussNewton(8), 0.1)
    steps = run_stage(stage, data, start, load(), Budget()).traces[0]
    fraction = 1.01 * steps[1][1] / rms  # what the second step leaves
    sooner = replace(stage, optimiser=KrylovGaussNewton(8, remainder=fraction))
    ended = run_stage(sooner, data, start, load(), Budget()).traces[0]
    assert len(ended) < len(steps)
    assert ended[-1][1] <= fraction * rms
