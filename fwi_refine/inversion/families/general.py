"""Any map, from starts hundreds of m/s off: every cell by total variation, and no more assumptions.

No trend, no levels, no integers: it is never inferred, and `--family general` chooses it. The
frequency rises from the lowest that the records hold, so that what one step leaves is no cycle off
at the next; where a start fits the record nearly, low frequencies are left out. Total variation is
smoothed over large differences at first, as a smooth start has no edges yet.
"""

from dataclasses import replace
from functools import partial

from fwi_refine.inversion.families.choices import (
    CYCLE_SKIP_MISFIT,
    every_cell,
    layers_smoothed,
    newton,
)
from fwi_refine.inversion.families.definition import FamilyDefinition
from fwi_refine.inversion.optimisers import LBFGS, LevenbergMarquardt
from fwi_refine.inversion.recipe import GOOD_FIT, Recipe, Stage, Subset

# Fractions of the survey's frequency, and Jacobians at each. A low-passed record is delayed by its
# wavelet's length, so that the lowest frequencies are windows in time as well: they see the upper
# part of the map alone.
LOWER_FREQUENCIES = (0.15, 0.22, 0.32, 0.45, 0.65)
# A step with the matrix takes 3 times as long as one by products at 4,900 cells, 24 times at 13,300
# (benchmarks/size.json), and leads to the same misfit; up to here it tells the expected error too.
MATRIX_CELLS = 10_000
MAX_REMAINDER = 0.025  # of the record's rms, from which on the next frequency tells more

_newton = partial(newton, every_cell, max_damping_increases=6, weight=1e-10)
_published = Stage(every_cell, layers_smoothed(1.0), 1e-8, LBFGS(2500, gradient_tolerance=10**3.5))


def _at(frequency: float) -> Stage:
    """At a fraction of the frequency, where the start may be a cycle off."""
    stage = _newton(
        layers_smoothed(30.0),
        prior_fraction=0.3,
        data=Subset(frequency=frequency),
        skip_if=CYCLE_SKIP_MISFIT,
    )
    optimiser = LevenbergMarquardt(2, max_damping_increases=6, remainder=MAX_REMAINDER)
    return replace(stage, optimiser=optimiser)


FAMILY = FamilyDefinition(
    name="general",
    openfwi=(),
    gauss_newton=Recipe(
        (
            *map(_at, LOWER_FREQUENCIES),
            _newton(layers_smoothed(30.0), 2, prior_fraction=0.1),
            _newton(layers_smoothed(10.0), 2, prior_fraction=0.1),
            _newton(layers_smoothed(3.0), 4, prior_fraction=0.1, target=GOOD_FIT),
        ),
        round=False,
    ),
    published=Recipe((_published,), round=False),
    matrix_cells=MATRIX_CELLS,
)
