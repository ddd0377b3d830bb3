"""The options of `refine`, in groups: which samples, what is done, and what is kept."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fwi_refine.cli import options
from fwi_refine.cli.options.files import load_array, load_priors, load_survey
from fwi_refine.cli.options.resources import Resources
from fwi_refine.errors import InputError
from fwi_refine.io.convert import Conversion
from fwi_refine.io.inputs import Inputs, open_inputs
from fwi_refine.limits import MAX_SAMPLES
from fwi_refine.survey import OPENFWI, Survey

if TYPE_CHECKING:
    from fwi_refine.runs.settings import Settings


@dataclass(frozen=True)
class SampleOptions:
    """Which samples are refined, and what they may start from besides the predictions."""

    candidates: tuple[Path, ...]
    ids_file: Path | None
    limit: int | None
    shard: tuple[int, int] | None  # (i, n), i from 1

    def open(
        self,
        predictions: Path,
        records: Path,
        survey: Survey,
        absolute: bool,
        shard: tuple[int, int] | None,
        conversion: Conversion,
    ) -> Inputs:
        """The inputs, see io/inputs.py.

        Parameters
        ----------
        predictions, records : Path
            As the command was given them.
        survey : Survey
            What maps and records have to fit.
        absolute : bool
            Whether other processes, and later ones, have to find them from another folder.
        shard : (int, int) or None
            The part of the samples that is opened.
        conversion : Conversion
            How the inputs are stored.
        """
        candidates = self.candidates
        if absolute:
            predictions, records = predictions.absolute(), records.absolute()
            candidates = tuple(path.absolute() for path in candidates)
        return open_inputs(
            predictions,
            records,
            self.ids_file,
            candidates,
            self.limit,
            shard,
            survey,
            conversion,
        )


@dataclass(frozen=True)
class RecipeOptions:
    """The treatment of each sample."""

    method: str
    family: str
    max_evaluations: int | None
    time_budget: float | None  # s
    priors_file: Path | None
    survey_file: Path | None = None
    prior: str = "auto"
    source: str = "known"
    samples: int = 0
    weights_file: Path | None = None
    fixed_file: Path | None = None
    bounds_files: tuple[Path, Path] | None = None

    def survey(self) -> Survey:
        """The survey of every sample. Raises InputError, also where --family auto has to be told
        which."""
        survey = load_survey(self.survey_file)
        if self.survey_file is not None and self.family == "auto":
            from fwi_refine.routing import NO_FAMILY, can_classify

            if not can_classify(survey):
                raise InputError(f"--family auto: {NO_FAMILY}")
        return survey

    def settings(
        self, resources: Resources, keep_deviation: bool, survey: Survey = OPENFWI
    ) -> "Settings":
        """The treatment of each sample, with `resources` whose numbers are filled in."""
        assert resources.threads is not None  # see `Resources.for_samples`
        assert resources.per_job is not None
        from fwi_refine.objective.constraints import check_bounds, check_fixed
        from fwi_refine.runs.settings import Settings
        from fwi_refine.survey.weights import check_weights

        weights = fixed = bounds = None
        if self.weights_file is not None:
            name = f"--weights {self.weights_file}"
            weights = check_weights(load_array(self.weights_file, "--weights"), survey, name)
        if self.fixed_file is not None:
            name = f"--fixed {self.fixed_file}"
            fixed = check_fixed(load_array(self.fixed_file, "--fixed"), survey, name)
        if self.bounds_files is not None:
            low, high = self.bounds_files
            least, most = (load_array(path, "--bounds") for path in (low, high))
            bounds = check_bounds(least, most, survey, f"--bounds {low} {high}")
        return Settings(
            priors=load_priors(self.priors_file),
            family=self.family,
            method=self.method,
            prior=self.prior,
            source=self.source,
            samples=self.samples,
            max_evaluations=self.max_evaluations,
            time_budget=self.time_budget,
            threads=resources.threads,
            device=resources.kind,
            kernel=resources.kernel,
            per_job=resources.per_job,
            keep_deviation=keep_deviation,
            survey=survey,
            weights=weights,
            fixed=fixed,
            bounds=bounds,
        )


@dataclass(frozen=True)
class Kept:
    """The run directory that finished parts are kept in, None without one."""

    run_dir: Path | None
    chunk_size: int
    keep_deviation: bool


choice = options.grouped(
    SampleOptions,
    "choice",
    "Which samples",
    click.option(
        "--candidate",
        "candidates",
        type=options.PATH,
        multiple=True,
        help="Other predictions of the same samples; each starts from the one whose simulated "
        "record fits best. Repeatable.",
    ),
    options.ids,
    options.limit,
    options.shard,
)

recipe = options.grouped(
    RecipeOptions,
    "recipe",
    "What is done to each",
    click.option(
        "--method",
        type=click.Choice(["auto", "gauss-newton", "matrix-free", "preconditioned-lbfgs", "lbfgs"]),
        default="auto",
        show_default=True,
        help="auto: gauss-newton, matrix-free where its matrices would exceed 16 GB or, for "
        "--family general, take longer, or lbfgs where there is no compiled kernel; matrix-free: "
        "its steps by conjugate gradients; preconditioned-lbfgs: its stages by L-BFGS with the "
        "Gauss-Newton matrix; lbfgs: the published recipe of the benchmark's 2nd place.",
    ),
    click.option(
        "--family",
        type=options.FamilyName("auto"),
        metavar="|".join(["auto", *options.FAMILIES]),
        default="auto",
        show_default=True,
        help="Take every sample to be of this family instead of classifying it; OpenFWI's names, "
        "such as Style_A, stand for the route that they take.",
    ),
    click.option(
        "--prior",
        type=click.Choice(["auto", "gp", "tv", "learned"]),
        default="auto",
        show_default=True,
        help="What the Style families end with: gp, the Gaussian process; tv, total variation; "
        "learned, a denoiser trained on made maps; auto: learned for Style_B (tv where cells "
        "are not 10 m), gp for Style_A.",
    ),
    click.option(
        "--source",
        type=click.Choice(["known", "fit", "fit-each"]),
        default="known",
        show_default=True,
        help="known: the wavelet is the survey's; fit: amplitude, delay and shape are estimated "
        "with each map, one wavelet for all shots; fit-each: one for each shot.",
    ),
    click.option(
        "--samples",
        type=click.IntRange(0, MAX_SAMPLES),
        metavar="K",
        default=0,
        help="Also write K maps drawn from the posterior of each sample, beside --out: "
        "NAME.samples.h5 with samples (N,K,nz,nx) in m/s and ids; NaN where it is not known.",
    ),
    click.option(
        "--max-evaluations",
        type=click.IntRange(min=1),
        metavar="N",
        help="Misfit evaluations allowed for each sample. Default: as many as it takes.",
    ),
    click.option(
        "--time-budget",
        type=options.Number(min=0, min_open=True),
        metavar="S",
        help="Seconds allowed for each sample, looked at before each simulation and within a "
        "Jacobian; a map that does not fit by then gives way to its start where that is likelier "
        "to be nearer. Default: as many as it takes.",
    ),
    click.option(
        "--weights",
        "weights_file",
        type=options.PATH,
        metavar="FILE",
        help="A weight, .npy, for each shot, receiver, trace (shots, receivers) or sample (shots, "
        "rows, receivers) of every record: one over the variance of its noise, up to a factor; 0 "
        "leaves it out. Missing samples, such as NaN or dead traces, are left out anyway.",
    ),
    click.option(
        "--fixed",
        "fixed_file",
        type=options.PATH,
        metavar="FILE",
        help="A mask, .npy of the shape of a map: cells where it is true are kept as predicted.",
    ),
    click.option(
        "--bounds",
        "bounds_files",
        type=(options.PATH, options.PATH),
        metavar="LOW HIGH",
        help="Least and largest velocity of each cell in m/s, two .npy of the shape of a map; NaN "
        "where the survey's bounds hold.",
    ),
    options.priors,
    options.survey,
)

kept = options.grouped(
    Kept,
    "kept",
    "Runs that can be stopped and continued",
    click.option(
        "--run-dir",
        type=options.OUTPUT,
        help="Keep finished samples in this directory. The same command continues a run that was "
        "stopped; with --shard, several machines share one. Without it they are kept beside --out "
        "until that is written.",
    ),
    click.option(
        "--chunk-size",
        type=click.IntRange(min=1),
        metavar="N",
        default=8,
        show_default=True,
        help="So many samples make one file of --run-dir. A sample that is finished is kept, "
        "whatever the number.",
    ),
    click.option(
        "--keep-deviation",
        is_flag=True,
        help="Keep in --run-dir what merge --deviation writes; refine --deviation does so too.",
    ),
)
