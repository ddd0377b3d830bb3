"""The data misfit: mean squared difference of the simulated and the measured record."""

import math
from collections.abc import Callable

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fwi_refine.objective.base import Objective, SumOfSquaredResiduals
from fwi_refine.objective.noise import MIN_NOISE
from fwi_refine.objective.parameterisation import Parameters
from fwi_refine.objective.weights import BandWeights, Weights
from fwi_refine.precision import widened
from fwi_refine.wave import (
    Jacobian,
    Simulator,
    gram,
    jacobian,
    jacobian_points,
    normal_matrix,
    record_basis,
)

FEW_UNKNOWNS = 100  # up to this many, columns of the Jacobian are simulated one by one
COLUMNS = 16  # of the Jacobian, simulated at a time
# A column is a float32 tangent run: a third of a float64 misfit and gradient.
COLUMNS_PER_EVALUATION = 3
# A row of J counts below some depth only if cells there that are 30 m/s off, each on its own,
# change its coefficient of the record by 0.3 of the float32 rounding or more.
MIN_SENSITIVITY = 0.3 * MIN_NOISE / 30


class DataMisfit(Objective):
    """mean((W (s(v, vmin) - d))^2) over shots, steps and receivers, as a function of the unknowns.

    W is 1 without weights (see weights.py).

    Outside the survey's velocity bounds, and where the damping of vmin makes the scheme unstable,
    the value is infinite: a line search turns back there.

    Parameters
    ----------
    simulator : Simulator
        Wave operator s.
    parameters : Parameters
        Parameterisation of the unknowns.
    record : array_like, shape (shots, >= n_steps, receivers)
        Measured record d. Rows from n_steps on are not used.
    weights : Weights, optional
        Of the samples; by default all count the same. What has none may have any value in d.
    """

    def __init__(
        self,
        simulator: Simulator,
        parameters: Parameters,
        record: ArrayLike | Tensor,
        weights: Weights | None = None,
    ):
        self.simulator = simulator
        self.parameters = parameters
        steps = simulator.survey.n_steps
        measured = torch.as_tensor(record)[None, :, :steps]
        self._record = measured.to(simulator.device, torch.float64)
        self._root = None if weights is None else weights.root(self._record)

    def value_and_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """As in `Objective`."""
        medium = self._checked_medium(x)
        if medium is None:
            return torch.inf, torch.zeros_like(x)
        v, vmin = medium
        if self._root is not None:
            r = self._weighted_residual(v, vmin)
            by_v, by_vmin = self.simulator.adjoint(v, self._root * r, vmin)
            gradient = self.parameters.pullback(by_v[0].to(x), by_vmin[0].to(x))
            return float(r.square().mean()), gradient * (2.0 / r.numel())
        value, by_v, by_vmin = self.simulator.misfit_and_gradient(v, self._record, vmin)
        return float(value[0]), self.parameters.pullback(by_v[0].to(x), by_vmin[0].to(x))

    def __call__(self, x: Tensor) -> float:
        """Value at the unknowns x (n,)."""
        medium = self._checked_medium(x)
        if medium is None:
            return torch.inf
        v, vmin = medium
        if self._root is not None:
            return float(self._weighted_residual(v, vmin).square().mean())
        return float(self.simulator.misfit(v, self._record, vmin)[0])

    def hessian_product(self, x: Tensor, dx: Tensor) -> Tensor:
        """As in `Objective`: 2 / N J^T J dx, by one tangent and one adjoint run."""
        return self._product_by(self.simulator, x, dx)

    def _product_by(self, simulator: Simulator, x: Tensor, dx: Tensor) -> Tensor:
        v, vmin = self._medium(x)
        dv, dvmin = self.parameters.tangent(dx)
        change = simulator.tangent(v, dv[None], vmin, dvmin[None])
        if self._root is not None:
            change = self._root.square().to(change) * change
        by_v, by_vmin = simulator.adjoint(v, change, vmin)
        product = self.parameters.pullback(by_v[0].to(x), by_vmin[0].to(x))
        return product * (2.0 / change[0].numel())

    def _weighted_residual(self, v: Tensor, vmin: Tensor) -> Tensor:
        """W (s - d), (1, shots, steps, receivers) float64."""
        residual = self.simulator.forward(v, vmin).double() - self._record
        return residual if self._root is None else self._root * residual

    def _medium(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(v (1, nz, nx), vmin (1,)) in m/s."""
        return self.parameters.velocity(x)[None], self.parameters.vmin(x)[None]

    def _checked_medium(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """`_medium`, or None where it is not physical."""
        v, vmin = self._medium(x)
        slowest, fastest = self.simulator.survey.velocity_bounds
        inside = bool(((v >= slowest) & (v <= fastest)).all()) and 0 < float(vmin) <= fastest
        return (v, vmin) if inside and self.simulator.is_stable(v, vmin) else None


class BandMisfit(DataMisfit, SumOfSquaredResiduals):
    """The misfit within the wavelet's band: mean((Q Q^T (s - d))^2), Q as in `wave.jacobian`.

    With weights it is mean((U U^T W (s - d))^2), U as in weights.py.

    Parameters
    ----------
    simulator : Simulator
        Wave operator s.
    parameters : Parameters
        Parameterisation of the unknowns.
    record : array_like, shape (shots, >= n_steps, receivers)
        Measured record d. Rows from n_steps on are not used.
    weights : Weights, optional
        Of the samples; by default all count the same. What has none may have any value in d.

    Attributes
    ----------
    last_hessian : Tensor or None
        The latest result of `hessian`.

    Notes
    -----
    No velocity map changes a record outside the band, so the residual there is noise. It must not
    reach the gradient: the adjoint correlates every few steps only, which folds high frequencies
    onto the band, and near the floor of the data the Gauss-Newton solve amplifies that error
    until no step lowers the misfit.
    """

    def __init__(
        self,
        simulator: Simulator,
        parameters: Parameters,
        record: ArrayLike | Tensor,
        weights: Weights | None = None,
    ):
        super().__init__(simulator, parameters, record, weights)
        self._basis = record_basis(simulator.survey).to(simulator.device)
        self._band = None if weights is None else BandWeights(weights, self._basis)
        self._single: Simulator | None = None  # in float32, made when it is needed
        self.last_hessian: Tensor | None = None

    def residual(self, x: Tensor) -> Tensor | None:
        """Residual within the band.

        Parameters
        ----------
        x : Tensor, shape (n,)
            Unknowns.

        Returns
        -------
        Tensor, shape (1, shots, steps, receivers), or None
            Q Q^T (s - d), or U U^T W (s - d); None outside the velocity bounds.
        """
        medium = self._checked_medium(x)
        if medium is None:
            return None
        v, vmin = medium
        residual = self._weighted_residual(v, vmin)
        return self._in_band(residual) if self._band is None else self._band.in_band(residual)

    def pull_back(self, x: Tensor, r: Tensor) -> Tensor:
        """As in `SumOfSquaredResiduals`."""
        v, vmin = self._medium(x)
        if self._root is not None:  # W takes it out of the band again
            r = self._in_band(self._root * r)
        by_v, by_vmin = self.simulator.adjoint(v, r, vmin)
        return self.parameters.pullback(by_v[0].to(x), by_vmin[0].to(x)) * (2.0 / r.numel())

    def _in_band(self, r: Tensor) -> Tensor:
        """Q Q^T r of records (1, shots, steps, receivers)."""
        coefficients = torch.einsum("tk,bstr->bskr", self._basis, r)
        return torch.einsum("tk,bskr->bstr", self._basis, coefficients)

    __call__ = SumOfSquaredResiduals.__call__
    value_and_gradient = SumOfSquaredResiduals.value_and_gradient

    def hessian(self, x: Tensor) -> Tensor:
        """Gauss-Newton Hessian.

        For few unknowns from one tangent run for each, for many from the full Jacobian by
        reciprocity, less what rounding hides. Both are in float32: that changes a step, not where
        the steps end.

        Parameters
        ----------
        x : Tensor, shape (n,)
            Unknowns, within the velocity bounds.

        Returns
        -------
        Tensor, shape (n, n)
            2 / N J^T J.
        """
        if x.numel() > FEW_UNKNOWNS:
            hidden = MIN_SENSITIVITY * self.simulator.survey.unit
            if self._band is None:
                self.last_hessian = self._accumulated(x, hidden)
            else:
                self.last_hessian = self._normal_matrix(self._jacobian(x), hidden=hidden)
            return self.last_hessian
        v, vmin = self._medium(x)
        columns = torch.cat([self._columns(v, vmin, dx) for dx in torch.eye(len(x)).split(COLUMNS)])
        if self._root is not None:
            columns *= self._root.flatten()
        self.last_hessian = gram(columns) * (2.0 / self._record.numel())
        return self.last_hessian

    def linearise(
        self, x: Tensor, columns: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Normal matrix and gradient of one and the same full Jacobian.

        Parameters
        ----------
        x : Tensor, shape (n,)
            Unknowns, within the velocity bounds.
        columns : callable, optional
            Takes rows of J (m, n) to rows of J C (m, k). By default those of
            `Parameters.jacobian_transform`.

        Returns
        -------
        normal : Tensor, shape (k, k)
            2 / N (J C)^T J C.
        pull_back : callable
            Takes residuals r (1, shots, steps, receivers) to 2 / N J^T r (nz * nx + 1,), for the
            cells and vmin.

        Notes
        -----
        The quadratic of the two has a minimum, as one Jacobian makes both. With the exact
        gradient it falls without bounds along directions that the data do not see, but that
        rounding makes them see.
        """
        full = self._jacobian(x)

        def pull_back(r: Tensor) -> Tensor:
            if self._band is not None:  # the rows have their weights
                rows = self._band.project(r[0]).flatten().to(full.matrix)
                return widened(full.matrix.T @ rows) * (2.0 / r.numel())
            by_v, by_vmin = full.rmatvec(r[0])
            return torch.cat((by_v.flatten(), by_vmin.reshape(1))) * (2.0 / r.numel())

        return self._normal_matrix(full, columns), pull_back

    def _jacobian(self, x: Tensor) -> Jacobian:
        """The full Jacobian; its rows have their weights."""
        v, vmin = self._medium(x)
        full = jacobian(v[0], vmin[0], survey=self.simulator.survey, **self.simulator.options)
        if self._band is not None:
            self._band.weigh(full.matrix)
        return full

    def _accumulated(self, x: Tensor, hidden: float) -> Tensor:
        """The Hessian from the full Jacobian, of which some rows at a time are held."""
        v, vmin = self._medium(x)
        survey, options = self.simulator.survey, self.simulator.options
        columns = self.parameters.jacobian_transform(v.new_empty(0, dtype=torch.float32))
        unit_and_scale = normal_matrix(
            v[0], vmin[0], columns, survey=survey, hidden=hidden, **options
        )
        return self._hessian_of(*unit_and_scale)

    def _normal_matrix(
        self,
        full: Jacobian,
        columns: Callable[[Tensor], Tensor] | None = None,
        hidden: float = 0.0,
    ) -> Tensor:
        columns = columns or self.parameters.jacobian_transform(full.matrix)
        return self._hessian_of(*full.normal_matrix(columns, self.simulator.threads, hidden))

    def _hessian_of(self, unit: Tensor, scale: Tensor) -> Tensor:
        return unit.mul_(scale).mul_(scale[:, None]).mul_(2.0 / self._record.numel())

    def hessian_cost(self) -> int:
        """Cost of a Hessian.

        Returns
        -------
        int
            In evaluations of misfit and gradient. The full Jacobian has a shot for each position
            of a source or receiver, for the survey of OpenFWI as many as 14 records.
        """
        size, survey = self.parameters.size, self.simulator.survey
        if size <= FEW_UNKNOWNS:
            return math.ceil(size / COLUMNS_PER_EVALUATION)
        return math.ceil(len(jacobian_points(survey)) / len(survey.sources))

    def _columns(self, v: Tensor, vmin: Tensor, dx: Tensor) -> Tensor:
        """J dx for each row of dx (k, n): (k, samples) float64."""
        if self._single is None:
            self._single = Simulator(self.simulator.survey, torch.float32, **self.simulator.options)
        dv, dvmin = self.parameters.tangent(dx.to(v))
        shape = (len(dx), *v.shape[1:])
        change = self._single.tangent(v.expand(shape), dv, vmin.expand(len(dx)), dvmin)
        return change.flatten(1).double()
