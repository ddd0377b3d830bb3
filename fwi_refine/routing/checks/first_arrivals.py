"""First arrivals of a record beside simulated ones: amplitude, sign and delay."""

from dataclasses import dataclass

import numpy as np
import torch

from fwi_refine.wave import Simulator

OFFSETS = (2, 6)  # cells between source and receiver where first arrivals are compared
FALLBACK_VELOCITY = 2000.0  # m/s at the sources, where the record does not tell


@dataclass(frozen=True)
class FirstArrivals:
    """First arrivals of a record beside simulated ones, medians over the traces.

    Parameters
    ----------
    amplitude
        The record's peak over the simulated one, negative where the sign is wrong.
    delay
        By how much it comes later, s.
    """

    amplitude: float
    delay: float


def first_arrivals(
    record: np.ndarray, velocities: np.ndarray, simulator: Simulator
) -> FirstArrivals | None:
    """Compares the direct waves near the sources, where they are the largest in the trace.

    The map that is simulated has in each column what lies between the neighbouring sources, the
    same at all depths: what a reflector or a layer below adds comes later and is smaller. Compared
    are the receivers within `OFFSETS` cells, at about the depth of the source.

    Parameters
    ----------
    record
        (shots, >= n_steps, receivers).
    velocities
        (shots,) m/s at the sources.
    simulator
        Of the survey of the record.

    Returns
    -------
    FirstArrivals or None
        None where no receiver is near a source.
    """
    survey = simulator.survey
    columns = np.array([column for _, column in survey.sources])
    order = np.argsort(columns)
    profile = np.interp(np.arange(survey.shape[1]), columns[order], velocities[order])
    v = torch.as_tensor(np.broadcast_to(profile, survey.shape).copy())[None]
    expected = simulator.forward(v)[0].double().cpu().numpy()
    found = np.asarray(record[:, : survey.n_steps], dtype=np.float64)
    ratios, delays = [], []
    for shot, (row, column) in enumerate(survey.sources):
        for k, receiver in enumerate(survey.receivers):
            if (
                abs(receiver[0] - row) <= 1
                and OFFSETS[0] <= abs(receiver[1] - column) <= OFFSETS[1]
            ):
                a, b = expected[shot, :, k], found[shot, :, k]
                first, second = (int(np.argmax(np.abs(trace))) for trace in (a, b))
                ratios.append(b[second] / a[first])
                delays.append((second - first) * survey.dt)
    return FirstArrivals(float(np.median(ratios)), float(np.median(delays))) if ratios else None
