"""Smooth maps: the strongest modes of a Gaussian process.

They are told by their energy under that process, which is small.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_refine.inversion.families.choices import (
    FAR_CYCLE_SKIP_MISFIT,
    every_cell,
    from_far,
    newton,
    smooth,
    style_a_modes,
    surface_minimum,
    unit_modes,
)
from fwi_refine.inversion.families.definition import FamilyDefinition
from fwi_refine.inversion.levels.rounding import without_expected_rounding
from fwi_refine.inversion.optimisers import LBFGS, GaussNewtonStep
from fwi_refine.inversion.recipe import NEARER_THAN_NETWORK, Recipe, Stage, Subset
from fwi_refine.priors import Priors
from fwi_refine.routing import Criterion

PUBLISHED_MIN_SCALE = 1.0  # m/s, least singular value
# the modes below that are worth 2e-5 rms of the record, more than its rounding
MIN_SCALE = 0.15
# The variance of a float32 record's rounding within the wavelet's band over the number of its
# samples: with it the objective is a log density.
NOISE = 2e-15

_published = Stage(
    style_a_modes(PUBLISHED_MIN_SCALE),
    unit_modes,
    1e-12,
    # unknowns count in standard deviations of their mode
    LBFGS(2500, gradient_tolerance=10**6.5, initial_step=0.01),
)


def _by_cells(*, rounding_is_noise: bool) -> Stage:
    """Every cell, with the mean rounding taken out of the record."""
    return newton(
        every_cell,
        smooth,
        2,
        weight=NOISE,
        data=Subset(take_out=without_expected_rounding),
        vmin=surface_minimum,
        rounding_is_noise=rounding_is_noise,
    )


def log_energy(v: NDArray[Any], record: NDArray[Any] | None, priors: Priors) -> float:
    """Natural logarithm of the energy of a map (nz, nx), m/s, under the process of Style A."""
    energy = float(priors.style_a.value(torch.from_numpy(np.asarray(v, np.float64))))
    # A map that equals the mean has energy 0; e^0 is far below any threshold as well.
    return float(np.log(max(energy, 1.0)))


FAMILY = FamilyDefinition(
    name="style-a",
    openfwi=("Style_A",),
    gauss_newton=Recipe(
        (
            *from_far(
                newton(
                    style_a_modes(PUBLISHED_MIN_SCALE),
                    unit_modes,
                    weight=NOISE,
                    prior_fraction=0.3,
                    max_damping_increases=6,
                ),
                near=FAR_CYCLE_SKIP_MISFIT,
            ),
            newton(
                style_a_modes(PUBLISHED_MIN_SCALE),
                unit_modes,
                3,
                weight=NOISE,
                prior_fraction=0.05,
                data=Subset(receivers=2),
            ),
            newton(style_a_modes(MIN_SCALE), unit_modes, 4, weight=NOISE, prior_fraction=0.05),
            _by_cells(rounding_is_noise=False),
            _by_cells(rounding_is_noise=True),
        ),
        round=False,
        nearer_below=NEARER_THAN_NETWORK,
    ),
    published=Recipe((_published, replace(_published, optimiser=GaussNewtonStep())), round=False),
    criterion=Criterion(
        "style_a_log_energy",
        log_energy,
        "Style A energy e^{:.2f} against e^{:.2f}",
        positive=lambda number, cells: float(np.exp(number)),
    ),
    # a start that is smooth because no network made it looks like Style A whatever it is
    others=("layered", "style-b"),
    large=False,
)
