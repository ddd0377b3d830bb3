"""The parts of a finished run, merged: maps and report as a run without parts writes them."""

from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import replace

from fwi_refine.errors import InputError, PartError, RunError
from fwi_refine.io.results import Results
from fwi_refine.runs.directory.config import differences
from fwi_refine.runs.directory.parts import DEVIATION, VELOCITY
from fwi_refine.runs.directory.run_directory import RunDirectory
from fwi_refine.runs.directory.shards import measured_seconds


def merge(
    runs: list[RunDirectory],
    out,
    report,
    overwrite=False,
    deviation=None,
    told: Callable = lambda rows: None,
    shielded=nullcontext,
):
    """Writes `out` (.npy, float32) and `report` (.csv) from the parts of a run.

    runs: directories with parts of the same run, as machines without a common disk have them.
    deviation: a .npy of the expected errors too. told: hears the rows of each part. Raises
    InputError if they are not the same run or keep no expected errors, RunError if parts are
    missing, PartError if one is damaged, OutputExistsError; nothing is written then.
    """
    run = runs[0]
    for other in runs[1:]:
        if lines := differences(run.config, other.config):
            raise InputError(f"{run.path} and {other.path} are not the same run: {lines[0]}")
    if deviation is not None and DEVIATION not in run.map_names:
        raise InputError(
            f"{run.path}: has no expected errors of cells; a run keeps them that is begun with "
            "refine --keep-deviation"
        )
    listings = [(one, one.parts()) for one in runs]
    files = [
        [(one, path) for one, parts in listings for path in parts.get(number, ())]
        for number in run.chunks()
    ]
    missing = [number for number, paths in enumerate(files) if not paths]
    if missing:
        first = run.samples(missing[0]).start + 1
        raise RunError(
            f"{run.path}: {len(missing)} of {run.chunk_count} parts are missing, the first that of "
            f"sample number {first}: continue the run, or give the directories that have them"
        )
    seconds = measured_seconds(runs)
    ids = [""] * run.count
    shape = (run.count, *run.sample_shape)
    map_shape = run.config["survey"]["shape"]
    results = Results(out, report, shape, map_shape, ids, overwrite, deviation)
    with closing(results):
        for number, paths in enumerate(files):
            part = _read(paths)
            rows = [
                replace(row, seconds=time)
                for row, time in zip(part.rows, seconds(number, len(part.rows)), strict=True)
            ]
            maps = part.maps[VELOCITY], part.maps.get(DEVIATION, [None] * len(rows))
            for k, row, v, error in zip(run.samples(number), rows, *maps, strict=True):
                ids[k] = row.id
                results.add(k, v, row, error)
            told(rows)
        with shielded():
            results.publish()


def _read(paths):
    """The first sound part of a chunk. Raises PartError where there is none."""
    problem = None
    for run, path in paths:
        try:
            return run.read(path)
        except PartError as error:
            problem = problem or error
    raise problem
