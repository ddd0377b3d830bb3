"""Which method `auto` stands for: by the kernel, and by what a Gauss-Newton step would take."""

from fwi_refine.objective.misfit import FEW_UNKNOWNS
from fwi_refine.routing import Family
from fwi_refine.survey import Survey
from fwi_refine.wave import jacobian_bytes

# What `auto` allows a Gauss-Newton step to take, in bytes. It is no property of the machine, as a
# result must not depend on where it was computed.
MOST_MEMORY = 16e9
# Square matrices of all cells that a step has at a time in float64: the Hessian, the one before
# it, that of the prior and its parts, their sum, its factor, and copies.
SQUARES = 10


def gauss_newton_bytes(survey: Survey, family: Family) -> float:
    """About how much memory a step of the Gauss-Newton recipe of a family takes, at its peak."""
    rows, columns = survey.shape
    if family == Family.FLAT_VEL and rows + 1 <= FEW_UNKNOWNS:
        return 0.0  # a column for each row, and no full Jacobian
    return jacobian_bytes(survey) + SQUARES * 8.0 * (rows * columns + 1) ** 2


def choose_method(method: str, family: Family, survey: Survey, kernel: str) -> tuple[str, str]:
    """(method, why it is not the one that `auto` stands for, if it is not), without "auto".

    kernel: `Simulator.kernel`
    """
    if method != "auto":
        return method, ""
    if kernel == "reference":  # the shots of one Jacobian would take it many minutes
        return "lbfgs", "the compiled kernel is missing"
    needed = gauss_newton_bytes(survey, family)
    if needed > MOST_MEMORY:
        rows, columns = survey.shape
        return "lbfgs", (
            f"a Gauss-Newton step on {rows} x {columns} cells would take {needed / 1e9:.0f} GB of "
            f"memory, more than {MOST_MEMORY / 1e9:.0f} GB"
        )
    return "gauss-newton", ""
