"""Speed of the wave operator, as a ratio to deepwave in one run on the same grid.

    python scripts/benchmark_speed.py [--threads 2] [--repeats 5]

Grid 310 x 310, 5 shots, 999 steps, float32. deepwave gets the same map, padded by an absorbing
layer of the same 120 cells, fourth order in space. Both are timed in turn, so that a busy machine
slows both; the ratio is that of the medians. Needs the extra [benchmark]. Prints Markdown.
"""

import argparse
import resource
import statistics
import time

import torch

from fwi_refine.survey import OPENFWI
from fwi_refine.wave import Simulator


def example_map():
    """A map with a trend and lateral change, (1, 70, 70) m/s."""
    depth = torch.linspace(0, 1, 70, dtype=torch.float64)
    waves = 150 * torch.sin(8 * depth)[:, None] * torch.cos(9 * depth)[None, :]
    return (1700 + 2500 * depth[:, None] + waves)[None]


def deepwave_forward(v, every=1):
    import deepwave

    shots, receivers = OPENFWI.sources, OPENFWI.receivers
    wavelet = torch.tensor(OPENFWI.wavelet).to(v)
    return deepwave.scalar(
        v,
        OPENFWI.spacing,
        OPENFWI.dt,
        source_amplitudes=wavelet.repeat(len(shots), 1, 1),
        source_locations=torch.tensor(shots, device=v.device)[:, None, :],
        receiver_locations=torch.tensor(receivers, device=v.device).repeat(len(shots), 1, 1),
        accuracy=4,
        pml_width=OPENFWI.absorbing_cells,
        pml_freq=OPENFWI.frequency,
        max_vel=4500.0,
        model_gradient_sampling_interval=every,
    )[-1]


def deepwave_gradient(v, every):
    v = v.clone().requires_grad_()
    deepwave_forward(v, every).square().mean().backward()


def medians(actions, repeats):
    """Median seconds of each action; they take turns, after one round of warm-up."""
    times = {name: [] for name in actions}
    for round_ in range(repeats + 1):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if round_:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    v = example_map()
    single, double = (
        Simulator(dtype=dtype, threads=options.threads) for dtype in (torch.float32, torch.float64)
    )
    data = double.forward(v + 20.0)
    native = {
        "forward, float32": lambda: single.forward(v),
        "forward, float64": lambda: double.forward(v),
        "misfit and gradient, float32": lambda: single.misfit_and_gradient(v, data),
        "misfit and gradient, float64": lambda: double.misfit_and_gradient(v, data),
    }
    double.misfit_and_gradient(v, data)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"kernel: {single.kernel}, {options.threads} threads; peak memory of the process after")
    print(f"one float64 gradient: {memory:.0f} MiB (torch itself included)\n")

    v32 = v[0].float()
    deepwave = {
        "forward, float32": lambda: deepwave_forward(v32),
        # 3 is the largest of its sampling intervals up to 5 that divides 999 steps
        "gradient, every step": lambda: deepwave_gradient(v32, 1),
        "gradient, every 3rd step": lambda: deepwave_gradient(v32, 3),
    }
    names = {f"fwi-refine {k}": f for k, f in native.items()}
    names |= {f"deepwave {k}": f for k, f in deepwave.items()}
    seconds = medians(names, options.repeats)
    print("| what | seconds | deepwave / fwi-refine |")
    print("|---|---|---|")
    forward = seconds["deepwave forward, float32"]
    gradients = [seconds[f"deepwave gradient, every {k}"] for k in ("step", "3rd step")]
    for name, value in seconds.items():
        ratio = ""
        if name.startswith("fwi-refine forward"):
            ratio = f"{forward / value:.1f}"
        elif name.startswith("fwi-refine"):
            ratio = " / ".join(f"{g / value:.1f}" for g in gradients)
        print(f"| {name} | {value:.3f} | {ratio} |")


if __name__ == "__main__":
    main()
