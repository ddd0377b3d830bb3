"""The parts of a finished run, merged: maps and report as a run without parts writes them."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from pathlib import Path

from fwi_refine.errors import InputError, MachineError, PartError, RunError
from fwi_refine.io.report import Row
from fwi_refine.io.results import Results
from fwi_refine.runs.directory.config import differences
from fwi_refine.runs.directory.parts import DEVIATION, SAMPLES, VELOCITY, Part
from fwi_refine.runs.directory.run_directory import RunDirectory
from fwi_refine.runs.directory.shards import measured_seconds


def merge(
    runs: Sequence[RunDirectory],
    out: str | os.PathLike[str],
    report: str | os.PathLike[str],
    overwrite: bool = False,
    deviation: str | os.PathLike[str] | None = None,
    report_rows: Callable[[list[Row]], object] = lambda rows: None,
    shielded: Callable[[], AbstractContextManager[object]] = nullcontext,
    history: str | os.PathLike[str] | None = None,
) -> tuple[Path, Path] | None:
    """Writes maps and report from the parts of a run.

    Results of samples that all failed replace no earlier ones: they stand beside them.

    Parameters
    ----------
    runs : sequence of RunDirectory
        Directories with parts of the same run, as machines without a common disk have them.
    out, report : path-like
        `.npy` or `.npz` of the maps in m/s, of the type that the run was begun with, and `.csv`.
    overwrite : bool
        Whether files of these names may be replaced.
    deviation, history : path-like, optional
        `.npy` of the expected errors, and `.csv` of the histories.
    report_rows : callable
        Hears the rows of each part.
    shielded : callable
        Gives the context in which the results get their names.

    Returns
    -------
    tuple of Path or None
        Names of maps and report, where they are not `out` and `report` as every sample failed.

    Raises
    ------
    InputError
        If they are not the same run or keep no expected errors.
    RunError
        If parts are missing.
    PartError
        If one is damaged.
    MachineError
        If one cannot be read.
    OutputExistsError
        If an output stands already. Nothing is written in any of these cases.
    """
    run = runs[0]
    _check_same_run(runs)
    if deviation is not None and DEVIATION not in run.map_names:
        raise InputError(
            f"{run.path}: has no expected errors of cells; a run keeps them that is begun with "
            "refine --keep-deviation"
        )
    files = _part_files(runs)
    seconds = measured_seconds(runs)
    ids = [""] * run.count  # the results take them as the parts are read
    shape = (run.count, *run.sample_shape)
    map_shape = run.config["survey"]["shape"]
    dtype = run.config["settings"].get("dtype", "float32")
    of_use = not Path(out).exists()
    results = Results(
        out, report, shape, map_shape, ids, overwrite, deviation, history, run.sample_count, dtype
    )
    with closing(results):
        for number, paths in enumerate(files):
            indices, part = run.samples(number), _read(paths)
            rows = [
                replace(row, seconds=seconds(k)) for k, row in zip(indices, part.rows, strict=True)
            ]
            for n, (k, row) in enumerate(zip(indices, rows, strict=True)):
                ids[k] = row.id
                results.add(
                    k,
                    part.maps[VELOCITY][n],
                    row,
                    part.one(DEVIATION, n),
                    part.history(n),
                    part.one(SAMPLES, n),
                )
            of_use = of_use or any(row.status != "failed" for row in rows)
            report_rows(rows)
        with shielded():
            if not of_use:
                return results.keep_partial()
            results.publish()
    return None


def _check_same_run(runs: Sequence[RunDirectory]) -> None:
    """Raises InputError where the directories hold parts of different runs."""
    first, *others = runs
    for other in others:
        if lines := differences(first.config, other.config):
            raise InputError(f"{first.path} and {other.path} are not the same run: {lines[0]}")


def _part_files(runs: Sequence[RunDirectory]) -> list[list[tuple[RunDirectory, Path]]]:
    """The files of each chunk, in all directories. Raises RunError where a chunk has none."""
    run = runs[0]
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
    return files


def _read(paths: Sequence[tuple[RunDirectory, Path]]) -> Part:
    """The first sound part of a chunk. Raises PartError or MachineError where there is none."""
    problems: list[PartError | MachineError] = []
    for run, path in paths:
        try:
            return run.read(path)
        except (PartError, MachineError) as error:
            problems.append(error)
    raise problems[0]
