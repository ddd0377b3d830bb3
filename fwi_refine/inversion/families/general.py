"""Any map, from starts hundreds of m/s off: every cell by total variation, and no more assumptions.

No trend, no levels, no integers, no family that is told from a record: it is never inferred, and
`--family general` chooses it. The frequency rises from the lowest that the records hold, so that
what one step leaves is no cycle off at the next; a low frequency is skipped where the start fits
it. Total variation is smoothed over large differences at first, as a smooth start has no edges.
"""

from functools import partial

from fwi_refine.inversion.families.choices import every_cell, layers_smoothed, newton
from fwi_refine.inversion.families.definition import FamilyDefinition
from fwi_refine.inversion.recipe import GOOD_FIT, LBFGS, Recipe, Stage, Subset

