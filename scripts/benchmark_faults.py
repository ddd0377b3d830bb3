"""Records as people have them: noise, a dead trace, another source.

    python scripts/benchmark_faults.py [--case NAME ...]

A small made sample, two layers and a block on 20 x 25 cells with two shots, is refined from a
smoothed start by `--family layered`: with its own record, and with one that has a fault. Errors are
mean absolute differences from the true map. Results of the cases that were run replace those of the
same name in benchmarks/faults.json.
"""

import argparse
import json
import time

import numpy as np
import torch
from benchmark_real import ROOT, origin, write
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from fwi_refine.inversion.sample import refine_sample
from fwi_refine.survey import Survey
from fwi_refine.wave import Simulator

RESULTS = ROOT / "benchmarks" / "faults.json"
SURVEY = Survey(
    shape=(20, 25),
    absorbing_cells=25,
    velocity_bounds=(1400.0, 5000.0),
    n_steps=400,
    file_rows=400,
    sources=((1, 2), (1, 20)),
    receivers=tuple((1, column) for column in range(25)),
)
MOST = 400  # evaluations
LEVELS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def true_map() -> np.ndarray:
    """Two layers and a block, m/s."""
    v = np.where(np.arange(20)[:, None] < 9, 1800.0, 2600.0) * np.ones((20, 25))
    v[12:, 10:] = 3000.0
    return v


def record_of(
    v: np.ndarray, frequency: float = 15.0, delay: float = 0.0, survey: Survey = SURVEY
) -> np.ndarray:
    """The record of another Ricker wavelet, float32."""
    t = (np.arange(survey.n_steps) - survey.wavelet_centre) * survey.dt - delay
    b = (np.pi * frequency * t) ** 2
    simulator = Simulator(survey.with_wavelet((1 - 2 * b) * np.exp(-b)))
    return simulator.forward(torch.from_numpy(v)[None])[0].numpy().astype(np.float32)


def noise(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Of rms 1: white, or with the wavelet's spectrum."""
    drawn = np.random.default_rng(3).standard_normal(shape)
    if kind == "band-limited":
        drawn = fftconvolve(drawn, SURVEY.whole_wavelet[None, :, None], "same", axes=1)
    return drawn / np.sqrt(np.mean(drawn**2))


def cases(truth: np.ndarray) -> dict[str, tuple[np.ndarray, str]]:
    """name: (record, --source)"""
    clean = Simulator(SURVEY).forward(torch.from_numpy(truth)[None])[0].numpy().astype(np.float32)
    dead = clean.copy()
    dead[0, :, 12] = 0
    rms = float(np.sqrt(np.mean(clean**2)))
    found = {"clean": (clean, "known"), "one dead trace of 50": (dead, "known")}
    for source in ("known", "fit"):
        found |= {
            f"2 % more amplitude, {source}": (np.float32(1.02) * clean, source),
            f"1 ms late, {source}": (record_of(truth, delay=1e-3), source),
            f"14 Hz for 15 Hz, {source}": (record_of(truth, frequency=14.0), source),
        }
    for level in LEVELS:
        for kind in ("white", "band-limited"):
            noisy = clean + level * rms * noise(kind, clean.shape)
            found[f"{kind} noise, {level:g} of the rms"] = (noisy.astype(np.float32), "known")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", help="default: all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    truth = true_map()
    start = gaussian_filter(truth, 1.5, mode="nearest")
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    known = cases(truth)
    for name in options.case or known:
        record, source = known[name]
        begin = time.process_time()
        refined = refine_sample(
            start,
            record,
            survey=SURVEY,
            family="layered",
            source=source,
            method="gauss-newton",
            max_evaluations=MOST,
        )
        row = {
            "case": name,
            "source": source,
            "start": round(float(np.abs(start - truth).mean()), 1),
            "refined": round(float(np.abs(refined.velocity - truth).mean()), 3),
            "misfit_after": refined.misfit_after,
            "noise": refined.noise,
            "flags": list(refined.flags),
            "evaluations": refined.evaluations,
            "seconds": round(time.process_time() - begin, 1),
        }
        print(row, flush=True)
        rows = [old for old in rows if old["case"] != name] + [row]
        rows.sort(key=lambda row: list(known).index(row["case"]))
        write(RESULTS, {"rows": rows, **origin("benchmark_faults.py")})


if __name__ == "__main__":
    main()
