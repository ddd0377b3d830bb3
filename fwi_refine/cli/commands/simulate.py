"""`fwi-refine simulate`: velocity maps to records."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fwi_refine.cli import OK, SAMPLES_FAILED, options
from fwi_refine.cli.check_inputs import check_source
from fwi_refine.cli.console import bar
from fwi_refine.errors import InputError, OutputExistsError, SampleError
from fwi_refine.io.convert import Conversion
from fwi_refine.io.predictions import Predictions
from fwi_refine.survey import Survey

if TYPE_CHECKING:
    import numpy as np

    from fwi_refine.wave import Simulator

    Map = np.ndarray[Any, np.dtype[np.float64]]  # (nz, nx), m/s

log = logging.getLogger(__name__)


@options.command("simulate")
@click.argument("velocity", type=options.PATH)
@click.option(
    "--out", type=options.OUTPUT, required=True, help="Directory to write <id>.npy to; made if new."
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="Precision; float32 records of OpenFWI's survey are the released data's, bit for bit.",
)
@options.survey
@options.ids
@options.limit
@options.shard
@options.conversion(records=False)
@options.device
@options.kernel
@options.overwrite
@options.config
@options.logging_options
def command(
    velocity: Path,
    out: Path,
    precision: str,
    survey_file: Path | None,
    ids_file: Path | None,
    limit: int | None,
    shard: tuple[int, int] | None,
    conversion: Conversion,
    force: bool,
    device: str,
    kernel: str,
    overwrite: bool,
    config: Path | None,
) -> int:
    """Simulate the records of the velocity maps VELOCITY.

    \b
    Example:
      fwi-refine simulate maps.npy --out seismic

    The records have the conventions of the released data: to train or test a network with.
    VELOCITY is in m/s and has any form that the predictions of `refine` have. Each record is a
    file <id>.npy, float32, (5, 1000, 70) or as --survey has them. Maps without ids get their
    number, 000000 onwards. Stopped, the same command goes on.
    """
    from fwi_refine import io
    from fwi_refine.cli.options.files import load_survey
    from fwi_refine.io.inputs import open_converted_predictions, select
    from fwi_refine.runs.directory.shards import shard_name
    from fwi_refine.runs.unfinished import describe_command, goes_on, write_table

    survey = load_survey(survey_file)
    survey = replace(survey, n_steps=survey.file_rows)
    source = open_converted_predictions(velocity, survey, conversion)
    ids = io.resolve_ids(
        source.ids, io.read_ids(ids_file) if ids_file else None, source.count, velocity
    )
    names = ids or [f"{k:06d}" for k in range(source.count)]
    if len(set(names)) != len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise InputError(f"duplicate id {double!r}: its records would overwrite one another")
    samples = select([*enumerate(names)], limit, shard)
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file, expected a directory")
    simulator = _simulator(survey, precision, device, kernel)
    table = describe_command(
        velocity,
        source.files(),
        [name for _, name in samples],
        survey,
        conversion,
        simulator.kernel,
        precision=precision,
    )
    begun = out / f".{shard_name(shard or (1, 1))}.begun.toml"
    more = goes_on(begun, table, overwrite)
    standing = [name for _, name in samples if (out / f"{name}.npy").exists()]
    if standing and not (more or overwrite):
        raise OutputExistsError(
            f"--out {out} holds {len(standing)} of these records already, the first is "
            f"{standing[0]}.npy: choose another directory, or pass --overwrite"
        )
    for name in standing:
        options.refuse_input(out / f"{name}.npy", options.inputs(), "--out")
    check_source(source, survey, force)
    _warn_of_others(out, set(names))
    out.mkdir(parents=True, exist_ok=True)
    io.sweep(out, {f"{name}.npy" for _, name in samples} | {begun.name})
    if more:  # what stands is of the same command, which was stopped
        log.info("%d of %d records are there from before", len(standing), len(samples))
        samples = [(k, name) for k, name in samples if name not in {*standing}]
    else:
        begun.unlink(missing_ok=True)
        if not standing:  # of older records no one could tell later which were replaced
            write_table(begun, table)
    failed = _simulate(source, samples, out, simulator)
    begun.unlink(missing_ok=True)
    log.info("%d records in %s", len(samples) - failed + len(standing) * more, out)
    return SAMPLES_FAILED if failed else OK


def _simulator(survey: Survey, precision: str, device: str, kernel: str) -> "Simulator":
    import torch

    from fwi_refine.wave import Simulator

    where = options.torch_device(device)
    options.check_kernel(kernel, where)
    return Simulator(survey, getattr(torch, precision), kernel, device=where)


def _warn_of_others(out: Path, names: set[str]) -> None:
    """Warns of other records in the folder: what reads it takes them for records of these maps."""
    others = [path.name for path in out.glob("*.npy") if path.stem not in names]
    if others:
        log.warning("%s holds %d other .npy files, the first of them %s: whatever reads the folder "
                    "takes them for records, too", out, len(others), min(others))  # fmt: skip


def _simulate(
    source: Predictions,
    samples: Sequence[tuple[int, str]],
    out: Path,
    simulator: "Simulator",
) -> int:
    """Writes the records; returns how many maps could not be used."""
    from fwi_refine.api.simulation import batch_size

    log.info("kernel: %s", simulator.kernel)
    batch = batch_size(simulator)
    failed = 0
    waiting: list[tuple[str, Map]] = []
    with bar(len(samples), "records") as advance:
        for k, name in samples:
            try:
                waiting.append((name, _read(source, k, simulator.survey)))
            except SampleError as error:
                failed += 1
                log.error("%s failed: %s", name, error)
                advance(1)
            if len(waiting) == batch:
                _write(simulator, waiting, out, advance)
                waiting = []
        _write(simulator, waiting, out, advance)
    return failed


def _read(source: Predictions, k: int, survey: Survey) -> "Map":
    """Map k, checked. Raises SampleError."""
    from fwi_refine.survey.validate import check_velocity

    return check_velocity(source.read(k), survey=survey, where=f"map {source.where(k)}")


def _write(
    simulator: "Simulator",
    waiting: "Sequence[tuple[str, Map]]",
    out: Path,
    advance: Callable[[int], object],
) -> None:
    """Simulates some maps and writes their records."""
    if not waiting:
        return
    import numpy as np
    import torch

    from fwi_refine.io import atomic_path

    records = simulator.recorded(torch.as_tensor(np.stack([v for _, v in waiting])))
    for (name, _), record in zip(waiting, records, strict=True):
        with atomic_path(out / f"{name}.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, record.cpu().numpy().astype(np.float32))
        advance(1)
