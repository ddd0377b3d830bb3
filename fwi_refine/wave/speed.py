"""How long one sample takes."""

import time
from collections.abc import Callable

import torch

from fwi_refine.wave.simulator import Simulator


def measure_speed(simulator: Simulator) -> tuple[float, float]:
    """Measure how long one sample takes.

    Parameters
    ----------
    simulator : Simulator
        The simulator.

    Returns
    -------
    record : float
        Time for the record of a map, s.
    gradient : float
        Time for the misfit of a map with its gradient, s.
    """
    record = torch.zeros(1, *simulator.survey.record_shape, dtype=simulator.dtype)
    v = torch.full((1, *simulator.survey.shape), 2500.0, dtype=torch.float64)
    # results are fetched: a GPU is not done when the call returns
    return (
        _seconds(lambda: simulator.forward(v).cpu()),
        _seconds(lambda: simulator.misfit_and_gradient(v, record)[1].cpu()),
    )


def _seconds(work: Callable[[], object], repeats: int = 2) -> float:
    """The fastest of some runs: the first one also allocates and starts threads."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)
