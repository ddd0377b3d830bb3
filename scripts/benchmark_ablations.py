"""What each ingredient of the default method is worth, and the published recipe beside it.

    python scripts/benchmark_ablations.py --families FlatVel_B,Style_A --seed 9801

Refines one made sample of each family by the default method, and again with one thing changed at
a time. The published recipe is cut off after ten times as many evaluations as the default method
took, so that it shows whether it has reached the same misfit by then. The result file is written
anew as each run ends.
"""

import argparse
import contextlib
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from benchmark_real import ROOT, origin, write

from fwi_refine.analysis.metrics import mean_absolute_error
from fwi_refine.inversion.families import find_family, register
from fwi_refine.inversion.optimisers import LevenbergMarquardt
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.objective.parameterisation import Parameters
from fwi_refine.routing import OPENFWI_FAMILIES
from fwi_refine.synthetic import make_sample
from fwi_refine.wave import Simulator

RESULTS = ROOT / "benchmarks" / "ablations.json"
CHANGED = "changed"  # name of the family with a changed recipe
MORE_EVALUATIONS = 10  # for the published recipe, times those of the default method


def stages_with(**changes):
    return lambda recipe: recipe.each_stage(partial(replace, **changes))


def optimisers_with(**changes):
    def changed(stage):
        if not isinstance(stage.optimiser, LevenbergMarquardt):
            return stage
        return replace(stage, optimiser=replace(stage.optimiser, **changes))

    return lambda recipe: recipe.each_stage(changed)


# How the recipe of the family is changed.
RECIPES = {
    "one step for each Jacobian": optimisers_with(corrections=1),
    "weight of the prior at its floor at once": stages_with(prior_fraction=0.0),
    "no level assignment": lambda recipe: replace(recipe, assignment=None),
}
VARIANTS = (
    "default",
    "straight in velocity",
    "float32",
    *RECIPES,
    "preconditioned-lbfgs",
    "published",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", default="FlatVel_B,Style_A")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="'default' is run first")
    parser.add_argument("--seed", type=int, default=9801)
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the result file")
    options = parser.parse_args()
    chosen = [name for name in options.variants.split(",") if name != "default"]
    if unknown := set(chosen) - set(VARIANTS):
        parser.error(f"unknown variants {sorted(unknown)}: expected some of {list(VARIANTS)}")
    torch.set_num_threads(options.threads)
    source, rows = origin("benchmark_ablations.py"), []
    for family in options.families.split(","):
        sample = make_sample(family, options.seed, options.index)
        evaluations = None
        for name in ("default", *chosen):
            began = time.perf_counter()
            refined = refine_variant(name, sample, options.threads, evaluations)
            evaluations = evaluations or refined.evaluations
            row = {
                "family": family,
                "what": name,
                "start": round(mean_absolute_error(sample.start, sample.truth), 2),
                "refined": round(mean_absolute_error(refined.velocity, sample.truth), 4),
                "misfit_after": float(f"{refined.misfit_after:.2e}"),
                "evaluations": refined.evaluations,
                "seconds": round(time.perf_counter() - began),
            }
            rows.append(row)
            print(row, flush=True)
            write(options.out, source | {"rows": rows})


def refine_variant(name, sample, threads, evaluations):
    """The sample refined with one thing changed; evaluations: of the default method."""
    dtype = torch.float32 if name == "float32" else torch.float64
    method, limit, patch = "auto", None, contextlib.nullcontext()
    route = str(OPENFWI_FAMILIES[sample.family])
    if name == "preconditioned-lbfgs":
        method = name
    elif name == "published":
        method, limit = "lbfgs", MORE_EVALUATIONS * evaluations
    elif name == "straight in velocity":
        patch = mock.patch.object(Parameters, "retract", lambda self, x, dx: x + dx)
    elif name in RECIPES:
        family = find_family(route)
        register(replace(family, name=CHANGED, gauss_newton=RECIPES[name](family.gauss_newton)))
        route = CHANGED
    with patch:
        return refine_sample(
            sample.start,
            sample.record,
            family=route,
            method=method,
            max_evaluations=limit,
            simulator=Simulator(dtype=dtype, threads=threads),
        )


if __name__ == "__main__":
    main()
