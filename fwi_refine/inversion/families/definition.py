"""What there is to say of a family."""

from dataclasses import dataclass, replace

from fwi_refine.inversion.recipe import PreconditionedLBFGS, Recipe, Stage
from fwi_refine.routing import Criterion


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
    """

    name: str
    openfwi: tuple[str, ...]
    gauss_newton: Recipe
    published: Recipe
    criterion: Criterion | None = None
    others: tuple[str, ...] = ()

    def recipe(self, method: str) -> Recipe:
        """The recipe of a method.

        Raises
        ------
        ValueError
            For a method that there is not.
        """
        if method in ("auto", "gauss-newton"):
            return self.gauss_newton
        if method == "lbfgs":
            return self.published
        if method == "preconditioned-lbfgs":
            return self.gauss_newton.each_stage(_preconditioned)
        raise ValueError(
            f"method {method!r}: expected auto, gauss-newton, preconditioned-lbfgs or lbfgs"
        )


def _preconditioned(stage: Stage) -> Stage:
    """The same stage by L-BFGS, with the factored Gauss-Newton matrix as the inverse Hessian that
    it starts from."""
    how = stage.optimiser
    corrections = getattr(how, "corrections", 10)
    iterations = getattr(how, "iterations", 1)
    return replace(stage, optimiser=PreconditionedLBFGS(iterations, corrections, how.target))
