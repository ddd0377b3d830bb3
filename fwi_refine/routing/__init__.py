"""Which family a sample belongs to, and what that is told by.

`classify` tells it from a map and its record; `thresholds` and `fit` fit what decides to labelled
maps; `estimator` has all of that as a classifier of scikit-learn, which takes long to import.
"""

from fwi_refine.routing.classify import (
    MAP_NUMBERS,
    NO_FAMILY,
    NUMBERS,
    Classification,
    are_flat,
    can_classify,
    classify,
    decide,
    measure_map,
    measure_sample,
)
from fwi_refine.routing.families import OPENFWI_FAMILIES, Family
from fwi_refine.routing.thresholds import fit_routing, fit_thresholds, separate

__all__ = [
    "MAP_NUMBERS",
    "NO_FAMILY",
    "NUMBERS",
    "OPENFWI_FAMILIES",
    "Classification",
    "Family",
    "are_flat",
    "can_classify",
    "classify",
    "decide",
    "fit_routing",
    "fit_thresholds",
    "measure_map",
    "measure_sample",
    "separate",
]
