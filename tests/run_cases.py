"""A run whose samples take no time, for the tests of planning, storing, continuing and merging."""

import os
import signal
from pathlib import Path

import numpy as np

from fwi_refine.io.inputs import open_inputs
from fwi_refine.io.report import Row
from fwi_refine.io.samples import load_record
from fwi_refine.priors import load
from fwi_refine.runs.directory import RunDirectory, Work, carry_out, describe, merge
from fwi_refine.runs.directory.parts import Part
from fwi_refine.runs.executors import Serial
from fwi_refine.runs.one_sample import Outcome
from fwi_refine.runs.settings import Settings

SETTINGS = Settings(load(), method="lbfgs")
DEADLY = "deadly"  # how the ids of samples begin that kill the process that works on them


def write_inputs(folder, names):
    """starts.npy, ids.txt and seismic/<id>.npy for some ids; the records are noise."""
    random = np.random.default_rng(5)
    np.save(folder / "starts.npy", random.uniform(1500, 4500, (len(names), 70, 70)).astype("f4"))
    (folder / "ids.txt").write_text("\n".join(names))
    (folder / "seismic").mkdir()
    record = random.normal(size=(5, 1000, 70)).astype("f4")
    np.save(folder / "record.npy", record)
    for name in names:
        os.link(folder / "record.npy", folder / "seismic" / f"{name}.npy")
    return folder


def open_case(folder, limit=None):
    folder = Path(folder)
    return open_inputs(folder / "starts.npy", folder / "seismic", folder / "ids.txt", limit=limit)


def trivial(sample, settings, watch=None) -> Outcome:
    """The start moved by what the record says; samples called bad fail, deadly ones kill."""
    sample = load_record(sample)
    if sample.problem is not None:
        return Outcome(sample.index, Row(sample.id, reason=sample.problem))
    if sample.id.startswith(DEADLY):
        os.kill(os.getpid(), signal.SIGKILL)
    if sample.id.startswith("bad"):
        return Outcome(sample.index, Row(sample.id, reason=f"{sample.id} is bad, as it should be"))
    v = sample.starts[0][1] + float(sample.record[0, 0, :3].sum())
    row = Row(
        sample.id,
        "layered",
        "none",
        "refined",
        0.5,
        0.25,
        3,
        2,
        0.125,
        float(v.min()),
        1.5,
        "starts",
    )
    deviation = np.abs(v / 100).astype("f4") if settings.keep_deviation else None
    steps = np.arange(settings.samples, dtype="f4")[:, None, None]
    drawn = v.astype("f4") + steps if settings.samples else None
    return Outcome(sample.index, row, v, deviation, samples=drawn)


def expected_maps(folder):
    """What `trivial` makes of all samples: float32 (n, 70, 70)."""
    starts = np.load(Path(folder) / "starts.npy")
    names = (Path(folder) / "ids.txt").read_text().split()
    record = np.load(Path(folder) / "seismic" / f"{names[0]}.npy")
    moved = (starts.astype(float) + float(record[0, 0, :3].sum())).astype("f4")
    bad = [name.startswith(("bad", DEADLY)) for name in names]
    return np.where(np.array(bad)[:, None, None], starts, moved)


def prepare(folder, path, chunk_size=2, limit=None) -> RunDirectory:
    """The run directory `path` of the samples in `folder`."""
    return RunDirectory.prepare(path, describe(open_case(folder, limit), SETTINGS, chunk_size))


def refine_all(folder, run, executor=None, shard=(1, 1), refine=trivial, **told):
    """Completes a shard of a run in which every sample is refined by `trivial`."""
    work = Work(open_case(folder), SETTINGS, executor or Serial(), shard, refine)
    carry_out(run, work, **told)


def part_names(run):
    return sorted(path.name for path in run.parts_folder.iterdir())


def merged(run, folder):
    """(maps, report without its column of seconds) of a finished run."""
    out = Path(folder) / "merged.npy"
    merge([run], out, out.with_suffix(".csv"), overwrite=True)
    lines = [line.split(",") for line in out.with_suffix(".csv").read_text().splitlines()]
    place = lines[0].index("seconds")
    return np.load(out), [line[:place] + line[place + 1 :] for line in lines]


RUN = 4 * "0123456789abcdef"


def make_part(n=3):
    rows = [
        Row(
            id=f"größe {k}", family="layered", evidence="a, b; ü", status="refined",
            misfit_before=0.1 * k, misfit_after=1e-30, evaluations=10**9 + k, iterations=0,
            vmin=1500.25, expected_error=0.75, start="p.npy", flags="poor fit",
        )
        for k in range(n - 1)
    ]  # fmt: skip
    rows.append(Row(id="last", status="failed", reason="it was meant to"))
    maps = np.random.default_rng(0).uniform(1500, 4500, (n, 70, 70)).astype("f4")
    maps[-1, 0, 0] = np.nan
    return Part(rows, {"velocity": maps, "uncertainty": maps / 100})
