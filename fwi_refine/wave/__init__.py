"""The wave operator. This is its only door: everything else in the folder is behind it."""

from fwi_refine.wave.jacobian import Jacobian, jacobian
from fwi_refine.wave.operator import Simulator, simulate

__all__ = ["Jacobian", "Simulator", "jacobian", "simulate"]
