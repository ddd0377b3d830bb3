"""Faulted maps of few velocities, resized: cells along edges are blended of two.

Their recipe is that of layers, which follows the edges that a map has after total variation: cells
are drawn to the levels, more and more narrowly, where those are blended. A start is told in the
same way.
"""

from typing import Any

from numpy.typing import NDArray

from fwi_refine.inversion.families.choices import every_cell, layers_smoothed
from fwi_refine.inversion.families.definition import FamilyDefinition
from fwi_refine.inversion.families.layered import GAUSS_NEWTON, MATRIX_FREE
from fwi_refine.inversion.optimisers import LBFGS
from fwi_refine.inversion.recipe import Recipe, Stage
from fwi_refine.priors import Priors
from fwi_refine.routing import Criterion
from fwi_refine.routing.edges import blended_edges


def blended_fraction(v: NDArray[Any], record: NDArray[Any] | None, priors: Priors) -> float:
    """Fraction of the edges of a map (nz, nx), m/s, that are blended."""
    return blended_edges(v)


FAMILY = FamilyDefinition(
    name="blended",
    openfwi=("FlatFault_A", "CurveFault_A"),
    gauss_newton=GAUSS_NEWTON,
    matrix_free=MATRIX_FREE,
    published=Recipe(
        (Stage(every_cell, layers_smoothed(0.1), 1e-7, LBFGS(600, gradient_tolerance=10**4.5)),),
        round=True,
    ),
    criterion=Criterion(
        "blended_edges",
        blended_fraction,
        "blended edges {:.2f} of 1 against {:.2f}",
        above=True,
        # sharp edges are compared: a fraction cannot exceed 1
        positive=lambda number, cells: max(1.0 - number, 0.0),
    ),
    others=("style-b",),
)
