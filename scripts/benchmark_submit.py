"""What it costs to write, and read back, the submission of a whole test set.

    python scripts/benchmark_submit.py [--samples 65818] [--folder DIR]

Makes that many maps of random velocities and a sample submission in its own order, in a temporary
directory, and writes the submission as `fwi-refine submit --like` does. In the same run, and as the
measure of the machine: the same file copied to the disk, and maps written by csv.writer, as many
as fit in some seconds. Memory is the peak of the process at eighths of the way. Prints Markdown.
Needs 60 kB of disk for each sample.
"""

import argparse
import csv
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from fwi_refine import io
from fwi_refine.io.submission import write_submission
from fwi_refine.io.submission_csv import header

CSV_MAPS = 2000


def make_inputs(folder, samples):
    """maps.npy, and like.csv with the ids in another order; returns the ids of the maps."""
    rng = np.random.default_rng(0)
    writer = io.MapWriter(folder / "maps.npy", (samples, 70, 70), (70, 70))
    for k in range(samples):
        writer.write(k, rng.uniform(1500, 4500, (70, 70)))
    writer.publish(folder / "maps.npy")
    ids = [f"{k:010x}" for k in rng.permutation(samples)]
    with open(folder / "like.csv", "w") as file:
        file.write(",".join(header(70)) + "\n")
        zeros = ",0.0" * 35
        for name in sorted(ids):
            file.writelines(f"{name}_y_{row}{zeros}\n" for row in range(70))
    return ids


class Clock:
    """Seconds on the clock and of this process's CPU since it was made."""

    def __init__(self):
        self.began = time.perf_counter(), time.process_time()

    def read(self):
        return time.perf_counter() - self.began[0], time.process_time() - self.began[1]


class Watch:
    """Called after each map: notes the time half way, and peak memory at eighths."""

    def __init__(self, steps):
        self.steps, self.done, self.memory, self.clock = steps, 0, [], Clock()

    def __call__(self):
        self.done += 1
        if self.done == self.steps // 2:
            self.half = self.clock.read()
        if 8 * self.done // self.steps != 8 * (self.done - 1) // self.steps:
            self.memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def copy(source, target):
    with open(source, "rb") as a, open(target, "wb") as b:
        shutil.copyfileobj(a, b, 2**20)
        b.flush()
        os.fsync(b.fileno())


def write_by_csv(maps, ids, path):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header(70))
        for k in range(min(CSV_MAPS, maps.count)):
            for row, values in enumerate(maps.read(k)[:, 1::2]):
                writer.writerow([f"{ids[k]}_y_{row}", *values])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=65818)
    parser.add_argument("--folder", type=Path, help="Where to make the temporary directory.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure(Path(folder), options.samples)


def measure(folder, samples):
    ids = make_inputs(folder, samples)
    maps = io.open_predictions(folder / "maps.npy")
    watch = Watch(2 * samples)
    out = folder / "submission.csv"
    write_submission(maps, ids, out, like=folder / "like.csv", advance=watch)
    whole = watch.clock.read()
    clock = Clock()
    copy(out, folder / "copy.csv")
    copied = clock.read()
    clock = Clock()
    write_by_csv(maps, ids, folder / "part.csv")
    by_csv = [seconds * samples / min(CSV_MAPS, samples) for seconds in clock.read()]

    size = out.stat().st_size
    print(f"{samples} maps, {70 * samples} lines, {size / 2**20:.0f} MiB\n")
    print("| what | seconds | of CPU | of csv.writer's CPU |\n|---|---|---|---|")
    for name, (seconds, cpu) in {
        "submit: write": watch.half,
        "submit: write and read back": whole,
        f"csv.writer, from {min(CSV_MAPS, samples)} maps": by_csv,
        "copy of the file": copied,
    }.items():
        print(f"| {name} | {seconds:.1f} | {cpu:.1f} | {cpu / by_csv[1]:.2f} |")
    memory = ", ".join(f"{m:.0f}" for m in watch.memory)
    print(f"\nPeak memory at eighths of the way: {memory} MiB")


if __name__ == "__main__":
    main()
