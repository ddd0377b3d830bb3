"""A learned prior with the quadratic that a Jacobian makes of the misfit."""

from dataclasses import dataclass
from typing import Any

import torch

from fwi_refine.inversion.uncertainty import Solution
from fwi_refine.objective.base import PriorTerm
from fwi_refine.objective.parameters import Parameters
from fwi_refine.optimise.definite import Solve
from fwi_refine.optimise.variational import settled
from fwi_refine.priors.learned import LearnedPrior, Likelihood

FIXED = 0.1  # m/s, standard deviation of a cell that is fixed


def settled_by_chains(
    hessian: torch.Tensor,
    gradient: torch.Tensor,
    prior: Any,
    x: torch.Tensor,
    weight: float,
    *,
    first: PriorTerm,
    penalties: Any,
) -> tuple[Any, torch.Tensor, Solve]:
    """The normal prior that stands for samples, and the step with it, as `optimise.settled`.

    Parameters
    ----------
    hessian, gradient : Tensor, shapes (n, n) and (n,)
        Of the misfit at x, by every cell that is not fixed, and by vmin.
    prior
        That of the Jacobian before; the new one does not depend on it.
    x : Tensor, shape (n,)
        Where the Jacobian is from.
    weight : float
        Variance of the noise over the number of samples.
    first : PriorTerm
        Of a `LearnedPrior`.
    penalties
        What else is known of the unknowns; it is quadratic.

    Returns
    -------
    prior, step, solve
        As of `optimise.settled`.
    """
    learned = first.prior
    assert isinstance(learned, LearnedPrior)
    likelihood = likelihood_of(hessian, gradient, penalties, x, weight, first.parameters)
    seen = learned.update(likelihood)
    return settled(hessian, gradient, PriorTerm(seen, first.parameters) + penalties, x, weight)


@dataclass(frozen=True)
class SampledSolution(Solution):
    """Where a stage with a learned prior ended: samples of its chains are the posterior.

    Attributes
    ----------
    learned : LearnedPrior or None
        The prior at the last Jacobian, with the likelihood there.

    Other attributes as of `Solution`.
    """

    learned: LearnedPrior | None = None

    def deviation(self, v: torch.Tensor | None = None) -> torch.Tensor | None:
        """As of `Solution`: the standard deviation of the chains."""
        if self.learned is None or self.learned.deviation is None:
            return super().deviation(v)
        return self.spread * self.learned.deviation

    def samples(self, v: torch.Tensor, count: int, seed: int) -> torch.Tensor | None:
        """As of `Solution`: ends of as many chains, moved by what the map is off the estimate."""
        if self.learned is None or self.learned.mean is None:
            return super().samples(v, count, seed)
        return v + self.spread * (self.learned.samples(count, seed) - self.learned.mean)


def likelihood_of(
    hessian: torch.Tensor,
    gradient: torch.Tensor,
    penalties: Any,
    x: torch.Tensor,
    weight: float,
    parameters: Parameters,
) -> Likelihood:
    """The likelihood of the cells by data and penalties, whatever vmin is.

    Parameters
    ----------
    hessian, gradient, penalties, x, weight
        As for `settled_by_chains`.
    parameters
        Whose unknowns are cells: all, or those that are not fixed.

    Returns
    -------
    Likelihood
        Of all cells; a fixed one is known to `FIXED` m/s.

    Notes
    -----
    The misfit is g . u + u^T H u / 2 after a step u, and minus the logarithm of the likelihood that
    over twice the weight. vmin is integrated out: of a normal density, by a Schur complement.
    """
    matrix = hessian.clone()
    penalties.add_hessian(matrix, x, weight)
    matrix /= 2 * weight
    pull = (gradient + weight * penalties.gradient(x)) / (-2 * weight)
    cross, own = matrix[:-1, -1], matrix[-1, -1]
    cells = matrix[:-1, :-1] - torch.outer(cross, cross) / own
    right = pull[:-1] - cross * (pull[-1] / own)
    free = parameters.expand(torch.ones_like(right)).flatten() > 0
    if not bool(free.all()):
        index = free.nonzero()[:, 0]
        known = torch.diag((~free).to(cells) / FIXED**2)
        known[index[:, None], index] = cells
        cells, right = known, torch.zeros_like(known[0]).index_copy(0, index, right)
    return Likelihood.of(cells, right, parameters.velocity(x))
