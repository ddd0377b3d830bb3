"""The scheme's dispersion and stability, against waves that are simulated with it."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from fwi_refine.survey import OPENFWI, Survey, check_velocity
from fwi_refine.survey.stability import CFL_LIMIT, HALF_POWER, fastest_stable, phase_velocity_error
from fwi_refine.wave import (
    RecordMisfit,
    Simulator,
    WaveSimulator,
    first_differences,
    flat_jacobian,
    jacobian,
    released_record,
    simulate,
)
from fwi_refine.wave.grid import C1, C2, C3, pad
from fwi_refine.wave.reference import ReferenceKernel

FRACTIONS = (-5 / 2, 4 / 3, -1 / 12)  # which the kernels have as float32 does


def step(p, alpha):
    """alpha L p along one axis, on cells that wrap around."""
    near, far = (np.roll(p, k) + np.roll(p, -k) for k in (1, 2))
    c1, c2, c3 = FRACTIONS
    return alpha * (c1 * p + c2 * near + c3 * far)


@pytest.mark.parametrize("points", [3, 4, 5, 8, 16])
@pytest.mark.parametrize("courant", [0.1, 0.4])
def test_a_plane_wave_travels_at_the_speed_that_is_stated(points, courant):
    """A wave of so many cells, stepped with the scheme's own fractions, turns by w dt each step."""
    v, spacing, dt = courant * 10 / 1e-3, 10.0, 1e-3
    cells, steps = np.arange(points), 200
    k = 2 * np.pi / points  # per cell
    half_turn = math.sqrt(-step(np.cos(k * cells), courant**2)[0]) / 2
    frequency = math.asin(half_turn) / (math.pi * dt)
    turn = 2 * math.pi * frequency * dt
    old, p = np.cos(k * cells + turn), np.cos(k * cells)
    for _ in range(steps):
        old, p = p, 2 * p - old + step(p, courant**2)
    np.testing.assert_allclose(p, np.cos(k * cells - steps * turn), atol=1e-9)
    true = frequency * points * spacing / v - 1
    assert phase_velocity_error(v, frequency, spacing, dt) == pytest.approx(true, abs=1e-12)


def test_the_kernels_have_these_fractions_as_float32_does():
    assert np.array_equal((C1, C2, C3), np.array(FRACTIONS, dtype=np.float32).astype(np.float64))


def test_what_the_grid_does_not_carry():
    assert phase_velocity_error(1000.0, 37.5, 10.0, 1e-3) == -1.0
    assert phase_velocity_error(1000.0, 400.0, 10.0, 2e-3) == -1.0


def test_the_numbers_that_are_written_about_openfwi():
    frequency = HALF_POWER * OPENFWI.frequency
    errors = [phase_velocity_error(v, frequency, 10.0, 1e-3) for v in (1500.0, 1000.0)]
    assert errors == pytest.approx([-0.0028, -0.0165], abs=1e-4)
    assert OPENFWI.dispersion == -errors[1]
    # Alford, Kelly and Boore's 5.5 points in a wavelength
    assert phase_velocity_error(5.5 * 10 * 20, 20.0, 10.0, 1e-6) == pytest.approx(-0.0087, abs=1e-4)
    square = HALF_POWER**2  # of the spectrum of a Ricker wavelet, relative to its peak
    assert square * math.exp(1 - square) == pytest.approx(2**-0.5, rel=1e-3)


@pytest.mark.parametrize("damping", [0.0, 0.5, 1.0])
def test_the_fastest_stable_velocity(damping):
    """The roots of the step of the wave that alternates from cell to cell."""
    stable = fastest_stable(10.0, 1e-3, damping)

    def growth(v):
        a = 32 / 3 * (v * 1e-3 / 10) ** 2
        return max(abs(np.roots([1, -(2 - damping - a), 1 - damping])))

    assert growth(0.999 * stable) <= 1 + 1e-9
    assert growth(1.001 * stable) > 1.001
    assert fastest_stable(10.0, 1e-3) == CFL_LIMIT * 10 / 1e-3


def damped_survey(**changes):
    """A map in a band so narrow that its damping matters: (survey, vmin, limit at the edges)."""
    survey = Survey(
        shape=(20, 20),
        n_steps=1500,
        absorbing_cells=10,
        sources=((10, 10),),
        receivers=((4, 4),),
        velocity_bounds=(1000.0, 4500.0),
    )
    vmin = 2000.0
    limit = fastest_stable(10.0, 1e-3, vmin * max(survey.damping[0]))
    assert limit < 0.9 * fastest_stable(10.0, 1e-3)
    return dataclasses.replace(survey, **changes), torch.tensor([vmin]).double(), limit


@pytest.mark.parametrize(
    ("band", "fraction", "grows"),
    [(0, 0.999, False), (0, 1.01, True), (10, 0.999, False), (10, 1.1, True)],
)
def test_a_simulation_at_the_limit(fraction, grows, band):
    """Waves grow beyond it, in a band only a little later, as few of its cells are damped most."""
    survey, vmin, limit = damped_survey(absorbing_cells=band)
    bound = fraction * (limit if band else fastest_stable(10.0, 1e-3))
    v = torch.full((1, 20, 20), bound, dtype=torch.float64)
    alpha = pad(v, survey).square() * (survey.dt / survey.spacing) ** 2
    record, _ = ReferenceKernel(survey, torch.float64, 1, 1)._propagate(alpha, vmin, store=False)
    assert (not float(record.abs().max()) < 1e4) == grows
    assert Simulator(survey).is_stable(v, vmin) != grows
    if grows:
        for kernel in ("auto", "reference"):
            with pytest.raises(ValueError, match="too high for the time step"):
                Simulator(survey, kernel=kernel).forward(v, vmin)
    else:
        assert torch.allclose(Simulator(survey).forward(v, vmin), record, rtol=1e-9, atol=1e-12)


def test_cells_inside_the_map_are_not_damped():
    survey, vmin, limit = damped_survey()
    v = torch.full((1, 20, 20), 0.99 * limit, dtype=torch.float64)
    v[:, 8:12, 8:12] = 0.99 * fastest_stable(10.0, 1e-3)
    record = Simulator(survey).forward(v, vmin)
    assert float(record.abs().max()) < 1e4
    v[:, 0, 8] = v[:, 8, 8]
    with pytest.raises(ValueError, match="in edge cells"):
        Simulator(survey).forward(v, vmin)


@pytest.mark.parametrize("vmin", [0.0, -1500.0, math.nan, math.inf])
@pytest.mark.parametrize("call", ["forward", "released"])
def test_a_vmin_that_is_no_velocity(vmin, call):
    survey, _, _ = damped_survey(n_steps=50)
    v = torch.full((2, 20, 20), 2000.0, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"map 1: vmin of"):
        getattr(Simulator(survey, torch.float32), call)(v, torch.tensor([2000.0, vmin]))


TOO_FAST = torch.full((1, 70, 70), 6000.0)  # within OpenFWI's bounds
ENTRIES = {
    "Simulator": lambda: Simulator().forward(TOO_FAST),
    "released": lambda: Simulator().released(TOO_FAST),
    "released_record": lambda: released_record(TOO_FAST[0]),
    "first_differences": lambda: first_differences(TOO_FAST[0], torch.zeros(5, 1000, 70)),
    "wavefields": lambda: Simulator().wavefields(TOO_FAST),
    "misfit": lambda: Simulator().misfit(TOO_FAST, torch.zeros(1, 5, 999, 70)),
    "simulate": lambda: simulate(TOO_FAST),
    "WaveSimulator": lambda: WaveSimulator()(TOO_FAST),
    "RecordMisfit": lambda: RecordMisfit()(TOO_FAST, torch.zeros(1, 5, 1000, 70)),
    "jacobian": lambda: jacobian(TOO_FAST[0]),
    "flat_jacobian": lambda: flat_jacobian(TOO_FAST[0, :, 0], 6000.0),
    "check_velocity": lambda: check_velocity(TOO_FAST[0].numpy()),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_refuses_a_map_beyond_the_limit(entry):
    with pytest.raises(ValueError, match="stable"):
        ENTRIES[entry]()


@pytest.mark.parametrize("fastest", [5900.0, 6000.0])
def test_the_bounds_are_within_the_limit(fastest):
    """Of a band so narrow that a map with half of that as its minimum would grow."""
    narrow = {"absorbing_cells": 20, "velocity_bounds": (1000.0, fastest)}
    with pytest.raises(ValueError, match="more absorbing cells, or a lower bound"):
        dataclasses.replace(OPENFWI, **narrow)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"dt": 1.2e-3}, r"stable up to 5008 m/s. Expected dt of at most 0.001 s, or a spacing"),
        ({"spacing": 9.0}, r"or a spacing of at least 9.96 m, or a lower"),
        ({"spacing": 14.0}, r"3.3 points of 14 m .*at most 5%: a spacing of at most 12.8 m"),
        ({"frequency": 20.0}, r"a wavelet of at most 19.2 Hz, or a slowest velocity of at least"),
        ({"velocity_bounds": (700.0, 6000.0)}, r"at 700 m/s.*wrong.*velocity of at least 779.5 m"),
        ({"velocity_bounds": (3000.0, 2000.0)}, "expected 0 < slowest < fastest"),
        ({"dt": 0.0}, "dt is 0.0, expected a number above 0"),
        ({"spacing": math.nan}, "spacing is nan"),
        ({"frequency": -1.0}, "frequency is -1.0"),
    ],
)
def test_a_survey_that_cannot_be_simulated_is_refused_and_told_what_to_change(change, expected):
    with pytest.raises(ValueError, match=expected):
        dataclasses.replace(OPENFWI, **change)


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ({"dt": 1.2e-3}, {"dt": 0.001}),
        ({"spacing": 9.0}, {"spacing": 9.96}),
        ({"spacing": 14.0}, {"spacing": 12.8}),
        ({"frequency": 20.0}, {"frequency": 19.2}),
        ({"velocity_bounds": (700.0, 6000.0)}, {"velocity_bounds": (779.5, 6000.0)}),
    ],
)
def test_what_it_is_told_is_enough(bad, good):
    with pytest.raises(ValueError, match="Expected"):
        dataclasses.replace(OPENFWI, **bad)
    assert dataclasses.replace(OPENFWI, **good).dispersion <= 0.05


@pytest.mark.parametrize("factor", [0.1, 2.5])
def test_records_of_a_survey_at_another_scale(factor):
    """Lengths and times so many times as large: the same record, `unit` times as large."""
    small = Survey(
        shape=(12, 14),
        n_steps=200,
        absorbing_cells=12,
        sources=((1, 2),),
        receivers=((1, 9),),
        velocity_bounds=(1000.0, 5000.0),
    )
    scaled = dataclasses.replace(
        small,
        spacing=small.spacing * factor,
        dt=small.dt * factor,
        frequency=small.frequency / factor,
    )
    v = 1500 + 2000 * torch.rand(
        1, 12, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    record, other = (Simulator(survey).forward(v) for survey in (small, scaled))
    assert small.unit == 1.0
    assert torch.allclose(other, scaled.unit * record, rtol=1e-9, atol=1e-12)
