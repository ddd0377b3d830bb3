"""Optimisers that know no physics: they see a vector of unknowns, a value and a gradient."""

from fwi_refine.optimise.descent import DescentSettings, weight_by_fraction
from fwi_refine.optimise.expectation_propagation import (
    LevelProblem,
    Marginals,
    expectation_propagation,
)
from fwi_refine.optimise.gauss_newton import gauss_newton_step
from fwi_refine.optimise.krylov import gauss_newton_krylov
from fwi_refine.optimise.lbfgs import lbfgs
from fwi_refine.optimise.levenberg_marquardt import levenberg_marquardt
from fwi_refine.optimise.line_search import Search, strong_wolfe
from fwi_refine.optimise.preconditioned_lbfgs import preconditioned_lbfgs
from fwi_refine.optimise.result import (
    Evaluator,
    Point,
    Result,
    Status,
    interrupted,
    unmoved,
)
from fwi_refine.optimise.variational import variational_gauss_newton

__all__ = [
    "DescentSettings",
    "Evaluator",
    "LevelProblem",
    "Marginals",
    "Point",
    "Result",
    "Search",
    "Status",
    "expectation_propagation",
    "gauss_newton_krylov",
    "gauss_newton_step",
    "interrupted",
    "lbfgs",
    "levenberg_marquardt",
    "preconditioned_lbfgs",
    "strong_wolfe",
    "unmoved",
    "variational_gauss_newton",
    "weight_by_fraction",
]
