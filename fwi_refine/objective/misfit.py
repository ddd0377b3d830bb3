"""The data misfit: how far the simulated record is from the measured one."""

import math

import torch

from fwi_refine.objective.base import AddedHessian, Objective, SumOfSquaredResiduals
from fwi_refine.objective.noise import LEAST_NOISE
from fwi_refine.objective.parameterisation import Parameters
from fwi_refine.wave import Simulator, gram, jacobian, jacobian_points, record_basis

FEW_UNKNOWNS = 100  # up to this many, columns of the Jacobian are simulated one by one
COLUMNS = 16  # of the Jacobian, simulated at a time
# A column is a float32 tangent run: a third of a float64 misfit and gradient.
COLUMNS_PER_EVALUATION = 3
# What a row of J must say of the cells from some depth on to count there, if they are 30 m/s off,
# each on its own: this fraction of what float32 rounding leaves of a coefficient of a record.
HIDDEN = 0.3 * LEAST_NOISE / 30


class DataMisfit(Objective):
    """mean((s(v, vmin) - d)^2) over shots, steps and receivers, as a function of the unknowns.

    record: (shots, >= n_steps, receivers), the measured record; rows from n_steps on are not used.
    Outside the survey's velocity bounds, and where the damping of vmin makes the scheme unstable,
    the value is infinite: a line search turns back there.
    """

    def __init__(self, simulator: Simulator, parameters: Parameters, record):
        self.simulator = simulator
        self.parameters = parameters
        steps = simulator.survey.n_steps
        record = torch.as_tensor(record)[None, :, :steps]
        self._record = record.to(simulator.device, torch.float64)

    def value_and_gradient(self, x):
        medium = self._medium(x)
        if medium is None:
            return torch.inf, torch.zeros_like(x)
        v, vmin = medium
        value, by_v, by_vmin = self.simulator.misfit_and_gradient(v, self._record, vmin)
        return float(value[0]), self.parameters.pullback(by_v[0].to(x), by_vmin[0].to(x))

    def __call__(self, x):
        medium = self._medium(x)
        if medium is None:
            return torch.inf
        v, vmin = medium
        return float(self.simulator.misfit(v, self._record, vmin)[0])

    def hessian_product(self, x, dx):
        """Gauss-Newton Hessian times dx: 2 / N J^T J dx, by one tangent and one adjoint run."""
        v, vmin = self._medium(x)
        dv, dvmin = self.parameters.tangent(dx)
        change = self.simulator.tangent(v, dv[None], vmin, dvmin[None])
        by_v, by_vmin = self.simulator.adjoint(v, change, vmin)
        product = self.parameters.pullback(by_v[0].to(x), by_vmin[0].to(x))
        return product * (2.0 / change[0].numel())

    def _medium(self, x):
        """(v (1, nz, nx), vmin (1,)), or None where they are not physical."""
        v, vmin = self.parameters.velocity(x), self.parameters.vmin(x)
        slowest, fastest = self.simulator.survey.velocity_bounds
        inside = bool(((v >= slowest) & (v <= fastest)).all()) and 0 < float(vmin) <= fastest
        if not (inside and self.simulator.is_stable(v[None], vmin[None])):
            return None
        return v[None], vmin[None]


class BandMisfit(DataMisfit, SumOfSquaredResiduals):
    """The misfit within the wavelet's band: mean((Q Q^T (s - d))^2), Q as in `wave.jacobian`.

    No velocity map can change a record outside that band, so what is there is noise. It must not
    reach the gradient: the adjoint correlates every few steps only, which folds high frequencies
    onto the band, and near the floor of the data the Gauss-Newton solve blew that error up until
    no step lowered the misfit.
    """

    def __init__(self, simulator, parameters, record):
        super().__init__(simulator, parameters, record)
        self._basis = record_basis(simulator.survey).to(simulator.device)
        self._single = None  # a float32 simulator, made when it is needed
        self.last_hessian = None  # what `hessian` returned last

    def residual(self, x):
        medium = self._medium(x)
        if medium is None:
            return None
        v, vmin = medium
        return self._in_band(self.simulator.forward(v, vmin).double() - self._record)

    def pull_back(self, x, r):
        v, vmin = self._medium(x)
        by_v, by_vmin = self.simulator.adjoint(v, r, vmin)
        return self.parameters.pullback(by_v[0].to(x), by_vmin[0].to(x)) * (2.0 / r.numel())

    def _in_band(self, r):
        coefficients = torch.einsum("tk,bstr->bskr", self._basis, r)
        return torch.einsum("tk,bskr->bstr", self._basis, coefficients)

    __call__ = SumOfSquaredResiduals.__call__
    value_and_gradient = SumOfSquaredResiduals.value_and_gradient

    def hessian(self, x):
        """Gauss-Newton Hessian 2 / N J^T J, (n, n).

        For few unknowns from one tangent run for each, for many from the full Jacobian by
        reciprocity, less what rounding hides. Both are in float32: that changes a step, not where
        the steps end.
        """
        if x.numel() > FEW_UNKNOWNS:
            hidden = HIDDEN * self.simulator.survey.unit
            self.last_hessian = self._normal_matrix(self._jacobian(x), hidden=hidden)
            return self.last_hessian
        v, vmin = self._medium(x)
        columns = torch.cat([self._columns(v, vmin, dx) for dx in torch.eye(len(x)).split(COLUMNS)])
        self.last_hessian = gram(columns) * (2.0 / self._record.numel())
        return self.last_hessian

    def linearise(self, x, columns=None):
        """(2 / N (J C)^T J C, a function r -> 2 / N J^T r) with one and the same full Jacobian.

        columns: takes rows of J (m, n) to rows of J C; default J itself.

        So the quadratic that they make has a minimum. With the exact gradient it falls without
        bounds along directions that the data do not see, but that rounding makes them see.
        """
        full = self._jacobian(x)

        def pull_back(r):
            by_v, by_vmin = full.rmatvec(r[0])
            return torch.cat((by_v.flatten(), by_vmin.reshape(1))) * (2.0 / r.numel())

        return self._normal_matrix(full, columns), pull_back

    def _jacobian(self, x):
        v, vmin = self._medium(x)
        return jacobian(v[0], vmin[0], survey=self.simulator.survey, **self.simulator.how)

    def _normal_matrix(self, full, columns=None, hidden=0.0):
        columns = columns or self.parameters.along(full.matrix)
        unit, scale = full.normal_matrix(columns, self.simulator.threads, hidden)
        return unit.mul_(scale).mul_(scale[:, None]).mul_(2.0 / self._record.numel())

    def hessian_cost(self):
        """What a Hessian counts as, in evaluations of misfit and gradient.

        The full Jacobian has a shot for each place of a source or receiver, for the survey of
        OpenFWI as many as 14 records.
        """
        size, survey = self.parameters.size, self.simulator.survey
        if size <= FEW_UNKNOWNS:
            return math.ceil(size / COLUMNS_PER_EVALUATION)
        return math.ceil(len(jacobian_points(survey)) / len(survey.sources))

    def _columns(self, v, vmin, dx):
        if self._single is None:
            self._single = Simulator(self.simulator.survey, torch.float32, **self.simulator.how)
        dv, dvmin = self.parameters.tangent(dx.to(v))
        shape = (len(dx), *v.shape[1:])
        change = self._single.tangent(v.expand(shape), dv, vmin.expand(len(dx)), dvmin)
        return change.flatten(1).double()


class VminTie(AddedHessian):
    """((vmin - centre) / width)^2: keeps vmin near the minimum that the map had.

    The damping of the absorbing band depends on vmin alone, weakly, so that a long step leaves it
    anywhere. A width of 30 m/s is what the minimum of a map is worth as a guess of it.
    """

    quadratic = True

    def __init__(self, centre, width=30.0):
        self.centre, self.width = float(centre), width

    def value_and_gradient(self, x):
        off = (float(x[-1]) - self.centre) / self.width
        gradient = torch.zeros_like(x)
        gradient[-1] = 2 * off / self.width
        return off**2, gradient

    def add_hessian(self, matrix, x, weight=1.0):
        matrix[-1, -1] += 2 * weight / self.width**2
