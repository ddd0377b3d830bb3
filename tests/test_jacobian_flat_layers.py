"""The Jacobian of flat layers from one simulation is that of the tangent, row by row."""

from dataclasses import replace

import pytest
import torch
from helpers import others_slow

from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave import (
    Simulator,
    first_return,
    flat_jacobian,
    flat_jacobian_shots,
    has_flat_jacobian,
    record_basis,
)
from fwi_refine.wave.cpu_library import load

NATIVE = pytest.mark.skipif(load() is None, reason="the compiled kernel was not built")
FIRST = replace(OPENFWI, sources=OPENFWI.sources[:1])
# receivers out of order; no wave comes round before the record ends
SMALL = Survey(
    shape=(14, 16),
    n_steps=230,
    absorbing_cells=45,
    frequency=25.0,
    sources=((2, 5), (2, 0)),
    receivers=((2, 15), (2, 0), (2, 7), (2, 5)),
    velocity_bounds=(1800.0, 4500.0),
)


def layers(survey, *velocities):
    """(nz,) m/s: layers of the same thickness."""
    each = -(-survey.shape[0] // len(velocities))
    return torch.tensor(velocities, dtype=torch.float64).repeat_interleave(each)[: survey.shape[0]]


def tangents(v, vmin, survey, changes):
    """Change of the record for changes (n, nz) of the layers: (n, shots, n_steps, receivers)."""
    n, shape = len(changes), survey.shape
    simulator = Simulator(survey)
    dv = changes[:, :, None].expand(n, *shape)
    vmin = torch.full((n,), vmin, dtype=torch.float64)
    return simulator.tangent(v[:, None].expand(n, *shape), dv, vmin)


def by_rows(v, vmin, survey, changes):
    """The same by `flat_jacobian`."""
    rows = flat_jacobian(v, vmin, survey=survey).double()
    return torch.einsum("srkz,tk,nz->nstr", rows, record_basis(survey), changes)


def errors(found, expected):
    """Relative error of each change."""
    off, size = (x.flatten(1).norm(dim=1) for x in (found - expected, expected))
    return off / size


def before_return(v, survey):
    """The steps before a wave has come round the grid."""
    return slice(0, int(first_return(v, survey) / survey.dt) - 20)


ROWS = (0, 1, 2, 9, 23, 24, 45, 60, 69)
SMOOTH = torch.stack([torch.ones(70), torch.linspace(-1, 2, 70), torch.linspace(0, 9, 70).sin()])


@NATIVE
@pytest.mark.parametrize(
    ("velocities", "single", "smooth"),
    others_slow(
        [((3200.0, 4400.0, 3500.0), 4e-2, 2e-2), ((1900.0, 2700.0, 2300.0, 3600.0), 2e-2, 3e-3)]
    ),
    ids=["so fast that a wave comes round", "slow"],
)
def test_rows_and_smooth_changes_of_the_real_survey(velocities, single, smooth):
    v = layers(OPENFWI, *velocities)
    vmin = 0.97 * float(v.min())
    changes = torch.cat([torch.eye(70)[list(ROWS)], SMOOTH]).double()
    found = by_rows(v, vmin, FIRST, changes)
    expected = tangents(v, vmin, FIRST, changes)
    steps = before_return(v, FIRST)
    assert (steps.stop < FIRST.n_steps) == (v[0] > 3000)
    off = errors(found[:, :, steps], expected[:, :, steps])
    assert off[: len(ROWS) - 1].max() <= single
    assert off[len(ROWS) - 1] <= 0.1  # the last, which the band below goes on with
    assert off[len(ROWS) :].max() <= smooth
    if v[0] > 3000:  # what comes round is not in it
        assert errors(found, expected).median() > 2 * off.median()


@NATIVE
def test_points_anywhere_in_the_row():
    v, changes = layers(SMALL, 2000.0, 2600.0, 2200.0), torch.eye(14).double()[[0, 3, 5, 13]]
    assert before_return(v, SMALL).stop > SMALL.n_steps
    found = by_rows(v, 1950.0, SMALL, changes)
    off = errors(found, tangents(v, 1950.0, SMALL, changes))
    assert off.max() <= 5e-2
    assert off.median() <= 1e-2


@NATIVE
def test_all_shots_come_from_one_simulation():
    v, five = layers(OPENFWI, 2000.0, 3000.0), replace(OPENFWI, n_steps=400)
    one = replace(five, sources=five.sources[3:4])
    batch, alone = (flat_jacobian(v, 2000.0, survey=survey) for survey in (five, one))
    assert batch.shape == (5, 70, record_basis(five).shape[1], 70)
    # narrower, as its offsets are shorter: the sides begin nearer
    assert (batch[3] - alone[0]).norm() <= 2e-3 * alone[0].norm()
    assert flat_jacobian_shots(one) < flat_jacobian_shots(five) == pytest.approx(379 / 310)


@NATIVE
def test_the_wave_that_comes_round_comes_when_it_is_expected():
    """Down and round the grid, in the columns of little damping: not before, but then."""
    v = layers(OPENFWI, 3200.0, 4400.0, 3500.0)
    assert first_return(v) == pytest.approx(float(120 / 320 + (10 / v).sum() + 120 / 350))
    wide = replace(FIRST, absorbing_cells=180)  # where it takes longer
    records = [
        Simulator(survey).forward(v[:, None].expand(1, 70, 70))[0, 0] for survey in (FIRST, wide)
    ]
    comes = int(first_return(v) / OPENFWI.dt)
    near, later = ((records[0] - records[1])[:, 0] ** 2).split([comes - 20, 999 - comes + 20])
    assert later.max() > 100 * near[500:].max()


@pytest.mark.parametrize(
    "changes",
    [
        {"sources": ((1, 0), (2, 5))},
        {"receivers": ((3, 0), (3, 5))},
        {"sources": ((-1, 0),), "receivers": ((-1, 3),)},
        {"sources": ((1, -2),)},
        {"absorbing_cells": 0},
    ],
    ids=["two depths of sources", "deeper receivers", "above the map", "beside it", "no band"],
)
def test_surveys_that_it_is_not_for_are_refused(changes):
    survey = replace(OPENFWI, **changes)
    assert has_flat_jacobian(OPENFWI)
    assert not has_flat_jacobian(survey)
    with pytest.raises(ValueError, match="at one depth, within the map, and an absorbing band"):
        flat_jacobian(torch.full((70,), 2000.0), 2000.0, survey=survey)
