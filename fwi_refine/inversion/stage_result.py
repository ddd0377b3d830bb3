"""The result of a stage: a model, its curvature, and the way there."""

from dataclasses import dataclass

import torch

from fwi_refine.inversion.model import Model
from fwi_refine.inversion.uncertainty import Uncertainty

# (evaluations so far, rms misfit) of a stage after each of its iterations
Trace = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Curvature:
    """The objective's curvature after some stages, as far as it is known.

    Attributes
    ----------
    uncertainty
        What the expected error follows from; None where it is not known.
    cells
        Hessian of the misfit by every cell, the last one; None before there was any.
    """

    uncertainty: Uncertainty | None = None
    cells: torch.Tensor | None = None

    def then(self, later: "Curvature | None") -> "Curvature":
        """After a later stage; None: one that has learnt nothing of it."""
        if later is None:
            return self
        return Curvature(later.uncertainty, self.cells if later.cells is None else later.cells)


@dataclass(frozen=True)
class StageResult:
    """Where one or several stages ended.

    Attributes
    ----------
    model
        The map and vmin.
    curvature
        None where nothing was learnt of it.
    traces
        One for each stage that was carried out.
    stopped
        Whether budget or time ran out.
    """

    model: Model
    curvature: Curvature | None
    traces: tuple[Trace, ...]
    stopped: bool

    def then(self, later: "StageResult") -> "StageResult":
        """This and what followed."""
        return StageResult(
            later.model,
            (self.curvature or Curvature()).then(later.curvature),
            self.traces + later.traces,
            later.stopped,
        )
