"""The algebra of objectives, on a quadratic and a linear regressor: no physics, microseconds."""

import numpy as np
import pytest
import torch
from helpers import inner, taylor_test

from fwi_refine.objective.base import Objective, PriorTerm, SumOfSquares
from fwi_refine.objective.parameterisation import Full, Modes, Regions, Rows
from fwi_refine.objective.vmin_prior import VminPrior
from fwi_refine.optimise import lbfgs
from fwi_refine.priors import TotalVariation1D, TotalVariation2D

SHAPE = (6, 5)
CELLS = SHAPE[0] * SHAPE[1]


def random(*shape, seed=0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


class Quadratic(Objective):
    """x . A x / 2 - b . x with a symmetric A. Counts its evaluations."""

    def __init__(self, A, b):
        self.A, self.b, self.evaluations = A, b, 0

    def value_and_gradient(self, x):
        self.evaluations += 1
        return float(x @ self.A @ x / 2 - self.b @ x), self.A @ x - self.b

    def hessian(self, x):
        return self.A


class LinearRegressor(Objective):
    """mean((A [v, vmin] - d)^2): a misfit whose wave operator is a matrix."""

    def __init__(self, A, d, parameters):
        self.A, self.d, self.parameters = A, d, parameters

    def value_and_gradient(self, x):
        p = self.parameters
        residual = self.A @ torch.cat((p.velocity(x).flatten(), p.vmin(x)[None])) - self.d
        gradient = 2 / self.d.numel() * (self.A.T @ residual)
        value = float(residual @ residual) / self.d.numel()
        return value, p.pullback(gradient[:-1].reshape(SHAPE), gradient[-1])


class SumOfCubes(Objective):
    """An objective with a gradient alone."""

    def value_and_gradient(self, x):
        return float((x**3).sum()), 3 * x**2


class Roughness:
    """A quadratic prior: the sum of squared differences from `centre`, in a matrix norm."""

    quadratic = True

    def __init__(self, n, centre):
        factor = random(n, n, seed=9)
        self.matrix = factor @ factor.T / n + torch.eye(n).double()
        self.centre = centre

    def value_and_gradient(self, u):
        difference = (u - self.centre).flatten()
        gradient = 2 * self.matrix @ difference
        return difference @ gradient / 2, gradient.reshape(u.shape)

    def hessian(self, u):
        return 2 * self.matrix


def quadratic(n=5, seed=0) -> Quadratic:
    factor = random(n, n, seed=seed)
    return Quadratic(factor @ factor.T + torch.eye(n).double(), random(n, seed=seed + 50))


def gaussian_process():
    """Covariance, mean, and all modes of a small Gaussian process, by numpy alone."""
    cell = np.array(list(np.ndindex(SHAPE)), dtype=float)
    distance = ((cell[:, None] - cell[None]) ** 2).sum(-1)
    covariance = 100.0**2 * np.exp(-distance / 2) + 10.0**2 * np.eye(CELLS)
    U, s, _ = np.linalg.svd(np.linalg.cholesky(covariance))
    return covariance, np.full(SHAPE, 2500.0), U, s


def modes(k=CELLS) -> Modes:
    _, mean, U, s = gaussian_process()
    return Modes(torch.tensor(mean), torch.tensor(U[:, :k].copy()), torch.tensor(s[:k]))


def regions() -> Regions:
    return Regions(torch.arange(CELLS).reshape(SHAPE) // 7)


KINDS = {"full": Full(SHAPE), "rows": Rows(SHAPE), "modes": modes(8), "regions": regions()}
kinds = pytest.mark.parametrize("parameters", KINDS.values(), ids=KINDS)


def test_sum_and_product_are_those_of_the_functions():
    a, b, c, x = quadratic(seed=1), quadratic(seed=2), quadratic(seed=3), random(5, seed=4)
    total = a + 0.5 * b + 2 * (c * 3 + a)
    terms = {a: 3.0, b: 0.5, c: 6.0}
    assert total(x) == pytest.approx(sum(w * f(x) for f, w in terms.items()), rel=1e-14)
    for method in ("gradient", "hessian"):
        expected = sum(w * getattr(f, method)(x) for f, w in terms.items())
        torch.testing.assert_close(getattr(total, method)(x), expected, rtol=1e-13, atol=1e-13)
    dx = random(5, seed=5)
    torch.testing.assert_close(total.hessian_product(x, dx), total.hessian(x) @ dx)
    order = taylor_test(total.value_and_gradient, x, dx, (1, 0.1, 0.01))
    assert order == pytest.approx(2, abs=1e-3)


def test_terms_are_listed_with_their_weights():
    a, b = quadratic(seed=1), quadratic(seed=2)
    assert a.terms == ((1.0, a),)
    assert (a + 2 * (b + 3 * a)).terms == ((1.0, a), (2.0, b), (6.0, a))


def test_a_sum_evaluates_each_part_once():
    a, b, x = quadratic(seed=1), quadratic(seed=2), random(5)
    total = 3 * (a + 2 * b)
    total.value_and_gradient(x)
    assert (a.evaluations, b.evaluations) == (1, 1)
    assert isinstance(total(x), float)
    total.gradient(x)
    assert (a.evaluations, b.evaluations) == (3, 3)


def test_what_is_no_objective_cannot_be_added():
    a = quadratic()
    for wrong in (lambda: a + 1.0, lambda: 1.0 + a, lambda: a * a):
        with pytest.raises(TypeError):
            wrong()


def test_a_missing_hessian_is_named():
    with pytest.raises(NotImplementedError, match="SumOfCubes has no Hessian"):
        (quadratic() + SumOfCubes()).hessian(random(5))


def dense(parameters) -> torch.Tensor:
    """B with a zero column for vmin, (cells, size), column by column."""
    columns = torch.eye(parameters.size, dtype=torch.float64)
    return torch.stack([parameters.tangent(column)[0].flatten() for column in columns], 1)


@kinds
def test_the_gradient_of_a_prior_reaches_the_unknowns(parameters):
    x = parameters.from_velocity(2500 + 100 * random(*SHAPE, seed=6))
    on_map = parameters.prior_coordinates(x).ndim == 2
    prior = TotalVariation2D(50.0) if on_map else TotalVariation1D(50.0)
    term = PriorTerm(prior, parameters)
    value, gradient = term.value_and_gradient(x)
    assert value == float(prior.value(parameters.prior_coordinates(x)))
    assert gradient.shape == x.shape
    assert gradient[-1] == 0, "vmin is not penalised"
    direction = random(parameters.size, seed=7)
    order = taylor_test(term.value_and_gradient, x, direction, (0.4, 0.2, 0.1, 0.05))
    assert order == pytest.approx(2, abs=0.1)


@kinds
def test_the_hessian_of_a_prior_is_that_of_the_chain_rule(parameters):
    x = parameters.from_velocity(2500 + 100 * random(*SHAPE, seed=6))
    u = parameters.prior_coordinates(x)
    prior = Roughness(u.numel(), torch.full_like(u, 2000.0))
    inner_map = dense(parameters) if u.ndim == 2 else torch.eye(parameters.size)[:-1].double()
    expected = inner_map.T @ prior.hessian(u) @ inner_map
    term = PriorTerm(prior, parameters)
    torch.testing.assert_close(term.hessian(x), expected, rtol=1e-12, atol=1e-9)
    # A quadratic's gradient changes by its Hessian times the step, exactly.
    dx = random(parameters.size, seed=8)
    change = term.gradient(x + dx) - term.gradient(x)
    torch.testing.assert_close(change, expected @ dx, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(term.hessian_product(x, dx), expected @ dx)
    # and it is added, with a weight, to what is there
    matrix = random(parameters.size, parameters.size, seed=9)
    added = matrix.clone()
    (2 * term + 3 * VminPrior(1500.0)).add_hessian(added, x, 0.5)
    matrix += expected
    matrix[-1, -1] += 3.0 * 0.5 * 2 / 30**2
    torch.testing.assert_close(added, matrix, rtol=1e-12, atol=1e-9)


def test_modes_and_the_sum_of_squares_are_the_energy_of_the_process():
    covariance, mean, U, s = gaussian_process()
    v = mean + 80 * random(*SHAPE, seed=1).numpy()
    difference = (v - mean).ravel()

    parameters = modes()
    x = parameters.from_velocity(torch.tensor(v))
    term = PriorTerm(SumOfSquares(), parameters)
    energy = difference @ np.linalg.solve(covariance, difference)
    assert term(x) == pytest.approx(energy, rel=1e-10)

    # The gradient for the map, taken through z, is 2 K^-1 (v - mean).
    z_gradient = term.gradient(x)[:-1]
    in_map = (U @ (z_gradient.numpy() / s)).reshape(SHAPE)
    np.testing.assert_allclose(
        in_map.ravel(), 2 * np.linalg.solve(covariance, difference), rtol=1e-8
    )

    truncated = modes(10)
    kept = U[:, :10].T @ difference / s[:10]
    x = truncated.from_velocity(torch.tensor(v))
    assert PriorTerm(SumOfSquares(), truncated)(x) == pytest.approx(kept @ kept, rel=1e-12)


def test_the_sum_of_squares_agrees_with_itself():
    z, prior = random(6), SumOfSquares()
    value, gradient = prior.value_and_gradient(z)
    assert value == prior.value(z) == inner(z, z)
    assert torch.equal(gradient, prior.gradient(z))
    assert torch.equal(prior.hessian(z) @ z, gradient)


@kinds
def test_lbfgs_finds_the_closed_form_solution(parameters):
    """misfit + weight * prior is a linear least-squares problem here: solve it by numpy too."""
    A, d = random(40, CELLS + 1, seed=10) / 10, 1000 * random(40, seed=11)
    x0 = parameters.from_velocity(torch.full(SHAPE, 2000.0))
    u0 = parameters.prior_coordinates(x0)
    prior = Roughness(u0.numel(), torch.full_like(u0, 3.0))
    weight = 1e-2
    objective = LinearRegressor(A, d, parameters) + weight * PriorTerm(prior, parameters)
    result = lbfgs(objective, x0, max_iterations=2000, gradient_tolerance=1e-9, initial_step=10.0)

    # Rows of one overdetermined system G x = h, all in numpy.
    size = parameters.size
    B = np.zeros((CELLS + 1, size))
    B[:-1], B[-1, -1] = dense(parameters).numpy(), 1.0
    offset = np.append((torch.zeros(SHAPE) + parameters.offset).flatten().numpy(), 0.0)
    on_map = u0.ndim == 2
    C = B[:-1] if on_map else np.eye(size)[:-1]
    shift = offset[:-1] if on_map else 0.0
    root = np.linalg.cholesky(weight * prior.matrix.numpy()).T
    G = np.vstack((A.numpy() @ B / np.sqrt(40), root @ C))
    right = (d.numpy() - A.numpy() @ offset) / np.sqrt(40), root @ (3.0 - shift + np.zeros(len(C)))
    expected = np.linalg.lstsq(G, np.concatenate(right), rcond=None)[0]

    assert result.status == "converged"
    error = np.linalg.norm(result.x.numpy() - expected) / np.linalg.norm(expected)
    assert error < 1e-10
