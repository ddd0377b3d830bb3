"""Records with the released data's rounding: how near to exact ones, and with which errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from wave_cases import SMALL, random_maps

from fwi_refine.survey import OPENFWI
from fwi_refine.wave import Simulator, released_record


@pytest.fixture(scope="module")
def v():
    return random_maps(SMALL, samples=1)[0]


@pytest.fixture
def threads():
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def relative(a, b):
    return float((a.double() - b).norm() / b.norm())


def exact(v, survey=SMALL, vmin=None):
    return Simulator(survey).forward(v[None], None if vmin is None else torch.tensor([vmin]))[0]


def written_out(v, vmin, survey):
    """The scheme as the docstring of released_arithmetic.py states it, in numpy, one array at a
    time."""

    def rounded(x):
        return np.float32(x).astype(np.float64)

    margin, (nz, nx) = survey.absorbing_cells, survey.shape
    padded = np.pad(v, margin, mode="edge")
    by_row, by_column = survey.damping
    kappa = np.tile(by_column, (nz + 2 * margin, 1))
    kappa[:, margin : margin + nx] = by_row[:, None]
    alpha = (padded * survey.dt / survey.spacing) ** 2
    a, b = rounded(2 - vmin * kappa - 5 * alpha), rounded(1 - vmin * kappa)
    alpha, strength = rounded(alpha), rounded((padded * survey.dt) ** 2)
    record = np.zeros(survey.record_shape)
    receivers = tuple(survey.padded_index(survey.receivers).T)
    for shot, source in enumerate(survey.padded_index(survey.sources)):
        p, old = np.zeros((2, *padded.shape))
        for n, w in enumerate(rounded(survey.wavelet)):
            near, far = (
                sum(np.roll(p, k, axis) for k in (d, -d) for axis in (0, 1)) for d in (1, 2)
            )
            following = a * p - b * old + alpha * (rounded(4 / 3) * near + rounded(-1 / 12) * far)
            following[tuple(source)] += strength[tuple(source)] * w
            p, old = following, p
            record[shot, n] = p[receivers]
    return record


def test_it_is_the_scheme_with_every_coefficient_rounded(v):
    wanted = torch.from_numpy(written_out(v.numpy(), float(v.min()), SMALL))
    assert relative(released_record(v, survey=SMALL), wanted) < 1e-12


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_close_to_the_exact_record_but_not_equal(seed):
    v = random_maps(SMALL, samples=1, seed=seed)[0]
    record = released_record(v, survey=SMALL)
    assert record.shape == SMALL.record_shape
    assert record.dtype == torch.float64
    assert 1e-7 < relative(record, exact(v)) < 5e-6  # measured: 5e-7 to 1.1e-6


def test_the_rounded_coefficients_are_most_of_what_float32_does():
    survey = replace(
        OPENFWI,
        shape=(16, 20),
        n_steps=300,
        absorbing_cells=20,
        sources=((1, 10),),
        receivers=tuple((1, column) for column in range(20)),
    )
    v = torch.full(survey.shape, 1700.0, dtype=torch.float64)
    v[5:], v[11:] = 2301.0, 2903.0
    single = released_record(v, survey=survey, arithmetic=torch.float32)
    assert single.dtype == torch.float32
    by_coefficients = relative(single, released_record(v, survey=survey))
    assert 0 < by_coefficients < 0.4 * relative(single, exact(v, survey))


@pytest.mark.parametrize("arithmetic", [torch.float32, torch.float64])
def test_the_bits_do_not_depend_on_the_threads(v, threads, arithmetic):
    records = []
    for number in (1, 2):
        threads(number)
        records.append(released_record(v, survey=SMALL, arithmetic=arithmetic))
        assert torch.get_num_threads() == number
    assert torch.equal(*records)


def test_vmin_is_the_minimum_unless_it_is_given(v):
    record = released_record(v, survey=SMALL)
    assert torch.equal(record, released_record(v, v.min(), survey=SMALL))
    other = released_record(v, 4000.0, survey=SMALL)
    assert relative(other, record) > 1e-4
    assert relative(other, exact(v, vmin=4000.0)) < 5e-6


def test_the_map_may_be_float32_and_is_left_as_it_is(v):
    single = v.round().float()
    before = single.clone()
    record = released_record(single, survey=SMALL)
    assert torch.equal(record, released_record(v.round(), survey=SMALL))
    assert torch.equal(single, before)


@pytest.mark.parametrize("shape", [(12, 9), (1, 9, 12), (9,)])
def test_a_map_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(9, 12\)"):
        released_record(torch.full(shape, 2000.0), survey=SMALL)


@pytest.mark.parametrize("number", [1, 2])
def test_the_calling_thread_keeps_its_denormal_numbers(v, threads, number):
    threads(number)
    released_record(v, survey=SMALL)
    smallest = torch.full((100_000,), 1e-310, dtype=torch.float64)  # enough for several threads
    assert int((smallest * 1).count_nonzero()) == len(smallest)
