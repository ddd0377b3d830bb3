"""Cost of a Gauss-Newton step, and the error of imaging every k-th step.

    python scripts/benchmark_step.py [--threads 1] [--imaging]

Prints Markdown: seconds of the processor, of all threads, for the normal matrix as a step makes it,
its parts and a Cholesky factor, also as multiples of one float64 misfit and gradient in the same
run. --imaging adds the relative difference of the gradient from that with every step imaged, for a
smooth residual and for one of white noise.
"""

import argparse
import resource
import time
from functools import partial
from types import ModuleType

import torch

from fwi_refine.objective.misfit import MIN_SENSITIVITY
from fwi_refine.wave import Simulator, normal_matrix
from fwi_refine.wave.jacobian import normal_matrix as products
from fwi_refine.wave.jacobian.reciprocity import Assembly

PARTS = {
    "wavefields": (Simulator, "wavefields"),
    "spectra, and sums over the absorbing band": (Assembly, "add_receivers"),
    "rows of the Jacobian": (Assembly, "rows"),
    "combining receivers": (products, "_combine"),
    "sorting rows by depth": (products, "_copy_rows"),
}


def timed(action):
    start = time.process_time()
    result = action()
    return time.process_time() - start, result


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
        imaging(v, options.threads, generator)

    simulator = Simulator(threads=options.threads)
    record = simulator.forward(v + 20)
    unit = min(timed(lambda: simulator.misfit_and_gradient(v, record))[0] for _ in range(3))
    parts = {name: timed_in_threads(owner, method) for name, (owner, method) in PARTS.items()}
    how = {"hidden": MIN_SENSITIVITY, "threads": options.threads}
    both, (normal, _) = timed(partial(normal_matrix, v[0], v.min(), **how))
    damped = normal + 1e-8 * torch.eye(len(normal), dtype=torch.float64)
    last, _ = timed(partial(torch.linalg.cholesky, damped))
    rows = {"misfit and gradient, float64": unit, "normal matrix": both}
    rows |= {f"of it, {name}": sum(seconds) for name, seconds in parts.items()}
    rows["of it, products and what is left"] = both - sum(map(sum, parts.values()))
    rows |= {"Cholesky factor, float64": last, "a step": both + last}
    print("\n| what | seconds | in misfits and gradients |\n|---|---|---|")
    for name, seconds in rows.items():
        print(f"| {name} | {seconds:.2f} | {seconds / unit:.1f} |")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\nPeak memory of the process: {memory:.1f} GiB")


if __name__ == "__main__":
    main()
