"""Records in the released data's arithmetic: the same bits from every kernel, and theirs."""

import hashlib
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from wave_cases import KERNELS, NATIVE, SMALL, random_maps

from fwi_refine.survey import OPENFWI
from fwi_refine.synthetic import make_record
from fwi_refine.wave import Simulator, first_differences, released_record
from fwi_refine.wave.cpu import INSTRUCTION_SETS
from fwi_refine.wave.cpu_library import load

PAIR = Path(__file__).parents[2] / "shared/data/real/pair_curvefault_b.npz"
LONG = replace(SMALL, absorbing_cells=20, n_steps=180)
# a grid that waves go around while others have not yet come: (shape, band, steps)
GRIDS = [((20, 25), 25, 300), ((5, 40), 10, 200), ((30, 7), 13, 150), ((12, 1100), 8, 60)]


@pytest.fixture(scope="module")
def v():
    return random_maps(LONG, samples=1)[0]


def written_out(v, survey):
    """The scheme of released_arithmetic.py in numpy, one operation at a time."""
    single = np.float32
    margin, (nz, nx) = survey.absorbing_cells, survey.shape
    x = np.pad(v.astype(single), margin, mode="edge") * single(survey.dt)
    alpha = np.square(x * single(1 / survey.spacing))
    by_row, by_column = survey.damping
    kappa = np.tile(by_column, (nz + 2 * margin, 1))
    kappa[:, margin : margin + nx] = by_row[:, None]
    kappa = (float(v.astype(single).min()) * kappa).astype(single)
    record = np.zeros(survey.record_shape, single)
    receivers = tuple(survey.padded_index(survey.receivers).T)
    for shot, source in enumerate(map(tuple, survey.padded_index(survey.sources))):
        p, old = np.zeros((2, *x.shape), single)
        for n, w in enumerate(survey.wavelet.astype(single)):
            near, far = (
                ((np.roll(p, k, 0) + np.roll(p, -k, 0)) + np.roll(p, k, 1)) + np.roll(p, -k, 1)
                for k in (1, 2)
            )
            after = (((2 - 5 * alpha) - kappa) * p - (1 - kappa) * old) + alpha * (
                single(4 / 3) * near + single(-1 / 12) * far
            )
            after[source] += np.square(x[source]) * w
            p, old = after, p
            record[shot, n] = p[receivers]
    return record


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_bits_are_those_of_the_formula(kernel, v):
    record = released_record(v, survey=LONG, kernel=kernel).numpy()
    assert record.dtype == np.float32
    np.testing.assert_array_equal(record, written_out(v.numpy(), LONG))


@NATIVE
@pytest.mark.parametrize(("grid", "seed"), [*itertools.product(GRIDS, (0, 1))], ids=str)
def test_any_grid_and_instruction_set_has_the_bits_of_the_reference(grid, seed):
    """Receivers where no wave has come yet as well, where there are subnormal numbers."""
    (shape, band, steps), rng = grid, np.random.default_rng(seed)

    def places(number, margin):
        rows = rng.integers(-margin, shape[0] + margin, number)
        columns = rng.integers(-margin, shape[1] + margin, number)
        return tuple(zip(rows.tolist(), columns.tolist(), strict=True))

    survey = replace(
        OPENFWI,
        shape=shape,
        absorbing_cells=band,
        velocity_bounds=(1000.0, 4600.0),
        n_steps=steps,
        sources=places(2, 0),
        receivers=places(30, band),
    )
    v = torch.from_numpy(rng.uniform(1500, 4500, shape))[None]
    expected = Simulator(survey, kernel="reference").released(v)
    for isa in range(load().fwi_best_isa() + 1):
        simulator = Simulator(survey, torch.float32, "native", threads=2)
        simulator._kernel._sizes["isa"] = isa
        assert torch.equal(simulator.released(v), expected), INSTRUCTION_SETS[isa]


def test_a_made_record_has_the_bits_that_it_had(v):
    """Layers and a fault; the digest was taken where the released pair had its bits as well."""
    velocity = np.full((70, 70), 1703, np.float32)
    velocity[20:], velocity[41:], velocity[55:] = 2411, 2937, 3768
    velocity[14:, 44:] = np.roll(velocity, -6, axis=0)[14:, 44:]
    velocity[64:, 44:] = 3768
    digest = hashlib.sha256(make_record(velocity).tobytes()).hexdigest()
    assert digest == "52e36518a045227757115c078836a52b2352287c61d5a1b2c95141380aa4539f"


@pytest.mark.skipif(not PAIR.exists(), reason="the released pair is not here")
def test_the_released_pair():
    with np.load(PAIR) as pair:
        record, truth = pair["record"], torch.from_numpy(pair["truth"])
    np.testing.assert_array_equal(released_record(truth).numpy(), record[:, :999])
    assert int(first_differences(truth, record).min()) == OPENFWI.n_steps
    truth[69, 35] += 1  # one cell of the last row
    first = first_differences(truth, record)
    assert int((first < OPENFWI.n_steps).sum()) == first.numel()
    assert 400 < int(first.min()) < 500  # there and back


@pytest.mark.parametrize("kernel", KERNELS)
def test_first_differences(kernel, v):
    record = released_record(v, survey=LONG)
    longer = np.concatenate([record.numpy(), np.full((3, 5, 14), np.nan, np.float32)], axis=1)

    def found(data, **how):
        return first_differences(v, data, survey=LONG, kernel=kernel, **how)

    assert found(longer).shape == (3, 14)
    assert bool((found(longer) == LONG.n_steps).all())
    longer[1, 40, 3] = np.nextafter(longer[1, 40, 3], np.float32(9))
    longer[1, 70:90, 5] += 1
    longer[2, 100, 0] = np.nan
    first = found(longer)
    assert [int(first[1, 3]), int(first[1, 5]), int(first[2, 0])] == [40, 70, 100]
    assert int((first < LONG.n_steps).sum()) == 3
    stopped = found(longer, stop=True)
    assert [int(stopped[1].min()), int(stopped[2].min())] == [40, 100]
    assert int(stopped[0].min()) == LONG.n_steps


def test_the_released_record_is_near_the_one_of_an_inversion(v):
    record = released_record(v, survey=LONG).double()
    exact = Simulator(LONG).forward(v[None])[0]
    assert 1e-8 < float((record - exact).norm() / exact.norm()) < 5e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bits_depend_neither_on_precision_nor_batch_nor_threads(v, dtype):
    other = random_maps(LONG, samples=1, seed=5)[0]
    for threads in (1, 2):
        many = Simulator(LONG, dtype, threads=threads).released(torch.stack([other, v, v]))
        assert torch.equal(many[1], released_record(v, survey=LONG))
        assert torch.equal(many[1], many[2])


@NATIVE
def test_subnormal_numbers_are_there_whatever_the_process_does_with_them():
    """torch can be told to take them for zero; a record begins with some far from the source."""
    wide = replace(
        LONG, shape=(9, 80), sources=((1, 0),), receivers=tuple((1, c) for c in range(80))
    )
    v = random_maps(wide, samples=1)[0]
    record = released_record(v, survey=wide)
    least = torch.finfo(torch.float32).smallest_normal
    assert bool(((record != 0) & (record.abs() < least)).any())
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot be told to")
    try:
        flushed = released_record(v, survey=wide, threads=1)
    finally:
        torch.set_flush_denormal(False)
    assert flushed.numpy().tobytes() == record.numpy().tobytes()


def test_vmin_is_the_minimum_unless_it_is_given(v):
    record = released_record(v, survey=LONG)
    assert torch.equal(record, released_record(v, v.float().min(), survey=LONG))
    assert not torch.equal(record, released_record(v, 4000.0, survey=LONG))


def test_the_map_may_be_float32_and_is_left_as_it_is(v):
    single = v.round().float()
    before = single.clone()
    record = released_record(single, survey=LONG)
    assert torch.equal(record, released_record(v.round(), survey=LONG))
    assert torch.equal(single, before)


@pytest.mark.parametrize("shape", [(12, 9), (1, 9, 12), (9,)])
def test_a_map_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(9, 12\)"):
        released_record(torch.full(shape, 2000.0), survey=LONG)


@pytest.mark.parametrize("velocity", [torch.nan, torch.inf, -2000.0])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_velocity_that_cannot_be_simulated_is_refused(velocity, kernel):
    with pytest.raises(ValueError, match="velocity is not finite and positive"):
        released_record(torch.full((9, 12), velocity), survey=LONG, kernel=kernel)
