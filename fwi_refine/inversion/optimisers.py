"""How a stage is minimised, and when that ends: the settings of each optimiser.

The optimisers themselves know neither stages nor records: ../optimise/.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Self

from fwi_refine.objective.noise import Noise
from fwi_refine.survey import Survey

# The published cost is multiplied by this, which gives gradient_tolerance its unit.
COST_SCALE = 1e15


@dataclass(frozen=True)
class _InBand:
    """An optimiser of the misfit within the band: it ends at a target, a mean square misfit."""

    target: float | None = field(default=None, kw_only=True)

    def in_unit(self, unit: float) -> Self:
        """The same for records that are `unit` times as large as those of OpenFWI."""
        return replace(self, target=in_squared_unit(self.target, unit))

    def with_noise(self, noise: Noise, survey: Survey) -> Self:
        """The same for records with noise."""
        return replace(self, target=_with_noise(self.target, noise.misfit_in_band(survey)))


@dataclass(frozen=True)
class LevenbergMarquardt(_InBand):
    """Gauss-Newton steps with the full Jacobian, damped.

    Attributes
    ----------
    iterations
        Most Jacobians.
    corrections
        Most steps with one Jacobian.
    max_damping_increases
        For each Jacobian, where a step has lowered nothing: 6 begin with short steps where a start
        is far off, 3 leave it to the next stage.
    target
        Mean square misfit at which it ends; None: no target.
    remainder
        Fraction of the record's rms that may be left, at which it ends as well.
    """

    iterations: int = 1
    corrections: int = 10
    max_damping_increases: int = 3
    remainder: float = 0.0


@dataclass(frozen=True)
class KrylovGaussNewton(_InBand):
    """Gauss-Newton steps by conjugate gradients, without any matrix.

    Attributes
    ----------
    iterations
        Most steps.
    products
        Most products with the Gauss-Newton matrix for each.
    target, remainder
        As of `LevenbergMarquardt`.
    """

    iterations: int = 1
    products: int = 40
    remainder: float = 0.0


@dataclass(frozen=True)
class VariationalGaussNewton(_InBand):
    """Gauss-Newton steps with a prior that is settled with each Jacobian.

    The weight of the prior is that of a log density: it follows from the noise. A prior with
    `update`, as `priors.VariationalTotalVariation` and `priors.LearnedPrior`, is renewed by the
    posterior covariance, another by its own majoriser at the latest map.

    Attributes
    ----------
    noise
        For each Jacobian, rms of what counts as noise of a coefficient of the band; where the
        misfit is larger, that. It falls: at once at the noise of the record, a step would follow
        what is not linear along directions that the data hardly see.
    corrections, target
        As of `LevenbergMarquardt`.
    rounds
        Renewals for each Jacobian; of a learned prior there is one.
    """

    noise: tuple[float, ...] = (2e-4, 8e-5)
    corrections: int = 10
    rounds: int = 3

    @property
    def iterations(self) -> int:
        """Most Jacobians."""
        return len(self.noise)

    def in_unit(self, unit: float) -> Self:
        """The same for records that are `unit` times as large as those of OpenFWI."""
        noise = tuple(unit * level for level in self.noise)
        return replace(super().in_unit(unit), noise=noise)

    def with_noise(self, noise: Noise, survey: Survey) -> Self:
        """The same for records with noise."""
        levels = tuple(math.hypot(level, noise.coefficient) for level in self.noise)
        return replace(super().with_noise(noise, survey), noise=levels)


@dataclass(frozen=True)
class PreconditionedLBFGS(_InBand):
    """L-BFGS with the factored Gauss-Newton matrix as its first inverse Hessian.

    Attributes as of `LevenbergMarquardt`.
    """

    iterations: int = 1
    corrections: int = 10


@dataclass(frozen=True)
class LBFGS:
    """L-BFGS with strong Wolfe line searches, which keeps all pairs.

    Attributes
    ----------
    iterations
        Most of them.
    gradient_tolerance
        Largest entry of the gradient of the cost, in the published unit, at which it ends.
    initial_step
        Largest change of an unknown in the first trial step; m/s for cells.
    target
        Mean square misfit at which it ends; None: no target.
    """

    iterations: int
    gradient_tolerance: float = 0.0
    initial_step: float = 10.0
    target: float | None = None

    def in_unit(self, unit: float) -> "LBFGS":
        """The same for records that are `unit` times as large as those of OpenFWI."""
        tolerance = self.gradient_tolerance * unit**2
        return replace(
            self, gradient_tolerance=tolerance, target=in_squared_unit(self.target, unit)
        )

    def with_noise(self, noise: Noise, survey: Survey) -> "LBFGS":
        """The same for records with noise."""
        return replace(self, target=_with_noise(self.target, noise.misfit()))


@dataclass(frozen=True)
class GaussNewtonStep:
    """One step, solved by conjugate gradients."""

    iterations: int = 1
    target: None = None

    def in_unit(self, unit: float) -> "GaussNewtonStep":
        """Itself."""
        return self

    def with_noise(self, noise: Noise, survey: Survey) -> "GaussNewtonStep":
        """Itself."""
        return self


Optimiser = (
    LevenbergMarquardt
    | KrylovGaussNewton
    | VariationalGaussNewton
    | PreconditionedLBFGS
    | LBFGS
    | GaussNewtonStep
)


def in_squared_unit(square: float | None, unit: float) -> float | None:
    """A mean square for records that are `unit` times as large."""
    return None if square is None else square * unit**2


def _with_noise(square: float | None, noise: float) -> float | None:
    return None if square is None else square + noise
