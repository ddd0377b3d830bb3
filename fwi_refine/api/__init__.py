"""The Python interface: arrays in, arrays out."""

from fwi_refine.api.functions import Refinement, classify, refine, simulate

__all__ = ["Refinement", "classify", "refine", "simulate"]
