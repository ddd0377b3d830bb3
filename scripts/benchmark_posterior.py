"""Expected errors against real ones, on made samples that scripts/benchmark_accuracy.py refined.

    python scripts/benchmark_accuracy.py --families Style_A,Style_B --seed 9001 --save maps
    python scripts/benchmark_posterior.py maps/Style_*.npz

For each: mean absolute error that the posterior at the refined map expects, the real one, their
ratio, and the rms of error over standard deviation, over all cells and below row 10, where it
should be 1. One Jacobian each. Only for families with a Gaussian prior.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from fwi_refine.misfit import BandMisfit
from fwi_refine.objective import PriorTerm
from fwi_refine.posterior import expected_error, standard_deviation
from fwi_refine.priors import load
from fwi_refine.recipes import every_cell, more_style_a_modes, rough, unit_modes
from fwi_refine.synthetic import make_sample
from fwi_refine.wave import Simulator

KINDS = {"Style_A": (more_style_a_modes, unit_modes), "Style_B": (every_cell, rough)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    simulator, priors = Simulator(threads=options.threads), load()
    print("| sample | expected MAE | MAE | ratio | error / deviation, rms | below row 10 |")
    print("|---" * 6 + "|")
    for path in options.maps:
        style, kind, seed, index, hardness = path.stem.split("_")
        family = f"{style}_{kind}"
        sample = make_sample(family, int(seed), int(index), float(hardness))
        found = np.load(path)
        v, truth = (torch.from_numpy(found[name]).double() for name in ("velocity", "truth"))
        make_parameters, make_prior = KINDS[family]
        parameters = make_parameters(v, priors)
        misfit = BandMisfit(simulator, parameters, sample.record)
        x = parameters.from_velocity(v, float(found["vmin"]))
        deviation = standard_deviation(
            misfit.hessian(x),
            parameters,
            misfit(x),
            simulator.survey,
            PriorTerm(make_prior(priors), parameters).hessian(x),
        )
        error = parameters.velocity(x) - truth
        expected, real = expected_error(deviation), float(error.abs().mean())
        scores = [float((error / deviation)[rows:].square().mean()) ** 0.5 for rows in (0, 10)]
        print(
            f"| {path.stem} | {expected:.2f} | {real:.2f} | {real / expected:.2f} "
            f"| {scores[0]:.2f} | {scores[1]:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
