"""`fwi-refine start`: maps to start from where there is no network."""

import contextlib
import logging

import click

from fwi_refine.cli import OK, SAMPLES_FAILED, options
from fwi_refine.cli.inputs import load_priors, load_survey, select
from fwi_refine.errors import SampleError

log = logging.getLogger(__name__)


@options.command("start")
@options.records
@click.option(
    "--out", type=options.PATH, required=True, help="Where to write the maps: .npy, float32, m/s."
)
@options.survey
@options.limit
@options.shard
@options.priors
@options.overwrite
@options.config
@options.logging_options
def command(records, out, survey_file, limit, shard, priors_file, overwrite, config):
    """Make smooth maps to start from, from RECORDS alone.

    \b
    Examples:
      fwi-refine start seismic/ --out starts.npy
      fwi-refine starts.npy seismic/ --out refined.npy --family style-b

    For records without a network's predictions. The maps explain the low frequencies of the
    records; they come in the sorted order of these, to be used as predictions or as a
    --candidate of `refine`. Layers are blurred in them, so the family has to be told to `refine`
    with --family. A record that cannot be used leaves zeros.
    """
    import numpy as np
    from tqdm import tqdm

    from fwi_refine import io
    from fwi_refine.starts import start_from_record

    survey = load_survey(survey_file)
    io.claim_output(out, overwrite)
    source = io.open_records(records)
    priors = load_priors(priors_file)
    numbers = select(range(len(source.ids)), limit, shard)
    failed = 0
    writer = io.MapWriter(out, (len(numbers), *survey.shape), survey.shape)
    with contextlib.ExitStack() as stack:
        stack.callback(writer.discard)
        for place, k in enumerate(tqdm(numbers, unit="record", disable=None)):
            try:
                v = start_from_record(source.read(k), survey=survey, priors=priors)
            except SampleError as error:
                failed += 1
                log.error("record %s (%s) failed: %s", source.ids[k], source.where(k), error)
                v = np.zeros(survey.shape)
            writer.write(place, v)
        writer.publish(out)
    log.info("%d maps in %s", len(numbers) - failed, out)
    return SAMPLES_FAILED if failed else OK
