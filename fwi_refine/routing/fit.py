"""Priors and routing thresholds fitted to labelled maps in files."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fwi_refine.errors import InputError, SampleError
from fwi_refine.io import open_predictions
from fwi_refine.priors import GaussianProcess, Priors
from fwi_refine.routing.families import OPENFWI_FAMILIES
from fwi_refine.routing.thresholds import fit_routing
from fwi_refine.survey.validate import check_prediction


def fit_priors(
    train: Path, priors: Priors, predictions: Path | None = None, limit: int = 500
) -> tuple[Priors, list[str]]:
    """(priors fitted to the maps of `train`, notes on what was fitted to how many of them).

    train: a folder with the maps of each family (see `family_files`), to which the Gaussian
    processes are fitted; priors: where numbers come from that are not fitted; predictions: a
    folder laid out alike, to which the routing thresholds are fitted; limit: maps of each family.
    Raises InputError where there is nothing to fit, or for files that cannot be used.
    """
    folders = family_files(train, OPENFWI_FAMILIES)
    notes, fitted = [], 0
    for key, family in (("style_a", "Style_A"), ("style_b", "Style_B")):
        if family not in folders:
            notes.append(f"[{key}] not fitted: there are no maps of {family}.")
            continue
        maps = read_maps(folders[family], limit)
        try:
            process = GaussianProcess.fit(maps, mean=getattr(priors, key).mean)
        except ValueError as error:
            raise InputError(f"{train}, {family}: {error}") from error
        priors = replace(priors, **{key: process})
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
        priors = replace(priors, routing=routing)
        counts = ", ".join(f"{len(maps)} {group}" for group, maps in groups.items())
        notes.append(f"[routing] fitted to predictions in {predictions}: {counts}.")
        notes += [f"{name}: {count} of them on its wrong side." for name, count in wrong.items()]
    return priors, notes


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
    every = []
    for path in files:
        maps = open_predictions(path)
        every += [(maps, k) for k in range(maps.count)]
    chosen = np.unique(np.linspace(0, len(every) - 1, min(limit, len(every))).round().astype(int))
    try:
        return np.array(
            [
                check_prediction(maps.read(k), where=maps.where(k))
                for maps, k in (every[i] for i in chosen)
            ]
        )
    except SampleError as error:
        raise InputError(str(error)) from error
