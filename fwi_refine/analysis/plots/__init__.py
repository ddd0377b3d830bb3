"""Figures of samples and of runs, with matplotlib (the extra [plot]).

Every function returns a matplotlib Figure, which no window and no global state belongs to; `save`
writes it. Colours can be told apart with any colour vision: maps are perceptually uniform, and
what has a sign is diverging around zero.
"""

from fwi_refine.analysis.plots.curves import convergence, misfit_histogram
from fwi_refine.analysis.plots.panels import panels
from fwi_refine.analysis.plots.sheets import contact_sheet, samples
from fwi_refine.analysis.plots.style import SUFFIXES, save, to_bytes

__all__ = [
    "SUFFIXES",
    "contact_sheet",
    "convergence",
    "misfit_histogram",
    "panels",
    "samples",
    "save",
    "to_bytes",
]
