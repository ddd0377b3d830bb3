"""Made samples: maps like the ten OpenFWI families, network-like starts, and their records.

The released data is not used and may not be shipped; these maps are drawn to be like it. Every
function takes a NumPy generator or a seed, and the same seed gives the same maps bit for bit.
"""

from fwi_refine.synthetic.samples import (
    FAMILIES,
    SyntheticSample,
    make_map,
    make_record,
    make_sample,
)
from fwi_refine.synthetic.starts import MISFIT_PER_MAE, NETWORK_MAE, make_start

__all__ = [
    "FAMILIES",
    "MISFIT_PER_MAE",
    "NETWORK_MAE",
    "SyntheticSample",
    "make_map",
    "make_record",
    "make_sample",
    "make_start",
]
