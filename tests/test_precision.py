"""Normal matrices and solves where float64 is slow: forced here, on the CPU."""

import math
from dataclasses import replace

import pytest
import torch
from jacobian_cases import SMALL, relative, textured
from wave_cases import random_like

from fwi_refine import precision
from fwi_refine.objective.parameterisation import Rows
from fwi_refine.optimise import definite
from fwi_refine.precision import Float64
from fwi_refine.wave import jacobian
from fwi_refine.wave.jacobian import exact_products, full


@pytest.fixture
def slow(monkeypatch):
    for module in (full, definite):
        monkeypatch.setattr(module, "float64", lambda device: Float64.SLOW)


def test_what_is_known_of_devices(monkeypatch):
    precision.float64.cache_clear()
    found = iter([(9, 0), (8, 9)])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: next(found))
    cuda = [torch.device("cuda", i) for i in range(2)]
    assert [precision.float64(d) for d in cuda] == [Float64.FAST, Float64.SLOW]
    assert precision.float64(torch.device("mps")) is Float64.NONE
    assert precision.float64(torch.device("cpu")) is Float64.FAST
    precision.float64.cache_clear()


def rows(m, n, seed=0):
    """Columns of sizes far apart, some of them zero, as a Jacobian may have them."""
    sizes = 10.0 ** torch.linspace(-12, 6, n)
    sizes[3] = 0
    return (random_like((m, n), seed) * sizes).float()


@pytest.mark.parametrize("m", [1, 1023, 5000])
def test_products_in_float32_are_exact(m, monkeypatch):
    """Those of the rounded columns, also where the rows are summed in several goes."""
    monkeypatch.setattr(exact_products, "MAX_BLOCKS", 2)
    part = rows(m, 9)
    largest = part.abs().amax(0).double()
    unit = torch.where(largest > 0, 2.0 ** (torch.floor(torch.log2(largest)) + 1), 1.0)
    digits = (part.double() / unit * 2**23).round().long()  # their products fit into 64 bits
    rounded = digits / 2**23 * unit
    assert float((rounded - part.double()).abs().max() / largest.max()) > 0  # it does round
    found = exact_products.sum_of_exact_products(part.split(700))
    exact = (digits.T @ digits).double() / 2**46 * unit * unit[:, None]
    assert relative(found, exact) <= 1e-15
    scale = found.diagonal().clamp_min(1e-300).sqrt()
    expected = part.double().T @ part.double()
    # two roundings of at most 2^-24 of what is at least 0.5
    assert float(((found - expected) / scale / scale[:, None]).abs().max()) <= 2.0**-22


def test_a_normal_matrix(slow):
    survey = replace(SMALL, n_steps=200, file_rows=200)
    own = jacobian(textured(survey), survey=survey)
    matrix = own.matrix.double()
    found, scale = own.normal_matrix(hidden=1.0)
    squares = matrix.square().sum(0).sqrt()
    expected = (matrix.T @ matrix) / squares / squares[:, None]
    assert float((found - expected).abs().max()) <= 3e-7  # found: 1.3e-7
    assert relative(scale, squares) <= 1e-7
    assert float(torch.linalg.eigvalsh(found)[0]) >= -1e-13
    along = Rows(survey.shape).jacobian_transform(own.matrix)
    by_row, _ = own.normal_matrix(along)
    assert by_row.shape == (survey.shape[0] + 1,) * 2
    assert float((by_row.diagonal() - 1).abs().max()) <= 1e-14


def ill_conditioned(n=300, least=1e-9):
    """A matrix of unit diagonal, as of a Gauss-Newton step with little damping."""
    sizes = 10.0 ** torch.linspace(0, math.log10(least) / 2, n, dtype=torch.float64)
    basis, _ = torch.linalg.qr(random_like((n, n), 1))
    root = sizes[:, None] * basis
    matrix = root.T @ root
    scale = matrix.diagonal().sqrt()
    unit = matrix / scale / scale[:, None]
    unit.diagonal().add_(least)
    return unit


def test_a_solution_by_refinement(slow, monkeypatch):
    matrix, b = ill_conditioned(), random_like((300,), 2)
    found = definite.factorise(matrix)(b)
    monkeypatch.setattr(definite, "float64", lambda device: Float64.FAST)
    expected = definite.factorise(matrix)(b)
    difference = found - expected
    # as the quadratic of the step measures it
    off = float(difference @ matrix @ difference) / float(expected @ matrix @ expected)
    assert off**0.5 <= 1e-7  # found: 2.2e-8


@pytest.mark.parametrize("kind", ["slow", "fast"])
def test_a_matrix_that_is_not_definite(kind, monkeypatch):
    if kind == "slow":
        monkeypatch.setattr(definite, "float64", lambda device: Float64.SLOW)
    matrix, b = ill_conditioned(), random_like((300,), 2)
    matrix.diagonal().sub_(1e-3 if kind == "fast" else 1.0)
    assert definite.factorise(matrix) is None
    if kind == "slow":  # hidden from the factor by its shift, and found by the solution
        matrix.diagonal().add_(1.0 - 5e-6)
        solve = definite.factorise(matrix)
        assert solve is None or bool(torch.isnan(solve(b)).all())


def test_the_shift_grows_where_it_is_too_small(monkeypatch):
    matrix = ill_conditioned(40)
    matrix.diagonal().sub_(5e-5)  # the factor needs more than the first shift
    solve = definite._by_refinement(matrix)
    assert solve is not None
    monkeypatch.setattr(definite, "MAX_SHIFT", definite.SHIFT)
    assert definite._by_refinement(matrix) is None
