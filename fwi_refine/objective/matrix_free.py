"""The misfit within the band for solvers that take products with the Hessian, never the Hessian.

A product is one tangent and one adjoint run, so that memory and time grow with the cells and not
with their square. Its preconditioner needs the Hessian's diagonal, which follows nearly from the
energies of the wavefields: a cell x changes the trace of source s at receiver r by a scattered wave

    d record / d v(x) = 2 / v(x)^3  g_r(x) * d2/dt2 p_s(x),    * a convolution in time

whose energy goes with that of both fields (pseudo-Hessian, C. Shin, S. Jang and D.-J. Min,
Geophysical Prospecting 49, 592-606, 2001). What the energies leave open, a common factor, is
measured by one product with random signs, whose mean is the trace of the Hessian.
"""

from dataclasses import replace

import torch
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from fwi_refine.objective.base import Objective
from fwi_refine.objective.misfit import BandMisfit
from fwi_refine.objective.source_misfit import FreeSourceMisfit
from fwi_refine.survey import Survey
from fwi_refine.wave import Simulator, fold, longest_interval, pad

MAX_SOURCES = 40  # receivers whose fields are simulated for the diagonal, at most
SOURCES_AT_A_TIME = 2  # of them, whose fields are in memory
# Products image every so many steps, of the most that hold the wavelet: they are then within 2e-6
# of exact ones on a survey of 20 x 25 cells, and within 8e-5 at the most.
IMAGING_FRACTION = 0.65
MIN_DIAGONAL = 1e-4  # of the mean: cells that nothing lights keep a positive entry


class MatrixFreeMisfit(BandMisfit):
    """`BandMisfit` with products in place of matrices."""

    def hessian_product(self, x: Tensor, dx: Tensor) -> Tensor:
        """As in `DataMisfit`, in float32: that changes a step, not where the steps end."""
        return self._product_by(self._products, x, dx)

    def hessian_diagonal(self, x: Tensor) -> Tensor:
        """About the diagonal of the Gauss-Newton Hessian, positive.

        Parameters
        ----------
        x : Tensor, shape (n,)
            Unknowns, within the velocity bounds.

        Returns
        -------
        Tensor, shape (n,)
            Of 2 / N J^T J.
        """
        v, vmin = self._medium(x)
        survey = self.simulator.survey
        sources = self._energy(survey.sources, v, vmin)
        step = -(-len(survey.receivers) // MAX_SOURCES)
        energy = sources * self._energy(survey.receivers[::step], v, vmin)
        by_cell = fold(energy[None] / pad(v, survey).to(energy) ** 6, survey)[0].double()
        of_coefficients = self.parameters.gather(by_cell.to(x)).abs()
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(0, 2, (len(x) - 1,), generator=generator).to(x) * 2 - 1
        trace = signs @ self.hessian_product(x, torch.cat((signs, signs.new_zeros(1))))[:-1]
        of_coefficients.mul_(trace.clamp_min(1e-300) / of_coefficients.sum().clamp_min(1e-300))
        of_coefficients.clamp_min_(MIN_DIAGONAL * float(of_coefficients.mean()))
        last = torch.zeros_like(x)
        last[-1] = 1.0
        of_vmin = self.hessian_product(x, last)[-1:].clamp_min(1e-300)
        return torch.cat((of_coefficients, of_vmin))

    def diagonal_cost(self) -> int:
        """Cost of `hessian_diagonal`, in evaluations: two products, and its fields."""
        survey = self.simulator.survey
        fields = len(survey.sources) + min(MAX_SOURCES, len(survey.receivers))
        return 4 + -(-fields // len(survey.sources))

    @property
    def _products(self) -> Simulator:
        if self._single is None:
            survey = self.simulator.survey
            every = max(1, int(IMAGING_FRACTION * longest_interval(survey)))
            options = self.simulator.options
            self._single = Simulator(survey, torch.float32, imaging_step=every, **options)
        return self._single

    def _energy(self, points: tuple[tuple[int, int], ...], v: Tensor, vmin: Tensor) -> Tensor:
        """Sum over points and time of the squared fields of sources there, on the padded grid."""
        survey: Survey = replace(self.simulator.survey, receivers=())
        every = longest_interval(survey)
        total: Tensor | None = None
        for i in range(0, len(points), SOURCES_AT_A_TIME):
            some = replace(survey, sources=points[i : i + SOURCES_AT_A_TIME])
            fields = Simulator(
                some, torch.float32, imaging_step=every, **self.simulator.options
            ).wavefields(v, vmin)
            energy = fields.square_().sum((0, 1, 2))
            total = energy if total is None else total + energy
        assert total is not None
        return total


class MatrixFreeSourceMisfit(FreeSourceMisfit, MatrixFreeMisfit):
    """`FreeSourceMisfit` with products in place of matrices."""

    def hessian_product(self, x: Tensor, dx: Tensor) -> Tensor:
        """As in `MatrixFreeMisfit`, less what the wavelets explain."""
        return self._product(self._known_point(x), dx, self._products)

    def pull_back(self, x: Tensor, r: Tensor) -> Tensor:
        """As in `FreeSourceMisfit`, with what is left of the record as the noise."""
        return self._back(self._renewed(x), r, self.simulator)


class DampedPrior:
    """A prior beside the misfit's diagonal: what conjugate gradients multiply and solve.

    Parameters
    ----------
    prior : Objective
        With a sparse Hessian P.
    x : Tensor, shape (n,)
        Unknowns.
    weight : float
        w, of the prior.
    diagonal : Tensor, shape (n,)
        D, positive.
    damping : float
        Fraction of D.
    """

    def __init__(
        self, prior: Objective, x: Tensor, weight: float, diagonal: Tensor, damping: float
    ):
        stiffness = weight * prior.sparse_hessian(x)
        d = sparse.diags_array(diagonal.cpu().double().numpy())
        self._matrix = sparse.csr_array(stiffness + damping * d)
        # the cells of a map: a factor of few more entries than the matrix
        self._factor = splu(
            sparse.csc_array(stiffness + (1 + damping) * d),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )

    def product(self, p: Tensor) -> Tensor:
        """(w P + damping D) p of a vector p (n,)."""
        return torch.from_numpy(self._matrix @ p.cpu().numpy()).to(p)

    def solve(self, r: Tensor) -> Tensor:
        """(w P + (1 + damping) D)^-1 r of a vector r (n,)."""
        return torch.from_numpy(self._factor.solve(r.cpu().numpy())).to(r)
