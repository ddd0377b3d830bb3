"""How long one sample takes."""

import time

import torch


def measure_speed(simulator) -> tuple[float, float]:
    """Seconds for one sample: the records of a map, and the misfit with its gradient."""
    record = torch.zeros(1, *simulator.survey.record_shape, dtype=simulator.dtype)
    v = torch.full((1, *simulator.survey.shape), 2500.0, dtype=torch.float64)
    # results are fetched: a GPU is not done when the call returns
    return (
        _seconds(lambda: simulator.forward(v).cpu()),
        _seconds(lambda: simulator.misfit_and_gradient(v, record)[1].cpu()),
    )


def _seconds(work, repeats=2) -> float:
    """The fastest of some runs: the first one also allocates and starts threads."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)
