"""Poor fits: whether the map or its start is nearer, from far starts and records of other sources.

    python scripts/benchmark_poor_fits.py [--maps 4] [--seed 100]

Made maps on 24 x 30 cells with three shots are refined from smoothed starts, from such that are
hundreds of m/s off as well, and with records that are louder, late, of another frequency or noisy.
Where a fit is poor, the row says what it leaves of the start's misfit, and both errors: mean
absolute differences from the true map, m/s. The rule that keeps a start is off. Results go to
benchmarks/poor_fits.json as each map ends.
"""

import argparse
import math
from collections.abc import Iterator

import numpy as np
import torch
from benchmark_faults import record_of
from benchmark_real import ROOT, origin, write
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from fwi_refine.inversion import run_recipe
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.survey import Survey
from fwi_refine.synthetic import make_map

RESULTS = ROOT / "benchmarks" / "poor_fits.json"
SURVEY = Survey(
    shape=(24, 30),
    absorbing_cells=30,
    velocity_bounds=(1400.0, 5000.0),
    n_steps=450,
    file_rows=450,
    sources=((1, 2), (1, 15), (1, 27)),
    receivers=tuple((1, column) for column in range(30)),
)
ROUTES = {
    "CurveVel_B": "layered",
    "FlatFault_B": "layered",
    "Style_B": "style-b",
    "Style_A": "style-a",
}
MOST = 1000  # evaluations


def draw_map(family: str, rng: np.random.Generator) -> np.ndarray:
    """A map of the survey, m/s; of layers every second cell of a larger one."""
    every = 1 if family.startswith("Style") else 2
    nz, nx = SURVEY.shape
    return make_map(family, rng).astype(float)[::every, ::every][:nz, :nx]


def off_by(metres_per_second: float, start: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A start with a smooth error of such a mean size."""
    error = gaussian_filter(rng.standard_normal(start.shape), 5, mode="nearest")
    error *= metres_per_second / np.abs(error).mean()
    return np.clip(start + error, 1450.0, 4900.0)


def cases(
    truth: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(what is wrong, start, record)"""
    near, clean = gaussian_filter(truth, 2.0, mode="nearest"), record_of(truth, survey=SURVEY)
    for error in (250.0, 500.0, 800.0):
        yield f"start {error:.0f} m/s off", off_by(error, near, rng), clean
    for louder in (1.02, 1.05):
        yield f"{louder - 1:.0%} louder", near, np.float32(louder) * clean
    for delay in (0.5, 2.0):
        yield f"{delay} ms late", near, record_of(truth, delay=1e-3 * delay, survey=SURVEY)
    for frequency in (14.0, 16.0):
        yield f"{frequency:.0f} Hz for 15", near, record_of(truth, frequency, survey=SURVEY)
    drawn = fftconvolve(
        rng.standard_normal(clean.shape), SURVEY.whole_wavelet[None, :, None], "same", axes=1
    )
    drawn *= np.sqrt(np.mean(clean**2) / np.mean(drawn**2))
    for level in (0.1, 0.3):
        yield f"band-limited noise {level}", near, (clean + level * drawn).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=int, default=len(ROUTES))
    parser.add_argument("--seed", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    run_recipe.MAX_RMS_RATIO_TO_START = math.inf
    rows: list[dict] = []
    for number in range(options.maps):
        family = list(ROUTES)[number % len(ROUTES)]
        rng = np.random.default_rng(options.seed + number)
        truth = draw_map(family, rng)
        for name, start, record in cases(truth, rng):
            how = {"family": ROUTES[family], "method": "gauss-newton", "force": True}
            found = refine_sample(start, record, survey=SURVEY, max_evaluations=MOST, **how)
            row = {
                "family": family,
                "seed": options.seed + number,
                "case": name,
                "start": round(float(np.abs(start - truth).mean()), 1),
                "refined": round(float(np.abs(found.velocity - truth).mean()), 2),
                "left": round(found.misfit_after / found.misfit_before, 4),
                "flags": list(found.flags),
                "evaluations": found.evaluations,
            }
            print(row, flush=True)
            rows.append(row)
        write(RESULTS, {"rows": rows, **origin("benchmark_poor_fits.py")})


if __name__ == "__main__":
    main()
