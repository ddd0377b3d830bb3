"""The treatment of every sample of a run, and its simulator."""

import functools
import logging
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fwi_refine.inversion.method import MAX_MEMORY, choose_method, gauss_newton_bytes
from fwi_refine.priors import Priors
from fwi_refine.routing import Family
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.version import __version__
from fwi_refine.wave import Simulator

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """The treatment of every sample.

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


@functools.lru_cache(maxsize=2)
def _simulator(survey: Survey, threads: int, device: str, kernel: str = "auto") -> Simulator:
    return Simulator(survey, kernel=kernel, threads=threads, device=device)


def simulator_for(settings: Settings) -> Simulator:
    """The simulator of these settings, made once in each process."""
    return _simulator(settings.survey, settings.threads, settings.device, settings.kernel)


def identity(settings: Settings) -> tuple[str, str]:
    """(version, kind of kernel): with another of them a sample gets another result."""
    return __version__, kernel_name(settings).split()[0]


def kernel_name(settings: Settings) -> str:
    """Which wave kernel the samples are refined with."""
    return simulator_for(settings).kernel


def check_memory(settings: Settings) -> None:
    """Logs what a large survey means: another method, or a process of so many GB."""
    family = str(Family.LAYERED) if settings.family == "auto" else settings.family
    method, why = choose_method(settings.method, family, settings.survey, kernel_name(settings))
    needed = gauss_newton_bytes(settings.survey, family)
    if why:
        log.info("method: %s; %s", method, why)
    elif settings.method not in ("auto", "lbfgs", "matrix-free") and needed > MAX_MEMORY:
        log.warning("each job will take about %.0f GB of memory", needed / 1e9)
