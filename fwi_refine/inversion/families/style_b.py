"""Rough maps: every cell, with a Gaussian process, then with total variation."""

from dataclasses import replace

from fwi_refine.inversion.families.choices import edges, every_cell, newton, rough
from fwi_refine.inversion.families.definition import FamilyDefinition
from fwi_refine.inversion.recipe import GOOD_FIT, LBFGS, Recipe, Stage, VariationalGaussNewton

# ten times that of Style A (style_a.py): every cell explains ten times its part of the noise
NOISE = 2e-14

_published = Stage(every_cell, rough, 1e-15, LBFGS(1500))

FAMILY = FamilyDefinition(
    name="style-b",
    openfwi=("Style_B",),
    gauss_newton=Recipe(
        (newton(every_cell, rough, 8, weight=NOISE, prior_fraction=0.05),),
        round=False,
    ),
    published=Recipe(
        (_published, replace(_published, optimiser=LBFGS(7500, target=GOOD_FIT))), round=False
    ),
    others=("layered",),
    endings={"tv": (Stage(every_cell, edges, NOISE, VariationalGaussNewton()),)},
    prior="tv",
)
