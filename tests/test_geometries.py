"""The Jacobian by reciprocity wherever sources and receivers stand, against tangent and adjoint."""

import dataclasses

import pytest
import torch
from helpers import others_slow
from jacobian_cases import (
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
from wave_cases import KERNELS

from fwi_refine.survey import Survey
from fwi_refine.wave import Simulator, jacobian, jacobian_bytes

SINGLE = 3e-3  # what jacobian/full.py states
BASE = Survey(
    shape=(13, 17),
    n_steps=300,
    absorbing_cells=14,
    velocity_bounds=(1000.0, 5000.0),
    sources=((1, 3), (1, 12)),
    receivers=tuple((1, c) for c in range(0, 17, 4)),
)
GEOMETRIES = {
    "no source at a receiver": {},
    "sources below": {"sources": ((12, 2), (9, 16)), "receivers": ((0, 5), (1, 11))},
    "more sources than receivers": {
        "sources": tuple((2, c) for c in range(0, 17, 2)),
        "receivers": ((1, 4), (11, 9)),
    },
    "a well": {
        "sources": tuple((row, 8) for row in (0, 4, 12)),
        "receivers": tuple((row, 15) for row in range(1, 13, 3)),
    },
    "receivers in the band": {"receivers": ((-9, 4), (20, 8), (3, -6), (-3, 25), (6, 21))},
    "sources in the band": {
        "sources": ((-8, 4), (18, 20), (5, -10)), "receivers": ((1, 4), (4, 0))
    },
    "all of it in corners of the band": {
        "sources": ((-9, -9), (21, 25)), "receivers": ((-9, 25), (21, -9))
    },
    "a tall map": {
        "shape": (21, 9), "sources": ((20, 0),), "receivers": ((0, 8), (10, 4)), "n_steps": 350
    },
    "larger cells": {"spacing": 25.0, "frequency": 7.0, "dt": 2e-3, "n_steps": 320},
    "small cells": {"spacing": 0.5, "frequency": 300.0, "dt": 5e-5},
    "a wide row of cells": {
        "shape": (4, 30), "sources": ((2, 0),), "receivers": ((1, 29), (3, 10))
    },
    "one point for all": {"sources": ((1, 4),), "receivers": ((1, 4),)},
}  # fmt: skip


@pytest.fixture(scope="module", params=GEOMETRIES)
def survey(request):
    return dataclasses.replace(BASE, **GEOMETRIES[request.param])


# both kernels have the same Jacobian by default: tests/test_jacobian.py, test_kernels_agree
@pytest.mark.parametrize("kernel", others_slow(KERNELS))
def test_columns_and_transpose(survey, kernel):
    """Every cell, or some of them where it takes long; vmin; a smooth change; J^T u."""
    v = textured(survey, seed=2)
    vmin = 0.9 * v.min()
    full = jacobian(v, vmin, survey=survey, dtype=torch.float64, kernel=kernel)
    simulator = Simulator(survey, kernel=kernel, imaging_step=1)
    indices = torch.arange(0, v.numel(), 41 if kernel == "reference" else 2)
    cells = torch.eye(v.numel(), dtype=v.dtype)[indices].unflatten(1, v.shape)
    many = simulator.tangent(v.expand_as(cells), cells, vmin.expand(len(cells)))
    largest = many.flatten(1).norm(dim=1).max()
    for index, expected in zip(indices.tolist(), many, strict=True):
        # a cell behind the receivers may hardly be seen: then what is left out counts
        error = (full.expand(full.matrix[:, index]) - expected).norm()
        assert error <= SINGLE * max(expected.norm(), 0.1 * largest), divmod(index, v.shape[1])
    assert relative(column(full, None), tangent(simulator, v, vmin, dvmin=1.0)) <= VMIN
    dv = smooth_change(survey)
    assert relative(full.matvec(dv), tangent(simulator, v, vmin, dv)) <= SMOOTH
    assert full.matrix.nbytes / 2 < jacobian_bytes(survey)  # in float32
    by_v, by_vmin = transpose_errors(full, simulator, v, vmin, 30 * dv)
    assert by_v <= TRANSPOSE
    assert by_vmin <= 1e-3


def test_finite_differences(survey):
    """The Jacobian against differences of records: no other derivative in between."""
    v = textured(survey, seed=3)
    vmin = v.min()
    simulator = Simulator(survey)
    dv = smooth_change(survey, seed=6)
    ahead, behind = (simulator.forward((v + h * dv)[None], vmin[None])[0] for h in (1.0, -1.0))
    full = jacobian(v, vmin, survey=survey)
    assert relative(full.matvec(dv), (ahead - behind) / 2) <= 2 * SMOOTH
