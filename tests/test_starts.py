"""A start without a network: the filter that makes a record one of a lower frequency."""

import dataclasses

import numpy as np
import pytest
import torch

from fwi_refine.starts import lower_frequency, start_from_record
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave import Simulator

SMALL = Survey(
    shape=(20, 24),
    n_steps=600,
    file_rows=600,
    absorbing_cells=20,
    sources=((1, 4), (1, 18)),
    receivers=tuple((1, column) for column in range(24)),
)


def velocity(seed=0):
    generator = torch.Generator().manual_seed(seed)
    v = 2000 + 40 * torch.arange(20, dtype=torch.float64)[:, None].expand(20, 24)
    return v + 50 * torch.randn(20, 24, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("frequency", "bound"), [(10.0, 5e-4), (6.0, 2e-3), (4.0, 5e-3)])
def test_a_filtered_record_is_that_of_the_lower_frequency(frequency, bound):
    """What differs are the cut ends of the wavelets, which grow with its length."""
    v = velocity()
    record = Simulator(SMALL).forward(v[None])[0].numpy()
    lower, filtered = lower_frequency(record, frequency, SMALL)
    assert lower == dataclasses.replace(SMALL, frequency=frequency)
    expected = Simulator(lower).forward(v[None])[0].numpy()
    assert filtered.shape == expected.shape
    assert np.linalg.norm(filtered - expected) < bound * np.linalg.norm(expected)


@pytest.mark.parametrize("frequency", [15.0, 20.0, 0.0])
def test_a_frequency_that_is_not_lower_is_refused(frequency):
    with pytest.raises(ValueError, match="expected less than"):
        lower_frequency(np.zeros(SMALL.record_shape), frequency, SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["CurveVel_A", "Style_A"])
def test_a_record_alone_gives_a_start_that_fits_as_a_networks_does(family):
    from fwi_refine.synthetic import make_sample

    sample = make_sample(family, seed=11)
    v = torch.from_numpy(start_from_record(sample.record))
    record = torch.from_numpy(sample.record[None, :, : OPENFWI.n_steps]).double()
    misfit = float(Simulator().misfit(v[None], record)[0]) ** 0.5
    assert misfit < 0.2 * float(record.square().mean()) ** 0.5
    constant = torch.full_like(v, float(np.median(sample.truth)))
    truth = torch.from_numpy(sample.truth).double()
    assert (v - truth).abs().mean() < 0.3 * (constant - truth).abs().mean()
