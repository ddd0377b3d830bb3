"""Flat layers: one velocity for each row."""

from functools import partial
from typing import Any

from fwi_refine.inversion.families.choices import (
    every_row,
    flat_layers_smoothed,
    layers_smoothed,
    newton,
    tied,
)
from fwi_refine.inversion.families.definition import FamilyDefinition
from fwi_refine.inversion.recipe import GOOD_FIT, LBFGS, Recipe, Stage, Subset

# each shot tells all of flat layers
_first_shot: dict[str, Any] = {"data": Subset(shots=1), "target": GOOD_FIT}
# one unknown for each layer
tied_rows = partial(
    newton,
    tied(1.0),
    layers_smoothed(0.1),
    iterations=3,
    weight=1e-10,
    prior_fraction=0.1,
    must_fit=True,
)

FAMILY = FamilyDefinition(
    name="flat-vel",
    openfwi=("FlatVel_A", "FlatVel_B"),
    gauss_newton=Recipe(
        (
            newton(every_row, flat_layers_smoothed(10.0), 2, weight=1e-8, **_first_shot),
            newton(every_row, flat_layers_smoothed(1.0), 3, weight=1e-9, **_first_shot),
            newton(every_row, flat_layers_smoothed(0.1), 2, weight=1e-9, **_first_shot),
            tied_rows(**_first_shot),
            tied_rows(**_first_shot),
            tied_rows(target=4 * GOOD_FIT, skip_if=4 * GOOD_FIT),
        ),
        round=True,
    ),
    published=Recipe(
        (Stage(every_row, flat_layers_smoothed(0.1), 1e-8, LBFGS(1000, gradient_tolerance=1e-7)),),
        round=True,
    ),
)
