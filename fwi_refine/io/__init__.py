"""Samples in, maps out. Everything is read one sample at a time."""

from fwi_refine.io.ids import check_id, read_families, read_ids, resolve_ids
from fwi_refine.io.indices import find_indices, is_part_of
from fwi_refine.io.inputs import Inputs, open_inputs
from fwi_refine.io.map_writer import MapWriter, check_map_name
from fwi_refine.io.outputs import (
    atomic_path,
    claim_output,
    marked,
    partial_mark,
    refuse_input,
    sweep,
)
from fwi_refine.io.pairing import Pair, pair
from fwi_refine.io.predictions import open_predictions, read_start
from fwi_refine.io.records import open_records
from fwi_refine.io.samples import Chunk, Sample, load_record, plan_samples, read_samples

__all__ = [
    "Chunk",
    "Inputs",
    "MapWriter",
    "Pair",
    "Sample",
    "atomic_path",
    "check_id",
    "check_map_name",
    "claim_output",
    "find_indices",
    "is_part_of",
    "load_record",
    "marked",
    "open_inputs",
    "open_predictions",
    "open_records",
    "pair",
    "partial_mark",
    "plan_samples",
    "read_families",
    "read_ids",
    "read_samples",
    "read_start",
    "refuse_input",
    "resolve_ids",
    "sweep",
]
