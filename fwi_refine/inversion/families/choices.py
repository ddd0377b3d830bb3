"""The parts of recipes: unknowns, priors and knowledge of vmin, from the present map."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from fwi_refine.inversion.levels.levels import find_levels, level_labels
from fwi_refine.inversion.levels.rounding import SHALLOW_ROWS, without_rounding_of_levels
from fwi_refine.inversion.optimisers import LevenbergMarquardt, VariationalGaussNewton
from fwi_refine.inversion.recipe import Stage, Subset, smallest
from fwi_refine.objective.base import SumOfSquares
from fwi_refine.objective.parameterisation import Full, Modes, Parameters, Regions, Rows
from fwi_refine.priors import (
    LearnedPrior,
    Priors,
    SharedLevels,
    TotalVariation1D,
    TotalVariation2D,
    VariationalTotalVariation,
)

# Mean square misfits of starts that may be a cycle off: at the survey's frequency (3e-2 rms), at
# 0.6 of it as well (8e-2 rms), and at 0.4 of it (9.5e-2 rms).
CYCLE_SKIP_MISFIT, FAR_CYCLE_SKIP_MISFIT, FARTHEST_CYCLE_SKIP_MISFIT = 9e-4, 6.4e-3, 9e-3
# Of the lowest frequencies: fraction of the survey's, and Jacobians, with few corrections for each,
# as one costs no more than two of these. The released records are free of noise, and the wavelet of
# 15 Hz has 2 Hz in it.
LOWEST_FREQUENCIES = ((0.15, 6), (0.22, 4), (0.32, 3))
# m/s, of total variation as a density exp(-TV / VARIATION), smoothed over EPSILON
VARIATION, EPSILON = 20.0, 0.1

Unknowns = Callable[[torch.Tensor, Priors], Parameters]
MakePrior = Callable[[torch.Tensor, Priors], Any]


def every_cell(v: torch.Tensor, priors: Priors) -> Parameters:
    """One unknown for each cell."""
    nz, nx = v.shape
    return Full((nz, nx))


def every_row(v: torch.Tensor, priors: Priors) -> Parameters:
    """One unknown for each row: flat layers."""
    nz, nx = v.shape
    return Rows((nz, nx))


def style_a_modes(least: float) -> Unknowns:
    """The modes of the Style A process with a singular value above `least` m/s."""
    return lambda v, priors: Modes(*(part.to(v.device) for part in priors.style_a.modes(least)))


def tied(tolerance: float) -> Unknowns:
    """One unknown for connected cells that differ by less than `tolerance` m/s."""
    return lambda v, priors: Regions.from_map(v, tolerance)


def levels_and_edges(v: torch.Tensor, priors: Priors) -> Parameters:
    """One unknown for each level of a map of few, and for each cell near an edge."""
    return Regions(level_labels(v))


def layers_smoothed(epsilon: float) -> MakePrior:
    """Total variation, smoothed over differences of `epsilon` m/s."""
    return lambda v, priors: TotalVariation2D(epsilon)


def flat_layers_smoothed(epsilon: float) -> MakePrior:
    """The same from row to row."""
    return lambda v, priors: TotalVariation1D(epsilon)


def sharp_edges(v: torch.Tensor, priors: Priors) -> SharedLevels:
    """Total variation as a density, with no level told."""
    near = v.new_zeros((0, *v.shape), dtype=torch.bool)
    return SharedLevels(v.new_zeros(0), near, 1.0, VARIATION, EPSILON)


def few_levels(width: Any, variation: float = VARIATION, epsilon: float = EPSILON) -> MakePrior:
    """Cells at one of the map's levels; width (nz, nx) or a number: m/s about its level; variation
    and epsilon: m/s, of the total variation."""

    def prior(v: torch.Tensor, priors: Priors) -> SharedLevels:
        levels = find_levels(v)
        return SharedLevels(levels.velocities, levels.allowed, width, variation, epsilon)

    return prior


def unit_modes(v: torch.Tensor, priors: Priors) -> SumOfSquares:
    """Modes that count in standard deviations."""
    return SumOfSquares()


def rough(v: torch.Tensor, priors: Priors) -> Any:
    """The Gaussian process of Style B."""
    return priors.style_b


def smooth(v: torch.Tensor, priors: Priors) -> Any:
    """The Gaussian process of Style A on every cell, with at least 1 m/s of its own for each."""
    return replace(priors.style_a, noise=max(1.0, priors.style_a.noise))


def edges(v: torch.Tensor, priors: Priors) -> VariationalTotalVariation:
    """Total variation about the trend of Style B, before the data have told anything."""
    return priors.style_b_variation.prior()


def learned(v: torch.Tensor, priors: Priors) -> LearnedPrior:
    """The learned prior of Style B, before the data have told anything."""
    return priors.style_b_learned.prior(priors.style_b)


def lowest_level(v: torch.Tensor) -> tuple[float, float]:
    """vmin as the lowest level of a layered map, which many cells share."""
    levels = find_levels(v).velocities
    return (float(levels[0]), 0.3) if len(levels) else smallest(v)


def surface_minimum(v: torch.Tensor) -> tuple[float, float]:
    """vmin as the least velocity of a map, which is known closely near the surface.

    In a fit vmin takes up some of the rounding, 1 to 3 m/s on released Style maps whose least
    velocity was right to 0.02 m/s.
    """
    row = int(v.argmin()) // v.shape[1]
    return (float(v.min()), 0.05) if row < SHALLOW_ROWS else smallest(v)


def newton(
    unknowns: Unknowns,
    prior: MakePrior,
    iterations: int = 1,
    target: float | None = None,
    max_damping_increases: int = 3,
    **options: Any,
) -> Stage:
    """A stage of the main method.

    Parameters
    ----------
    unknowns, prior
        From the present map; see `Stage`.
    iterations, target, max_damping_increases
        As of `LevenbergMarquardt`, with ten corrections.
    **options
        Others of `Stage`; a weight that is not named is 0.
    """
    optimiser = LevenbergMarquardt(iterations, 10, max_damping_increases, target=target)
    return Stage(unknowns, prior, options.pop("weight", 0.0), optimiser, **options)


def from_far(stage: Stage, near: float = CYCLE_SKIP_MISFIT) -> tuple[Stage, ...]:
    """A stage at lower frequencies in turn, for starts that may be a cycle off.

    At the lowest, for starts hundreds of m/s off, every fourth receiver tells all of so long waves.
    near: mean square misfit below which a start is not a cycle off at the survey's frequency.
    """
    optimiser = stage.optimiser
    assert isinstance(optimiser, LevenbergMarquardt)
    lowest = (
        replace(
            stage,
            optimiser=replace(optimiser, iterations=iterations, corrections=3, target=None),
            data=Subset(frequency=frequency, receivers=4),
            skip_if=FARTHEST_CYCLE_SKIP_MISFIT,
        )
        for frequency, iterations in LOWEST_FREQUENCIES
    )
    lower = (
        replace(
            stage,
            optimiser=replace(optimiser, iterations=iterations, target=misfit),
            data=Subset(frequency=frequency),
            skip_if=misfit,
        )
        for frequency, iterations, misfit in ((0.4, 2, FAR_CYCLE_SKIP_MISFIT), (0.6, 1, near))
    )
    return (*lowest, *lower)


def settled_on(prior: MakePrior, *noise: float, rounds: int = 8) -> Stage:
    """Every cell, with a Jacobian for each noise (rms of a coefficient of the band), and the prior,
    a log density, settled with each: its majoriser is renewed for so many rounds, which costs no
    simulation. The rounding that the levels tell is taken out.

    A majoriser is tight where it was taken: a map that takes one step with each moves its edges by
    little, and a Jacobian costs ten times a round. On a real CurveFault_B map, 47 m/s off, four
    Jacobians with eight rounds each led to 4.8 m/s; stages with one round a Jacobian ended at 13.2.
    """
    return Stage(
        every_cell,
        prior,
        1.5e-15,
        VariationalGaussNewton(noise, rounds=rounds),
        vmin=lowest_level,
        data=Subset(take_out=without_rounding_of_levels),
    )
