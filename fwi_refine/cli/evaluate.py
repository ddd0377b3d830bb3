"""`fwi-refine evaluate`: how far maps are from the truth."""

import csv
import json
import logging
import math
import sys
from collections import defaultdict

import click

from fwi_refine.cli import OK, SAMPLES_FAILED, options
from fwi_refine.cli.families import AUTO, known_families
from fwi_refine.cli.inputs import load_priors, load_survey, places_in
from fwi_refine.errors import InputError, SampleError

OVERALL = "all"

log = logging.getLogger(__name__)


@click.command("evaluate")
@click.argument("pred", type=options.PATH)
@click.argument("truth", type=options.PATH)
@options.families
@click.option(
    "--records", type=options.PATH, help="Measure the misfit of PRED against these records too."
)
@click.option(
    "--by",
    type=click.Choice(["family", "depth", "sample"]),
    default="family",
    show_default=True,
    help="What a row of the table is: a family, a row of the maps of a family, or a sample.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of CSV.")
@options.survey
@options.ids
@options.priors
@options.config
@options.logging_options
def command(
    pred, truth, families, records, by, as_json, survey_file, ids_file, priors_file, config
):
    """Measure the error of the maps PRED against the maps TRUTH: a table on stdout.

    \b
    Both have any form that predictions have. Over all samples and by family:
      mae, rmse    over all cells, m/s; OpenFWI's papers have them divided by 1500
      score        mae over the odd columns, m/s: what a leaderboard measures of a submission
      ssim         as OpenFWI has it
      misfit_rms   with --records: simulated minus given records, in their units
    --by depth: mae, rmse and bias (positive where PRED is too fast) of each row, m/s.
    """
    from fwi_refine import io

    survey = load_survey(survey_file)
    maps, true_maps = io.open_predictions(pred, survey), io.open_predictions(truth, survey)
    names, places = match(maps, true_maps, ids_file and io.read_ids(ids_file))
    seen = _Records(records, names, maps.count, survey) if records else None
    family_of = _families(families, names, maps, seen, priors_file)

    table, failed = TABLES[by](survey), 0
    for k, place in enumerate(places):
        name = names[k] if names else f"number {k + 1}"
        try:
            v, true = _read(maps, k, survey), _read(true_maps, place, survey)
            table.add(name, family_of(k, v), v, true, seen and (lambda v, k=k: seen.misfit(k, v)))
        except SampleError as error:
            failed += 1
            log.error("%s failed: %s", name, error)
    _print(table.rows(), as_json)
    return SAMPLES_FAILED if failed else OK


def _print(rows, as_json):
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif rows:
        writer = csv.DictWriter(sys.stdout, rows[0].keys())
        writer.writeheader()
        writer.writerows(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
        )


def _measure(v, truth, misfit):
    from fwi_refine import metrics

    measured = {
        "mae": metrics.mean_absolute_error(v, truth),
        "mse": metrics.root_mean_square_error(v, truth) ** 2,
        "score": metrics.leaderboard_error(v, truth),
        "ssim": metrics.structural_similarity(v, truth),
    }
    return measured | ({"mean_square_misfit": misfit(v)} if misfit else {})


def _rooted(measured) -> dict:
    """The measures as they are reported: squared ones are averaged before their root."""
    names = {"mse": "rmse", "mean_square_misfit": "misfit_rms"}
    return {names.get(k, k): math.sqrt(v) if k in names else v for k, v in measured.items()}


class _BySample:
    """One row for each sample, in the order of the maps."""

    def __init__(self, survey):
        self._rows = []

    def add(self, name, family, v, truth, misfit):
        which = {"id": name} | ({} if family is None else {"family": family})
        self._rows.append(which | _rooted(_measure(v, truth, misfit)))

    def rows(self):
        return self._rows


class _ByFamily:
    """Means over the samples of each family, and over all."""

    def __init__(self, survey):
        self._survey = survey
        self._groups = defaultdict(lambda: defaultdict(float))
        self._counts = defaultdict(int)

    def add(self, name, family, v, truth, misfit):
        measured = self._measure(v, truth, misfit)
        for group in (OVERALL, *(() if family is None else (family,))):
            self._counts[group] += 1
            for key, value in measured.items():
                self._groups[group][key] += value

    _measure = staticmethod(_measure)

    def _means(self):
        """(family, number of samples, means) of each group, all samples last."""
        for group in sorted(self._groups, key=lambda name: (name == OVERALL, name)):
            count = self._counts[group]
            yield group, count, {k: v / count for k, v in self._groups[group].items()}

    def rows(self):
        return [{"family": g, "samples": n, **_rooted(means)} for g, n, means in self._means()]


class _ByDepth(_ByFamily):
    """One row for each row of the maps, for each family and for all."""

    @staticmethod
    def _measure(v, truth, misfit):
        from fwi_refine.metrics import error_by_depth

        return error_by_depth(v, truth)

    def rows(self):
        rows = []
        for group, count, means in self._means():
            for k in range(self._survey.shape[0]):
                depth = k * self._survey.spacing
                which = {"family": group, "row": k, "depth": depth, "samples": count}
                rows.append(which | _rooted({key: float(value[k]) for key, value in means.items()}))
        return rows


TABLES = {"family": _ByFamily, "depth": _ByDepth, "sample": _BySample}


def match(maps, true_maps, listed):
    """(ids or None, index in `true_maps` of each map): by id where both have ids.

    Raises InputError if the counts or the ids do not match.
    """
    from fwi_refine import io

    names = io.resolve_ids(maps.ids, listed, maps.count, maps.path)
    return names or true_maps.ids, places_in(true_maps, maps, names)


def _families(path, names, maps, seen, priors_file):
    """A function of (index, map) that gives the family, None where it is not asked for."""
    if path is None:
        return lambda k, v: None
    if str(path) != AUTO:
        known = known_families(path, names, maps.count)
        return lambda k, v: known[k]
    if seen is None:
        raise InputError(f"--families {AUTO}: needs --records, the family is told from both")
    from fwi_refine.routing import NO_FAMILY, can_classify, classify

    if not can_classify(seen.survey):
        raise InputError(f"--families {AUTO}: {NO_FAMILY}")
    priors = load_priors(priors_file)
    return lambda k, v: str(classify(v, seen.read(k), priors, seen.survey).family)


def _read(maps, k, survey):
    from fwi_refine.validate import check_prediction

    return check_prediction(maps.read(k), survey=survey, where=maps.where(k))


class _Records:
    """The record of each map, and the mean square misfit to it."""

    def __init__(self, path, names, count, survey):
        from fwi_refine import io
        from fwi_refine.wave import Simulator

        self.survey = survey
        self._records = io.open_records(path)
        self._pairs = io.pair(names, count, self._records)
        self._simulator = Simulator(survey)
        self._last = None, None
        log.info("kernel: %s", self._simulator.kernel)

    def read(self, k):
        """(shots, rows, receivers), checked. Raises SampleError."""
        from fwi_refine.validate import check_record

        if self._last[0] != k:
            pair = self._pairs[k]
            if pair.problem is not None:
                raise SampleError(pair.problem)
            where = self._records.where(pair.record)
            record = self._records.read(pair.record)
            self._last = k, check_record(record, survey=self.survey, where=where)
        return self._last[1]

    def misfit(self, k, v) -> float:
        import torch

        d = torch.as_tensor(self.read(k)[:, : self.survey.n_steps], dtype=torch.float64)
        try:
            return self._simulator.misfit(torch.as_tensor(v)[None], d[None]).item()
        except ValueError as error:
            raise SampleError(f"{self._pairs[k].id}: {error}") from error
