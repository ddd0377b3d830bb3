"""Faulted maps that two velocities almost cover: the main method is that of layers."""

from fwi_refine.inversion.families.choices import every_cell, layers_smoothed
from fwi_refine.inversion.families.definition import FamilyDefinition
from fwi_refine.inversion.families.layered import GAUSS_NEWTON
from fwi_refine.inversion.recipe import LBFGS, Recipe, Stage

FAMILY = FamilyDefinition(
    name="two-velocity",
    openfwi=("FlatFault_A", "CurveFault_A"),
    gauss_newton=GAUSS_NEWTON,
    published=Recipe(
        (Stage(every_cell, layers_smoothed(0.1), 1e-7, LBFGS(600, gradient_tolerance=10**4.5)),),
        round=True,
    ),
    others=("style-b",),
)
