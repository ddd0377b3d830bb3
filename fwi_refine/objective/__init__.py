"""Objectives: misfits and priors over the unknowns of a parameterisation."""

from fwi_refine.objective.base import (
    AddedHessian,
    Objective,
    PriorTerm,
    SumOfSquaredResiduals,
    SumOfSquares,
)
from fwi_refine.objective.connected import connected_areas
from fwi_refine.objective.flat_misfit import FlatMisfit, has_flat_misfit, window_before_return
from fwi_refine.objective.misfit import BandMisfit, DataMisfit
from fwi_refine.objective.noise import MIN_NOISE, noise_variance
from fwi_refine.objective.parameterisation import Full, Modes, Parameters, Regions, Rows
from fwi_refine.objective.source_cells import SourceCells, source_cells, source_velocities
from fwi_refine.objective.vmin_prior import VminPrior

__all__ = [
    "MIN_NOISE",
    "AddedHessian",
    "BandMisfit",
    "DataMisfit",
    "FlatMisfit",
    "Full",
    "Modes",
    "Objective",
    "Parameters",
    "PriorTerm",
    "Regions",
    "Rows",
    "SourceCells",
    "SumOfSquaredResiduals",
    "SumOfSquares",
    "VminPrior",
    "connected_areas",
    "has_flat_misfit",
    "noise_variance",
    "source_cells",
    "source_velocities",
    "window_before_return",
]
