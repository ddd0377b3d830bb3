"""An example: a record whose source is not the one that the survey says.

    python examples/unknown_source.py

The record was made with a wavelet of 13 Hz instead of 15, 20 % stronger and 3 ms late. A small map
is refined from it as if the source were known, and with `source="fit"`, which estimates the wavelet
together with the map.
"""

from dataclasses import replace

import numpy as np
import torch

from fwi_refine import OPENFWI, simulate
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.priors import GaussianProcess, load

SURVEY = replace(
    OPENFWI,
    shape=(10, 16),
    absorbing_cells=20,
    n_steps=280,
    file_rows=280,
    velocity_bounds=(1400.0, 4500.0),
    sources=((1, 2), (1, 13)),
    receivers=tuple((1, column) for column in range(16)),
)
# smooth maps of 2300 m/s in the middle, see fwi_refine/priors/gaussian_process.py
PROCESS = GaussianProcess(3.0, 200.0, 20.0, 400.0, 30.0, 2300.0, SURVEY.shape)


def true_map() -> np.ndarray:
    """A smooth map, m/s."""
    z, x = np.mgrid[:10, :16]
    return 2000 + 40.0 * z + 150 * np.sin(x / 4.0) * np.cos(z / 5.0)


def true_wavelet() -> np.ndarray:
    """A Ricker wavelet of 13 Hz, 1.2 times as strong, 3 ms late."""
    t = (np.arange(SURVEY.n_steps) - SURVEY.wavelet_centre) * SURVEY.dt - 0.003
    b = (np.pi * 13.0 * t) ** 2
    return 1.2 * (1 - 2 * b) * np.exp(-b)


def main() -> None:
    """Refines the map twice and prints the errors."""
    torch.set_num_threads(1)
    truth = true_map()
    record = simulate(truth, survey=SURVEY.with_wavelet(true_wavelet()))
    start = truth + 60 * np.cos(np.arange(16) / 3.0)
    priors = replace(load(), style_a=PROCESS)
    print(f"start: {np.abs(start - truth).mean():.1f} m/s off")
    for source in ("known", "fit"):
        result = refine_sample(
            start,
            record,
            survey=SURVEY,
            priors=priors,
            family="style-a",
            source=source,
            max_evaluations=120,
        )
        print(f"source {source}: {np.abs(result.velocity - truth).mean():.2f} m/s off")
    print(f"found: {result.source.describe()}")


if __name__ == "__main__":
    main()
