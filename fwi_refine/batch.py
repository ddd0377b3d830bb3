"""Many samples: one after another, or in several processes. Each is refined on its own.

What happens to a sample depends on that sample and the settings alone, so the result has the
same bits for any order, any number of jobs, and whatever its neighbours are.
"""

import functools
import logging
import multiprocessing
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import joblib
import numpy as np
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from threadpoolctl import threadpool_limits

from fwi_refine.errors import SampleError, WorkerError
from fwi_refine.io.samples import Sample
from fwi_refine.metrics import mean_absolute_error
from fwi_refine.priors import Priors
from fwi_refine.refine import refine_sample
from fwi_refine.report import Row, describe_evidence
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave import Simulator

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What is done to every sample. threads: of the wave kernel, in each process."""

    priors: Priors
    family: str = "auto"
    method: str = "auto"
    max_evaluations: int | None = None
    time_budget: float | None = None  # s
    threads: int = 1
    survey: Survey = OPENFWI


@dataclass(frozen=True)
class Outcome:
    """Result of one sample. velocity is None where the start is to be passed through."""

    index: int
    row: Row
    velocity: np.ndarray | None = None  # (nz, nx) float64, m/s


def run(samples: Iterable[Sample], settings: Settings, jobs: int = 1) -> Iterator[Outcome]:
    """Outcomes as samples finish; with several jobs not in the order of the samples.

    Samples are read as they are needed, so memory does not grow with their number. Raises
    WorkerError if a process dies.
    """
    if jobs == 1:
        for sample in samples:
            yield refine_one(sample, settings)
        return
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", max_nbytes=None)
    try:
        yield from parallel(joblib.delayed(refine_one)(sample, settings) for sample in samples)
    except TerminatedWorkerError as error:
        raise WorkerError(
            "a worker process died, most likely because memory ran out: use fewer --jobs "
            f"({str(error).splitlines()[0]})"
        ) from error


def refine_one(sample: Sample, settings: Settings) -> Outcome:
    """Refines one sample. Whatever goes wrong in it is reported as its failure."""
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process answers to it
    if sample.problem is not None:
        return _failure(sample, sample.problem)
    started = time.monotonic()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another number of parts would have other bits
    try:
        with threadpool_limits(1, user_api="blas"):
            name, start = _best_start(sample, settings)
            refined = refine_sample(
                start,
                sample.record,
                survey=settings.survey,
                priors=settings.priors,
                family=settings.family,
                method=settings.method,
                max_evaluations=settings.max_evaluations,
                should_stop=_deadline(started, settings.time_budget),
                simulator=_simulator(settings.survey, settings.threads),
            )
    except SampleError as error:
        return _failure(sample, f"sample {sample.id}: {error}")
    except Exception as error:
        # A defect that one sample brings to light must not cost the others their results.
        log.exception("sample %s: unexpected error", sample.id)
        return _failure(sample, f"sample {sample.id}: {type(error).__name__}: {error}")
    finally:
        torch.set_num_threads(threads)
    # A start outside the bounds was simulated, and is reported on, as what is nearest to it.
    velocity = refined.velocity.clip(*settings.survey.velocity_bounds)
    row = _row(sample, name, start, refined, velocity, time.monotonic() - started)
    return Outcome(sample.index, row, None if refined.status == "failed" else velocity)


def _deadline(started, budget):
    """A function that says whether the time of a sample is used up."""
    return None if budget is None else lambda: time.monotonic() - started >= budget


@functools.lru_cache(maxsize=2)
def _simulator(survey, threads) -> Simulator:
    return Simulator(survey, threads=threads)


def kernel_name(settings: Settings) -> str:
    """Which wave kernel the samples are refined with."""
    return _simulator(settings.survey, settings.threads).kernel


def _best_start(sample, settings):
    """(name, map) of the candidate whose simulated record fits best; the first among equals."""
    if len(sample.starts) == 1:
        return sample.starts[0]
    survey = settings.survey
    maps = np.stack([v for _, v in sample.starts]).clip(*survey.velocity_bounds)
    record = torch.as_tensor(sample.record[:, : survey.n_steps], dtype=torch.float64)
    simulator = _simulator(survey, settings.threads)
    misfits = [simulator.misfit(torch.as_tensor(v)[None], record[None]).item() for v in maps]
    return sample.starts[int(np.nanargmin(misfits))]


def _failure(sample, reason) -> Outcome:
    return Outcome(sample.index, Row(id=sample.id, status="failed", reason=reason))


def _row(sample, name, start, refined, velocity, seconds) -> Row:
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
        start=name,
        reason=refined.reason,
        flags="; ".join((*refined.flags, *sample.notes)),
        mae_before=None if truth is None else mean_absolute_error(start, truth),
        mae_after=None if truth is None else mean_absolute_error(velocity, truth),
    )
