"""The misfit of flat layers, whose Jacobian takes one simulation (wave/jacobian/flat_layers.py).

`layers` are the velocities of the rows, (nz,) in m/s.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fwi_refine.objective.misfit import COLUMNS_PER_EVALUATION, BandMisfit
from fwi_refine.objective.parameterisation import Rows
from fwi_refine.objective.weights import Weights
from fwi_refine.survey import Survey
from fwi_refine.wave import (
    Simulator,
    first_return,
    flat_jacobian,
    flat_jacobian_shots,
    gram,
    has_flat_jacobian,
)

TAPER = 0.75  # periods of the wavelet, in which a window falls from 1 to 0


class FlatMisfit(BandMisfit):
    """The misfit within the band and a window in time: mean((w Q Q^T (s - d))^2).

    Parameters
    ----------
    simulator : Simulator
        Wave operator s.
    parameters : Rows
        One unknown for each row.
    record : array_like, shape (shots, >= n_steps, receivers)
        Measured record d. Rows from n_steps on are not used.
    window : array_like, shape (n_steps,)
        Weights w of the time steps, 0 where waves have gone round the periodic grid (see
        `window_before_return`).
    weights : Weights, optional
        Of the traces, none of which changes with time.

    Raises
    ------
    ValueError
        For other parameters, for a survey that has no `flat_jacobian`, and for weights that change
        with time.
    """

    def __init__(
        self,
        simulator: Simulator,
        parameters: Rows,
        record: ArrayLike | Tensor,
        window: ArrayLike | Tensor,
        weights: Weights | None = None,
    ):
        if weights is not None and not weights.by_trace:
            raise ValueError("expected weights that do not change with time")
        if not (isinstance(parameters, Rows) and has_flat_jacobian(simulator.survey)):
            raise ValueError(
                "expected an unknown for each row, and a survey that has_flat_jacobian"
            )
        super().__init__(simulator, parameters, record, weights)
        self._window = torch.as_tensor(window).to(simulator.device, torch.float64)[:, None]

    def residual(self, x: Tensor) -> Tensor | None:
        """As in `BandMisfit`, times the window."""
        residual = super().residual(x)
        return None if residual is None else self._window * residual

    def pull_back(self, x: Tensor, r: Tensor) -> Tensor:
        """As in `SumOfSquaredResiduals`."""
        return super().pull_back(x, self._in_band(self._window * r))

    def hessian(self, x: Tensor, weight: float | None = None) -> Tensor:
        """Gauss-Newton Hessian 2 / N J^T J, (n, n), at the unknowns x (n,)."""
        v, vmin = self._medium(x)
        survey = self.simulator.survey
        by_row = flat_jacobian(v[0, :, 0], vmin, survey=survey, **self.simulator.options).double()
        by_vmin = self._columns(v, vmin, torch.eye(len(x))[-1:]).view(survey.record_shape)
        by_vmin = torch.einsum("tk,str->srk", self._basis, by_vmin)
        both = torch.cat([by_row, by_vmin[..., None]], dim=-1).flatten(0, 1)
        if self._root is not None:
            both *= self._root[:, 0].reshape(-1, 1, 1)
        # |w Q c| = |R c| for all coefficients c of a trace
        rows = (torch.linalg.qr(self._window * self._basis).R @ both).flatten(0, 1)
        self.last_hessian = gram(rows.T) * (2.0 / self._record.numel())
        return self.last_hessian

    def linearise(
        self, x: Tensor, columns: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Raise NotImplementedError."""
        raise NotImplementedError("the full Jacobian knows no window")

    def hessian_product(self, x: Tensor, dx: Tensor) -> Tensor:
        """Raise NotImplementedError."""
        raise NotImplementedError("only the whole matrix knows the window")

    def hessian_cost(self) -> int:
        """Cost of a Hessian, in evaluations of misfit and gradient."""
        survey = self.simulator.survey
        return math.ceil(
            flat_jacobian_shots(survey) / len(survey.sources) + 1 / COLUMNS_PER_EVALUATION
        )


def window_to(end: float, survey: Survey) -> Tensor:
    """Window in time that falls from 1 to 0 about a time.

    Parameters
    ----------
    end : float
        Middle of the fall, in s after the wavelet's centre.
    survey : Survey
        Survey of the record.

    Returns
    -------
    Tensor, shape (n_steps,)
        Weights of the time steps, float64.
    """
    after = np.arange(survey.n_steps) * survey.dt - survey.wavelet_centre * survey.dt
    ramp = ((end - after) * survey.frequency / TAPER + 0.5).clip(0, 1)
    return torch.from_numpy(np.sin(np.pi / 2 * ramp) ** 2)


def window_before_return(layers: Tensor, survey: Survey) -> Tensor:
    """As `window_to`: leaves out waves that have gone round the grid."""
    # the wavelet begins before its centre
    end = (
        first_return(layers, survey)
        - survey.wavelet_centre * survey.dt
        - TAPER / 2 / survey.frequency
    )
    return window_to(end, survey)


def has_flat_misfit(layers: Tensor, survey: Survey) -> bool:
    """Whether a `FlatMisfit` sees all layers.

    The reflection of the lowest one arrives before the record ends and before any wave has gone
    round the grid.
    """
    if not has_flat_jacobian(survey):
        return False
    answered = 2 * float((survey.spacing / layers).sum()) + 2 * survey.wavelet_centre * survey.dt
    last = min(math.ceil(answered / survey.dt), survey.n_steps - 1)
    return float(window_before_return(layers, survey)[last]) == 1.0
