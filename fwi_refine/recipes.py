"""What is done to a sample of each family: the one table that a practitioner edits.

A recipe is a sequence of stages. A stage is one minimisation of

    mean((s(v) - d)^2) + weight * prior

over the unknowns of its parameterisation, from the map that the stage before it left. vmin is one
more unknown, without a prior. `PUBLISHED` is the method of the 2nd place of the Yale/UNC-CH
competition (J. Cottaar, 2025): float64, L-BFGS with all pairs kept. It differs from what was
published in one place: the closing Gauss-Newton step of Style A is solved by conjugate gradients,
not from 1073 stored columns of the Jacobian.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from fwi_refine.classify import Family
from fwi_refine.objective import SumOfSquares
from fwi_refine.parameters import Full, Modes, Parameters, Regions, Rows
from fwi_refine.priors import Priors, TotalVariation1D, TotalVariation2D

# The published cost is multiplied by this, which gives gradient_tolerance its unit.
COST_SCALE = 1e15

# Mean square misfit (5e-5 rms) at which the long stages stop.
GOOD_FIT = 2.5e-9


@dataclass(frozen=True)
class Stage:
    """One minimisation.

    parameters: makes the parameterisation from the present map (nz, nx) and the priors
    prior: makes the prior from the priors; it acts on `Parameters.prior_coordinates`
    method: "lbfgs"; "levenberg-marquardt", for few unknowns; or "gauss-newton-step", one step
        solved by conjugate gradients
    misfit_target: mean square misfit at which the stage ends; None: no target
    initial_step: largest change of an unknown in the first trial step
    """

    parameters: Callable[..., Parameters]
    prior: Callable[[Priors], object]
    weight: float
    max_iterations: int
    method: str = "lbfgs"
    misfit_target: float | None = None
    gradient_tolerance: float = 0.0
    initial_step: float = 10.0  # m/s


@dataclass(frozen=True)
class Recipe:
    """Stages, one after the other, and whether the velocities of the family are integers."""

    stages: tuple[Stage, ...]
    round: bool


def every_cell(v, priors):
    return Full(v.shape)


def every_row(v, priors):
    return Rows(v.shape)


def style_a_modes(v, priors):
    # the ones with a singular value above 1 (m/s), as published
    return Modes(*priors.style_a.modes(1.0))


def tied_cells(v, priors):
    return Regions.from_map(v, tolerance=1.0)


def layers(priors):
    return TotalVariation2D(epsilon=0.1)


def flat_layers(priors):
    return TotalVariation1D(epsilon=0.1)


def flat_layers_rough(priors):
    # a blurred start has no edges yet: with a small epsilon it would keep the ones it has
    return TotalVariation1D(epsilon=10.0)


def unit_modes(priors):
    return SumOfSquares()


def rough(priors):
    return priors.style_b


_flat_layers = Stage(every_row, flat_layers, 1e-8, 1000, gradient_tolerance=1e-7)
_smooth = Stage(
    style_a_modes,
    unit_modes,
    1e-12,
    2500,
    gradient_tolerance=10**6.5,
    initial_step=0.01,  # unknowns count in standard deviations of their mode
)
_rough = Stage(every_cell, rough, 1e-15, 1500)
_two_layers = Stage(every_cell, layers, 1e-7, 600, gradient_tolerance=10**4.5)
_layers = Stage(every_cell, layers, 1e-8, 2500, gradient_tolerance=10**3.5)

PUBLISHED = {
    Family.FLAT_VEL: Recipe((_flat_layers,), round=True),
    Family.STYLE_A: Recipe(
        (_smooth, replace(_smooth, method="gauss-newton-step", max_iterations=1)), round=False
    ),
    Family.STYLE_B: Recipe(
        (_rough, replace(_rough, max_iterations=7500, misfit_target=GOOD_FIT)), round=False
    ),
    Family.TWO_VELOCITY: Recipe((_two_layers,), round=True),
    Family.LAYERED: Recipe(
        (
            _layers,
            replace(_layers, max_iterations=7500, misfit_target=GOOD_FIT),
            replace(
                _layers,
                parameters=tied_cells,
                weight=1e-9,
                max_iterations=1500,
                gradient_tolerance=10**2.5,
            ),
        ),
        round=True,
    ),
}

# Gauss-Newton where the unknowns are few: 71 columns of the Jacobian are 71 tangent runs, and a
# handful of steps ends at the same minimum that L-BFGS needs hundreds for (BENCHMARKS.md).
_flat_newton = replace(_flat_layers, method="levenberg-marquardt", max_iterations=8)
AUTO = PUBLISHED | {
    Family.FLAT_VEL: Recipe(
        (replace(_flat_newton, prior=flat_layers_rough, max_iterations=3), _flat_newton), round=True
    )
}

METHODS = {"auto": AUTO, "lbfgs": PUBLISHED}
