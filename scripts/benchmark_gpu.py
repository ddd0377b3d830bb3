"""How fast a GPU is, the most important figures first; a result file after each part.

    python scripts/benchmark_gpu.py [--minutes 10] [--device cuda] [--kernel auto]
        [--out benchmarks/gpu.json]

In this order, each part only while there is time for it:

1. the self-test of each kernel against the CPU's;
2. records, and misfits with their gradients, in a second, in float32 and float64;
3. a Gauss-Newton step for every cell, by its parts;
4. ten samples from end to end, one after the other and several at a time: samples in a second, and
   what the benchmark's 65,818 would take;
5. the fraction of the card's arithmetic and bandwidth, both measured in the same run.

The file is written after each part and each sample, so that a run of 4 minutes has the first ones.
`--device cpu --tiny` rehearses all of it on a small survey. Prints JSON lines as well;
`render_benchmarks.py` reads the file. Without a usable GPU it says why and exits with 2.
benchmark_gpu_more.py varies threads and batches, and compares with deepwave.
"""

import argparse
import csv
import datetime
import json
import platform
import shlex
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from fwi_refine.io.samples import Chunk, Sample
from fwi_refine.objective.misfit import BandMisfit
from fwi_refine.objective.parameterisation import Full
from fwi_refine.priors import load
from fwi_refine.runs.batch import run as run_batch
from fwi_refine.runs.executors import Serial
from fwi_refine.runs.settings import Settings
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave import Simulator, compare_kernels, gpu_problem, jacobian

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "data_samples"
TEST_SET = 65818
TEN = 10
# Seconds that must be left for a part to begin.
NEEDED = {"self_test": 0, "speed": 20, "step": 20, "samples": 40, "ceilings": 20}
TINY = replace(
    OPENFWI,
    shape=(12, 14),
    n_steps=150,
    file_rows=150,
    absorbing_cells=12,
    velocity_bounds=(1000.0, 5000.0),
    sources=((1, 0), (1, 13)),
    receivers=tuple((1, column) for column in range(14)),
)


@dataclass
class Run:
    """What is measured, where, and until when."""

    device: torch.device
    kernel: str
    survey: Survey
    batch: int
    repeats: int
    out: Path | None
    ends: float
    result: dict = field(default_factory=dict)

    def left(self) -> float:
        """Seconds that are left."""
        return self.ends - time.monotonic()

    def seconds(self, action) -> float:
        """Median seconds of an action, after one that warms up; fewer repeats if time is short."""
        times = []
        for _ in range(self.repeats + 1):
            self.wait()
            start = time.perf_counter()
            action()
            self.wait()
            times.append(time.perf_counter() - start)
            if len(times) > 1 and self.left() < 5 * times[-1]:
                break
        return statistics.median(times[1:])

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def keep(self, name: str, rows) -> None:
        """Adds a part to the result file, and prints it."""
        self.result[name] = rows
        print(json.dumps({name: rows}), flush=True)
        if self.out is not None:
            self.out.write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")

    def simulator(self, dtype=torch.float64) -> Simulator:
        return Simulator(self.survey, dtype, self.kernel, device=self.device)

    def maps(self, count: int) -> torch.Tensor:
        """Maps with a trend and lateral change, m/s, on the device."""
        nz, nx = self.survey.shape
        depth = torch.linspace(0, 1, nz, dtype=torch.float64)[:, None]
        waves = 150 * torch.sin(8 * depth) * torch.cos(torch.linspace(0, 9, nx).double())
        shifts = torch.arange(count, dtype=torch.float64)[:, None, None] / count
        return (1700 + 2500 * depth + waves + shifts).to(self.device)


def self_test(run: Run) -> list[dict]:
    """Every kernel of the device against the CPU's."""
    rows = []
    survey = run.survey if run.survey != OPENFWI else None
    for kernel, compared in compare_kernels(run.device, survey).items():
        if isinstance(compared, str):
            rows.append({"kernel": kernel, "problem": compared, "passed": False})
            continue
        rows += [
            {"kernel": kernel, "what": line.name, "error": line.error, "bound": line.bound,
             "passed": line.passed}
            for line in compared
        ]  # fmt: skip
    return rows


def speed(run: Run) -> list[dict]:
    """Records, and misfits with gradients, in a second."""
    rows, v = [], run.maps(run.batch)
    for dtype in (torch.float64, torch.float32):
        simulator = run.simulator(dtype)
        data = simulator.forward(v + 20.0)
        for what, action in (
            ("records", lambda s=simulator: s.forward(v)),
            ("misfits and gradients", lambda s=simulator, d=data: s.misfit_and_gradient(v, d)),
        ):
            rate = run.batch / run.seconds(action)
            precision = str(dtype).removeprefix("torch.")
            rows.append({"what": what, "precision": precision, "batch": run.batch, "rate": rate})
    return rows


def step(run: Run) -> list[dict]:
    """A Gauss-Newton step for every cell, and its parts."""
    v, simulator = run.maps(1)[0], run.simulator()
    record = simulator.forward(v[None] + 20.0)[0].cpu().numpy()
    misfit = BandMisfit(simulator, Full(run.survey.shape), record)
    x = misfit.parameters.from_velocity(v)
    residual = misfit.residual(x)
    full = jacobian(v, survey=run.survey, **simulator.options)
    normal, _ = full.normal_matrix()
    damped = normal + 1e-6 * torch.eye(len(normal), dtype=normal.dtype, device=normal.device)
    parts = {
        "full Jacobian, float32": lambda: jacobian(v, survey=run.survey, **simulator.options),
        "normal matrix": full.normal_matrix,
        "Cholesky factor, float64": lambda: torch.linalg.cholesky(damped),
        "product J^T r, float64": lambda: misfit.pull_back(x, residual),
        "residual, float64": lambda: misfit.residual(x),
    }
    rows = [{"what": name, "seconds": run.seconds(action)} for name, action in parts.items()]
    total = sum(row["seconds"] for row in rows)
    return [*rows, {"what": "all: one Jacobian, one correction", "seconds": total}]


def ten_samples(run: Run) -> list[Sample]:
    """Ten samples: those of data_samples over again, or made ones of another survey."""
    if run.survey == OPENFWI:
        predictions = np.load(SAMPLES / "predictions.npy").astype(np.float64)
        with open(SAMPLES / "samples.csv", newline="") as file:
            ids = [row["id"] for row in csv.DictReader(file)]
        records = [np.load(SAMPLES / "seismic" / f"{name}.npy") for name in ids]
    else:
        truth = run.maps(3)
        records = list(run.simulator().forward(truth).cpu().numpy())
        predictions, ids = (truth + 20.0).cpu().numpy(), ["a", "b", "c"]
    return [
        Sample(k, f"{ids[k % len(ids)]} {k}", (("prediction", predictions[k % len(ids)]),),
               records[k % len(ids)])
        for k in range(TEN)
    ]  # fmt: skip


def samples(run: Run) -> None:
    """Samples from end to end; kept after each way, and after each sample of the first."""
    made, rows = ten_samples(run), []
    settings = Settings(
        load(),
        device=run.device.type,
        kernel=run.kernel,
        survey=run.survey,
        family="auto" if run.survey == OPENFWI else "style-b",
        max_evaluations=None if run.survey == OPENFWI else 30,
        threads=torch.get_num_threads(),
    )

    def kept(at_a_time: int, done: list, seconds: float) -> None:
        rate = len(done) / seconds
        row = {
            "at_a_time": at_a_time,
            "samples": len(done),
            "finished": sum(outcome.row.status != "failed" for outcome in done),
            "rate": rate,
            "hours_for_test_set": TEST_SET / rate / 3600 if run.survey == OPENFWI else None,
            "seconds": {outcome.row.id: outcome.row.seconds for outcome in done},
        }
        rows[:] = [r for r in rows if r["at_a_time"] != at_a_time] + [row]
        run.keep("samples", rows)

    for at_a_time in (1, 4, 8):
        if rows and run.left() < 1.5 * TEN / rows[-1]["rate"]:
            break
        done, began = [], time.monotonic()
        size = TEN if at_a_time > 1 else 1
        for first in range(0, TEN, size):
            chunk = Chunk(first, tuple(made[first : first + size]))
            how = replace(settings, per_job=at_a_time)
            ((_, outcomes),) = run_batch([chunk], how, Serial())
            done += outcomes
            kept(at_a_time, done, time.monotonic() - began)
            if run.left() < NEEDED["samples"] / 2:
                return


def ceilings(run: Run) -> list[dict]:
    """Bytes in a second of a large copy, read and written, and FLOP/s of large products."""
    large = 2**28 if run.device.type == "cuda" else 2**20
    source = torch.randn(large, device=run.device)
    target = torch.empty_like(source)
    rows = [{"what": "copy, bytes/s", "rate": 2 * source.nbytes / run.seconds(
        lambda: target.copy_(source))}]  # fmt: skip
    n = 8192 if run.device.type == "cuda" else 256
    for dtype in (torch.float32, torch.float64):
        a = torch.randn(n, n, device=run.device, dtype=dtype)
        rate = 2 * n**3 / run.seconds(lambda a=a: a @ a)
        rows.append({"what": f"product, {str(dtype)[6:]}, FLOP/s", "rate": rate})
    return rows


PARTS = (self_test, speed, step, samples, ceilings)


def provenance(options, device: torch.device) -> dict:
    """What a result file says of its origin."""
    head = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(head, capture_output=True, text=True, check=False).stdout.strip()
    machine = platform.processor() or platform.machine()
    if device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit or None,
        "machine": machine,
        "command": shlex.join(["python", "scripts/benchmark_gpu.py", *sys.argv[1:]]),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="no part begins later")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu to rehearse")
    parser.add_argument("--kernel", default="auto")
    parser.add_argument("--tiny", action="store_true", help="a small survey: seconds on a CPU")
    parser.add_argument("--batch", type=int, help="maps at a time; default 64")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--out", type=Path, help="default benchmarks/gpu.json; none for a rehearsal"
    )
    options = parser.parse_args()
    device = torch.device(options.device)
    ends = time.monotonic() + 60 * options.minutes
    survey = TINY if options.tiny else OPENFWI
    try:
        if device.type == "cuda" and not torch.cuda.is_available():
            raise RuntimeError(gpu_problem())
        simulator = Simulator(survey, kernel=options.kernel, device=device)
    except RuntimeError as error:
        print(f"nothing was measured: {error}", file=sys.stderr)
        return 2
    rehearsal = options.tiny or device.type == "cpu"
    out = options.out or (None if rehearsal else ROOT / "benchmarks" / "gpu.json")
    batch = options.batch or (2 if options.tiny else 64)
    kind = simulator.kernel.split()[0]
    this = Run(device, kind, survey, batch, options.repeats, out, ends)
    this.result = {**provenance(options, device), "kernel": simulator.kernel}
    for part in PARTS:
        name = part.__name__
        if part is not self_test and this.left() < (0 if options.tiny else NEEDED[name]):
            print(f"no time for {name}", file=sys.stderr)
            continue
        began = time.monotonic()
        try:
            rows = part(this)
        except (RuntimeError, ValueError) as error:  # one part must not cost the others
            rows = [{"problem": f"{type(error).__name__}: {error}"}]
        if rows is not None:
            this.keep(name, rows)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
