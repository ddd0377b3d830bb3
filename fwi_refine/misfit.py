"""The data misfit: how far the simulated record is from the measured one."""

import torch

from fwi_refine.objective import Objective
from fwi_refine.parameters import Parameters
from fwi_refine.wave import Simulator

COLUMNS = 16  # of the Jacobian, simulated at a time


class DataMisfit(Objective):
    """mean((s(v, vmin) - d)^2) over shots, steps and receivers, as a function of the unknowns.

    record: (shots, >= n_steps, receivers), the measured record; rows from n_steps on are not used.
    Outside the survey's velocity bounds, where the scheme may be unstable, the value is infinite:
    a line search turns back there.
    """

    def __init__(self, simulator: Simulator, parameters: Parameters, record):
        self.simulator = simulator
        self.parameters = parameters
        self._single = None  # a float32 simulator, made when it is needed
        steps = simulator.survey.n_steps
        self._record = torch.as_tensor(record)[None, :, :steps].to(torch.float64)

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

    def hessian(self, x):
        """Gauss-Newton Hessian 2 / N J^T J, (n, n), from one tangent run for each unknown.

        For few unknowns. The columns are simulated in float32, as their rounding changes a step,
        not where the steps end.
        """
        v, vmin = self._medium(x)
        dv, dvmin = self.parameters.tangent(torch.eye(x.numel()).to(x))
        if self._single is None:
            self._single = Simulator(
                self.simulator.survey, torch.float32, threads=self.simulator.threads
            )
        columns = torch.cat(
            [
                self._single.tangent(
                    v.expand(len(some), *v.shape[1:]), some, vmin.expand(len(some)), somevmin
                ).flatten(1)
                for some, somevmin in zip(dv.split(COLUMNS), dvmin.split(COLUMNS), strict=True)
            ]
        ).double()
        return columns @ columns.T * (2.0 / columns.shape[1])

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
        return (v[None], vmin[None]) if inside else None
