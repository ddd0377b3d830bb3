"""Small surveys and maps for the tests of the wave operator."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave.cpu_library import load

NATIVE = pytest.mark.skipif(load() is None, reason="the compiled kernel was not built")
KERNELS = [pytest.param("native", marks=NATIVE), "reference"]
SMALL = Survey(
    shape=(9, 12),
    n_steps=61,
    absorbing_cells=8,
    velocity_bounds=(1000.0, 4600.0),
    sources=((1, 0), (1, 6), (4, 11)),
    receivers=(*((1, c) for c in range(12)), (5, 3), (0, 7)),
)
THREE_SHOTS = replace(
    OPENFWI,
    shape=(16, 20),
    n_steps=300,
    absorbing_cells=20,
    velocity_bounds=(1000.0, 5000.0),
    sources=((1, 0), (1, 10), (1, 19)),
    receivers=tuple((1, column) for column in range(20)),
)
TWO_SHOTS = replace(
    OPENFWI,
    shape=(12, 14),
    n_steps=200,
    absorbing_cells=12,
    velocity_bounds=(1000.0, 5000.0),
    sources=((1, 0), (1, 13)),
    receivers=tuple((1, column) for column in range(14)),
)


def tilted_layers():
    """Three tilted layers of integer velocity, (16, 20) float64 m/s, for `THREE_SHOTS`."""
    row, column = np.mgrid[:16, :20]
    v = np.select([row + column // 5 < 6, row + column // 7 < 11], [1700, 2301], 2903)
    return torch.from_numpy(v).double()


def random_maps(survey, samples=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (samples, *survey.shape)
    return 1500 + 3000 * torch.rand(shape, generator=generator, dtype=torch.float64)


def random_like(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def calls(survey, samples=2):
    """Every entry of the interface, as functions of a simulator that return a tensor."""
    v, dv = random_maps(survey, samples), random_like((samples, *survey.shape), 3)
    vmin = v.amin(dim=(1, 2))
    dvmin = torch.linspace(7.0, -3.0, samples, dtype=torch.float64)
    u = random_like((samples, *survey.record_shape), 4)
    return {
        "forward": lambda s: s.forward(v),
        "tangent": lambda s: s.tangent(v, dv, vmin, dvmin),
        "adjoint": lambda s: s.adjoint(v, u)[0],
        "adjoint by vmin": lambda s: s.adjoint(v, u)[1],
        "misfit": lambda s: s.misfit(v, u),
        "value": lambda s: s.misfit_and_gradient(v, u)[0],
        "gradient": lambda s: s.misfit_and_gradient(v, u)[1],
        "gradient by vmin": lambda s: s.misfit_and_gradient(v, u)[2],
        "wavefields": lambda s: s.wavefields(v),
    }
