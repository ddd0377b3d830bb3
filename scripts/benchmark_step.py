"""Cost of a Gauss-Newton step, and the error of imaging every k-th step.

    python scripts/benchmark_step.py [--threads 1] [--imaging]

Seconds of the processor, of all threads, for the normal matrix as a step makes it, its parts and a
Cholesky factor, also as multiples of one float64 misfit and gradient in the same run. Replaces the
figures in benchmarks/gauss_newton_step.json. --imaging prints the relative difference of the
gradient from that with every step imaged, for a smooth residual and for one of white noise, and no
more.
"""

import argparse
import json
import resource
import time
from functools import partial
from types import ModuleType

import torch
from benchmark_real import ROOT, origin, write

from fwi_refine.objective.misfit import MIN_SENSITIVITY
from fwi_refine.wave import Simulator, normal_matrix
from fwi_refine.wave.jacobian import normal_matrix as products
from fwi_refine.wave.jacobian.reciprocity import Assembly

RESULTS = ROOT / "benchmarks" / "gauss_newton_step.json"
PARTS = {
    "fields": (Simulator, "wavefields"),
    "spectra": (Assembly, "add_receivers"),  # and sums over the absorbing band
    "rows": (Assembly, "rows"),
    "combining": (products, "_combine"),
    "sorting": (products, "_copy_rows"),
}


def timed(action):
    start = time.process_time()
    result = action()
    return time.process_time() - start, result


def measured(seconds: float, unit: float) -> dict[str, float]:
    return {"seconds": round(seconds, 1), "gradients": round(seconds / unit, 1)}


def timed_in_threads(owner: type | ModuleType, method: str) -> list[float]:
    """Takes the time of each call of a function from now on, in the thread that calls it."""
    inner, seconds = getattr(owner, method), []

    def outer(*args, **kwargs):
        start = time.thread_time()
        result = inner(*args, **kwargs)
        seconds.append(time.thread_time() - start)
        return result

    setattr(owner, method, outer)
    return seconds


def imaging(v: torch.Tensor, threads: int, generator: torch.Generator) -> None:
    """The table of gradients."""
    exact = Simulator(threads=threads, imaging_step=1)
    record = exact.forward(v)
    residuals = {
        "from a map 20 m/s off": record - exact.forward(v + 20),
        "white noise": torch.randn(record.shape, generator=generator, dtype=torch.float64),
    }
    print("| imaging every | " + " | ".join(residuals) + " |\n|---|---|---|")
    wanted = {name: exact.adjoint(v, u)[0] for name, u in residuals.items()}
    for every in (3, 5, 6, 7, 8):
        simulator = Simulator(threads=threads, imaging_step=every)
        errors = [
            ((simulator.adjoint(v, u)[0] - wanted[name]).norm() / wanted[name].norm()).item()
            for name, u in residuals.items()
        ]
        print(f"| {every} | " + " | ".join(f"{error:.1e}" for error in errors) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--imaging", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 70, 70, generator=generator, dtype=torch.float64)
    depth = torch.linspace(0, 1, 70, dtype=torch.float64)[:, None]
    v = 1700 + 2500 * depth + 60 * noise
    if options.imaging:
        return imaging(v, options.threads, generator)

    simulator = Simulator(threads=options.threads)
    record = simulator.forward(v + 20)
    unit = min(timed(lambda: simulator.misfit_and_gradient(v, record))[0] for _ in range(3))
    calls = {name: timed_in_threads(owner, method) for name, (owner, method) in PARTS.items()}
    both, (normal, _) = timed(
        partial(normal_matrix, v[0], v.min(), hidden=MIN_SENSITIVITY, threads=options.threads)
    )
    parts = {name: sum(seconds) for name, seconds in calls.items()}
    parts["products"] = both - sum(parts.values())
    normal.diagonal().add_(1e-8)
    parts["factor"] = timed(partial(torch.linalg.cholesky, normal))[0]
    step = measured(sum(parts.values()), unit)
    step |= {"parts": {name: round(seconds, 1) for name, seconds in parts.items()}}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"misfit and gradient {unit:.2f} s, peak memory {memory:.2f} GB, step {step}")
    content = json.loads(RESULTS.read_text(encoding="utf-8")) | origin("benchmark_step.py")
    content |= {"gradient_seconds": round(unit, 2), "peak_memory_gb": round(memory, 1)}
    write(RESULTS, content | {"step": step}, ("ways",))


if __name__ == "__main__":
    main()
