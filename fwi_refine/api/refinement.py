"""Refinement of arrays: what `fwi-refine refine` does with files, without files."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from joblib import cpu_count
from numpy.typing import ArrayLike, NDArray

from fwi_refine.analysis.notebook import result_as_html
from fwi_refine.api.arrays import chunks, match
from fwi_refine.api.options import (
    check_arrays,
    check_choice,
    check_priors,
    families_of,
    gpus_meant,
    torch_device,
)
from fwi_refine.errors import InputError
from fwi_refine.inversion.families import METHODS, NAMES, PRIORS
from fwi_refine.inversion.method import WITHOUT_MATRIX, takes_prior
from fwi_refine.io.report import Row
from fwi_refine.io.samples import Sample
from fwi_refine.limits import MAX_SAMPLES, MAX_THREADS, check_jobs, truth_value, whole_number
from fwi_refine.objective.constraints import check_bounds, check_fixed
from fwi_refine.objective.source import SOURCES
from fwi_refine.priors import Priors
from fwi_refine.runs import batch
from fwi_refine.runs.executors import Executor, Processes, Serial
from fwi_refine.runs.one_sample import Outcome, refine_one
from fwi_refine.runs.settings import Settings, check_memory
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.validate import to_maps, to_numpy
from fwi_refine.survey.weights import check_weights
from fwi_refine.wave import KERNELS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refinement:
    """The results of `refine`.

    Attributes
    ----------
    velocity : array
        The maps in m/s, of the shape that the predictions had, float64 if the predictions were,
        else float32. A sample that failed has its prediction there, as it was given.
    deviation : array
        Expected rms error of each cell in m/s, float32, of the same shape; NaN where it is not
        known.
    reports : tuple of Row
        What happened to each sample: status, family and why, misfit before and after,
        evaluations, seconds, expected error, and the reason of a failure.
    samples : array or None
        Where they were asked for: K maps from the posterior of each sample in m/s, float32, of the
        shape of the maps with K before the last two axes; NaN where it is not known.
    survey : Survey
        That of the maps.
    start : array or None
        The predictions.

    A notebook shows it as a table, with pictures of the first samples where matplotlib is
    installed.
    """

    velocity: NDArray[Any]
    deviation: NDArray[np.float32]
    reports: tuple[Row, ...]
    samples: NDArray[np.float32] | None = None
    survey: Survey = OPENFWI
    start: NDArray[Any] | None = None

    @property
    def failed(self) -> dict[int, str]:
        """Number and reason of each sample that failed."""
        return {k: row.reason for k, row in enumerate(self.reports) if row.status == "failed"}

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        shape = (len(self.reports), *self.survey.shape)
        return result_as_html(
            self.reports,
            self.velocity.reshape(shape),
            None if self.start is None else self.start.reshape(shape),
            self.deviation.reshape(shape),
            self.survey,
        )

    def column(self, name: str) -> list[Any]:
        """One field of all reports, such as "misfit_after"; None where a sample has none."""
        return [getattr(row, name) for row in self.reports]


def refine(
    predictions: ArrayLike | torch.Tensor,
    records: Any,
    *,
    survey: Survey = OPENFWI,
    family: str | Sequence[str] = "auto",
    method: str = "auto",
    prior: str = "auto",
    source: str = "known",
    samples: int = 0,
    priors: Priors | None = None,
    max_evaluations: int | None = None,
    time_budget: float | None = None,
    jobs: int = 1,
    threads: int | None = None,
    device: str | torch.device = "auto",
    kernel: str = "auto",
    callback: Callable[[Outcome], None] | None = None,
    force: bool = False,
    weights: ArrayLike | None = None,
    fixed: ArrayLike | None = None,
    bounds: tuple[ArrayLike, ArrayLike] | None = None,
) -> Refinement:
    """Refines predicted maps until their simulated records match the measured ones.

    A sample that cannot be used fails alone: its prediction is passed through, and its report says
    why. Without a time budget the others have the same bits as without it, for any number of jobs.
    Only the command line keeps on disk what is finished.

    Parameters
    ----------
    predictions : array-like
        m/s, one map (nz, nx), or many, (N, nz, nx) or (N, 1, nz, nx).
    records : array-like
        Of one map its record; of N maps anything that has a length N and gives record k as
        `records[k]`: an array (N, shots, rows, receivers), a tensor, a memory map, an HDF5
        dataset, a list. A record is read when its turn comes, and once before, if it is among the
        first 2000, so they need not fit into memory.
        Rows from `survey.n_steps` on are not used. Samples that are NaN, traces of zeros and rows
        of zeros among others are missing: they do not count, and reports say how many they are.
    survey : Survey
        Grid, steps, wavelet, sources, receivers.
    family : str or sequence of str
        "auto" classifies each sample, which is possible for the survey of OpenFWI alone; else a
        `Family`, or one of OpenFWI's names such as "Style_A", or a list of one for each sample, of
        which some may be "auto".
    method : str
        "auto", "gauss-newton", "matrix-free", "preconditioned-lbfgs" or "lbfgs", the published
        recipe. "auto" takes "matrix-free" where matrices would need too much memory or, for
        "general", time.
    prior : str
        What the maps of a Style family are expected to look like, at the end of the main method:
        "gp", the Gaussian process, "tv", total variation, "learned", a denoiser trained on made
        maps, or "auto": "learned" for Style_B ("tv" where cells are not 10 m), "gp" for Style_A.
    source : str
        "known": the wavelet is the survey's; "fit": amplitude, delay and shape are estimated with
        each map, one wavelet for all shots; "fit-each": one for each. The reports say what was
        found.
    samples : int
        Maps to draw from the posterior of each sample, where that is known.
    priors : Priors, optional
        Of `load_priors`; default those for OpenFWI.
    max_evaluations : int, optional
        Most misfit evaluations for each sample.
    time_budget : float, optional
        Most seconds for each sample, looked at before each simulation and within a Jacobian.
    jobs : int
        1 works in this process; more are processes of their own, of up to 6 GB each, and a sample
        whose process dies fails alone.
    threads : int, optional
        Of each job; default the cores divided by the jobs.
    device : str or torch.device
        "auto" takes the GPUs, and the CPU where there is none; "cpu", "cuda", "cuda:1".
    kernel : str
        What computes waves: "auto", "cuda", "torch", "native" or "reference", as for `--kernel`.
    callback : callable, optional
        Called with the `runs.Outcome` of each sample as it is finished, in any order:
        `outcome.index`, `outcome.row`, `outcome.velocity` (None where it failed). Its exception
        ends the run.
    force : bool
        Goes on where the arrays look like other units, another scale or another order.
    weights : array-like, optional
        Of each shot, receiver, trace (shots, receivers) or sample (shots, rows, receivers), for all
        records: one over the variance of its noise, up to a factor; 0 leaves it out.
    fixed : array-like of bool, optional
        (nz, nx), True for cells that are kept as predicted.
    bounds : two array-likes, optional
        Least and largest velocity of each cell, (nz, nx) m/s; NaN for the survey's bounds.

    Returns
    -------
    Refinement
        Maps, expected errors and reports.

    Raises
    ------
    InputError
        For arrays that do not match and for options that are not possible; a ValueError.
    WorkerError
        If processes die whatever the sample is.
    MachineError
        If the machine fails in a way that says nothing of a sample: a disk, too little memory.

    Examples
    --------
    >>> import numpy as np
    >>> from fwi_refine import refine, simulate
    >>> truth = np.full((2, 70, 70), 2000.0)
    >>> truth[:, 30:] = 2600.0
    >>> start = truth + 20.0
    >>> start[1, 5, 7] = np.nan
    >>> result = refine(start, simulate(truth), method="lbfgs", max_evaluations=6)
    >>> result.velocity.shape
    (2, 70, 70)
    >>> result.column("status")
    ['refined', 'failed']
    >>> result.reports[0].misfit_after < 0.5 * result.reports[0].misfit_before
    True
    >>> result.failed[1]  # doctest: +ELLIPSIS
    'prediction of sample 1: found 1 of 4900 values not finite, the first nan at row 5, column 7...'
    """
    maps, shape = to_maps(predictions, survey, "predictions")
    records = match(records, shape)
    families = families_of(family, len(maps), survey)
    check_choice("method", method, METHODS)
    samples = whole_number(samples, "samples", 0, MAX_SAMPLES)
    check_choice("prior", prior, PRIORS)
    check_choice("kernel", kernel, KERNELS)
    check_choice("source", source, SOURCES)
    jobs = check_jobs(jobs, "jobs")
    threads = None if threads is None else whole_number(threads, "threads", 1, MAX_THREADS)
    if max_evaluations is not None:
        max_evaluations = whole_number(max_evaluations, "max_evaluations", 1)
    seconds = isinstance(time_budget, Real) and not isinstance(time_budget, bool)
    if time_budget is not None and not (seconds and time_budget > 0):
        raise InputError(f"time_budget {time_budget}: expected more than 0 seconds")
    if callback is not None and not callable(callback):
        raise InputError(f"callback {callback!r}: expected a function")
    gpus = gpus_meant(device)
    jobs = max(1, min(jobs, len(maps)))
    threads = threads or max(1, cpu_count() // jobs)
    settings = Settings(
        priors=check_priors(priors),
        family=families if isinstance(families, str) else "auto",
        method=method,
        prior=prior,
        source=source,
        samples=samples,
        max_evaluations=max_evaluations,
        time_budget=time_budget,
        threads=threads,
        device=torch_device(device, gpus) if jobs == 1 else ("cuda" if gpus else "cpu"),
        kernel=kernel,
        keep_deviation=True,
        survey=survey,
        weights=None if weights is None else check_weights(to_numpy(weights), survey),
        fixed=None if fixed is None else check_fixed(to_numpy(fixed), survey),
        bounds=None if bounds is None else _bounds(bounds, survey),
    )
    check_memory(settings)
    _warn_of_no_effect(prior, samples, method, families)
    if not truth_value(force, "force"):
        check_arrays(maps, records, survey, source)
    executor: Executor = Serial() if jobs == 1 else Processes(jobs, threads, gpus)
    work = None if isinstance(families, str) else partial(_refine_as, families=families)
    found = _Gathered(maps, samples, survey)
    for _, outcomes in batch.run(chunks(maps, records, survey), settings, executor, work):
        for outcome in outcomes:
            found.add(outcome)
            if callback is not None:
                callback(outcome)
    return found.refinement(shape)


def _warn_of_no_effect(
    prior: str, samples: int, method: str, families: str | tuple[str, ...]
) -> None:
    """Warns of options without effect, as the command line does."""
    named = {families} if isinstance(families, str) else {*families}
    known = [*NAMES] if "auto" in named else [*named]
    if prior != "auto" and not any(takes_prior(family, method, prior) for family in known):
        log.warning("prior has no effect with method %s and family %s", method, families)
    if samples and method in WITHOUT_MATRIX:
        log.warning("samples has no effect with method %s: no expected error is known", method)


def _bounds(
    bounds: tuple[ArrayLike, ArrayLike], survey: Survey
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if isinstance(bounds, np.ndarray) and bounds.ndim:
        bounds = (*bounds,)
    if not isinstance(bounds, Sequence) or len(bounds) != 2:
        raise InputError(f"bounds: found {type(bounds).__name__}, expected two arrays: (low, high)")
    low, high = bounds
    return check_bounds(to_numpy(low), to_numpy(high), survey)


class _Gathered:
    """The outcomes so far, in the order of the maps; a sample without one keeps its prediction."""

    def __init__(self, maps: NDArray[Any], samples: int, survey: Survey) -> None:
        self.survey, count = survey, len(maps)
        self.start = maps.astype(np.float64 if maps.dtype.itemsize >= 8 else np.float32)
        self.velocity = self.start.copy()
        self.deviation = np.full(maps.shape, np.nan, np.float32)
        self.samples = np.full((count, samples, *survey.shape), np.nan, np.float32)
        self.rows = [Row(str(k), status="unfinished") for k in range(count)]

    def add(self, outcome: Outcome) -> None:
        k = outcome.index
        self.rows[k] = outcome.row
        if outcome.velocity is not None:
            self.velocity[k] = outcome.velocity
        if outcome.deviation is not None:
            self.deviation[k] = outcome.deviation
        if outcome.samples is not None:
            self.samples[k] = outcome.samples

    def refinement(self, shape: tuple[int, ...]) -> Refinement:
        """All of them; shape: that of the predictions."""
        several, each = shape[:-2], self.samples.shape[1:]
        return Refinement(
            self.velocity.reshape(shape),
            self.deviation.reshape(shape),
            tuple(self.rows),
            self.samples.reshape(*several, *each) if each[0] else None,
            self.survey,
            self.start.reshape(shape),
        )


def _refine_as(sample: Sample, settings: Settings, families: Sequence[str]) -> Outcome:
    """Refines one sample as its own family."""
    return refine_one(sample, replace(settings, family=families[sample.index]))
