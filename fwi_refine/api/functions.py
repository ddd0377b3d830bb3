"""The Python interface: arrays in, arrays out. What `fwi-refine` does with files, without files.

The functions here are those of the package itself, `from fwi_refine import refine`. A map is
(nz, nx) in m/s and a record (shots, rows, receivers); (70, 70) and (5, 1000, 70) for OpenFWI. One
map may be given, or many: (N, nz, nx) or (N, 1, nz, nx), as numpy arrays, torch tensors or lists.
"""

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from joblib import cpu_count
from numpy.typing import ArrayLike, NDArray

from fwi_refine import routing
from fwi_refine.analysis.notebook import result_as_html
from fwi_refine.api.arrays import chunks, match
from fwi_refine.errors import InputError, SampleError
from fwi_refine.inversion import families, routes
from fwi_refine.inversion.families import METHODS, PRIORS
from fwi_refine.io.report import Row
from fwi_refine.io.samples import Sample
from fwi_refine.limits import MOST_SAMPLES, MOST_THREADS, check_jobs, whole
from fwi_refine.objective.known_cells import check_bounds, check_fixed
from fwi_refine.objective.source import SOURCES
from fwi_refine.priors import Priors
from fwi_refine.priors import load as load_priors
from fwi_refine.routing import Classification
from fwi_refine.routing.look import ADVICE_FOR_ARRAYS, look_at_pairs
from fwi_refine.routing.recognise_form import recognise_maps
from fwi_refine.runs import batch, executors
from fwi_refine.runs.batch import Outcome, Settings
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.validate import check_velocity, to_maps, to_numpy
from fwi_refine.survey.weights import check_weights
from fwi_refine.wave import Simulator, devices, gpu_problem

log = logging.getLogger(__name__)

BATCH = 8  # maps simulated at a time, so that shots keep every core busy
GPU_BATCH = 64  # on a GPU, which works on many more shots at a time


@dataclass(frozen=True)
class Refinement:
    """What `refine` returns.

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
        """What a notebook shows."""
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
        m/s, one map or many, see above.
    records : array-like
        Of one map its record; of N maps anything that has a length N and gives record k as
        `records[k]`: an array (N, shots, rows, receivers), a tensor, a memory map, an HDF5
        dataset, a list. A record is read when its turn comes, so they need not fit into memory.
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
        recipe. "auto" takes "matrix-free" where matrices would need too much memory.
    prior : str
        What the maps of a Style family are expected to look like, at the end of the main method:
        "gp", the Gaussian process, "tv", total variation, or "auto", the one that errs less.
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
        Most seconds for each sample, looked at between two steps.
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
        Called with the `batch.Outcome` of each sample as it is finished, in any order:
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
    families = _families(family, len(maps), survey)
    if method not in METHODS:
        raise InputError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    samples = whole(samples, "samples", 0, MOST_SAMPLES)
    if prior not in PRIORS:
        raise InputError(f"prior {prior!r}: expected one of {', '.join(PRIORS)}")
    if source not in SOURCES:
        raise InputError(f"source {source!r}: expected one of {', '.join(SOURCES)}")
    jobs = check_jobs(jobs, "jobs")
    threads = None if threads is None else whole(threads, "threads", 1, MOST_THREADS)
    if max_evaluations is not None:
        max_evaluations = whole(max_evaluations, "max_evaluations", 1)
    if time_budget is not None and not (isinstance(time_budget, Real) and time_budget > 0):
        raise InputError(f"time_budget {time_budget}: expected more than 0 seconds")
    if weights is not None:
        weights = check_weights(to_numpy(weights), survey)
    if fixed is not None:
        fixed = check_fixed(to_numpy(fixed), survey)
    if bounds is not None:
        if len(bounds) != 2:
            raise InputError(f"bounds: found {len(bounds)} arrays, expected two: (low, high)")
        low, high = bounds
        bounds = check_bounds(to_numpy(low), to_numpy(high), survey)
    if callback is not None and not callable(callback):
        raise InputError(f"callback {callback!r}: expected a function")
    priors = _priors(priors)
    gpus = _gpus(device)
    jobs = max(1, min(jobs, len(maps)))
    threads = threads or max(1, cpu_count() // jobs)
    settings = Settings(
        priors=priors,
        family=families if isinstance(families, str) else "auto",
        method=method,
        prior=prior,
        source=source,
        samples=samples,
        max_evaluations=max_evaluations,
        time_budget=time_budget,
        threads=threads,
        device=_torch_device(device, gpus) if jobs == 1 else ("cuda" if gpus else "cpu"),
        kernel=kernel,
        keep_deviation=True,
        survey=survey,
        weights=weights,
        fixed=fixed,
        bounds=bounds,
    )
    batch.check_memory(settings)
    if not force:
        _look(maps, records, survey, source)
    executor: executors.Executor
    executor = executors.Serial() if jobs == 1 else executors.Processes(jobs, threads, gpus)
    kept = np.float64 if maps.dtype.itemsize >= 8 else np.float32
    velocity = maps.astype(kept)
    deviation = np.full(maps.shape, np.nan, np.float32)
    drawn = np.full((len(maps), samples, *survey.shape), np.nan, np.float32)
    rows = [Row(str(k), status="unfinished") for k in range(len(maps))]
    work = None if isinstance(families, str) else partial(_refine_as, families=families)
    for _, outcomes in batch.run(chunks(maps, records, survey), settings, executor, work):
        for outcome in outcomes:
            k = outcome.index
            rows[k] = outcome.row
            if outcome.velocity is not None:
                velocity[k] = outcome.velocity
            if outcome.deviation is not None:
                deviation[k] = outcome.deviation
            if outcome.samples is not None:
                drawn[k] = outcome.samples
            if callback is not None:
                callback(outcome)
    return Refinement(
        velocity.reshape(shape),
        deviation.reshape(shape),
        tuple(rows),
        drawn.reshape(*shape[:-2], samples, *survey.shape) if samples else None,
        survey,
        maps.astype(kept).reshape(shape),
    )


def simulate(
    velocity: ArrayLike | torch.Tensor,
    *,
    survey: Survey = OPENFWI,
    dtype: str | torch.dtype | type[np.floating[Any]] = "float32",
    device: str | torch.device = "auto",
    kernel: str = "auto",
    threads: int | None = None,
) -> NDArray[Any]:
    """Records of velocity maps, in the conventions of the released data.

    `WaveSimulator` is differentiable.

    Parameters
    ----------
    velocity : array-like
        m/s, one map or many, see above; floats or integers.
    survey : Survey
        Grid, steps, wavelet, sources, receivers.
    dtype : str or dtype
        float64, or float32, in which the records of OpenFWI's survey are the released data's, bit
        for bit.
    device : str or torch.device
        "auto", "cpu", "cuda" or "cuda:1".
    kernel : str
        "auto", "cuda", "torch", "native" or "reference", as for `--kernel`.
    threads : int, optional
        Default all cores.

    Returns
    -------
    array
        (shots, rows, receivers) for one map, else (N, shots, rows, receivers), with all
        `survey.file_rows` rows of a record file.

    Raises
    ------
    SampleError
        For a map that is not finite or not within the survey's velocity bounds; a ValueError.
    InputError
        For arrays that are no maps.

    Examples
    --------
    >>> import numpy as np
    >>> from fwi_refine import simulate
    >>> simulate(np.full((70, 70), 2000.0)).shape
    (5, 1000, 70)
    """
    maps, shape = to_maps(velocity, survey, "velocity", kinds="fiu")
    name = str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else np.dtype(dtype)
    if str(name) not in ("float32", "float64"):
        raise InputError(f"dtype {name}: expected float32 or float64")
    checked = np.empty(maps.shape)
    for k, v in enumerate(maps.astype(np.float64)):
        try:
            checked[k] = check_velocity(v, survey=survey, where=f"map {k}")
        except SampleError as error:
            finding, _ = recognise_maps([v], survey)
            raise SampleError(f"{error}; {finding.text}" if finding else str(error)) from error
    simulator = Simulator(
        replace(survey, n_steps=survey.file_rows),
        dtype=getattr(torch, str(name)),
        kernel=kernel,
        threads=cpu_count() if threads is None else threads,
        device=_torch_device(device, _gpus(device)),
    )
    size = BATCH if simulator.device.type == "cpu" else GPU_BATCH
    records = np.empty((len(maps), *survey.file_shape), str(name))
    for k in range(0, len(maps), size):
        found = simulator.recorded(torch.from_numpy(checked[k : k + size]))
        records[k : k + size] = found.cpu().numpy()
    return records[0] if len(shape) == 2 else records


def classify(
    predictions: ArrayLike | torch.Tensor,
    records: Any,
    *,
    survey: Survey = OPENFWI,
    priors: Priors | None = None,
    force: bool = False,
) -> Classification | list[Classification]:
    """Family of each sample, and what speaks for it.

    Parameters
    ----------
    predictions, records : array-like
        As for `refine`.
    survey : Survey
        Grid, steps, wavelet, sources, receivers.
    priors : Priors, optional
        Of `load_priors`; default those for OpenFWI.
    force : bool
        Goes on where the arrays look like other units, another scale or another order.

    Returns
    -------
    Classification or list of Classification
        `family`, `confidence`, `evidence` and `reason`, for one map, else a list of them.

    Raises
    ------
    SampleError
        For the first sample that cannot be used; a ValueError.
    InputError
        For arrays that do not match and for surveys with another grid, sources or receivers than
        OpenFWI's.

    Examples
    --------
    >>> import numpy as np
    >>> from fwi_refine import classify, simulate
    >>> flat = np.full((70, 70), 2000.0)
    >>> flat[30:] = 2600.0
    >>> found = classify(flat, simulate(flat))
    >>> str(found.family), found.evidence["symmetry_rms"] < 1e-4
    ('flat-vel', True)
    """
    maps, shape = to_maps(predictions, survey, "predictions")
    records = match(records, shape)
    priors = _priors(priors)
    if not force and routing.can_classify(survey):
        _look(maps, records, survey)
    found = []
    for k, v in enumerate(maps):
        try:
            found.append(routes.classify(v, to_numpy(records[k]), priors, survey))
        except SampleError as error:
            raise SampleError(f"sample {k}: {error}") from error
    return found[0] if len(shape) == 2 else found


def _priors(priors: Priors | None) -> Priors:
    """Those that were given, else OpenFWI's. Raises InputError for what are none."""
    if priors is None:
        return load_priors()
    if not isinstance(priors, Priors):
        raise InputError(f"priors {priors!r}: expected Priors; load_priors reads a TOML file")
    return priors


def _look(maps: np.ndarray, records: Any, survey: Survey, source: str = "known") -> None:
    """Raises InputError where a few samples seem to be in other units, or in another order."""

    def record(k: int) -> NDArray[Any]:
        try:
            return to_numpy(records[k])
        except Exception as error:  # `records` may be anything, and a bad one fails alone
            raise SampleError(str(error)) from error

    ids = [str(k) for k in range(len(maps))]
    look_at_pairs(ids, lambda k: maps[k], record, survey, advice=ADVICE_FOR_ARRAYS, source=source)


def _refine_as(sample: Sample, settings: Settings, families: Sequence[str]) -> Outcome:
    """Refines one sample as its own family."""
    return batch.refine_one(sample, replace(settings, family=families[sample.index]))


def _families(family: str | Sequence[str], count: int, survey: Survey) -> str | tuple[str, ...]:
    """A name for all samples, or one for each. Raises InputError for others."""
    known = ("auto", *families.names())
    if not isinstance(family, Iterable):
        raise InputError(f"family {family!r}: expected a name, or a list of names")
    names = [family] if isinstance(family, str) else [*family]
    if "auto" in names and not routing.can_classify(survey):
        raise InputError(f"family 'auto': {routing.NO_FAMILY}")
    routes = []
    for name in names:
        route = name if name in known else routing.route_of(str(name))
        if route is None:
            expected = ", ".join((*known, *routing.OPENFWI_FAMILIES))
            raise InputError(f"family {name!r}: expected one of {expected}")
        routes.append(str(route))
    if isinstance(family, str):
        return routes[0]
    if len(names) != count:
        raise InputError(f"found {count} predictions and {len(names)} families")
    return tuple(routes)


def _gpus(device: str | torch.device) -> list[str]:
    """The GPUs that are meant, as CUDA_VISIBLE_DEVICES names them; empty for the CPU."""
    device = str(device)
    if not re.fullmatch("auto|cpu|cuda(:[0-9]{1,4})?", device):
        raise InputError(f"device {device!r}: expected auto, cpu, cuda or cuda:<number>")
    if device == "cpu":
        return []
    found, number = devices(), device.partition(":")[2]
    if not found and device != "auto":
        raise InputError(f"device {device!r}: {gpu_problem()}")
    if number and int(number) >= len(found):
        raise InputError(f"device {device!r}: there are {len(found)} GPUs, numbered from 0")
    return [found[int(number)]] if number else found


def _torch_device(device: str | torch.device, gpus: Sequence[str]) -> str:
    """What torch calls the device; of several GPUs the first."""
    if str(device) == "auto":
        return "cuda" if gpus else "cpu"
    return str(device)
