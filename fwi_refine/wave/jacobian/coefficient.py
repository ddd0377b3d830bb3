"""How a record changes with the coefficient of p[n] in the scheme, c = 2 - 5 alpha, in each cell.

Float32 rounds it, by as much at every step. A change of c at x is a source of its size times p[n]
there, so that, with the symbols of reciprocity.py,

    by c(x): dx^2 alpha_s alpha_r / alpha_x  w A(x)

the derivative by v(x) without T0, the band's damping and 2 / v. The band repeats an edge cell's
rounding; what the subtraction of kappa adds to it there is left out.
"""

import torch

from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave.jacobian.assemble import assemble
from fwi_refine.wave.jacobian.full import MatrixAssembly
from fwi_refine.wave.jacobian.plan import Plan
from fwi_refine.wave.paths import MakeKernel


class _ByCoefficient(MatrixAssembly):
    """The matrix of these derivatives; its last column, which is vmin's, is zero."""

    def prepare(self, plan: Plan) -> None:
        """As in `Assembly`."""
        super().prepare(plan)
        self._synthesis = plan.undifferenced.to(self._synthesis)
        self._damped = torch.zeros_like(self._damped)
        self._scale = self._scale * self._half_v


def coefficient_jacobian(
    v: torch.Tensor,
    vmin: float | torch.Tensor,
    *,
    survey: Survey = OPENFWI,
    kernel: str | MakeKernel = "auto",
    threads: int | None = None,
    device: str | torch.device | None = None,
) -> torch.Tensor:
    """Derivative of a record by the coefficient of p[n] in each cell.

    Parameters
    ----------
    v : torch.Tensor, (nz, nx)
        The map, m/s.
    vmin : float or torch.Tensor
        The velocity that scales the damping, m/s.
    survey, kernel, threads, device
        As for `jacobian`.

    Returns
    -------
    torch.Tensor of float32, (shots * receivers * modes, nz * nx)
        Rows as of `Jacobian.matrix`.

    Raises
    ------
    ValueError
        As for `jacobian`.
    """
    work = assemble(_ByCoefficient, v, vmin, survey, torch.float32, kernel, threads, None, device)
    return work.result.flatten(0, 2)[:, :-1]
