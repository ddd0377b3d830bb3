"""Faulted maps of few velocities, resized: cells along edges are blended of two.

The main method is that of layers up to total variation. Then cells are drawn to the levels, more
and more narrowly, and the rounding that the levels tell is taken out of the record.

They are told by their two largest areas, of neighbours within 10 m/s, which cover almost the map.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwi_refine.inversion.families.choices import drawn_to_levels, every_cell, layers_smoothed
from fwi_refine.inversion.families.definition import FamilyDefinition
from fwi_refine.inversion.families.layered import FROM_FAR_TO_LAYERS
from fwi_refine.inversion.optimisers import LBFGS
from fwi_refine.inversion.recipe import Recipe, Stage
from fwi_refine.objective.connected import connected_areas
from fwi_refine.priors import Priors
from fwi_refine.routing import Criterion


def two_largest_areas(v: NDArray[Any], record: NDArray[Any] | None, priors: Priors) -> float:
    """Cells of the two largest areas of a map (nz, nx), m/s."""
    labels = connected_areas(v, priors.routing.area_tolerance)
    areas = np.sort(np.bincount(labels.ravel()))
    return float(areas[-2:].sum())


FAMILY = FamilyDefinition(
    name="two-velocity",
    openfwi=("FlatFault_A", "CurveFault_A"),
    gauss_newton=Recipe(
        (
            *FROM_FAR_TO_LAYERS,
            *(
                drawn_to_levels(width, noise)
                for width, noise in ((10.0, 4.0), (3.0, 4.0), (3.0, 2.0), (2.0, 1.0), (1.0, 0.7))
            ),
        ),
        round=True,
        blended=True,
    ),
    published=Recipe(
        (Stage(every_cell, layers_smoothed(0.1), 1e-7, LBFGS(600, gradient_tolerance=10**4.5)),),
        round=True,
    ),
    criterion=Criterion(
        "two_velocity_cells",
        two_largest_areas,
        "two largest areas {:.0f} cells against {:.0f}",
        above=True,
        # the cells left over are compared: the areas themselves never exceed the map
        positive=lambda number, cells: max(cells - number, 0.0),
    ),
    others=("style-b",),
)
