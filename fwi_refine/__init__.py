"""fwi-refine: refines predicted velocity maps by full-waveform inversion of their records.

    from fwi_refine import refine, simulate, classify

What is named here is the public Python interface. It is loaded when it is first used: importing
the package, and asking the program for help, stays fast.
"""

# ruff: noqa: F401 (the imports below are for type checkers)
import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fwi_refine.api import Refinement, classify, refine, simulate
    from fwi_refine.errors import FwiRefineError, InputError, SampleError
    from fwi_refine.estimator import FamilyClassifier
    from fwi_refine.inversion import Refined, refine_sample
    from fwi_refine.nn import RecordMisfit, WaveSimulator
    from fwi_refine.priors import Priors
    from fwi_refine.priors import load as load_priors
    from fwi_refine.report import Row
    from fwi_refine.routing import OPENFWI_FAMILIES, Classification, Family
    from fwi_refine.survey import OPENFWI, Survey
    from fwi_refine.survey_file import read_survey
    from fwi_refine.version import __version__

# Where each name is, and what it is called there if not the same.
_PLACES = {
    "Classification": "routing",
    "Family": "routing",
    "FamilyClassifier": "estimator",
    "FwiRefineError": "errors",
    "InputError": "errors",
    "OPENFWI": "survey",
    "OPENFWI_FAMILIES": "routing",
    "Priors": "priors",
    "RecordMisfit": "nn",
    "Refined": "inversion",
    "Refinement": "api",
    "Row": "report",
    "SampleError": "errors",
    "Survey": "survey",
    "WaveSimulator": "nn",
    "__version__": "version",
    "classify": "api",
    "load_priors": "priors.load",
    "read_survey": "survey_file",
    "refine": "api",
    "refine_sample": "inversion",
    "simulate": "api",
}
__all__ = [*_PLACES]


def __getattr__(name):
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, other = _PLACES[name].partition(".")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), other or name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_PLACES})
