"""A small survey, maps with texture, and differences, for the tests of Jacobians."""

import torch

from fwi_refine.survey import OPENFWI, Survey

# one source where no receiver stands, one inside the map; a receiver in the band, and one twice
SMALL = Survey(
    shape=(12, 15),
    n_steps=331,
    absorbing_cells=16,
    velocity_bounds=(1000.0, 5000.0),
    sources=((1, 3), (6, 9)),
    receivers=((1, 0), (1, 3), (2, 14), (-2, 5), (1, 0)),
)
SINGLE, SMOOTH, VMIN = 2e-3, 7e-4, 2e-3
TRANSPOSE = 3e-5


def textured(survey=OPENFWI, seed=0, rough=150.0, step=800.0):
    """Depth trend, a dipping contrast, and texture that changes from cell to cell."""
    generator = torch.Generator().manual_seed(seed)
    nz, nx = survey.shape
    depth, column = torch.meshgrid(torch.arange(nz), torch.arange(nx), indexing="ij")
    v = 1900 + 1300 * depth / nz + step * (depth / nz + 0.3 * column / nx > 0.6)
    v = v + rough * torch.randn(nz, nx, generator=generator)
    return v.double().clamp(1500, 4500)


def smooth_change(survey, seed=3):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 1, 6, 6, generator=generator, dtype=torch.float64)
    size = {"size": survey.shape, "mode": "bicubic", "align_corners": True}
    return torch.nn.functional.interpolate(coarse, **size)[0, 0]


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


def column(full, cell):
    nx = full.survey.shape[1]
    index = -1 if cell is None else cell[0] * nx + cell[1]
    return full.expand(full.matrix[:, index])


def tangent(simulator, v, vmin, dv=None, dvmin=0.0):
    dv = torch.zeros_like(v) if dv is None else dv
    dvmin = torch.tensor([dvmin], dtype=torch.float64)
    return simulator.tangent(v[None], dv[None], vmin[None], dvmin)[0]


def transpose_errors(full, simulator, v, vmin, dv):
    """Relative difference of J^T u from the adjoint's, u the residual of a map dv away."""
    start = v + dv
    u = (simulator.forward(start[None], vmin[None]) - simulator.forward(v[None], vmin[None]))[0]
    by_v, by_vmin = simulator.adjoint(v[None], u[None], vmin[None])
    found, found_vmin = full.rmatvec(u)
    return relative(found, by_v[0]), float(abs(found_vmin / by_vmin[0] - 1))
