"""Optimisers that know no physics: they see a vector of unknowns, a value and a gradient."""

from fwi_refine.optimise.gauss_newton import gauss_newton_step
from fwi_refine.optimise.lbfgs import lbfgs
from fwi_refine.optimise.level_search import LevelProblem, level_search
from fwi_refine.optimise.levenberg_marquardt import levenberg_marquardt
from fwi_refine.optimise.linesearch import Search, strong_wolfe
from fwi_refine.optimise.preconditioned_lbfgs import preconditioned_lbfgs
from fwi_refine.optimise.result import Evaluator, Point, Result, Status

__all__ = [
    "Evaluator",
    "LevelProblem",
    "Point",
    "Result",
    "Search",
    "Status",
    "gauss_newton_step",
    "lbfgs",
    "level_search",
    "levenberg_marquardt",
    "preconditioned_lbfgs",
    "strong_wolfe",
]
