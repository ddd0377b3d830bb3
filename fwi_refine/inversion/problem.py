"""The problem of a stage: a misfit and a prior, by the unknowns of the stage."""

from dataclasses import dataclass

import torch

from fwi_refine.inversion.data import Data
from fwi_refine.inversion.model import Model
from fwi_refine.inversion.recipe import Stage
from fwi_refine.objective.base import Objective, PriorTerm
from fwi_refine.objective.parameterisation import Parameters
from fwi_refine.priors import Priors


@dataclass(frozen=True)
class Problem:
    """A stage at a model.

    Attributes
    ----------
    stage
        What is minimised, and how.
    data
        The record that is to be explained.
    model
        Where to begin.
    parameters
        The unknowns.
    prior
        Of the stage, as a function of the unknowns.
    x : Tensor, shape (n,)
        The model as the unknowns have it.
    """

    stage: Stage
    data: Data
    model: Model
    parameters: Parameters
    prior: PriorTerm
    x: torch.Tensor

    @classmethod
    def at(cls, stage: Stage, data: Data, model: Model, priors: Priors) -> "Problem":
        """The stage at a model; cells that the data fix are no unknowns."""
        parameters = stage.unknowns(model.v, priors)
        if data.constraints is not None:
            parameters = data.constraints.with_fixed_cells(parameters)
        prior = PriorTerm(stage.prior(model.v, priors), parameters)
        x = parameters.from_velocity(model.v, model.vmin)
        return cls(stage, data, model, parameters, prior, x)

    @property
    def bound_penalty(self) -> Objective | None:
        """The penalty of cells beyond bounds of their own; None where there are none."""
        constraints = self.data.constraints
        return None if constraints is None else constraints.bound_penalty(self.parameters)


def penalty(stage: Stage, model: Model, priors: Priors) -> float:
    """Weighted prior of a model, as a stage has it.

    Parameters
    ----------
    stage
        Whose unknowns, prior and weight count.
    model
        The map, and its vmin.
    priors
        On the grid of the survey.

    Returns
    -------
    float
        In the unit of a mean square misfit.
    """
    parameters = stage.unknowns(model.v, priors)
    prior = PriorTerm(stage.prior(model.v, priors), parameters)
    return stage.weight * float(prior(parameters.from_velocity(model.v, model.vmin)))
