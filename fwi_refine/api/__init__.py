"""The Python interface: arrays in, arrays out. What `fwi-refine` does with files, without files.

The functions here are those of the package itself, `from fwi_refine import refine`. A map is
(nz, nx) in m/s and a record (shots, rows, receivers); (70, 70) and (5, 1000, 70) for OpenFWI. One
map may be given, or many: (N, nz, nx) or (N, 1, nz, nx), as numpy arrays, torch tensors or lists.
"""

from fwi_refine.api.classification import classify
from fwi_refine.api.refinement import Refinement, refine
from fwi_refine.api.simulation import simulate

__all__ = ["Refinement", "classify", "refine", "simulate"]
