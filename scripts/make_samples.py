"""Make samples like those of the OpenFWI benchmark: maps, network-like starts and records.

    python scripts/make_samples.py --out DIR --families all --per-family 2 --seed 0
    python scripts/make_samples.py --samples            # data_samples/, one sample for each route
    python scripts/make_samples.py --table --per-family 20

DIR gets predictions.npy and truth.npy (N, 70, 70) float32, seismic/<id>.npy (5, 1000, 70) float32
and families.csv. The n-th prediction belongs to the n-th id in sorted order.
"""

import csv
from pathlib import Path

import click
import numpy as np

from fwi_refine.cli.console import tracked
from fwi_refine.synthetic import FAMILIES, MISFIT_PER_MAE, NETWORK_MAE, make_sample

DATA_SAMPLES = Path(__file__).resolve().parents[1] / "data_samples"
# One family for each way in which samples are refined, the quickest first.
ROUTES = {
    "FlatVel_B": "flat-vel",
    "CurveFault_A": "blended",
    "Style_A": "style-a",
    "CurveVel_A": "layered",
    "Style_B": "style-b",
}
ROUTE_LAYERS = {"CurveFault_A": 2}  # with more of them it is refined as other layers are


def parse_families(_context, _parameter, value: str) -> tuple[str, ...]:
    """Families of a comma-separated list, or all of them."""
    families = FAMILIES if value == "all" else [name.strip() for name in value.split(",")]
    for name in families:
        if name not in FAMILIES:
            raise click.BadParameter(
                f"unknown family {name!r}, expected 'all' or a list of {', '.join(FAMILIES)}"
            )
    return tuple(dict.fromkeys(families))  # a family named twice would give the same samples


@click.command(context_settings={"show_default": True})
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write the samples to.")
@click.option("--families", callback=parse_families, default="all", help="'all' or a list A,B,...")
@click.option("--per-family", type=click.IntRange(min=1), default=1, help="Samples of each family.")
@click.option("--seed", type=click.IntRange(min=0), default=0)
@click.option("--hardness", type=click.FloatRange(0, 10), default=1.0, help="2 to 3: the hard set.")
@click.option("--samples", is_flag=True, help="Make data_samples/: one sample for each route.")
@click.option("--table", is_flag=True, help="Print mean errors of the starts by family.")
@click.option("--overwrite", is_flag=True, help="Replace all samples in the folder.")
def main(out, families, per_family, seed, hardness, samples, table, overwrite):
    """Make samples: maps of the OpenFWI families, network-like starts and their records."""
    if samples:
        out, families, per_family = out or DATA_SAMPLES, tuple(ROUTES), 1
    if out is None and not table:
        raise click.UsageError("give --out DIR, --samples or --table")
    if out is not None:
        prepare(out, overwrite)
    rows, records = [], {}
    for family in families:
        for number in tracked(range(per_family), f"samples of {family}"):
            layers = ROUTE_LAYERS.get(family) if samples else None
            sample = make_sample(family, seed, number, hardness, layers)
            if samples:
                records[sample.id] = sample.record
            elif out is not None:  # the records, 1.4 MB each, are not kept
                np.save(out / "seismic" / f"{sample.id}.npy", sample.record)
            errors = (sample.start_mae, sample.start_misfit)
            rows.append((sample.id, family, *errors, sample.start, sample.truth))
    if samples:
        rows = in_this_order(rows)
        for (name, *_), record in zip(rows, records.values(), strict=True):
            np.save(out / "seismic" / f"{name}.npy", record)
    if out is not None:
        write(out, sorted(rows, key=lambda row: row[0]), samples)
    if table:
        click.echo(calibration_table(rows, hardness))


def in_this_order(rows: list) -> list:
    """The samples with their ids exchanged, so that the order of ids is that of the rows."""
    names = sorted(row[0] for row in rows)
    return [(name, *row[1:]) for name, row in zip(names, rows, strict=True)]


def prepare(out: Path, overwrite: bool) -> None:
    """Make the folders; with `overwrite`, take out the records of an earlier run."""
    seismic = out / "seismic"
    earlier = [*out.glob("predictions.npy"), *seismic.glob("*.npy")]
    if earlier and not overwrite:
        raise click.UsageError(
            f"{out} holds samples already; add --overwrite or name another --out"
        )
    seismic.mkdir(parents=True, exist_ok=True)
    for path in seismic.glob("*.npy"):
        path.unlink()


def write(out: Path, rows: list, routes: bool) -> None:
    """Maps and the list of samples, in the order of their ids."""
    np.save(out / "predictions.npy", np.stack([row[4] for row in rows]))
    np.save(out / "truth.npy", np.stack([row[5] for row in rows]))
    header = ["id", "family", "start_mae", "start_misfit"]
    with open(out / ("samples.csv" if routes else "families.csv"), "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*header, "route"] if routes else header)
        for name, family, mae, misfit, *_ in rows:
            fields = [name, family, f"{mae:.4f}", f"{misfit:.4e}"]
            writer.writerow([*fields, ROUTES[family]] if routes else fields)


def calibration_table(rows: list, hardness: float) -> str:
    """Mean errors of the starts by family against the network's, as a Markdown table."""
    lines = [
        "| family | samples | start MAE, m/s | target | misfit, rms | misfit per m/s | target |",
        "|---|---|---|---|---|---|---|",
    ]
    for family in FAMILIES:
        mine = np.array([row[2:4] for row in rows if row[1] == family])
        if not mine.size:
            continue
        mae, misfit = mine.mean(axis=0)
        lines.append(
            f"| {family} | {len(mine)} | {mae:.1f} | {hardness * NETWORK_MAE[family]:.1f} "
            f"| {misfit:.1e} | {misfit / mae:.1e} | {MISFIT_PER_MAE[family]:.1e} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
