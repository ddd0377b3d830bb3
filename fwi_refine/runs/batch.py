"""Many samples, in chunks, on any executor. Each sample is refined on its own.

What happens to a sample depends on that sample and the settings alone, so the result has the
same bits for any order, any executor, and whatever its neighbours are.
"""

import functools
import logging
import socket
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_refine.errors import InputError, SampleError, WorkerError
from fwi_refine.files import is_machine_fault, machine_error
from fwi_refine.inversion.budget import Budget, Step
from fwi_refine.inversion.data import Data, Model
from fwi_refine.inversion.method import MOST_MEMORY, choose_method, gauss_newton_bytes
from fwi_refine.inversion.sample import Refined, refine_sample
from fwi_refine.inversion.source import FoundSource
from fwi_refine.io.report import Row, describe_evidence, mean_absolute_error
from fwi_refine.io.samples import Chunk, Sample, load_record
from fwi_refine.priors import Priors
from fwi_refine.routing import Family
from fwi_refine.runs import gpu_streams
from fwi_refine.runs.executors import Executor
from fwi_refine.runs.rounded import as_written
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.weights import sample_weights
from fwi_refine.version import __version__
from fwi_refine.wave import Simulator

# So many samples, one after another, whose processes died: then it is not the samples.
DEATHS = 5
ON_CPU = "on the CPU: the GPU had too little memory"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What is done to every sample.

    Attributes
    ----------
    priors : Priors
        Hyper-parameters and routing thresholds.
    family, method : str
        "auto", or a family and a method for all.
    prior : str
        One of `families.PRIORS`.
    source : str
        One of `objective.SOURCES`.
    max_evaluations : int or None
        Misfit evaluations allowed for each sample.
    time_budget : float or None
        Seconds allowed for each sample.
    threads : int
        Of the wave kernel, in each process.
    device : str
        "cpu", or "cuda" for the GPU that a process sees.
    kernel : str
        As for `Simulator`.
    per_job : int
        Samples that a process works on at a time.
    keep_deviation : bool
        Whether outcomes have the expected error of each cell.
    samples : int
        Maps that outcomes have from the posterior.
    survey : Survey
        Grid, steps, wavelet, sources, receivers.
    weights : array or None
        As `survey.weights.check_weights` returns them.
    fixed : array of bool or None
        (nz, nx), cells that are kept.
    bounds : tuple of array or None
        Least and largest velocity of each cell, (nz, nx) m/s.
    dtype : str
        In which the maps will be written, "float32" or "float16".
    """

    priors: Priors
    family: str = "auto"
    method: str = "auto"
    prior: str = "auto"
    source: str = "known"
    max_evaluations: int | None = None
    time_budget: float | None = None  # s
    threads: int = 1
    device: str = "cpu"
    kernel: str = "auto"
    per_job: int = 1
    keep_deviation: bool = False
    samples: int = 0
    survey: Survey = OPENFWI
    weights: NDArray[np.float64] | None = field(default=None, compare=False)
    fixed: NDArray[np.bool_] | None = field(default=None, compare=False)
    bounds: tuple[NDArray[np.float64], NDArray[np.float64]] | None = field(
        default=None, compare=False
    )
    dtype: str = "float32"


@dataclass(frozen=True)
class Outcome:
    """Result of one sample.

    Attributes
    ----------
    index : int
        Index in the predictions.
    row : Row
        What is reported.
    velocity : array or None
        (nz, nx) float64 in m/s, None where the start is to be passed through.
    deviation : array or None
        (nz, nx) float32, expected rms error in m/s, if it is known.
    history : tuple
        See io/history.py.
    samples : array or None
        (K, nz, nx) float32 in m/s, maps from the posterior, if it is known.
    traceback : str
        Of an unexpected error.
    """

    index: int
    row: Row
    velocity: NDArray[np.float64] | None = None
    deviation: NDArray[np.float32] | None = None
    history: tuple[tuple[int, int, float], ...] = ()
    samples: NDArray[np.float32] | None = None
    traceback: str = ""


RefineFunction = Callable[[Sample, Settings], Outcome]


def run(
    chunks: Iterable[Chunk],
    settings: Settings,
    executor: Executor,
    refine: RefineFunction | None = None,
) -> Generator[tuple[Chunk, list[Outcome]], None, None]:
    """Chunks with the outcomes of their samples as they finish; in any order.

    A sample whose process dies fails alone.

    Parameters
    ----------
    chunks : iterable of Chunk
        The samples.
    settings : Settings
        What is done to each.
    executor : Executor
        Where it is done, see executors.py.
    refine : callable, optional
        What is done to one sample; `refine_one` by default.

    Yields
    ------
    (Chunk, list of Outcome)
        A chunk and what became of its samples, in their order.

    Raises
    ------
    WorkerError
        If the processes die whatever the sample is, or if a worker would compute something else
        than this process.
    MachineError
        If a machine fails in a way that says nothing of a sample.
    """
    function = functools.partial(
        refine_chunk, settings=settings, refine=refine or refine_one, expected=identity(settings)
    )
    deaths = 0
    for chunk, outcomes in executor.map(function, chunks):
        if isinstance(outcomes, WorkerError):
            singles = [Chunk(chunk.number, (sample,)) for sample in chunk.samples]
            tried = executor.map(function, singles) if len(singles) > 1 else [(chunk, outcomes)]
            collected: list[Outcome] = []
            for single, found in tried:
                if not isinstance(found, WorkerError):
                    deaths = 0
                    collected += found
                    continue
                deaths += 1
                if deaths >= DEATHS:
                    raise WorkerError(
                        f"{deaths} samples in a row: {found}; use fewer --jobs, or more memory"
                    )
                collected.append(_died(single.samples[0], found))
            outcomes = sorted(collected, key=lambda outcome: outcome.index)
        else:
            deaths = 0
        for outcome in outcomes:
            if outcome.traceback:  # logged here, as a worker's log may be on another machine
                log.error("sample %s: unexpected error\n%s", outcome.row.id, outcome.traceback)
        yield chunk, outcomes


def refine_chunk(
    chunk: Chunk, settings: Settings, refine: RefineFunction, expected: tuple[str, str]
) -> list[Outcome]:
    """Outcomes of the samples of a chunk, in their order.

    Parameters
    ----------
    chunk : Chunk
        The samples.
    settings : Settings
        What is done to each.
    refine : callable
        Does it.
    expected : (str, str)
        `identity` of the process that asks.

    Raises
    ------
    WorkerError
        If the identity of this process differs.
    DeviceError
        If the GPU fails, whatever the samples are.
    MachineError
        If the machine fails otherwise.
    """
    found = identity(settings)
    if found != expected:
        raise WorkerError(
            f"the worker on {socket.gethostname()} has fwi-refine {' with the kernel '.join(found)}"
            f", expected {' with the kernel '.join(expected)}"
        )
    on_cpu = None
    if settings.device != "cpu":
        on_cpu = functools.partial(_refine_on_cpu, refine, settings)
    return gpu_streams.each(
        lambda sample: refine(sample, settings),
        chunk.samples,
        settings.per_job,
        settings.device,
        otherwise=on_cpu,
    )


def _refine_on_cpu(refine: RefineFunction, settings: Settings, sample: Sample) -> Outcome:
    """A sample that the memory of its GPU does not suffice for; the report says so."""
    outcome = refine(sample, replace(settings, device="cpu", kernel="auto"))
    flags = "; ".join(filter(None, (outcome.row.flags, ON_CPU)))
    return replace(outcome, row=replace(outcome.row, flags=flags))


def identity(settings: Settings) -> tuple[str, str]:
    """(version, kind of kernel): with another of them a sample gets another result."""
    return __version__, kernel_name(settings).split()[0]


def refine_one(
    sample: Sample, settings: Settings, watch: Callable[[Step], object] | None = None
) -> Outcome:
    """Refines one sample.

    Parameters
    ----------
    sample : Sample
        The sample; its record may still have to be read.
    settings : Settings
        What is done to it.
    watch : callable, optional
        Told how far it is, after every iteration.

    Returns
    -------
    Outcome
        The result. Whatever goes wrong with the sample is its failure.

    Raises
    ------
    DeviceError, torch.OutOfMemoryError
        If the GPU fails, which says nothing of the sample.
    MachineError
        If the machine fails otherwise: a disk, a mount, too little memory.
    """
    started = time.monotonic()
    try:
        sample = load_record(sample, settings.survey)
        if sample.problem is not None:
            return _failure(sample, sample.problem)
        with gpu_streams.one_thread():
            record = sample.record
            assert record is not None
            name, start = _best_start(sample, record, settings)
            refined = refine_sample(
                start,
                record,
                survey=settings.survey,
                priors=settings.priors,
                family=settings.family,
                method=settings.method,
                prior=settings.prior,
                source=settings.source,
                samples=settings.samples,
                max_evaluations=settings.max_evaluations,
                should_stop=_deadline(started, settings.time_budget),
                watch=watch,
                simulator=_simulator(*_how(settings)),
                weights=settings.weights,
                fixed=settings.fixed,
                bounds=settings.bounds,
                force=True,  # whoever began the run has looked
            )
    except (SampleError, InputError) as error:
        return _failure(sample, f"sample {sample.id}: {error}")
    except Exception as error:
        if trouble := gpu_streams.trouble(error):
            raise trouble from None
        if is_machine_fault(error):
            raise machine_error(error, f"sample {sample.id}") from error
        # A defect that one sample brings to light must not cost the others their results.
        outcome = _failure(sample, f"sample {sample.id}: {type(error).__name__}: {error}")
        return replace(outcome, traceback=traceback.format_exc())
    # A start outside the bounds was simulated, and is reported on, as what is nearest to it.
    velocity = refined.velocity.clip(*settings.survey.velocity_bounds)
    told = settings.survey.water is not None or settings.bounds is not None
    if refined.status == "unchanged" and not told:  # what was not changed keeps its own numbers
        velocity = start
    refined, velocity = as_written(
        refined, velocity, settings.dtype, lambda v: mean_squares([v], record, settings)[0]
    )
    row = _row(sample, name, start, refined, velocity, time.monotonic() - started)
    kept = None if refined.status == "failed" else velocity
    deviation = refined.deviation if settings.keep_deviation else None
    return Outcome(sample.index, row, kept, deviation, refined.history, refined.samples)


def _deadline(started: float, budget: float | None) -> Callable[[], bool] | None:
    """A function that says whether the time of a sample is used up."""
    return None if budget is None else lambda: time.monotonic() - started >= budget


@functools.lru_cache(maxsize=2)
def _simulator(survey: Survey, threads: int, device: str, kernel: str = "auto") -> Simulator:
    return Simulator(survey, kernel=kernel, threads=threads, device=device)


def _how(settings: Settings) -> tuple[Survey, int, str, str]:
    return settings.survey, settings.threads, settings.device, settings.kernel


def kernel_name(settings: Settings) -> str:
    """Which wave kernel the samples are refined with."""
    return _simulator(*_how(settings)).kernel


def check_memory(settings: Settings) -> None:
    """Logs what a large survey means: another method, or a process of so many GB."""
    family = str(Family.LAYERED) if settings.family == "auto" else settings.family
    method, why = choose_method(settings.method, family, settings.survey, kernel_name(settings))
    needed = gauss_newton_bytes(settings.survey, family)
    if why:
        log.info("method: %s; %s", method, why)
    elif settings.method not in ("auto", "lbfgs", "matrix-free") and needed > MOST_MEMORY:
        log.warning("each job will take about %.0f GB of memory", needed / 1e9)


def _best_start(
    sample: Sample, record: NDArray[np.float64], settings: Settings
) -> tuple[str, NDArray[np.float64]]:
    """(name, map) of the candidate whose simulated record fits best; the first among equals."""
    if len(sample.starts) == 1:
        return sample.starts[0]
    fits = mean_squares([v for _, v in sample.starts], record, settings)
    return sample.starts[int(np.nanargmin(fits))]


def mean_squares(
    velocities: Sequence[NDArray[np.float64]], record: NDArray[np.float64], settings: Settings
) -> list[float]:
    """Mean square misfit of each map (nz, nx) to a record; inf where it cannot be simulated."""
    survey = settings.survey
    maps = np.stack(velocities).clip(*survey.velocity_bounds)
    simulator = _simulator(*_how(settings))
    counts = sample_weights(record, survey, settings.weights)
    if counts is not None:
        data = Data.of_sample(record, torch.as_tensor(maps[0]), simulator, counts)
        models = [Model.of(v.to(simulator.device)) for v in torch.as_tensor(maps)]
        return [data.misfit(model, Budget()) for model in models]
    if settings.source != "known":
        return [
            _free_misfit(v, record, simulator) for v in torch.as_tensor(maps, dtype=torch.float64)
        ]
    measured = torch.as_tensor(record[:, : survey.n_steps], dtype=torch.float64)
    return [
        simulator.misfit(v, measured[None]).item() if simulator.is_stable(v) else np.inf
        for v in torch.as_tensor(maps).split(1)
    ]


def _free_misfit(v: torch.Tensor, record: NDArray[np.float64], simulator: Simulator) -> float:
    """Mean square misfit of a map (nz, nx) with the wavelet that explains the record best."""
    if not simulator.is_stable(v[None]):
        return np.inf
    data, amplitude = Data.with_free_source(record, v.to(simulator.device), simulator)
    return amplitude**2 * data.misfit(Model.of(v.to(simulator.device)), Budget())


def _died(sample: Sample, error: WorkerError) -> Outcome:
    return _failure(sample, f"sample {sample.id}: {error}")


def _failure(sample: Sample, reason: str) -> Outcome:
    return Outcome(sample.index, Row(id=sample.id, status="failed", reason=reason))


EXACT = {True: "yes", False: "no", None: "not tried"}


def _row(
    sample: Sample,
    name: str,
    start: NDArray[np.float64],
    refined: Refined,
    velocity: NDArray[np.float64],
    seconds: float,
) -> Row:
    truth = sample.truth
    return Row(
        id=sample.id,
        family=str(refined.family),
        evidence=describe_evidence(refined.family_reason, refined.evidence),
        status=refined.status,
        misfit_before=refined.misfit_before,
        misfit_after=refined.misfit_after,
        evaluations=refined.evaluations,
        iterations=refined.iterations,
        seconds=seconds,
        vmin=refined.vmin,
        expected_error=refined.expected_error,
        start=name,
        reason=refined.reason,
        flags="; ".join((*refined.flags, *sample.notes)),
        mae_before=None if truth is None else mean_absolute_error(start, truth),
        mae_after=None if truth is None else mean_absolute_error(velocity, truth),
        exact=EXACT[refined.exact],
        equal_samples=refined.equal_samples,
        noise=refined.noise,
        missing=refined.missing,
        **_of_source(refined.source),
    )


def _of_source(found: FoundSource | None) -> dict[str, Any]:
    """What a row has of the source, where it was estimated."""
    if found is None:
        return {}
    shape = found.shape
    return {
        "source_amplitude": shape.amplitude,
        "source_amplitude_error": found.amplitude_deviation,
        "source_delay": 1e3 * shape.delay,
        "source_delay_error": 1e3 * found.delay_deviation,
        "source_frequency": shape.frequency,
        "source_shape": shape.difference,
        "source_adds": found.added_error,
    }
