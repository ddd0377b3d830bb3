"""The family of a sample.

`classify` finds it from the predicted map and the record; `thresholds` and `fit` fit thresholds and
priors to labelled maps; `estimator` is a classifier of scikit-learn, which takes long to import.
"""

from fwi_refine.routing.classify import (
    FEATURES,
    MAP_FEATURES,
    NO_FAMILY,
    Classification,
    apply_thresholds,
    are_flat,
    can_classify,
    classify,
    map_features,
    sample_features,
)
from fwi_refine.routing.families import OPENFWI_FAMILIES, Family, route_of
from fwi_refine.routing.thresholds import best_threshold, fit_routing, fit_thresholds

__all__ = [
    "FEATURES",
    "MAP_FEATURES",
    "NO_FAMILY",
    "OPENFWI_FAMILIES",
    "Classification",
    "Family",
    "apply_thresholds",
    "are_flat",
    "best_threshold",
    "can_classify",
    "classify",
    "fit_routing",
    "fit_thresholds",
    "map_features",
    "route_of",
    "sample_features",
]
