"""Smooth maps: the strongest modes of a Gaussian process."""

from dataclasses import replace

from fwi_refine.inversion.families.choices import newton, style_a_modes, unit_modes
from fwi_refine.inversion.families.definition import FamilyDefinition
from fwi_refine.inversion.recipe import LBFGS, GaussNewtonStep, Recipe, Stage, Subset

PUBLISHED_MODES = 1.0  # m/s, least singular value
# the modes below that are worth 2e-5 rms of the record, more than its rounding
ALL_MODES = 0.15
# The variance of a float32 record's rounding within the wavelet's band over the number of its
# samples: with it the objective is a log density.
NOISE = 2e-15

_published = Stage(
    style_a_modes(PUBLISHED_MODES),
    unit_modes,
    1e-12,
    # unknowns count in standard deviations of their mode
    LBFGS(2500, gradient_tolerance=10**6.5, initial_step=0.01),
)

FAMILY = FamilyDefinition(
    name="style-a",
    openfwi=("Style_A",),
    gauss_newton=Recipe(
        (
            newton(
                style_a_modes(PUBLISHED_MODES),
                unit_modes,
                3,
                weight=NOISE,
                prior_fraction=0.05,
                data=Subset(receivers=2),
            ),
            newton(style_a_modes(ALL_MODES), unit_modes, 4, weight=NOISE, prior_fraction=0.05),
        ),
        round=False,
    ),
    published=Recipe((_published, replace(_published, optimiser=GaussNewtonStep())), round=False),
    # a start that is smooth because no network made it looks like Style A whatever it is
    others=("layered", "style-b"),
)
