"""The misfit of flat layers, whose Jacobian takes one simulation (wave/jacobian/flat_layers.py)."""

import math

import numpy as np
import torch

from fwi_refine.objective.misfit import COLUMNS_PER_EVALUATION, BandMisfit
from fwi_refine.objective.parameterisation import Rows
from fwi_refine.survey import Survey
from fwi_refine.wave import (
    first_return,
    flat_jacobian,
    flat_jacobian_shots,
    gram,
    has_flat_jacobian,
)

EDGE = 0.75  # periods of the wavelet, within which a window ends


class FlatMisfit(BandMisfit):
    """The misfit within the band and a window in time: mean((w Q Q^T (s - d))^2).

    parameters: `Rows`; window: w, a weight for each step (n_steps,), which is to leave out what has
    gone round the grid (see `window_before_return`). Raises ValueError for other parameters, and
    for a survey that `flat_jacobian` is not for.
    """

    def __init__(self, simulator, parameters: Rows, record, window):
        if not (isinstance(parameters, Rows) and has_flat_jacobian(simulator.survey)):
            raise ValueError(
                "expected an unknown for each row, and a survey that has_flat_jacobian"
            )
        super().__init__(simulator, parameters, record)
        self._window = torch.as_tensor(window).to(simulator.device, torch.float64)[:, None]

    def residual(self, x):
        residual = super().residual(x)
        return None if residual is None else self._window * residual

    def pull_back(self, x, r):
        return super().pull_back(x, self._in_band(self._window * r))

    def hessian(self, x):
        v, vmin = self._medium(x)
        survey = self.simulator.survey
        by_row = flat_jacobian(v[0, :, 0], vmin, survey=survey, **self.simulator.how).double()
        by_vmin = self._columns(v, vmin, torch.eye(len(x))[-1:]).view(survey.record_shape)
        by_vmin = torch.einsum("tk,str->srk", self._basis, by_vmin)
        both = torch.cat([by_row, by_vmin[..., None]], dim=-1).flatten(0, 1)
        # |w Q c| = |R c| for all coefficients c of a trace
        rows = (torch.linalg.qr(self._window * self._basis).R @ both).flatten(0, 1)
        self.last_hessian = gram(rows.T) * (2.0 / self._record.numel())
        return self.last_hessian

    def linearise(self, x, columns=None):
        raise NotImplementedError("the full Jacobian knows no window")

    def hessian_product(self, x, dx):
        raise NotImplementedError("only the whole matrix knows the window")

    def hessian_cost(self):
        survey = self.simulator.survey
        return math.ceil(
            flat_jacobian_shots(survey) / len(survey.sources) + 1 / COLUMNS_PER_EVALUATION
        )


def window_to(end, survey: Survey):
    """Weights of the time steps (n_steps,) that fall from 1 to 0 about `end`, in s from the
    wavelet's centre on."""
    after = np.arange(survey.n_steps) * survey.dt - survey.wavelet_centre * survey.dt
    ramp = ((end - after) * survey.frequency / EDGE + 0.5).clip(0, 1)
    return torch.from_numpy(np.sin(np.pi / 2 * ramp) ** 2)


def window_before_return(layers, survey: Survey):
    """Weights that leave out what has gone round the grid in these layers (nz,) m/s."""
    # the wavelet begins before its centre
    end = (
        first_return(layers, survey)
        - survey.wavelet_centre * survey.dt
        - EDGE / 2 / survey.frequency
    )
    return window_to(end, survey)


def has_flat_misfit(layers, survey: Survey) -> bool:
    """Whether a `FlatMisfit` sees all of these layers (nz,) m/s: that nothing has gone round the
    grid, or the record is over, before the lowest one has answered."""
    if not has_flat_jacobian(survey):
        return False
    answered = 2 * float((survey.spacing / layers).sum()) + 2 * survey.wavelet_centre * survey.dt
    last = min(math.ceil(answered / survey.dt), survey.n_steps - 1)
    return float(window_before_return(layers, survey)[last]) == 1.0
