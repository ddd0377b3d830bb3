"""Cost of a Gauss-Newton step, and the error of imaging every k-th step.

    python scripts/benchmark_step.py [--threads 2]

Prints Markdown: seconds of the full Jacobian, of its normal matrix and of a Cholesky factor, as
multiples of one float64 misfit and gradient in the same run; and the relative difference of the
gradient from that with every step imaged, for a smooth residual and for one of white noise.
"""

import argparse
import resource
import time
from functools import partial

import torch

from fwi_refine.objective.misfit import HIDDEN
from fwi_refine.wave import Simulator, jacobian


def timed(action):
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 70, 70, generator=generator, dtype=torch.float64)
    depth = torch.linspace(0, 1, 70, dtype=torch.float64)[:, None]
    v = 1700 + 2500 * depth + 60 * noise

    exact = Simulator(threads=options.threads, imaging_step=1)
    record = exact.forward(v)
    residuals = {
        "from a map 20 m/s off": record - exact.forward(v + 20),
        "white noise": torch.randn(record.shape, generator=generator, dtype=torch.float64),
    }
    print("| imaging every | " + " | ".join(residuals) + " |\n|---|---|---|")
    wanted = {name: exact.adjoint(v, u)[0] for name, u in residuals.items()}
    for every in (3, 5, 6, 7, 8):
        simulator = Simulator(threads=options.threads, imaging_step=every)
        errors = [
            ((simulator.adjoint(v, u)[0] - wanted[name]).norm() / wanted[name].norm()).item()
            for name, u in residuals.items()
        ]
        print(f"| {every} | " + " | ".join(f"{error:.1e}" for error in errors) + " |")

    simulator = Simulator(threads=options.threads)
    simulator.misfit_and_gradient(v, record)
    unit = min(timed(lambda: simulator.misfit_and_gradient(v, record))[0] for _ in range(3))
    print("\n| what | seconds | in misfits and gradients |\n|---|---|---|")
    print(f"| misfit and gradient, float64 | {unit:.2f} | 1 |")
    steps = []
    for _ in range(2):  # the first round touches fresh memory
        first, full = timed(lambda: jacobian(v[0], threads=options.threads))
        product = partial(full.normal_matrix, None, options.threads)
        second, _ = timed(product)
        third, (normal, _) = timed(partial(product, HIDDEN))
        damped = normal + 1e-8 * torch.eye(len(normal), dtype=torch.float64)
        last, _ = timed(partial(torch.linalg.cholesky, damped))
        steps = [first, second, third, last]
    names = (
        "full Jacobian, float32",
        "normal matrix, float64",
        "the same less what is hidden, as it is used",
        "Cholesky factor, float64",
    )
    for name, seconds in zip(names, steps, strict=True):
        print(f"| {name} | {seconds:.2f} | {seconds / unit:.1f} |")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\nPeak memory of the process: {memory:.1f} GiB")


if __name__ == "__main__":
    main()
