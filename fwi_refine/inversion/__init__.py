"""One sample refined: its recipe, the stages of that, and how far the result may be off.

What is named here is loaded when it is first used: the names of the families are known at once, and
torch takes seconds.
"""

# ruff: noqa: F401 (the imports below are for type checkers)
from typing import TYPE_CHECKING

from fwi_refine.lazy import lazy

if TYPE_CHECKING:
    from fwi_refine.inversion.families import METHODS
    from fwi_refine.inversion.initial_model import start_from_record
    from fwi_refine.inversion.method import choose_method
    from fwi_refine.inversion.recipe import LevelAssignment, Recipe, Stage
    from fwi_refine.inversion.refined import Refined
    from fwi_refine.inversion.routes import classify
    from fwi_refine.inversion.sample import refine_sample

_MODULES = {
    "METHODS": "families",
    "LevelAssignment": "recipe",
    "Recipe": "recipe",
    "Refined": "refined",
    "Stage": "recipe",
    "choose_method": "method",
    "classify": "routes",
    "refine_sample": "sample",
    "start_from_record": "initial_model",
}
__all__, __getattr__, __dir__ = lazy(__name__, _MODULES)
