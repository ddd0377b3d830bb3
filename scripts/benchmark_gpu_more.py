"""Speed on a GPU by threads, batch and samples at a time, and beside deepwave.

    python scripts/benchmark_gpu_more.py [--batch 64] [--repeats 5] [--threads 160,320] [--families]
        [--at-a-time 1,4,16] [--memory-copy-gib 4]

Prints Markdown: records simulated, and misfits with their gradients, in a second, by the threads of
a block; seconds of a Gauss-Newton step and its parts; with --families, seconds of a sample of each
route, refined on this card, and what the benchmark's 65,818 records would take; with --at-a-time,
samples refined in a second with so many at a time in one process; the fraction of the card's
arithmetic and bandwidth, both measured in the same run, with the count behind it; and deepwave's
CUDA kernels on the same grid, where it is installed. Tensor cores multiply float64 matrices twice
as fast as anything else can compute, so that fraction is half of what it might be. Without a usable
GPU it says why and exits with 2. How many instructions a step takes is counted by
count_gpu_instructions.py, without a GPU.
"""

import argparse
import csv
import itertools
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from benchmark_speed import deepwave_forward, deepwave_gradient, example_map

from fwi_refine.inversion.sample import refine_sample
from fwi_refine.io.samples import Chunk, Sample
from fwi_refine.objective.misfit import BandMisfit
from fwi_refine.objective.parameterisation import Full
from fwi_refine.priors import load
from fwi_refine.routing import OPENFWI_FAMILIES
from fwi_refine.runs.batch import run
from fwi_refine.runs.executors import Serial
from fwi_refine.runs.one_sample import refine_one
from fwi_refine.runs.settings import Settings
from fwi_refine.survey import OPENFWI
from fwi_refine.wave import Simulator, gpu_problem, jacobian, jacobian_points, released_record
from fwi_refine.wave.cuda import layout
from fwi_refine.wave.cuda import program as cuda
from fwi_refine.wave.jacobian.plan import longest_interval, make_plan
from fwi_refine.wave.simulator import IMAGING_STEP

SAMPLES = Path(__file__).parents[1] / "data_samples"
TEST_SET = 65818
# shares of the routes in the benchmark's test set, as its 2nd place found them
SHARES = {"flat-vel": 0.181, "style-a": 0.086, "style-b": 0.096, "layered": 0.636}
CELLS = OPENFWI.padded_shape[0] * OPENFWI.padded_shape[1]
CELL_STEPS = CELLS * OPENFWI.n_steps * len(OPENFWI.sources)  # of one record
# kernels/step.h: 3 + 3 additions for the neighbours, 5 operations for L p, 5 for the step
STEP_FLOPS = 16
# an imaged step: 11 for L p, 3 for the gradient, 7 with a division for vmin
IMAGE_FLOPS = 21
GRADIENT_FLOPS = CELL_STEPS * (2 * STEP_FLOPS + IMAGE_FLOPS / IMAGING_STEP)


def seconds(action, repeats, *arguments):
    """Median seconds of an action on the GPU, after one that warms up."""
    times = []
    for _ in range(repeats + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        action(*arguments)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def ceilings(repeats, gibibytes):
    """Bytes in a second of a large copy, read and written, and FLOP/s of large products."""
    source = torch.randn(gibibytes * 2**28, device="cuda")
    copied = 2 * source.nbytes / seconds(torch.empty_like(source).copy_, repeats, source)
    rates = {}
    for dtype in (torch.float32, torch.float64):
        a = torch.randn(8192, 8192, device="cuda", dtype=dtype)
        rates[dtype] = 2 * len(a) ** 3 / seconds(torch.matmul, repeats, a, a)
    return copied, rates


def gradient_bytes(itemsize):
    """Bytes that a gradient has to move through the card's memory: the kept wavefields, written
    and read, and the gradient, read and written with each of them."""
    kept = (OPENFWI.n_steps - 1) // IMAGING_STEP * CELLS * len(OPENFWI.sources)
    return 4 * kept * itemsize


def clusters(dtype):
    """How many shots the card works on at a time, where each has a cluster of blocks."""
    program = cuda.program(torch.device("cuda", torch.cuda.current_device()))
    chosen = program.layout("forward", OPENFWI, dtype)
    return program.room("forward", chosen, OPENFWI, dtype) if chosen.blocks > 1 else "-"


def speed(options, copied, rates):
    """Records, and misfits with gradients, in a second."""
    print(
        "| what | threads | shots at a time | batch | a second | GFLOP each | "
        "fraction of the product's FLOP/s | fraction of the copy's bytes |\n" + 8 * "|---" + "|"
    )
    v = example_map().repeat(options.batch, 1, 1) + torch.arange(options.batch)[:, None, None]
    v = v.cuda()
    usual = layout.THREADS
    for threads, dtype in itertools.product(
        options.threads or [usual], (torch.float32, torch.float64)
    ):
        layout.THREADS = threads
        simulator = Simulator(dtype=dtype, device="cuda")
        room = clusters(dtype)
        name = str(dtype).removeprefix("torch.")
        data = simulator.forward(v + 20.0)
        actions = {
            "forward": (lambda s=simulator: s.forward(v), CELL_STEPS * STEP_FLOPS, 0),
            "misfit and gradient": (
                lambda s=simulator, d=data: s.misfit_and_gradient(v, d),
                GRADIENT_FLOPS,
                gradient_bytes(dtype.itemsize),
            ),
        }
        for what, (action, flops, moved) in actions.items():
            rate = options.batch / seconds(action, options.repeats)
            print(
                f"| {what}, {name} | {threads} | {room} | {options.batch} | {rate:.0f} | "
                f"{flops / 1e9:.1f} | {rate * flops / rates[dtype]:.1%} | "
                f"{rate * moved / copied:.1%} |"
            )
    layout.THREADS = usual


def step(options):
    """A Gauss-Newton step for every cell, and its parts."""
    v = example_map()[0].cuda()
    simulator = Simulator(device="cuda")
    record = simulator.forward(v[None] + 20.0)[0].cpu().numpy()
    misfit = BandMisfit(simulator, Full(OPENFWI.shape), record)
    x = misfit.parameters.from_velocity(v)
    residual = misfit.residual(x)
    full = jacobian(v, device="cuda")
    normal, _ = full.normal_matrix()
    damped = normal + 1e-8 * torch.eye(len(normal), dtype=normal.dtype, device="cuda")
    points, every = jacobian_points(OPENFWI), longest_interval(OPENFWI)
    survey = replace(make_plan(OPENFWI, every).survey, sources=points)
    shots = Simulator(survey, torch.float32, imaging_step=every, device="cuda")
    others = {
        f"the Jacobian's {len(points)} simulations, float32": lambda: shots.wavefields(v[None]),
        "a record in released arithmetic": lambda: released_record(v),
    }
    parts = {
        "full Jacobian, float32": lambda: jacobian(v, device="cuda"),
        "normal matrix, float64": full.normal_matrix,
        "Cholesky factor, float64": lambda: torch.linalg.cholesky(damped),
        "product J^T r, float64": lambda: misfit.pull_back(x, residual),
        "residual, float64": lambda: misfit.residual(x),
    }
    torch.cuda.reset_peak_memory_stats()
    times = {name: seconds(action, options.repeats) for name, action in parts.items()}
    print("\n| a Gauss-Newton step | seconds |\n|---|---|")
    for name, value in times.items():
        print(f"| {name} | {value:.4f} |")
    print(f"| all: one Jacobian, one correction | {sum(times.values()):.4f} |")
    memory = torch.cuda.max_memory_allocated()
    for name, action in others.items():
        print(f"| {name} | {seconds(action, options.repeats):.4f} |")
    print(f"\nPeak GPU memory of a step: {memory / 2**30:.1f} GiB")


def families(simulator):
    """Seconds of one sample of each route, and of the whole test set from them."""
    predictions = np.load(SAMPLES / "predictions.npy")
    with open(SAMPLES / "samples.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    print("\n| route | family | seconds | evaluations | misfit after, rms |\n|---|---|---|---|---|")
    by_route = {}
    torch.cuda.reset_peak_memory_stats()
    for prediction, row in zip(predictions, rows, strict=True):
        record = np.load(SAMPLES / "seismic" / f"{row['id']}.npy")
        start = time.perf_counter()
        refined = refine_sample(
            prediction, record, family=OPENFWI_FAMILIES[row["family"]], simulator=simulator
        )
        by_route[str(refined.family)] = taken = time.perf_counter() - start
        print(
            f"| {refined.family} | {row['family']} | {taken:.1f} | {refined.evaluations} | "
            f"{refined.misfit_after:.2e} |"
        )
    memory = torch.cuda.max_memory_allocated() / 2**30
    print(f"\nPeak GPU memory: {memory:.1f} GiB")
    missing = set(SHARES) - set(by_route)
    if missing:
        print(f"\nNo estimate for {TEST_SET} records: no sample took the route {sorted(missing)}")
        return
    whole = sum(TEST_SET * share * by_route[route] for route, share in SHARES.items())
    print(
        f"\nEstimate for {TEST_SET} records on this card, one sample at a time, from one sample of "
        f"each route: {whole / 3600:.1f} hours"
    )


def at_a_time(options):
    """Samples a second in the main job, by how many are worked on at a time."""
    predictions = np.load(SAMPLES / "predictions.npy")
    with open(SAMPLES / "samples.csv", newline="") as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    records = [np.load(SAMPLES / "seismic" / f"{name}.npy") for name in ids]
    samples = []
    for k in range(options.samples):
        i = k % len(ids)
        start = ("prediction", predictions[i].astype(np.float64))
        samples.append(Sample(k, f"{ids[i]} {k}", (start,), records[i]))
    print(
        f"\nMain job, {len(samples)} samples, equally many of each of {len(ids)}\n\n"
        "| at a time | samples a second | refined | peak GPU memory, GiB |\n|---|---|---|---|"
    )
    for count in options.at_a_time:
        settings = Settings(load(), device="cuda", per_job=count)
        refine_one(samples[0], settings)  # what is computed once is not counted
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        ((_, outcomes),) = run([Chunk(0, tuple(samples))], settings, Serial())
        rate = len(samples) / (time.perf_counter() - began)
        refined = sum(outcome.row.status == "refined" for outcome in outcomes)
        memory = torch.cuda.max_memory_reserved() / 2**30
        print(f"| {count} | {rate:.3f} | {refined} | {memory:.1f} |")


def against_deepwave(options):
    """deepwave on the same grid, float32, one record at a time, as it takes one model."""
    try:
        import deepwave  # noqa: F401
    except ImportError:
        print("\ndeepwave is not installed: no comparison")
        return
    v = example_map().cuda()
    single = v[0].float()
    simulator = Simulator(dtype=torch.float32, device="cuda")
    data = simulator.forward(v + 20.0)
    pairs = {
        "forward": (lambda: simulator.forward(v), lambda: deepwave_forward(single)),
        "gradient": (
            lambda: simulator.misfit_and_gradient(v, data),
            lambda: deepwave_gradient(single, 3),
        ),
    }
    print("\n| one record, float32 | fwi-refine, s | deepwave, s | ratio |\n|---|---|---|---|")
    for name, (own, other) in pairs.items():
        a, b = seconds(own, options.repeats), seconds(other, options.repeats)
        print(f"| {name} | {a:.4f} | {b:.4f} | {b / a:.1f} |")


def numbers(text):
    return [int(part) for part in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64, help="samples at a time")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=numbers, default=[], metavar="N,N,...", help="of a block")
    parser.add_argument("--memory-copy-gib", type=int, default=4, help="size of the copy")
    parser.add_argument(
        "--at-a-time",
        type=numbers,
        default=[],
        metavar="N,N,...",
        help="also refine --samples with so many at a time: minutes",
    )
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument("--families", action="store_true", help="also refine samples: minutes")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # what was measured stays if the time runs out
    if gpu_problem() is not None:
        print(f"nothing was measured: {gpu_problem()}", file=sys.stderr)
        return 2
    simulator = Simulator(device="cuda")
    print(f"{simulator.kernel}; torch {torch.__version__}, CUDA {torch.version.cuda}\n")
    copied, rates = ceilings(options.repeats, options.memory_copy_gib)
    print(
        f"Copy: {copied / 1e12:.2f} TB/s; product: {rates[torch.float32] / 1e12:.1f} TFLOP/s in "
        f"float32, {rates[torch.float64] / 1e12:.1f} in float64\n"
    )
    speed(options, copied, rates)
    step(options)
    if options.families:
        families(simulator)
    if options.at_a_time:
        at_a_time(options)
    against_deepwave(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
