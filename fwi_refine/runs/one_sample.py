"""One sample of a run: read, refined and reported. Whatever goes wrong with it is its failure."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwi_refine.errors import InputError, SampleError
from fwi_refine.inversion.budget import Progress
from fwi_refine.inversion.refined import Refined
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.inversion.source import FoundSource
from fwi_refine.io.report import Row, describe_evidence, mean_absolute_error
from fwi_refine.io.samples import Sample, load_record
from fwi_refine.machine_faults import is_machine_fault, machine_error
from fwi_refine.runs import gpu_streams
from fwi_refine.runs.best_start import best_start, mean_squares
from fwi_refine.runs.rounded import as_written
from fwi_refine.runs.settings import Settings, simulator_for


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


def refine_one(
    sample: Sample, settings: Settings, watch: Callable[[Progress], object] | None = None
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
            return failure(sample, sample.problem)
        with gpu_streams.one_thread():
            name, start = best_start(sample, _record(sample), settings)
            out_of_time = _deadline(started, settings.time_budget)
            refined = _refined(start, _record(sample), settings, out_of_time, watch)
    except (SampleError, InputError) as error:
        return failure(sample, f"sample {sample.id}: {error}")
    except Exception as error:
        if trouble := gpu_streams.trouble(error):
            raise trouble from None
        if is_machine_fault(error):
            raise machine_error(error, f"sample {sample.id}") from error
        # A defect that one sample brings to light must not cost the others their results.
        outcome = failure(sample, f"sample {sample.id}: {type(error).__name__}: {error}")
        return replace(outcome, traceback=traceback.format_exc())
    refined, velocity = _as_written(sample, start, refined, settings)
    row = _row(sample, name, start, refined, velocity, time.monotonic() - started)
    kept = None if refined.status == "failed" else velocity
    deviation = refined.deviation if settings.keep_deviation else None
    return Outcome(sample.index, row, kept, deviation, refined.history, refined.samples)


def _record(sample: Sample) -> NDArray[np.float64]:
    """The record of a sample that has no problem."""
    assert sample.record is not None
    return sample.record


def _refined(
    start: NDArray[np.float64],
    record: NDArray[np.float64],
    settings: Settings,
    out_of_time: Callable[[], bool] | None,
    watch: Callable[[Progress], object] | None,
) -> Refined:
    """One start refined by the settings of a run."""
    return refine_sample(
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
        out_of_time=out_of_time,
        watch=watch,
        simulator=simulator_for(settings),
        weights=settings.weights,
        fixed=settings.fixed,
        bounds=settings.bounds,
        force=True,  # whoever began the run has looked
    )


def _as_written(
    sample: Sample, start: NDArray[np.float64], refined: Refined, settings: Settings
) -> tuple[Refined, NDArray[np.float64]]:
    """The result, and its map within the bounds and rounded as the file takes it."""
    # A start outside the bounds was simulated, and is reported on, as what is nearest to it.
    velocity = refined.velocity.clip(*settings.survey.velocity_bounds)
    told = settings.survey.water is not None or settings.bounds is not None
    if refined.status == "unchanged" and not told:  # what was not changed keeps its own numbers
        velocity = start
    record = _record(sample)
    return as_written(
        refined, velocity, settings.dtype, lambda v: mean_squares([v], record, settings)[0]
    )


def _deadline(started: float, budget: float | None) -> Callable[[], bool] | None:
    """A function that says whether the time of a sample is used up."""
    return None if budget is None else lambda: time.monotonic() - started >= budget


def failure(sample: Sample, reason: str) -> Outcome:
    """The outcome of a sample that failed."""
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
    """The entries of a row on the source, where it was estimated."""
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
