"""What is done to a sample of each family: the one table that a practitioner edits.

What a recipe is, and what the fields of its stages say: recipe.py.

`GAUSS_NEWTON` is the main method: Levenberg-Marquardt with the full Jacobian, steps straight in
squared slowness. `PUBLISHED` is the method of the 2nd place of the Yale/UNC-CH competition
(J. Cottaar, 2025): float64, L-BFGS with all pairs kept, vmin without a prior. It differs from what
was published in this: the closing Gauss-Newton step of Style A is solved by conjugate gradients,
not from 1073 stored columns of the Jacobian; the Gaussian processes are centred on 3000 m/s; maps
outside the survey's velocity bounds are not visited; and a map is rounded only if its record still
fits.
"""

from dataclasses import replace
from functools import partial

from fwi_refine.inversion.levels.levels import find_levels, level_labels
from fwi_refine.inversion.recipe import GOOD_FIT, LevelAssignment, Recipe, Stage, smallest
from fwi_refine.objective.base import SumOfSquares
from fwi_refine.objective.parameterisation import Full, Modes, Regions, Rows
from fwi_refine.priors import SharedLevels, TotalVariation1D, TotalVariation2D
from fwi_refine.routing import Family

# Mean square misfits (3e-2 and 8e-2 rms) beyond which a start may be a cycle off, at the survey's
# frequency or at a lower one as well: lower frequencies first.
CYCLE_SKIP_MISFIT, FAR_CYCLE_SKIP_MISFIT = 9e-4, 6.4e-3


def lowest_level(v):
    """vmin as the lowest level of a layered map, which many cells share."""
    levels = find_levels(v).velocities
    return (float(levels[0]), 0.3) if len(levels) else smallest(v)


def every_cell(v, priors):
    return Full(v.shape)


def every_row(v, priors):
    return Rows(v.shape)


def style_a_modes(v, priors):
    # the ones with a singular value above 1 (m/s), as published
    return Modes(*(part.to(v.device) for part in priors.style_a.modes(1.0)))


def more_style_a_modes(v, priors):
    # those below 1 m/s are worth 2e-5 rms of the record, more than its rounding
    return Modes(*(part.to(v.device) for part in priors.style_a.modes(0.15)))


def tied(tolerance):
    return lambda v, priors: Regions.from_map(v, tolerance)


def levels_and_edges(v, priors):
    return Regions(level_labels(v))


def layers_smoothed(epsilon):
    return lambda v, priors: TotalVariation2D(epsilon)


def flat_layers_smoothed(epsilon):
    return lambda v, priors: TotalVariation1D(epsilon)


def few_levels(width, variation):
    def prior(v, priors):
        levels = find_levels(v)
        return SharedLevels(levels.velocities, levels.near, width, variation)

    return prior


def unit_modes(v, priors):
    return SumOfSquares()


def rough(v, priors):
    return priors.style_b


_flat_layers = Stage(every_row, flat_layers_smoothed(0.1), 1e-8, 1000, gradient_tolerance=1e-7)
_smooth = Stage(
    style_a_modes,
    unit_modes,
    1e-12,
    2500,
    gradient_tolerance=10**6.5,
    initial_step=0.01,  # unknowns count in standard deviations of their mode
)
_rough = Stage(every_cell, rough, 1e-15, 1500)
_two_layers = Stage(every_cell, layers_smoothed(0.1), 1e-7, 600, gradient_tolerance=10**4.5)
_layers = Stage(every_cell, layers_smoothed(0.1), 1e-8, 2500, gradient_tolerance=10**3.5)

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
                parameters=tied(1.0),
                weight=1e-9,
                max_iterations=1500,
                gradient_tolerance=10**2.5,
            ),
        ),
        round=True,
    ),
}


# Gauss-Newton: a handful of steps ends where L-BFGS needs hundreds to thousands (BENCHMARKS.md).
# The weight of a prior follows the misfit down: at once at its floor, the first steps would fit
# errors of linearisation.
def newton(parameters, prior, steps=1, weight=0.0, share=0.0, **options):
    return Stage(
        parameters, prior, weight, steps, method="levenberg-marquardt", share=share, **options
    )


def tied_layers(tolerance, **options):
    return newton(
        tied(tolerance), layers_smoothed(0.1), weight=1e-10, share=0.1, must_fit=True, **options
    )


# The levels are known, and with them what rounding added to the record: without it the noise is ten
# times lower, so that cells between levels are seen. What is left of it is not white: maps explain
# a quarter of it, ten times their part, which the weight for the least noise of an assignment says.
# Before all cells are right the rounding of those that are not is noise as well.
def on_levels(width, ratio):
    return newton(
        levels_and_edges,
        few_levels(width, variation=100.0),
        weight=1.5e-14 * ratio**2,
        share=0.5,
        vmin=lowest_level,
    )


# Total variation finds the layers, smoothed at first, because a blurred start has no edges yet.
# Then the levels are known well enough for each cell to be given its own.
stop_at_noise = {"steps": 4, "weight": 1e-10, "misfit_target": GOOD_FIT}
_layer_by_layer = Recipe(
    stages=(
        *(
            newton(
                every_cell,
                layers_smoothed(30.0),
                steps=steps,
                weight=1e-10,
                share=0.3,
                misfit_target=misfit,
                unless_it_fits=True,
                frequency=frequency,
            )
            for misfit, frequency, steps in (
                (FAR_CYCLE_SKIP_MISFIT, 0.4, 2),
                (CYCLE_SKIP_MISFIT, 0.6, 1),
            )
        ),
        *(
            newton(every_cell, layers_smoothed(epsilon), weight=1e-10, share=0.3, receivers=2)
            for epsilon in (30.0, 10.0)
        ),
        newton(every_cell, layers_smoothed(1.0), **stop_at_noise, share=0.3),
        # sharp edges in wrong places hold a map where it is: smoothed again, they come off
        *(
            newton(
                every_cell,
                layers_smoothed(epsilon),
                **stop_at_noise,
                share=share,
                unless_it_fits=True,
            )
            for epsilon, share in ((30.0, 0.03), (10.0, 0.1), (1.0, 0.3))
        ),
    ),
    round=True,
    # with many cells wrong a linear record is off by 4e-5 rms at the truth
    assignment=LevelAssignment(rounds=8, noise=(8e-6, 3e-5), between=on_levels),
).each_stage(partial(replace, max_damping_increases=6))  # starts may be far off
on_first_shot = {"shots": 1, "misfit_target": GOOD_FIT}
GAUSS_NEWTON = {
    Family.FLAT_VEL: Recipe(
        (
            # each shot tells all of flat layers
            newton(every_row, flat_layers_smoothed(10.0), steps=2, weight=1e-8, **on_first_shot),
            newton(every_row, flat_layers_smoothed(1.0), steps=3, weight=1e-9, **on_first_shot),
            newton(every_row, flat_layers_smoothed(0.1), steps=2, weight=1e-9, **on_first_shot),
            tied_layers(1.0, steps=3, **on_first_shot),
            tied_layers(1.0, steps=3, **on_first_shot),
            tied_layers(1.0, steps=3, misfit_target=4 * GOOD_FIT, unless_it_fits=True),
        ),
        round=True,
    ),
    # 2e-15 is the variance of a float32 record's rounding within the wavelet's band over the
    # number of its samples: with it the objective is a log density
    Family.STYLE_A: Recipe(
        (
            newton(style_a_modes, unit_modes, steps=3, weight=2e-15, share=0.05, receivers=2),
            newton(more_style_a_modes, unit_modes, steps=4, weight=2e-15, share=0.05),
        ),
        round=False,
    ),
    Family.STYLE_B: Recipe(
        # ten times that for every cell, as maps explain ten times their part of the noise
        (newton(every_cell, rough, steps=8, weight=2e-14, share=0.05),),
        round=False,
    ),
    Family.TWO_VELOCITY: _layer_by_layer,
    Family.LAYERED: _layer_by_layer,
}


# The same stages by L-BFGS, with the factored Gauss-Newton matrix as the inverse Hessian that it
# starts from.
PRECONDITIONED = {
    family: recipe.each_stage(partial(replace, method="preconditioned-lbfgs"))
    for family, recipe in GAUSS_NEWTON.items()
}

METHODS = {
    "auto": GAUSS_NEWTON,
    "gauss-newton": GAUSS_NEWTON,
    "preconditioned-lbfgs": PRECONDITIONED,
    "lbfgs": PUBLISHED,
}

# What is tried next where a route does not lead to a fit and the family was inferred: a start that
# is smooth because no network made it (initial_model.py) looks like Style A whatever it is. The
# symmetry of a record leaves no doubt.
OTHER_ROUTES = {
    Family.STYLE_A: (Family.LAYERED, Family.STYLE_B),
    Family.STYLE_B: (Family.LAYERED,),
    Family.TWO_VELOCITY: (Family.STYLE_B,),
    Family.LAYERED: (Family.STYLE_B,),
}
