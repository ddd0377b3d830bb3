"""The Jacobian by reciprocity is that of the tangent: every kind of cell, vmin, and J^T."""

import dataclasses
import sys

import pytest
import torch
from jacobian_cases import (
    SINGLE,
    SMALL,
    SMOOTH,
    TRANSPOSE,
    VMIN,
    column,
    relative,
    smooth_change,
    tangent,
    textured,
    transpose_errors,
)
from wave_cases import KERNELS, NATIVE

from fwi_refine.survey import OPENFWI
from fwi_refine.wave import Simulator, jacobian
from fwi_refine.wave.jacobian import normal_matrix

POINTS = ((1, 0), (1, 34), (1, 50), (1, 69))
REAL = dataclasses.replace(OPENFWI, sources=POINTS[:2], receivers=POINTS)
CELLS = {
    "interior": (35, 30),
    "shallow": (3, 50),
    "deep": (60, 12),
    "top edge": (0, 25),
    "left edge": (33, 0),
    "bottom edge": (69, 40),
    "right edge": (40, 69),
    "top corner": (0, 0),
    "bottom corner": (69, 69),
    "source": (1, 34),
    "source at an edge": (1, 0),
    "receiver": (1, 50),
}


def unit(v, cell):
    dv = torch.zeros_like(v)
    dv[cell] = 1.0
    return dv


@pytest.fixture(scope="module")
def real():
    """(v, vmin, Jacobian, simulator) on the real grid, for two shots and four receivers."""
    v = textured()
    vmin = 0.97 * v.min()
    return v, vmin, jacobian(v, vmin, survey=REAL), Simulator(REAL)


@NATIVE
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS.keys())
def test_a_single_cell(real, cell):
    v, vmin, full, simulator = real
    assert relative(column(full, cell), tangent(simulator, v, vmin, unit(v, cell))) <= SINGLE


@NATIVE
def test_vmin_and_smooth_changes(real):
    v, vmin, full, simulator = real
    by_vmin = tangent(simulator, v, vmin, dvmin=1.0)
    assert relative(column(full, None), by_vmin) <= VMIN
    dv = smooth_change(OPENFWI)
    change = tangent(simulator, v, vmin, dv)
    assert relative(full.matvec(dv), change) <= SMOOTH
    both = full.matvec(dv, dvmin=2.0)
    assert relative(both, change + 2 * by_vmin) <= SMOOTH


@NATIVE
def test_transpose_against_the_adjoint(real):
    v, vmin, full, _ = real
    simulator = Simulator(REAL, imaging_step=1)
    dv = 40 * smooth_change(OPENFWI, seed=5) + 30 * (textured(seed=7) - v) / 150
    by_v, by_vmin = transpose_errors(full, simulator, v, vmin, dv)
    assert by_v <= TRANSPOSE
    assert by_vmin <= 1e-3


@pytest.mark.slow
@NATIVE
@pytest.mark.usefixtures("much_memory")
def test_the_whole_survey():
    """All 5 shots and 70 receivers: 3 GB."""
    v = textured(seed=1)
    full, simulator = jacobian(v), Simulator(imaging_step=1)
    dv = 60 * smooth_change(OPENFWI, seed=5)
    by_v, by_vmin = transpose_errors(full, simulator, v, v.min(), dv)
    assert by_v <= TRANSPOSE
    assert by_vmin <= 1e-3
    assert relative(full.matvec(dv), tangent(simulator, v, v.min(), dv)) <= SMOOTH


@pytest.fixture(scope="module", params=KERNELS)
def small(request):
    v = textured(SMALL, seed=2)
    vmin = 0.9 * v.min()
    full = jacobian(v, vmin, survey=SMALL, dtype=torch.float64, kernel=request.param)
    return v, vmin, full, Simulator(SMALL, kernel=request.param, imaging_step=1)


def test_columns_of_a_small_survey(small):
    """With a source off the receivers, a receiver in the band and one that stands twice."""
    v, vmin, full, simulator = small
    # all cells, or some of every kind where it takes long
    indices = range(0, v.numel(), 13 if simulator.kernel == "reference" else 1)
    cells = torch.eye(v.numel(), dtype=v.dtype)[indices].unflatten(1, v.shape)
    many = simulator.tangent(v.expand_as(cells), cells, vmin.expand(len(cells)))
    for index, expected in zip(indices, many, strict=True):
        assert relative(full.expand(full.matrix[:, index]), expected) <= SINGLE
    assert relative(column(full, None), tangent(simulator, v, vmin, dvmin=1.0)) <= VMIN


def test_transpose_of_a_small_survey(small):
    v, vmin, full, simulator = small
    by_v, by_vmin = transpose_errors(full, simulator, v, vmin, 30 * smooth_change(SMALL))
    assert by_v <= TRANSPOSE
    assert by_vmin <= 1e-3


@NATIVE
def test_kernels_agree():
    v = textured(SMALL, seed=4)
    native, reference = (
        jacobian(v, survey=SMALL, dtype=torch.float64, kernel=k) for k in ("native", "reference")
    )
    assert relative(native.matrix, reference.matrix) <= 1e-10


def test_keeping_more_wavefields_changes_little():
    v = textured(SMALL, seed=4)
    columns = [jacobian(v, survey=SMALL, dtype=torch.float64, every=k).matrix for k in (8, 3)]
    # modes have signs that depend on how they are computed: compare what does not
    found, expected = (x.T @ x for x in columns)
    assert relative(found, expected) <= 1e-3


def test_without_a_band():
    """vmin scales nothing then: its column is zero, and the normal matrix stays finite."""
    survey = dataclasses.replace(SMALL, absorbing_cells=0, sources=((1, 3),), receivers=((1, 9),))
    v = textured(survey)
    full, simulator = jacobian(v, survey=survey), Simulator(survey)
    for cell in ((0, 0), (5, 5), (1, 3)):
        expected = tangent(simulator, v, v.min(), unit(v, cell))
        assert relative(column(full, cell), expected) <= SINGLE
    assert float(full.matrix[:, -1].abs().max()) == 0.0
    normal, scale = full.normal_matrix()
    assert scale[-1] == 1.0
    assert not normal[-1].any()


def test_normal_matrix(small):
    """It is J^T J of the full-rate record, definite, and consistent with a basis."""
    _, _, full, _ = small
    normal, scale = full.normal_matrix()
    records = torch.stack([full.expand(x).flatten() for x in full.matrix.T])
    assert relative(normal * scale * scale[:, None], records @ records.T) <= 1e-12
    assert torch.allclose(normal.diagonal(), torch.ones(len(scale), dtype=torch.float64))
    assert torch.equal(normal, normal.T)
    assert torch.linalg.eigvalsh(normal)[0] > -1e-13 * len(scale)
    generator = torch.Generator().manual_seed(1)
    basis = torch.randn(len(scale), 7, generator=generator, dtype=torch.float64)
    some, some_scale = full.normal_matrix(basis.__rmatmul__)
    expected = basis.T @ (normal * scale * scale[:, None]) @ basis
    assert relative(some * some_scale * some_scale[:, None], expected) <= 1e-12


def test_normal_matrix_of_float32_in_pieces(monkeypatch):
    """Pieces of rows and columns add up; sums are in float64 though J is in float32."""
    full = jacobian(textured(SMALL), survey=SMALL, dtype=torch.float32)
    monkeypatch.setattr(sys.modules[type(full).__module__], "ROWS", 37)
    monkeypatch.setattr(normal_matrix, "COLUMNS", 41)
    normal, scale = full.normal_matrix()
    exact = full.matrix.double().T @ full.matrix.double()
    assert relative(normal * scale * scale[:, None], exact) <= 1e-13


def test_a_float64_jacobian_survives_its_normal_matrix(monkeypatch):
    """Its pieces are not the memory that products are made in."""
    full = jacobian(textured(SMALL), survey=SMALL, dtype=torch.float64)
    before = full.matrix.clone()
    monkeypatch.setattr(sys.modules[type(full).__module__], "ROWS", 37)
    full.normal_matrix()
    assert torch.equal(full.matrix, before)


def test_products_of_two_matrices_in_pieces(monkeypatch):
    """The same bits for any number of threads; with itself one half is made."""
    for name in ("ROWS", "COLUMNS"):
        monkeypatch.setattr(normal_matrix, name, 7)
    a, b = (torch.randn(40, n, generator=torch.Generator().manual_seed(n)) for n in (16, 9))
    found, expected = normal_matrix.transposed_product(a, b, 1), a.double().T @ b.double()
    assert relative(found, expected) <= 1e-14
    assert torch.equal(normal_matrix.transposed_product(a, b, 2), found)
    half = normal_matrix.transposed_product(a, a, 1).triu()
    assert relative(half, (a.double().T @ a.double()).triu()) <= 1e-14


@NATIVE
@pytest.mark.parametrize("fraction", [1e-2, 0.3])
def test_normal_matrix_without_what_is_hidden(monkeypatch, fraction):
    """Less than `hidden` is left out of each row, in float64 and definite, whoever computes it."""
    for name, value in {"COLUMNS": 41, "MODES": 7, "PIECE": 5}.items():
        monkeypatch.setattr(normal_matrix, name, value)
    full = jacobian(textured(SMALL), survey=SMALL, dtype=torch.float32)
    exact = full.matrix.double().T @ full.matrix.double()
    rows = full.matrix.norm(dim=1)
    hidden = fraction * float(rows.max())
    normal, scale = full.normal_matrix(hidden=hidden, threads=2)
    found = normal * scale * scale[:, None]
    all_of_it, its_scale = full.normal_matrix(hidden=1e-12 * hidden)
    combined = all_of_it * its_scale * its_scale[:, None]  # rounded as this is, but whole
    most = 2 * hidden * len(rows) ** 0.5 * float(torch.linalg.matrix_norm(full.matrix, 2))
    left_out = float((found - combined).norm())
    assert 10 * float((combined - exact).norm()) < left_out < most
    assert relative(found[-1, -1], exact[-1, -1]) <= 1e-6  # vmin hides from no row
    assert torch.linalg.eigvalsh(normal)[0] > -1e-13 * len(scale)
    again, _ = full.normal_matrix(hidden=hidden, threads=1)
    assert torch.equal(again, normal)


def test_nothing_is_hidden_from_a_small_fraction(small):
    _, _, full, _ = small
    normal, scale = full.normal_matrix()
    found, found_scale = full.normal_matrix(hidden=1e-13 * float(scale.max()))
    found = found * found_scale * found_scale[:, None]
    assert relative(found, normal * scale * scale[:, None]) <= 1e-12


def test_projection(small):
    """Rows are coefficients of an orthonormal basis that holds what tangents make."""
    v, vmin, full, simulator = small
    y = torch.randn(len(full.matrix), dtype=torch.float64)
    assert torch.allclose(full.project(full.expand(y)), y)
    record = tangent(simulator, v, vmin, smooth_change(SMALL))
    assert relative(full.expand(full.project(record)), record) <= SMOOTH


@NATIVE
def test_rows_come_in_the_order_of_time(real):
    """Each is concentrated about its time, and early ones hardly know of cells that no wave has
    reached and come back from: what comes round from beyond the period is weaker than that."""
    v, _, full, _ = real
    nz, nx = OPENFWI.shape
    steps = torch.arange(1, OPENFWI.n_steps + 1, dtype=torch.float64)
    times = full.basis.square().T @ steps
    assert bool((times.diff() > 0).all())
    widths = (full.basis.square().T @ steps.square() - times.square()).sqrt()
    assert widths.max() <= 26
    rows = full.matrix[:, :-1].unflatten(0, (-1, len(times))).unflatten(2, (nz, nx))
    for depth, fraction in ((20, 5e-4), (40, 1.5e-3), (60, 3e-3)):
        there_and_back = 2 * (depth - 1) * OPENFWI.spacing / v.max() / OPENFWI.dt
        deep = rows[:, :, depth:].flatten(2).norm(dim=2).amax(0)
        assert deep[times < there_and_back].max() <= fraction * deep.max()


@NATIVE
def test_bits_do_not_depend_on_the_number_of_threads():
    """More points than one batch has, so that batches are shared."""
    survey = dataclasses.replace(SMALL, receivers=tuple((1, i) for i in range(SMALL.shape[1])))
    v = textured(survey, seed=6)
    one, three = (jacobian(v, survey=survey, threads=threads) for threads in (1, 3))
    assert torch.equal(one.matrix, three.matrix)
    assert torch.equal(one.normal_matrix(threads=1)[0], three.normal_matrix(threads=3)[0])


def test_wrong_input_is_named():
    v = textured(SMALL)
    with pytest.raises(ValueError, match=r"velocity of shape \(1, 12, 15\): expected \(12, 15\)"):
        jacobian(v[None], survey=SMALL)
    with pytest.raises(ValueError, match="every 9: expected 1 to 8"):
        jacobian(v, survey=SMALL, every=9)
    v[3, 3] = float("nan")
    with pytest.raises(ValueError, match="velocity is not finite and positive"):
        jacobian(v, survey=SMALL)
    full = jacobian(textured(SMALL), survey=SMALL)
    with pytest.raises(ValueError, match=r"expected \(2, 331, 5\)"):
        full.project(torch.zeros(2, 330, 5))
