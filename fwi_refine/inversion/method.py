"""The method that `auto` stands for: by the kernel, and by time and memory of a Gauss-Newton step.
And the prior, by the spacing."""

from fwi_refine.inversion.families import find_family
from fwi_refine.inversion.optimisers import VariationalGaussNewton
from fwi_refine.objective.misfit import FEW_UNKNOWNS
from fwi_refine.priors import CELL
from fwi_refine.routing import Family
from fwi_refine.survey import Survey
from fwi_refine.wave import jacobian_bytes, normal_matrix_bytes

# Methods of which neither expected errors nor a posterior are known: both follow from a matrix.
WITHOUT_MATRIX = ("lbfgs", "matrix-free")
# Bytes that `auto` allows a Gauss-Newton step. They are no property of the machine, as a result
# must not depend on where it was computed.
MAX_MEMORY = 16e9
PROCESS = 0.35e9  # of Python and the libraries, before any step
# Square matrices of all cells, in float64, that a step has at a time after its Hessian is made: it,
# its sum with the prior's, the factor, and a copy; with a prior that is settled, the covariance and
# copies of that as well.
MATRICES_PER_STEP, MATRICES_PER_SETTLED_STEP = 4, 7
MARGIN = 1.15  # of the estimate, over what was measured


def gauss_newton_bytes(survey: Survey, family: str) -> float:
    """Peak memory of a step of the Gauss-Newton recipe, an estimate.

    Parameters
    ----------
    survey : Survey
        Survey of the record.
    family : str
        Name of the family whose recipe it is.

    Returns
    -------
    float
        In bytes; 0 for a family that takes no full Jacobian.
    """
    rows, columns = survey.shape
    if family == Family.FLAT_VEL and rows + 1 <= FEW_UNKNOWNS:
        return 0.0  # a column for each row, and no full Jacobian
    recipe = find_family(family).recipe("gauss-newton")
    settled = any(isinstance(stage.optimiser, VariationalGaussNewton) for stage in recipe.stages)
    # assignments need all of the Jacobian, and stages with rounding for noise one by that as well
    matrices = 2 if any(stage.rounding_is_noise for stage in recipe.stages) else 0
    matrices = matrices or int(recipe.assignment is not None)
    made = jacobian_bytes(survey, matrices) if matrices else normal_matrix_bytes(survey)
    square = 8.0 * (rows * columns + 1) ** 2
    making = made + square  # the Hessian before it
    solving = square * (MATRICES_PER_SETTLED_STEP if settled else MATRICES_PER_STEP)
    return MARGIN * (PROCESS + max(making, solving))


def choose_method(method: str, family: str, survey: Survey, kernel: str) -> tuple[str, str]:
    """Replace "auto" by the method that it stands for.

    Parameters
    ----------
    method : str
        One of `families.METHODS`.
    family : str
        Name of the family.
    survey : Survey
        Survey of the record.
    kernel : str
        Name of the wave kernel, `Simulator.kernel`.

    Returns
    -------
    method : str
        "gauss-newton", "matrix-free" or "lbfgs" for "auto"; any other method as it is.
    reason : str
        Why "auto" is not Gauss-Newton with the full Jacobian; empty otherwise.
    """
    if method != "auto":
        return method, ""
    if kernel == "reference":  # the shots of one Jacobian would take it many minutes
        return "lbfgs", "the compiled kernel is missing"
    needed = gauss_newton_bytes(survey, family)
    rows, columns = survey.shape
    if rows * columns > find_family(family).matrix_cells:
        return "matrix-free", f"on {rows} x {columns} cells a matrix takes longer"
    if needed > MAX_MEMORY:
        return "matrix-free" if find_family(family).large else "lbfgs", (
            f"a Gauss-Newton step on {rows} x {columns} cells would take {needed / 1e9:.0f} GB of "
            f"memory, more than {MAX_MEMORY / 1e9:.0f} GB"
        )
    return "gauss-newton", ""


def choose_prior(prior: str, survey: Survey) -> str:
    """Replace "auto" by the prior that it stands for, where that is not the family's own.

    Parameters
    ----------
    prior : str
        One of `families.PRIORS`.
    survey : Survey
        Survey of the record.

    Returns
    -------
    str
        "tv" for "auto" with cells of another size than those that the denoiser of the learned
        prior has seen; else the same.
    """
    return "tv" if prior == "auto" and survey.spacing != CELL else prior


def takes_prior(family: str, method: str, prior: str) -> bool:
    """Whether a family's maps are refined with a prior where that is asked for.

    Parameters
    ----------
    family : str
        Name of the family.
    method : str
        One of `families.METHODS`.
    prior : str
        One of `families.PRIORS` but "auto".

    Returns
    -------
    bool
        False where the family keeps its own, whatever is asked for.
    """
    definition = find_family(family)
    if prior == "gp":
        return not definition.large  # those of a Gaussian process
    others = definition.recipe(method, "gp")
    return prior in definition.endings and definition.recipe(method, prior) != others
