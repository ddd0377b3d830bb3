"""The family of a sample.

`classify` finds it from the predicted map and the record by the tests that it is given
(`criterion`), those of the registry in fwi_refine/inversion/families/; `thresholds` and `fit` fit
thresholds and priors to labelled maps.
"""

from fwi_refine.routing.classify import (
    NO_FAMILY,
    Classification,
    apply_thresholds,
    are_flat,
    can_classify,
    classify,
    feature_names,
    map_features,
    sample_features,
)
from fwi_refine.routing.criterion import Criteria, Criterion
from fwi_refine.routing.families import OPENFWI_FAMILIES, Family, route_of
from fwi_refine.routing.thresholds import best_threshold, fit_routing, fit_thresholds

__all__ = [
    "NO_FAMILY",
    "OPENFWI_FAMILIES",
    "Classification",
    "Criteria",
    "Criterion",
    "Family",
    "apply_thresholds",
    "are_flat",
    "best_threshold",
    "can_classify",
    "classify",
    "feature_names",
    "fit_routing",
    "fit_thresholds",
    "map_features",
    "route_of",
    "sample_features",
]
