"""Priors: what a velocity map is expected to look like, and the numbers that this was fitted to.

`load` reads the hyper-parameters and the routing thresholds. Each prior acts on one map and has
`value`, `gradient`, `value_and_gradient` and `hessian` (`base.Prior`); see `total_variation`,
`variational_total_variation`, `shared_levels` and `gaussian_process`.
"""

import sys
from pathlib import Path

from .gaussian_process import GaussianProcess
from .hyperparameters import CELL, Learned, Priors, Routing, Variation
from .learned import LearnedPrior
from .shared_levels import SharedLevels
from .toml_file import OPENFWI_FILE, load, to_table
from .total_variation import TotalVariation1D, TotalVariation2D
from .variational_total_variation import VariationalTotalVariation

__all__ = [
    "CELL",
    "OPENFWI_FILE",
    "GaussianProcess",
    "Learned",
    "LearnedPrior",
    "Priors",
    "Routing",
    "SharedLevels",
    "TotalVariation1D",
    "TotalVariation2D",
    "Variation",
    "VariationalTotalVariation",
    "load",
    "to_table",
]


def _refuse_another_copy() -> None:
    """Raises ImportError where this folder is not the priors of the fwi_refine that is in use.

    It stands beside that package in a checkout and in it where that is installed. Python may find
    one copy of the program first and another's priors: results would be those of neither.
    """
    if __name__ != "fwi_refine.priors":
        raise ImportError(f"{__name__} from {__file__}: import it as fwi_refine.priors")
    package = Path(sys.modules["fwi_refine"].__file__ or "").resolve().parent
    here = Path(__file__).resolve().parent
    if here not in {(folder / "priors").resolve() for folder in (package, package.parent)}:
        raise ImportError(
            f"fwi_refine is that in {package}, but fwi_refine.priors would be that in {here}, of "
            "another copy of the program; install the copy that is to be used, or take the other "
            "one out of Python's path"
        )


_refuse_another_copy()
