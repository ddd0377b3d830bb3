"""Layers, faults and bodies with edges: every cell by total variation, then a level for each.

Total variation finds the layers, smoothed at first, because a blurred start has no edges yet, then
as a density that is settled with each Jacobian, on the record without the rounding that its levels
tell. Then the levels are known well enough for each cell to be given its own; where edges turn out
blended of two levels, cells are drawn to the levels instead, more and more narrowly. A sample that
passes no test of another family belongs here.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from fwi_refine.inversion.families.choices import (
    every_cell,
    few_levels,
    from_far,
    layers_smoothed,
    levels_and_edges,
    lowest_level,
    newton,
    settled_on,
    sharp_edges,
    tied,
)
from fwi_refine.inversion.families.definition import FamilyDefinition
from fwi_refine.inversion.optimisers import LBFGS
from fwi_refine.inversion.recipe import (
    GOOD_FIT,
    NEARER_THAN_NETWORK,
    LevelAssignment,
    Recipe,
    Stage,
    Subset,
)

# starts may be far off: short steps first
_newton = partial(newton, every_cell, max_damping_increases=6, weight=1e-10)
_stop_at_noise: dict[str, Any] = {"iterations": 4, "target": GOOD_FIT}


def on_levels(width: Any, ratio: float) -> Stage:
    """The stage between two assignments, see `LevelAssignment.between`.

    The levels are known, and with them what rounding added to the record: without it the noise is
    ten times lower, so that cells between levels are seen. What is left of it is not white: maps
    explain a quarter of it, ten times their part, which the weight for the least noise of an
    assignment says. Before all cells are right the rounding of those that are not is noise as well.
    """
    return newton(
        levels_and_edges,
        few_levels(width, variation=100.0, epsilon=1.0),
        iterations=3,  # one does but where many cells were assigned wrongly
        target=GOOD_FIT,
        weight=1.5e-14 * ratio**2,
        prior_fraction=0.5,
        vmin=lowest_level,
        max_damping_increases=6,
    )


_FROM_FAR = (
    *from_far(_newton(layers_smoothed(30.0), prior_fraction=0.3)),
    _newton(layers_smoothed(30.0), prior_fraction=0.3, data=Subset(receivers=2)),
    _newton(layers_smoothed(10.0), prior_fraction=0.3, data=Subset(receivers=2)),
)

# Nothing is settled where no matrix is to be had.
MATRIX_FREE = Recipe(
    stages=(
        *_FROM_FAR,
        _newton(layers_smoothed(1.0), prior_fraction=0.3, **_stop_at_noise),
        # sharp edges in wrong places hold a map where it is: smoothed again, they come off
        *(
            _newton(
                layers_smoothed(epsilon),
                prior_fraction=fraction,
                skip_if=GOOD_FIT,
                **_stop_at_noise,
            )
            for epsilon, fraction in ((30.0, 0.03), (10.0, 0.1), (1.0, 0.3))
        ),
    ),
    round=True,
    nearer_below=NEARER_THAN_NETWORK,
)

GAUSS_NEWTON = Recipe(
    stages=(
        *_FROM_FAR,
        settled_on(sharp_edges, 1e-3, 2e-4, 5e-5),
        settled_on(sharp_edges, 3e-5),
        settled_on(few_levels(3.0), 3e-5),
    ),
    round=True,
    nearer_below=NEARER_THAN_NETWORK,
    if_blended=(
        settled_on(sharp_edges, 3e-5, 2e-5, rounds=12),
        settled_on(few_levels(1.0), 2e-5),
        settled_on(few_levels(0.3), 2e-5),
    ),
    # with many cells wrong a linear record is off by 4e-5 rms at the truth
    assignment=LevelAssignment(
        rounds=4,
        noise=(8e-6, 3e-5),
        between=on_levels,
        # small pieces show, and with them levels that had none before
        relaxed=3 * ((settled_on(sharp_edges, 2e-5), settled_on(few_levels(1.0), 2e-5)),),
    ),
)

_published = Stage(every_cell, layers_smoothed(0.1), 1e-8, LBFGS(2500, gradient_tolerance=10**3.5))

FAMILY = FamilyDefinition(
    name="layered",
    openfwi=("CurveVel_A", "CurveVel_B", "FlatFault_B", "CurveFault_B"),
    gauss_newton=GAUSS_NEWTON,
    matrix_free=MATRIX_FREE,
    published=Recipe(
        (
            _published,
            replace(_published, optimiser=LBFGS(7500, 10**3.5, target=GOOD_FIT)),
            Stage(tied(1.0), layers_smoothed(0.1), 1e-9, LBFGS(1500, 10**2.5)),
        ),
        round=True,
    ),
    others=("style-b",),
)
