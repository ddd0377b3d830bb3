"""One sample refined: its recipe, the stages of that, and how far the result may be off."""

from fwi_refine.inversion.families import METHODS
from fwi_refine.inversion.initial_model import start_from_record
from fwi_refine.inversion.method import choose_method
from fwi_refine.inversion.recipe import LevelAssignment, Recipe, Stage
from fwi_refine.inversion.sample import Refined, refine_sample

__all__ = [
    "METHODS",
    "LevelAssignment",
    "Recipe",
    "Refined",
    "Stage",
    "choose_method",
    "refine_sample",
    "start_from_record",
]
