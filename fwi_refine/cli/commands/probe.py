"""`fwi-refine probe`: how one group of samples does on a leaderboard."""

import csv
import json
import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from fwi_refine.cli import OK, options
from fwi_refine.cli.check_inputs import check_source
from fwi_refine.errors import InputError
from fwi_refine.files import read_json
from fwi_refine.io.convert import Conversion
from fwi_refine.io.predictions import Predictions
from fwi_refine.limits import whole_number
from fwi_refine.survey import OPENFWI

PLAN = "probe.json"
ODD_COLUMNS = slice(1, None, 2)  # all that a submission holds

log = logging.getLogger(__name__)


@click.group(
    "probe", cls=options.CommandGroup, context_settings={"help_option_names": ["-h", "--help"]}
)
def command() -> None:
    """Learn from a leaderboard how one family does there.

    A leaderboard gives one number for all samples. From three submissions, this finds how many of
    the scored samples are of a family, and how good the maps of that family are.

    \b
    Example:
        fwi-refine classify maps.npy seismic/ > families.csv
        fwi-refine probe write maps.npy --families families.csv --family style-b --out probe
        ... hand in the three CSVs of the folder probe and note their scores ...
        fwi-refine probe solve probe 7.6 291.3 9603.3

    The maps are submitted as they are, and twice with the values of one family shifted up or
    down by a known amount. From the three scores follow the family's share of the scored
    samples, its mean absolute error, and that of all others.
    """


@command.command("write")
@click.argument("pred", type=options.PATH)
@click.option("--out", type=options.OUTPUT, required=True, help="Folder to write to; made if new.")
@click.option(
    "--families",
    type=options.PATH,
    required=True,
    help="CSV with the columns id and family, such as classify prints.",
)
@click.option("--family", required=True, help="The family whose samples are shifted.")
@click.option(
    "--shifts",
    type=options.Number(min=0, min_open=True, finite=True),
    nargs=2,
    metavar="A1 A2",
    help="The two shifts, m/s.  [default: what no error can exceed, and 100000]",
)
@click.option(
    "--bounds",
    type=options.Number(finite=True),
    nargs=2,
    metavar="LOW HIGH",
    default=(1500.0, 4500.0),
    show_default=True,
    callback=options.low_and_high,
    help="What the true velocities lie within, m/s.",
)
@click.option(
    "--like", type=options.PATH, help="Sample submission; its lines give the ids and their order."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Seed of the random signs.")  # fmt: skip
@options.ids
@options.conversion(records=False)
@options.overwrite
@options.config
@options.logging_options
def write(
    pred: Path,
    out: Path,
    families: Path,
    family: str,
    shifts: tuple[float, float] | None,
    bounds: tuple[float, float],
    like: Path | None,
    seed: int,
    ids_file: Path | None,
    conversion: Conversion,
    force: bool,
    overwrite: bool,
    config: Path | None,
) -> int:
    """Write the three submissions of the maps PRED.

    \b
    Example:
      fwi-refine probe write maps.npy --families families.csv --family style-b --out probe

    The folder also gets what `solve` has to know, probe.json.
    Each value of the family is shifted up or down at random, so that a bias of the maps drops
    out of the result. A shift must be larger than every error of the family.
    """
    from fwi_refine import io
    from fwi_refine.analysis.leaderboard import Shifted
    from fwi_refine.io.inputs import known_families, open_converted_predictions
    from fwi_refine.io.submission import write_submission

    maps = open_converted_predictions(pred, conversion=conversion)
    ids = io.resolve_ids(maps.ids, io.read_ids(ids_file) if ids_file else None, maps.count, pred)
    if ids is None:
        raise InputError(f"{pred}: the maps have no ids; give them with --ids")
    check_source(maps, OPENFWI, force)
    of_each = known_families(families, ids, maps.count)
    chosen = [k for k, name in enumerate(of_each) if name == family]
    if not chosen:
        raise InputError(f"--families {families}: has no {family!r}, only {sorted({*of_each})}")
    shifts = _shifts(shifts, maps, chosen, bounds)

    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file, expected a directory")
    names = ["unchanged.csv", *(f"shifted_by_{shift:.10g}.csv" for shift in shifts)]
    if out.is_dir():
        for name in (*names, PLAN):
            options.claim(out / name, overwrite)
    out.mkdir(parents=True, exist_ok=True)
    for name, shift in zip(names, (0.0, *shifts), strict=True):
        shifted: Any = Shifted(maps, chosen, shift, seed) if shift else maps
        count = write_submission(shifted, ids, out / name, like=like)
        log.info("%s", out / name)
    plan = {
        "maps": str(pred),
        "family": family,
        "shifts": shifts,
        "seed": seed,
        "files": names,
        "samples": count,
        "share_of_maps": len(chosen) / maps.count,
    }
    with io.atomic_path(out / PLAN) as temporary:
        temporary.write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")
    log.info("%d of %d maps are shifted; hand in the three files in this order, then:\n"
             "fwi-refine probe solve %s SCORE SCORE SCORE",
             len(chosen), maps.count, out)  # fmt: skip
    return OK


def _shifts(
    asked: tuple[float, float] | None,
    maps: Predictions,
    chosen: Sequence[int],
    bounds: tuple[float, float],
) -> tuple[float, float]:
    """The two shifts; those asked for, with a warning where an error might be larger."""
    from fwi_refine.analysis.leaderboard import least_shift
    from fwi_refine.errors import SampleError
    from fwi_refine.survey.validate import check_prediction

    low, high = math.inf, -math.inf
    for k in chosen:
        try:
            v = check_prediction(maps.read(k), where=maps.where(k))[:, ODD_COLUMNS]
        except SampleError as error:
            raise InputError(f"{error}; nothing was written") from error
        low, high = min(low, v.min()), max(high, v.max())
    least = least_shift(low, high, bounds)
    near, far = asked or (100.0 * math.ceil(least / 100), 100_000.0)
    if near >= far or f"{near:.10g}" == f"{far:.10g}":  # files are called after them
        raise InputError(f"shifts {near:.10g} and {far:.10g}: expected the first to be smaller")
    if near < least:
        log.warning("with predictions of %.6g to %.6g m/s and true velocities of %.6g to %.6g m/s "
                    "an error may be %.6g m/s, more than the first shift: the result will be too "
                    "small if it is", low, high, *bounds, least)  # fmt: skip
    return near, far


@command.command("solve")
@click.argument("folder", type=options.PATH)
@click.argument("scores", nargs=3, metavar="UNCHANGED FIRST SECOND")
@click.option(
    "--rounding",
    type=options.Number(min=0, finite=True),
    help="By how much a score may be off.  [default: half of its last decimal as typed]",
)
@click.option(
    "--scored",
    type=options.Number(min=0, max=1, min_open=True),
    default=1.0,
    show_default=True,
    help="Part of the test set that the leaderboard scores; only for the error of the signs.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of CSV.")
@options.config
@options.logging_options
def solve(
    folder: Path,
    scores: tuple[str, str, str],
    rounding: float | None,
    scored: float,
    as_json: bool,
    config: Path | None,
) -> int:
    """Solve for the family's share and error, from the three scores.

    \b
    Example:
      fwi-refine probe solve probe 7.6 291.3 9603.3

    FOLDER is what `write` made, and the scores are those of its three files, in that order.
    Type the scores as they are published, with all their decimals: 7.60 says more than 7.6.

    \b
    share         of the family in the scored samples
    error         its mean absolute error, m/s
    contribution  share times error: its part of the unchanged score, m/s
    rest          mean absolute error of all other samples, m/s
    low and high  what agrees with the rounded scores, and with three standard deviations of the
                  random signs
    """
    from fwi_refine.analysis import leaderboard
    from fwi_refine.io.submission import VALUES_PER_MAP

    plan = _read_plan(folder)
    numbers = [_number(text) for text in scores]
    if rounding is None:
        rounding = max(_half_decimal(text) for text in scores)
    values = scored * plan["samples"] * VALUES_PER_MAP
    found = leaderboard.solve(numbers, plan["shifts"], rounding=rounding, values=values)
    estimates = {k: v for k, v in asdict(found).items() if isinstance(v, dict)}
    if as_json:
        about = {"family": plan["family"], "rounding": rounding, "sign_error": found.sign_error}
        click.echo(json.dumps(about | estimates, indent=2))
        return OK
    writer = csv.writer(sys.stdout)
    writer.writerow(["family", "quantity", "value", "low", "high"])
    for name, estimate in estimates.items():
        cells = [f"{estimate[key]:.6g}" for key in ("value", "low", "high")]
        writer.writerow([plan["family"], name, *cells])
    log.info("scores to within %.6g; the random signs put a standard deviation of at most %.2g m/s "
             "on error", rounding, found.sign_error)  # fmt: skip
    log.info("share of %s in the maps that were classified: %.6g",
             plan["family"], plan["share_of_maps"])  # fmt: skip
    return OK


def _read_plan(folder: Path) -> dict[str, Any]:
    """The file that `write` left for `solve`. Raises InputError."""
    path = Path(folder) / PLAN if Path(folder).is_dir() else Path(folder)
    try:
        plan = read_json(path)
        near, far = (float(shift) for shift in plan["shifts"])
        return {
            "family": str(plan["family"]),
            "shifts": (near, far),
            "samples": whole_number(plan["samples"], "samples", 1),
            "share_of_maps": float(plan["share_of_maps"]),
        }
    except (OSError, ValueError, LookupError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: no plan of probe write ({error!r})") from error


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: expected a number") from error
    if not math.isfinite(number):
        raise click.BadParameter(f"{text!r}: expected a finite number")
    return number


def _half_decimal(text: str) -> float:
    """Half of the last decimal of a number as it is typed: 0.05 for 7.6."""
    mantissa, _, exponent = text.lower().partition("e")
    decimals = sum(c.isdigit() for c in mantissa.partition(".")[2])
    try:
        return 0.5 * 10.0 ** (int(exponent or 0) - decimals)
    except OverflowError as error:
        raise click.BadParameter(f"{text!r}: expected a number as it is published") from error
