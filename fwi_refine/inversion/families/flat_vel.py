"""Flat layers: one velocity for each row.

They are told by their record, which is mirror-symmetric: only a map without lateral change gives
such a record.
"""

from functools import partial
from typing import Any

from numpy.typing import NDArray

from fwi_refine.inversion.families.choices import (
    FAR_CYCLE_SKIP_MISFIT,
    every_row,
    flat_layers_smoothed,
    from_far,
    layers_smoothed,
    newton,
    tied,
)
from fwi_refine.inversion.families.definition import FamilyDefinition
from fwi_refine.inversion.optimisers import LBFGS
from fwi_refine.inversion.recipe import GOOD_FIT, NEARER_THAN_NETWORK, Recipe, Stage, Subset
from fwi_refine.priors import Priors
from fwi_refine.routing import Criterion
from fwi_refine.routing.classify import asymmetry

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


def beyond_noise(v: NDArray[Any], record: NDArray[Any] | None, priors: Priors) -> float:
    """Rms of the first shot minus the mirrored last one, in the unit of the record."""
    assert record is not None  # the test is one of records
    return asymmetry(record)


FAMILY = FamilyDefinition(
    name="flat-vel",
    openfwi=("FlatVel_A", "FlatVel_B"),
    gauss_newton=Recipe(
        (
            *from_far(
                newton(
                    every_row,
                    flat_layers_smoothed(30.0),
                    weight=1e-10,
                    prior_fraction=0.3,
                    max_damping_increases=6,
                ),
                near=FAR_CYCLE_SKIP_MISFIT,
            ),
            newton(every_row, flat_layers_smoothed(10.0), 2, weight=1e-8, **_first_shot),
            newton(every_row, flat_layers_smoothed(1.0), 3, weight=1e-9, **_first_shot),
            newton(every_row, flat_layers_smoothed(0.1), 2, weight=1e-9, **_first_shot),
            tied_rows(**_first_shot),
            tied_rows(**_first_shot),
            tied_rows(target=4 * GOOD_FIT, skip_if=4 * GOOD_FIT),
        ),
        round=True,
        nearer_below=NEARER_THAN_NETWORK,
    ),
    published=Recipe(
        (Stage(every_row, flat_layers_smoothed(0.1), 1e-8, LBFGS(1000, gradient_tolerance=1e-7)),),
        round=True,
    ),
    criterion=Criterion(
        "symmetry_rms",
        beyond_noise,
        "asymmetry of the record {:.2g} rms against {:.2g}",
        from_record=True,
    ),
)
