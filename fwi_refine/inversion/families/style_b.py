"""Rough maps: every cell, with a Gaussian process, then with total variation or a learned prior.

They are told by their velocities, of which none is common: the most frequent round(v / 3) covers
few cells.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwi_refine.inversion.families.choices import (
    FAR_CYCLE_SKIP_MISFIT,
    MakePrior,
    edges,
    every_cell,
    from_far,
    learned,
    newton,
    rough,
    surface_minimum,
)
from fwi_refine.inversion.families.definition import FamilyDefinition
from fwi_refine.inversion.levels.rounding import without_expected_rounding
from fwi_refine.inversion.optimisers import LBFGS, VariationalGaussNewton
from fwi_refine.inversion.recipe import GOOD_FIT, NEARER_THAN_NETWORK, Recipe, Stage, Subset
from fwi_refine.priors import Priors
from fwi_refine.routing import Criterion

# ten times that of Style A (style_a.py): every cell explains ten times its part of the noise
NOISE = 2e-14
# Mean square misfit (2.5e-5 rms) at which the Gaussian process has done its part: below, the map
# takes up the rounding of the record, 1.7e-5 rms.
NEAR_NOISE = 6.25e-10

_published = Stage(every_cell, rough, 1e-15, LBFGS(1500))


def _with_edges(*noise: float, prior: MakePrior = edges, **options: Any) -> Stage:
    """A Jacobian for each noise, rms of a coefficient; the mean rounding is taken out."""
    return Stage(
        every_cell,
        prior,
        NOISE,
        VariationalGaussNewton(noise, corrections=20),
        data=Subset(take_out=without_expected_rounding),
        vmin=surface_minimum,
        **options,
    )


def most_frequent(v: NDArray[Any], record: NDArray[Any] | None, priors: Priors) -> float:
    """Cells of a map (nz, nx), m/s, that have its most frequent velocity."""
    _, counts = np.unique(np.round(v / priors.routing.style_b_bin), return_counts=True)
    return float(counts.max())


FAMILY = FamilyDefinition(
    name="style-b",
    openfwi=("Style_B",),
    gauss_newton=Recipe(
        (
            *from_far(
                newton(
                    every_cell, rough, weight=NOISE, prior_fraction=0.3, max_damping_increases=6
                ),
                near=FAR_CYCLE_SKIP_MISFIT,
            ),
            newton(every_cell, rough, 8, weight=NOISE, prior_fraction=0.05, target=NEAR_NOISE),
        ),
        round=False,
        nearer_below=NEARER_THAN_NETWORK,
    ),
    published=Recipe(
        (_published, replace(_published, optimiser=LBFGS(7500, target=GOOD_FIT))), round=False
    ),
    criterion=Criterion(
        "style_b_cells",
        most_frequent,
        "most frequent velocity in {:.0f} cells against {:.0f}",
    ),
    others=("layered",),
    endings={
        "tv": (
            _with_edges(2e-4),
            _with_edges(3e-5, 2e-5, 2e-5, rounding_is_noise=True),
        ),
        # the learned prior begins where total variation nearly ends, and is dropped where the
        # record tells that its map is wrong
        "learned": (
            _with_edges(2e-4),
            _with_edges(3e-5, 2e-5, rounding_is_noise=True),
            _with_edges(3e-5, 3e-5, prior=learned, rounding_is_noise=True, must_fit=True),
        ),
    },
    prior="learned",
    large=False,
)
