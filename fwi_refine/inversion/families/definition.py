"""The definition of a family."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fwi_refine.inversion.optimisers import (
    KrylovGaussNewton,
    LevenbergMarquardt,
    Optimiser,
    PreconditionedLBFGS,
    VariationalGaussNewton,
)
from fwi_refine.inversion.recipe import Recipe, Stage
from fwi_refine.routing import Criterion

STEPS_PER_JACOBIAN = 3  # by conjugate gradients, in place of one with a matrix and corrections


@dataclass(frozen=True)
class FamilyDefinition:
    """A family of maps that are refined in the same way.

    Attributes
    ----------
    name
        As `--family` takes it, and as `NAMES` has it.
    openfwi
        Names of OpenFWI's families that belong to it; `fwi_refine.synthetic` makes samples of each.
    gauss_newton
        The recipe of the main method.
    published
        The recipe of the published method.
    criterion
        How a sample of it is told, asked after those of the families before it in `names()`; None:
        it is never inferred, but for "layered", which holds what passes no test.
    others
        Names of the families that are tried next where the main method does not lead to a fit and
        the family was inferred.
    matrix_free
        The recipe of which the steps by conjugate gradients are made; None: that of the main
        method.
    endings
        Stages that follow those of the main method for another prior, by the prior's name.
    large
        Whether its priors are sparse, so that maps of any size are refined matrix-free; a Gaussian
        process is not.
    prior
        Name of the prior that "auto" stands for: a key of `endings`, or "gp" for none of them.
    matrix_cells
        Most cells of a map for which "auto" makes matrices.
    """

    name: str
    openfwi: tuple[str, ...]
    gauss_newton: Recipe
    published: Recipe
    criterion: Criterion | None = None
    others: tuple[str, ...] = ()
    matrix_free: Recipe | None = None
    endings: Mapping[str, tuple[Stage, ...]] = field(default_factory=dict)
    large: bool = True
    prior: str = "gp"
    matrix_cells: float = math.inf

    def recipe(self, method: str, prior: str = "auto") -> Recipe:
        """The recipe of a method and a prior.

        Parameters
        ----------
        method
            One of `families.METHODS`.
        prior
            One of `families.PRIORS`. A family that does not know it keeps its own; so does the
            published method.

        Raises
        ------
        ValueError
            For a method that there is not.
        """
        last = self.endings.get(self.prior if prior == "auto" else prior, ())
        main = replace(self.gauss_newton, stages=(*self.gauss_newton.stages, *last))
        if method in ("auto", "gauss-newton"):
            return main
        if method == "lbfgs":
            return self.published
        if method == "preconditioned-lbfgs":
            return main.each_stage(_preconditioned)
        if method == "matrix-free":
            return _matrix_free(self.matrix_free or main)
        raise ValueError(
            f"method {method!r}: expected auto, gauss-newton, matrix-free, preconditioned-lbfgs or "
            "lbfgs"
        )


def _matrix_free(recipe: Recipe) -> Recipe:
    """The same by conjugate gradients, but for what needs a matrix: level assignment, and a prior
    that is settled with one."""
    stages = tuple(
        replace(stage, optimiser=_by_products(stage.optimiser))
        for stage in recipe.stages
        if not isinstance(stage.optimiser, VariationalGaussNewton)
    )
    return replace(recipe, stages=stages, assignment=None, if_blended=())


def _by_products(optimiser: Optimiser) -> Optimiser:
    if isinstance(optimiser, LevenbergMarquardt):
        # several corrections with one matrix are as many steps
        steps = STEPS_PER_JACOBIAN * optimiser.iterations
        return KrylovGaussNewton(steps, target=optimiser.target, remainder=optimiser.remainder)
    return optimiser


def _preconditioned(stage: Stage) -> Stage:
    """The same stage by L-BFGS, with the factored Gauss-Newton matrix as the inverse Hessian that
    it starts from."""
    optimiser = stage.optimiser
    if isinstance(optimiser, VariationalGaussNewton):  # its prior is made with the matrix
        return stage
    corrections = getattr(optimiser, "corrections", 10)
    iterations = getattr(optimiser, "iterations", 1)
    changed = PreconditionedLBFGS(iterations, corrections, target=optimiser.target)
    return replace(stage, optimiser=changed)
