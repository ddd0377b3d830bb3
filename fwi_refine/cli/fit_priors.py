"""`fwi-refine fit-priors`: hyper-parameters and routing thresholds from labelled maps."""

from pathlib import Path

import click

from fwi_refine.cli import options


@options.command("fit-priors")
@click.argument("train", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file to write; refining reads it with --priors.",
)
@click.option(
    "--predictions",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Predicted maps in the same layout as TRAIN: fit the routing thresholds to them.",
)
@click.option(
    "--priors",
    "base",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Where numbers come from that are not fitted; default: the program's own.",
)
@click.option(
    "--limit",
    default=500,
    show_default=True,
    type=click.IntRange(min=2),
    metavar="N",
    help="Maps to use of each family, taken evenly over its files.",
)
@click.option("--overwrite", is_flag=True, help="Replace --out if it exists.")
def command(train, out, predictions, base, limit, overwrite):
    """Fit priors and routing thresholds to labelled maps.

    \b
    Examples:
      fwi-refine fit-priors train --out priors.toml
      fwi-refine refine predictions.npy seismic/ --out refined.npy --priors priors.toml

    For data other than that of OpenFWI, whose numbers are built in.

    TRAIN is laid out as the released training data: a folder for each family (Style_A, Style_B,
    FlatVel_A, CurveFault_B, ...) with model*.npy or vel*.npy of shape (n, 70, 70) or
    (n, 1, 70, 70) in m/s, in the folder itself or below it. A file TRAIN/Style_A.npy does as well.

    The Gaussian processes of Style A and Style B are fitted by maximum likelihood to the maps of
    these two folders. The routing thresholds belong to predictions, not to true maps: they
    are fitted only with --predictions, each half way between the families that it separates, and
    kept as they are where one side is missing. What is not fitted is taken from --priors.
    """
    import dataclasses

    import tomli_w

    from fwi_refine.errors import InputError
    from fwi_refine.io import atomic_path, claim_output
    from fwi_refine.priors import GaussianProcess, load, to_table
    from fwi_refine.routing import OPENFWI_FAMILIES, fit_routing
    from fwi_refine.version import __version__

    claim_output(out, overwrite)
    try:
        priors = load(base)
    except ValueError as error:
        raise InputError(f"priors {error}") from error
    notes = [f"Written by fwi-refine {__version__} fit-priors from {train}."]

    folders = family_files(train, OPENFWI_FAMILIES)
    fitted = 0
    for key, family in (("style_a", "Style_A"), ("style_b", "Style_B")):
        if family not in folders:
            notes.append(f"[{key}] not fitted: there are no maps of {family}.")
            continue
        maps = read_maps(folders[family], limit)
        try:
            process = GaussianProcess.fit(maps, mean=getattr(priors, key).mean)
        except ValueError as error:
            raise InputError(f"{train}, {family}: {error}") from error
        priors = dataclasses.replace(priors, **{key: process})
        notes.append(f"[{key}] maximum likelihood on {len(maps)} maps of {family}.")
        fitted += 1
    if not fitted and predictions is None:
        raise InputError(
            f"{train}: found no maps to fit: expected Style_A or Style_B, with model*.npy or "
            "vel*.npy in them, or --predictions"
        )

    if predictions is None:
        notes.append("[routing] not fitted: there are no --predictions.")
        if "Style_A" in folders:
            notes.append(
                "Caution: style_a_log_energy belongs to the [style_a] that it was fitted with; "
                "with another one, fit it with --predictions."
            )
    else:
        groups = {}
        for family, files in family_files(predictions, OPENFWI_FAMILIES).items():
            groups.setdefault(OPENFWI_FAMILIES[family], []).extend(read_maps(files, limit))
        if len(groups) < 2:
            raise InputError(
                f"{predictions}: found predictions of {len(groups)} group(s) of families, "
                "expected at least two to tell apart"
            )
        routing, wrong = fit_routing(groups, priors)
        priors = dataclasses.replace(priors, routing=routing)
        counts = ", ".join(f"{len(maps)} {group}" for group, maps in groups.items())
        notes.append(f"[routing] fitted to predictions in {predictions}: {counts}.")
        notes += [f"{name}: {count} of them on its wrong side." for name, count in wrong.items()]

    text = "".join(f"# {note}\n" for note in notes) + "\n" + tomli_w.dumps(to_table(priors))
    with atomic_path(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    for note in notes:
        click.echo(note, err=True)
    click.echo(f"wrote {out}", err=True)


def family_files(root: Path, families) -> dict[str, list[Path]]:
    """The map files of each family that is present in the folder `root`, in sorted order.

    Folder names are compared without case, "_" and "-".
    """

    def plain(name):
        return name.lower().replace("_", "").replace("-", "")

    names = {plain(family): family for family in families}
    found = {}
    for entry in sorted(root.iterdir()):
        family = names.get(plain(entry.stem if entry.is_file() else entry.name))
        if family is None:
            continue
        if entry.is_dir():
            files = [p for p in sorted(entry.rglob("*.npy")) if p.name.startswith(("model", "vel"))]
        else:
            files = [entry] if entry.suffix == ".npy" else []
        if files:
            found.setdefault(family, []).extend(files)
    return found


def read_maps(files: list[Path], limit: int):
    """At most `limit` maps of the files, evenly spaced: (n, nz, nx) float64 m/s.

    Raises InputError for files and maps that cannot be used.
    """
    import numpy as np

    from fwi_refine.errors import InputError, SampleError
    from fwi_refine.io import open_predictions
    from fwi_refine.validate import check_prediction

    places = []
    for path in files:
        maps = open_predictions(path)
        places += [(maps, k) for k in range(maps.count)]
    chosen = np.unique(np.linspace(0, len(places) - 1, min(limit, len(places))).round().astype(int))
    try:
        return np.array(
            [
                check_prediction(maps.read(k), where=maps.where(k))
                for maps, k in (places[i] for i in chosen)
            ]
        )
    except SampleError as error:
        raise InputError(str(error)) from error
