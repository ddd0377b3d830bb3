"""fwi-refine: refines predicted velocity maps by full-waveform inversion of their records.

    from fwi_refine import refine, simulate, classify

What is named here is the public Python interface. It is loaded when it is first used: importing
the package, and asking the program for help, stays fast.
"""

# ruff: noqa: F401 (the imports below are for type checkers)
from typing import TYPE_CHECKING

from fwi_refine.lazy import lazy

if TYPE_CHECKING:
    from fwi_refine.api import Refinement, classify, refine, simulate
    from fwi_refine.api.estimator import FamilyClassifier
    from fwi_refine.errors import FwiRefineError, InputError, SampleError
    from fwi_refine.inversion.refined import Refined
    from fwi_refine.inversion.sample import refine_sample
    from fwi_refine.io.report import Row
    from fwi_refine.priors import Priors
    from fwi_refine.priors import load as load_priors
    from fwi_refine.routing import OPENFWI_FAMILIES, Classification, Family
    from fwi_refine.survey import OPENFWI, Survey, read_survey
    from fwi_refine.version import __version__
    from fwi_refine.wave import RecordMisfit, WaveSimulator, jacobian_operator

# Where each name is.
_MODULES = {
    "Classification": "routing",
    "Family": "routing",
    "FamilyClassifier": "api.estimator",
    "FwiRefineError": "errors",
    "InputError": "errors",
    "OPENFWI": "survey",
    "OPENFWI_FAMILIES": "routing",
    "Priors": "priors",
    "RecordMisfit": "wave",
    "Refined": "inversion.refined",
    "Refinement": "api",
    "Row": "io.report",
    "SampleError": "errors",
    "Survey": "survey",
    "WaveSimulator": "wave",
    "__version__": "version",
    "classify": "api",
    "jacobian_operator": "wave",
    "load_priors": "priors:load",
    "read_survey": "survey",
    "refine": "api",
    "refine_sample": "inversion.sample",
    "simulate": "api",
}
__all__, __getattr__, __dir__ = lazy(__name__, _MODULES)
