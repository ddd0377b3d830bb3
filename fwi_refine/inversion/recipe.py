"""What a recipe is: a sequence of stages, and what follows them for maps of few levels.

A stage is one minimisation of

    mean((s(v) - d)^2) + weight * prior

over the unknowns of its parameterisation, from the map that the stage before it left. vmin is one
more unknown. The recipes themselves are in recipes.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from fwi_refine.objective.parameterisation import Parameters
from fwi_refine.optimise import weight_by_share
from fwi_refine.routing import can_classify
from fwi_refine.survey import Survey

# The published cost is multiplied by this, which gives gradient_tolerance its unit.
COST_SCALE = 1e15

# Mean square misfit (5e-5 rms) at which the long stages stop: a good fit of released data.
GOOD_FIT = 2.5e-9


def smallest(v):
    """vmin as the minimum of a map v (nz, nx): a guess, as a single wrong cell spoils it."""
    return float(v.min()), 30.0


@dataclass(frozen=True)
class Stage:
    """One minimisation.

    parameters: makes the parameterisation from the present map (nz, nx) and the priors
    prior: makes the prior from the present map and the priors; it acts on
        `Parameters.prior_coordinates`
    method: "lbfgs"; "levenberg-marquardt"; "preconditioned-lbfgs"; or "gauss-newton-step", one
        step solved by conjugate gradients
    corrections: most steps with one Jacobian (this, and all that follows down to misfit_target, is
        for the two methods that take one)
    max_damping_increases: for each Jacobian, where a step has lowered nothing: 6 begin with
        short steps where a start is far off, 3 leave it to the next stage
    share: where it is not 0, weight is a floor only: the prior counts this share of the misfit
        as long as that is more
    must_fit: the result is dropped where the record fits more than twice as badly (rms) as before
        the first such stage, and worse than `GOOD_FIT`
    misfit_target: mean square misfit at which the stage ends; None: no target
    unless_it_fits: the stage, with all such that follow with the same misfit_target, is left out
        where the misfit is below that already and the stage before has hardly moved the map
    initial_step: largest change of an unknown in the first trial step
    vmin: makes (m/s, standard deviation), what is known of vmin, from the present map, for the two
        methods that take a Jacobian
    frequency: on the record as with a wavelet of a frequency lower by this factor
        (survey/frequency.py)
    shots: how many of the record's shots are used, None: all
    receivers: every how many-th of its receivers is used. Both for the survey of OpenFWI alone,
        whose first shot, at the edge, has all the offsets of the others, and whose receivers are
        dense: far from the solution every second one tells as much. Not along with frequency
    """

    parameters: Callable[..., Parameters]
    prior: Callable[..., object]
    weight: float
    max_iterations: int
    method: str = "lbfgs"
    corrections: int = 10
    max_damping_increases: int = 3
    share: float = 0.0
    must_fit: bool = False
    misfit_target: float | None = None
    unless_it_fits: bool = False
    gradient_tolerance: float = 0.0
    initial_step: float = 10.0  # m/s
    vmin: Callable[..., tuple[float, float]] = smallest
    frequency: float | None = None
    shots: int | None = None
    receivers: int = 1

    def in_unit(self, unit: float) -> "Stage":
        """The same stage for records that are `unit` times as large as those of OpenFWI."""
        if unit == 1.0:
            return self
        square = unit**2
        target = None if self.misfit_target is None else self.misfit_target * square
        return replace(
            self,
            weight=self.weight * square,
            misfit_target=target,
            gradient_tolerance=self.gradient_tolerance * square,
        )

    def part_of(self, survey: Survey) -> Survey:
        """The survey with the shots and receivers that are used."""
        if not can_classify(survey):
            return survey
        sources, receivers = survey.sources[: self.shots], survey.receivers[:: self.receivers]
        if (sources, receivers) == (survey.sources, survey.receivers):
            return survey
        return replace(survey, sources=sources, receivers=receivers)

    def weight_at(self, misfit: float, prior: float) -> float:
        """The prior's weight where the mean square misfit and the prior have these values."""
        return weight_by_share(self.share, misfit, prior, least=self.weight)


@dataclass(frozen=True)
class LevelAssignment:
    """Rounds in which each cell of a map of few levels is given its level; see levels/refine.py.

    noise: what of the rms residual counts as noise, at least, and at first if the residual is not
    far larger. between(width, ratio):
    the stage from what one round has assigned to where the next begins; width (nz, nx): m/s about
    its level where a cell is expected, ratio: of the present noise to the least.
    """

    rounds: int
    noise: tuple[float, float]
    between: Callable[..., Stage]


@dataclass(frozen=True)
class Recipe:
    """Stages, one after the other, and whether the velocities of the family are integers.

    assignment: what follows the stages for maps of few levels
    """

    stages: tuple[Stage, ...]
    round: bool
    assignment: LevelAssignment | None = None

    def in_unit(self, unit: float) -> "Recipe":
        """The same recipe for records that are `unit` times as large; see `Survey.unit`."""
        if unit == 1.0:
            return self
        recipe = self.each_stage(lambda stage: stage.in_unit(unit))
        if self.assignment is None:
            return recipe
        noise = tuple(unit * noise for noise in self.assignment.noise)
        return replace(recipe, assignment=replace(recipe.assignment, noise=noise))

    def each_stage(self, change: Callable[[Stage], Stage]) -> "Recipe":
        """The recipe with change(stage) for each stage, that between assignments as well."""
        stages, assignment = tuple(map(change, self.stages)), self.assignment
        if assignment is not None:
            between = assignment.between
            assignment = replace(assignment, between=lambda *how: change(between(*how)))
        return replace(self, stages=stages, assignment=assignment)
