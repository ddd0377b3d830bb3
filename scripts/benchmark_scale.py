"""What a run of many samples costs besides refining them, and how it shares work out.

    python scripts/benchmark_scale.py [--parts ...] [--folder DIR]
    python scripts/benchmark_scale.py --parts machinery --times benchmarks/made_maps.json

1. `machinery`. A run directory of so many samples is planned, filled by halves, opened again half
   finished, and merged. A sample takes next to no time here: its record is read and checked, and
   its start is stored. What is measured is therefore the machinery, in seconds for each sample,
   and the memory at several points of the run. The records are links to five files, so they come
   from memory.
2. `overhead`. Some samples are really refined, with one evaluation allowed, the fewest.
   What the machinery takes is measured against that time, in the same run.
3. `processes`. The same, and samples that only wait, in one process and in two: on a machine that
   does nothing else.
4. `machinery` with --times: the schedule of the whole set on 1 to 64 workers, simulated with the
   mean seconds of each family, the shares that the benchmark's families have, and the measured
   seconds that the main process needs for a chunk. The times come from a report of refine (.csv),
   or from a result file (.json), of whose rows those with seconds are taken.

Prints Markdown. Needs 20 kB of disk for each sample, twice.
"""

import argparse
import csv
import heapq
import json
import os
import random
import resource
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from fwi_refine.io.inputs import open_inputs
from fwi_refine.io.report import Row
from fwi_refine.io.samples import load_record
from fwi_refine.priors import load
from fwi_refine.routing import OPENFWI_FAMILIES
from fwi_refine.runs.batch import run
from fwi_refine.runs.directory import RunDirectory, Work, carry_out, describe, merge
from fwi_refine.runs.executors import TASKS_PER_WORKER, Processes, Serial
from fwi_refine.runs.one_sample import Outcome, refine_one
from fwi_refine.runs.settings import Settings

DATA = Path(__file__).parents[1] / "data_samples"
CHUNK = 8
SETTINGS = Settings(load(), method="lbfgs", max_evaluations=1, threads=1)
WAIT = 0.25  # s
PARTS = ("machinery", "overhead", "processes")
# Shares of the benchmark's test set; the six fault and curve families in equal parts.
SHARES = {"FlatVel_A": 0.0905, "FlatVel_B": 0.0905, "Style_A": 0.086, "Style_B": 0.096}
SHARES |= {name: 0.636 / 6 for name in OPENFWI_FAMILIES if name not in SHARES}


class Timed:
    """Adds up the time that is spent within a function."""

    def __init__(self, function):
        self.function, self.seconds, self.calls = function, 0.0, 0

    def __call__(self, *arguments):
        began = time.perf_counter()
        try:
            return self.function(*arguments)
        finally:
            self.seconds += time.perf_counter() - began
            self.calls += 1


def pass_through(sample, settings) -> Outcome:
    """The start as the result, once the record has been read and checked."""
    sample = load_record(sample)
    row = Row(sample.id, "layered", "not classified", "refined", 1e-3, 1e-4, 1, 1, 0.0, 1500.0)
    return Outcome(sample.index, row, sample.starts[0][1])


def wait(sample, settings) -> Outcome:
    time.sleep(WAIT)
    return pass_through(sample, settings)


def write_inputs(folder, samples):
    """starts.npy and seismic/<id>.npy, links to the five records of data_samples in turn."""
    starts = np.load(DATA / "predictions.npy")
    with open(folder / "starts.npy", "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (samples, 70, 70)}
        np.lib.format.write_array_header_1_0(file, header)
        for k in range(samples):
            file.write(starts[k % len(starts)].astype("<f4").tobytes())
    (folder / "seismic").mkdir()
    records = [path.absolute() for path in sorted((DATA / "seismic").glob("*.npy"))]
    for k in range(samples):
        os.symlink(records[k % len(records)], folder / "seismic" / f"{k:08x}.npy")


def open_case(folder):
    return open_inputs(folder / "starts.npy", folder / "seismic")


def peak_memory():
    """MiB, of this process since it began."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_machinery(folder, samples):
    """Seconds of each step, and the memory at eighths of the run."""
    seconds, memory = {}, {}

    def timed(name, function, *arguments, **more):
        began = time.perf_counter()
        result = function(*arguments, **more)
        seconds[name] = time.perf_counter() - began
        return result

    refine, finished = Timed(pass_through), 0

    def added(rows):
        nonlocal finished
        before, finished = finished, finished + len(rows)
        if 8 * before // samples != 8 * finished // samples:
            memory[finished] = peak_memory()

    inputs = timed("open", open_case, folder)
    config = timed("describe", describe, inputs, SETTINGS, CHUNK)
    run_directory = RunDirectory.prepare(folder / "run", config)
    for shard in ((1, 2), (2, 2)):
        work = Work(inputs, SETTINGS, Serial(), shard, refine)
        timed(f"half {shard[0]}", carry_out, run_directory, work, added=added)
        if shard == (1, 2):
            timed("restart", restart, folder)
    seconds["refine"] = refine.seconds
    out = folder / "merged.npy"
    timed("merge", merge, [run_directory], out, out.with_suffix(".csv"))
    memory["merge"] = peak_memory()
    return seconds, memory


def restart(folder):
    """All that stands between a command and its first sample, in a half-finished run."""
    inputs = open_case(folder)
    found = RunDirectory.prepare(folder / "run", describe(inputs, SETTINGS, CHUNK))
    done = {index for indices, _ in found.recover(found.chunks()) for index in indices}
    indices = (index for chunk in found.chunks() for index in found.samples(chunk))
    next(inputs.tasks([[index for index in indices if index not in done]]))


def measure_overhead(folder, samples):
    """(seconds of a sample with one evaluation, fraction of all else) of a run of real samples."""
    folder.mkdir()
    write_inputs(folder, samples)
    refine = Timed(refine_one)
    refine_one(next(open_case(folder).samples()), SETTINGS)  # what is computed once, is not counted
    began = time.perf_counter()
    inputs = open_case(folder)
    run_directory = RunDirectory.prepare(folder / "run", describe(inputs, SETTINGS, CHUNK))
    carry_out(run_directory, Work(inputs, SETTINGS, Serial(), refine=refine))
    merge([run_directory], folder / "merged.npy", folder / "merged.csv")
    total = time.perf_counter() - began
    return refine.seconds / samples, (total - refine.seconds) / refine.seconds


def samples_per_second(inputs, jobs, refine, chunks):
    """From the first result to the last, so that starting the processes does not count."""
    finished = run(
        inputs.tasks([range(2 * k, 2 * k + 2) for k in range(chunks)]),
        SETTINGS,
        Processes(jobs),
        refine,
    )
    next(finished)
    began = time.perf_counter()
    count = sum(len(outcomes) for _, outcomes in finished)
    return count / (time.perf_counter() - began)


def simulate(workers, chunks, handling):
    """Seconds until all chunks are done, on workers that take them in turn.

    chunks: seconds of each; handling: seconds that the main process needs for each, one at a time:
    half of them before it is handed over, half after it has come back.
    """
    free = [0.0] * workers
    running, clock = [], 0.0
    chunks = iter(chunks)
    while True:
        while (
            len(running) < TASKS_PER_WORKER * workers
            and (seconds := next(chunks, None)) is not None
        ):
            clock += handling / 2
            end = max(heapq.heappop(free), clock) + seconds
            heapq.heappush(free, end)
            heapq.heappush(running, end)
        if not running:
            return clock
        clock = max(clock, heapq.heappop(running)) + handling / 2


def family_seconds(path):
    """Mean seconds of each of OpenFWI's families. A report knows the routes that they take."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)] if path.suffix == ".csv" else json.load(file)["rows"]
    seconds = defaultdict(list)
    for row in rows:
        if row["seconds"] and row["family"]:
            seconds[row["family"]].append(float(row["seconds"]))
    names = {name: name if name in seconds else str(OPENFWI_FAMILIES[name]) for name in SHARES}
    return {name: sum(seconds[key]) / len(seconds[key]) for name, key in names.items()}


def random_chunks(samples, seconds):
    """Seconds of chunks of samples in the random order that the test set has."""
    rng = random.Random(0)
    drawn = rng.choices([seconds[name] for name in SHARES], SHARES.values(), k=samples)
    return [sum(drawn[k : k + CHUNK]) for k in range(0, samples, CHUNK)]


def print_machinery(samples, seconds, memory):
    print(f"\n{samples} samples in {-(-samples // CHUNK)} parts of {CHUNK}:\n")
    print("| step | seconds | ms a sample |\n|---|---|---|")
    steps = {
        "open inputs, describe the run": seconds["open"] + seconds["describe"],
        "refine: here read and check a record": seconds["refine"],
        "all else of the two halves": seconds["half 1"] + seconds["half 2"] - seconds["refine"],
        "merge": seconds["merge"],
        "restart when half is finished, to the first sample": seconds["restart"],
    }
    for name, value in steps.items():
        print(f"| {name} | {value:.1f} | {1e3 * value / samples:.3f} |")
    sizes = ", ".join(f"{size:.0f} MiB after {name}" for name, size in memory.items())
    print(f"\nPeak memory of the process: {sizes}.")
    own = ("open inputs, describe the run", "all else of the two halves", "merge")
    return sum(steps[name] for name in own) / samples


def print_overhead(folder, samples, own):
    """own: measured seconds of all else for a sample, or None."""
    each, overhead = measure_overhead(folder, samples)
    print(f"\nA sample with one evaluation, one thread: {each:.3f} s. All else in that run of ")
    print(f"{samples} samples: {overhead:.2%} of it.")
    if own is not None:
        print(f"The seconds of the table above: {own / each:.2%} of it.")


def print_processes(folder, samples):
    folder.mkdir()
    write_inputs(folder, samples)
    inputs = open_case(folder)
    for what, refine in (("one evaluation", refine_one), (f"{WAIT} s of waiting", wait)):
        one, two = (samples_per_second(inputs, jobs, refine, samples // 2) for jobs in (1, 2))
        print(f"\n1 to 2 processes, {what}: {one:.2f} and {two:.2f} samples per second, ")
        print(f"efficiency {two / one / 2:.1%}.")


def print_schedule(samples, times, own):
    chunks = random_chunks(samples, times)
    print("\nSimulated, with", ", ".join(f"{k} {v:.0f} s" for k, v in times.items()))
    print(f"and {1e3 * own * CHUNK:.1f} ms of the main process for a chunk:\n")
    print("| workers | hours | efficiency |\n|---|---|---|")
    for workers in (1, 2, 4, 8, 16, 32, 64):
        total = simulate(workers, chunks, own * CHUNK)
        print(f"| {workers} | {total / 3600:.1f} | {sum(chunks) / workers / total:.2%} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--samples", type=int, default=65818)
    parser.add_argument("--real", type=int, default=24, help="samples that are really refined")
    parser.add_argument("--times", type=Path, help="seconds of the families, to simulate with")
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary one")
    options = parser.parse_args()
    times = options.times and family_seconds(options.times)
    own = None
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        if "machinery" in options.parts:
            (folder / "many").mkdir()
            write_inputs(folder / "many", options.samples)
            seconds, memory = measure_machinery(folder / "many", options.samples)
            own = print_machinery(options.samples, seconds, memory)
        if "overhead" in options.parts:
            print_overhead(folder / "overhead", options.real, own)
        if "processes" in options.parts:
            print_processes(folder / "processes", options.real)
    if times and own is not None:
        print_schedule(options.samples, times, own)


if __name__ == "__main__":
    main()
