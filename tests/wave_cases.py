"""Small surveys and maps for the tests of the wave operator."""

import pytest
import torch

from fwi_refine.survey import Survey
from fwi_refine.wave.cpu import load

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


def random_maps(survey, samples=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (samples, *survey.shape)
    return 1500 + 3000 * torch.rand(shape, generator=generator, dtype=torch.float64)


def random_like(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)
