"""`fwi-refine evaluate`: how far maps are from the truth."""

import csv
import json
import logging
import math
import sys
from collections import defaultdict

import click

from fwi_refine.cli import OK, SAMPLES_FAILED, options
from fwi_refine.cli.inputs import places_in
from fwi_refine.errors import InputError, SampleError

OVERALL = "all"

log = logging.getLogger(__name__)


@click.command("evaluate")
@click.argument("pred", type=options.PATH)
@click.argument("truth", type=options.PATH)
@click.option("--families", type=options.PATH, help="CSV with the columns id and family.")
@click.option(
    "--records", type=options.PATH, help="Measure the misfit of PRED against these records too."
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of CSV.")
@options.ids
@options.config
@options.logging_options
def command(pred, truth, families, records, as_json, ids_file, config):
    """Measure the error of the maps PRED against the maps TRUTH: a table on stdout.

    Both have any form that predictions have. MAE and RMSE in m/s, over all samples and by
    family; SSIM as OpenFWI has it. With --records: rms of simulated minus given records.
    """
    from fwi_refine import io

    maps, true_maps = io.open_predictions(pred), io.open_predictions(truth)
    names, places = match(maps, true_maps, ids_file and io.read_ids(ids_file))
    family_of = _families(families, names, maps.count)
    measure_misfit = _misfit(records, names, maps.count) if records else None

    groups, failed = defaultdict(_Sums), 0
    for k, place in enumerate(places):
        name = names[k] if names else f"number {k + 1}"
        try:
            v, measured = _measure(maps, k, true_maps, place)
            if measure_misfit:
                measured["misfit"] = measure_misfit(k, v)
        except SampleError as error:
            failed += 1
            log.error("%s failed: %s", name, error)
            continue
        for group in (OVERALL, *((family_of[k],) if family_of else ())):
            groups[group].add(measured)
    rows = [{"family": name, **groups[name].means()} for name in sorted(groups, key=_all_last)]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif rows:
        writer = csv.DictWriter(sys.stdout, rows[0].keys())
        writer.writeheader()
        writer.writerows(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
        )
    return SAMPLES_FAILED if failed else OK


def _all_last(name):
    return name == OVERALL, name


class _Sums:
    """Means over the samples of a group; squared measures are averaged before their root."""

    def __init__(self):
        self.count = 0
        self.sums = defaultdict(float)

    def add(self, measured):
        self.count += 1
        for name, value in measured.items():
            self.sums[name] += value

    def means(self) -> dict:
        mean = {name: value / self.count for name, value in self.sums.items()}
        result = {
            "samples": self.count,
            "mae": mean["mae"],
            "rmse": math.sqrt(mean["mse"]),
            "ssim": mean["ssim"],
        }
        if "misfit" in mean:
            result["misfit_rms"] = math.sqrt(mean["misfit"])
        return result


def match(maps, true_maps, listed):
    """(ids or None, index in `true_maps` of each map): by id where both have ids.

    Raises InputError if the counts or the ids do not match.
    """
    from fwi_refine import io

    names = io.resolve_ids(maps.ids, listed, maps.count, maps.path)
    return names or true_maps.ids, places_in(true_maps, maps, names)


def _families(path, names, count):
    """Family of each map; by position where the maps have no ids."""
    from fwi_refine import io

    if path is None:
        return None
    table = io.read_families(path)
    if names is not None:
        absent = [name for name in names if name not in table]
        if absent:
            raise InputError(f"--families {path}: has no family for {absent[0]!r}")
        return [table[name] for name in names]
    if len(table) != count:
        raise InputError(
            f"--families {path}: found {len(table)} families for {count} maps without ids; give "
            "their ids with --ids"
        )
    return list(table.values())


def _measure(maps, k, true_maps, place):
    from fwi_refine import metrics
    from fwi_refine.validate import check_prediction

    v = check_prediction(maps.read(k), where=maps.where(k))
    truth = check_prediction(true_maps.read(place), where=true_maps.where(place))
    return v, {
        "mae": metrics.mean_absolute_error(v, truth),
        "mse": metrics.root_mean_square_error(v, truth) ** 2,
        "ssim": metrics.structural_similarity(v, truth),
    }


def _misfit(path, names, count):
    """A function of (index, map) that gives the mean square misfit to the record."""
    import torch

    from fwi_refine import io
    from fwi_refine.survey import OPENFWI
    from fwi_refine.validate import check_record
    from fwi_refine.wave import Simulator

    records = io.open_records(path)
    pairs = io.pair(names, count, records)
    simulator = Simulator()
    log.info("kernel: %s", simulator.kernel)

    def measure(k, v):
        pair = pairs[k]
        if pair.problem is not None:
            raise SampleError(pair.problem)
        record = check_record(records.read(pair.record), where=records.where(pair.record))
        d = torch.as_tensor(record[:, : OPENFWI.n_steps], dtype=torch.float64)
        try:
            return simulator.misfit(torch.as_tensor(v)[None], d[None]).item()
        except ValueError as error:
            raise SampleError(f"{pair.id}: {error}") from error

    return measure
