"""`fwi-refine start`: maps to start from where there is no network."""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fwi_refine.cli import OK, SAMPLES_FAILED, command_line, options
from fwi_refine.cli.check_inputs import check_source
from fwi_refine.cli.console import bar
from fwi_refine.cli.options import resources as resource_options
from fwi_refine.cli.options.files import load_priors, load_survey, need_some
from fwi_refine.io.convert import Conversion
from fwi_refine.io.inputs import open_converted_records, select

if TYPE_CHECKING:
    from fwi_refine.io.map_writer import MapWriter
    from fwi_refine.io.record_sources import Records
    from fwi_refine.runs.starts import Made, Numbered

log = logging.getLogger(__name__)


@options.command("start")
@options.records
@click.option(
    "--out",
    type=options.OUTPUT,
    required=True,
    help="Where to write the maps in m/s: .npy, or .npz with `velocity` and `ids`.",
)
@options.dtype
@options.survey
@options.limit
@options.shard
@options.conversion(maps=False)
@options.priors
@resource_options.resources
@options.overwrite
@options.config
@options.logging_options
def command(
    records: Path,
    out: Path,
    dtype: str,
    survey_file: Path | None,
    limit: int | None,
    shard: tuple[int, int] | None,
    conversion: Conversion,
    force: bool,
    priors_file: Path | None,
    resources: resource_options.Resources,
    overwrite: bool,
    config: Path | None,
) -> int:
    """Make smooth maps to start from, from RECORDS alone.

    \b
    Examples:
      fwi-refine start seismic/ --out starts.npy
      fwi-refine starts.npy seismic/ --out refined.npy

    For records without a network's predictions. The maps explain the low frequencies of the
    records; they come in the sorted order of these, to be used as predictions or as a
    --candidate of `refine`. Layers are blurred in them, so `refine` finds the family by trying
    one after the other, unless it is told with --family. A record that cannot be used leaves
    zeros. A map that is made is kept beside --out until that is written: the same command goes on
    from there.
    """
    from fwi_refine import io
    from fwi_refine.runs import starts
    from fwi_refine.runs.directory.config import priors_of
    from fwi_refine.runs.unfinished import describe_command, kept_maps
    from fwi_refine.wave import Simulator

    survey = load_survey(survey_file)
    io.check_map_name(out, "--out")
    options.claim(out, overwrite)
    path = records.absolute() if resources.dask else records
    source = open_converted_records(path, survey, conversion)
    check_source(source, survey, force, records=True)
    numbers = select(range(len(source.ids)), limit, shard)
    need_some(numbers, shard, "records")
    resources = resources.for_samples(len(numbers))
    settings: dict[str, Any] = {
        "survey": survey,
        "priors": load_priors(priors_file),
        "threads": resources.threads,
        "device": resources.kind,
        "kernel": resources.kernel,
        "per_job": resources.per_job,
    }
    make = functools.partial(starts.make_starts, **settings)
    tasks = numbered_tasks(source, numbers, resources.chunk_size(len(numbers)))
    kernel = Simulator(survey, kernel=resources.kernel, device=resources.kind).kernel
    ids, files = [source.ids[n] for n in numbers], source.files(numbers)
    priors = priors_of(settings["priors"])
    table = describe_command(path, files, ids, survey, conversion, kernel, priors=priors)
    folder = out.with_name(f".{out.name}.start")
    earlier = out.exists()
    writer = io.MapWriter(out, (len(numbers), *survey.shape), survey.shape, dtype, ids)
    with contextlib.ExitStack() as stack:
        stack.callback(writer.discard)
        kept = stack.enter_context(kept_maps(folder, survey.shape, table, overwrite))
        executor = stack.enter_context(resources.executor())
        advance = stack.enter_context(bar(len(numbers), "records"))
        made = starts.each_kept(executor, make, tasks, kept)
        failed = fill(writer, out, survey.shape, made, ids, advance)
        useless = earlier and failed == len(numbers)
        if not useless:
            writer.publish(out)
        kept.remove()
    if useless:
        log.error("no map could be made: the earlier ones stay in %s", out)
    else:
        log.info("%d maps in %s", len(numbers) - failed, out)
    return SAMPLES_FAILED if failed else OK


def numbered_tasks(
    source: "Records", numbers: Sequence[int], size: int
) -> "Iterator[list[Numbered]]":
    """Tasks of up to `size` records: positions among `numbers`, each with its record alone."""
    for i in range(0, len(numbers), size):
        stop = min(i + size, len(numbers))
        yield [(n, source.alone(numbers[n])) for n in range(i, stop)]


def fill(
    writer: "MapWriter",
    out: Path,
    shape: tuple[int, int],
    made: "Iterable[tuple[Numbered, Made]]",
    ids: Sequence[str],
    advance: Callable[[int], object],
) -> int:
    """Writes maps as they are made, and keeps those that are there where the run breaks off.

    Parameters
    ----------
    writer : MapWriter
        Takes the maps; it is not published here.
    out : Path
        Its final name, after which an unfinished file is named.
    shape : (int, int)
        Of a map, (nz, nx).
    made : iterable
        Places and records, with the map of each, (nz, nx) in m/s, or an error.
    ids : sequence of str
        Of the records, by their positions.
    advance : callable
        Told 1 after each record.

    Returns
    -------
    int
        How many records failed, whose maps are zeros.
    """
    import numpy as np

    from fwi_refine import io

    finished = failed = 0
    try:
        for (n, record), v in made:
            if isinstance(v, Exception):
                failed += 1
                log.error("record %s (%s) failed: %s", ids[n], record.where(0), v)
                v = np.zeros(shape)
            else:
                finished += 1
            writer.write(n, v)
            advance(1)
    except BaseException:
        if finished:
            partial = io.marked(out, io.partial_mark([out]))
            writer.publish(partial)
            log.error("finished maps are kept in %s, the others are zeros there", partial)
            log.error("%d of %d maps are finished; to go on: %s",
                      finished, len(ids), command_line())  # fmt: skip
        raise
    return failed
