"""Priors and routing thresholds fitted to labelled maps in files."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwi_refine.errors import InputError, SampleError
from fwi_refine.io import atomic_path, open_predictions, read_families
from fwi_refine.priors import (
    GaussianProcess,
    Priors,
    VariationalTotalVariation,
    denoiser_training,
)
from fwi_refine.priors.denoiser import Denoiser, save_denoiser
from fwi_refine.routing.checks.form import recognise_maps
from fwi_refine.routing.checks.inputs import report_findings
from fwi_refine.routing.criterion import Criteria
from fwi_refine.routing.families import OPENFWI_FAMILIES
from fwi_refine.routing.thresholds import fit_routing
from fwi_refine.survey import OPENFWI
from fwi_refine.survey.validate import check_prediction

SLOWEST, FASTEST = 50.0, 10_000.0  # m/s, of the ground: soils and the lower mantle are within
MIN_MAPS = 30  # maps of a family: their mean is known to a fifth of the spread of one map
MADE = ("families.csv", "samples.csv")  # what scripts/make_samples.py writes beside its maps


def fit_priors(
    train: Path,
    priors: Priors,
    criteria: Criteria,
    predictions: Path | None = None,
    limit: int = 500,
    force: bool = False,
) -> tuple[Priors, list[str]]:
    """Gaussian processes and thresholds fitted to maps in files.

    Parameters
    ----------
    train : Path
        Folder with the maps of each family (see `family_maps`), to which the Gaussian processes
        are fitted.
    priors : Priors
        Source of the numbers that are not fitted.
    criteria : mapping
        Test of each family that has one.
    predictions : Path, optional
        Folder with predicted maps, laid out alike, to which the routing thresholds are fitted.
    limit : int
        Most maps of each family.
    force : bool
        Go on where maps look like other units.

    Returns
    -------
    priors : Priors
        With the fitted numbers in place.
    notes : list of str
        What was fitted to how many maps.

    Raises
    ------
    InputError
        If there is nothing to fit, and for files that cannot be used.
    """
    folders = family_maps(train, OPENFWI_FAMILIES)
    notes: list[str] = []
    for key, family in (("style_a", "Style_A"), ("style_b", "Style_B")):
        if family in folders:
            maps = read_maps(folders[family], limit, force)
            try:
                priors = _fit_section(key, family, maps, priors, notes)
            except ValueError as error:
                raise InputError(f"{train}, {family}: {error}") from error
        else:
            notes.append(f"[{key}] not fitted: there are no maps of {family}.")
    if predictions is not None:
        groups: dict[str, list[NDArray[np.float64]]] = {}
        predicted = family_maps(predictions, OPENFWI_FAMILIES, "predictions.npy")
        for family, files in predicted.items():
            groups.setdefault(OPENFWI_FAMILIES[family], []).extend(read_maps(files, limit, force))
        return _fit_thresholds(predictions, groups, priors, criteria, notes), notes
    if not {"Style_A", "Style_B"} & {*folders}:
        raise InputError(
            f"{train}: found no maps to fit: expected Style_A or Style_B, with model*.npy or "
            "vel*.npy in them, truth.npy with families.csv, or --predictions"
        )
    notes.append("[routing] not fitted: there are no --predictions.")
    if "Style_A" in folders:
        notes.append(
            "Caution: style_a_log_energy belongs to the [style_a] that it was fitted with; "
            "with another one, fit it with --predictions."
        )
    return priors, notes


def _fit_section(
    key: str, family: str, maps: NDArray[np.float64], priors: Priors, notes: list[str]
) -> Priors:
    """The priors with the numbers of one Style family in place; adds to the notes."""
    process = GaussianProcess.fit(maps, mean=getattr(priors, key).mean)
    priors = priors.with_process(key, process)
    notes.append(f"[{key}] maximum likelihood on {len(maps)} maps of {family}.")
    if len(maps) < MIN_MAPS:
        notes.append(
            f"Caution: {len(maps)} maps are few: of fewer than {MIN_MAPS} the numbers of [{key}] "
            "say more of these maps than of their family."
        )
    if key != "style_b":
        return priors
    found = VariationalTotalVariation.fit(maps)
    notes.append(f"[style_b_variation] mean differences of the same {len(maps)} maps.")
    variation = replace(
        priors.style_b_variation, scale=found.scale, diagonal_scale=found.diagonal_scale
    )
    return replace(priors, style_b_variation=variation)


def _fit_thresholds(
    path: Path,
    groups: dict[str, list[NDArray[np.float64]]],
    priors: Priors,
    criteria: Criteria,
    notes: list[str],
) -> Priors:
    """The priors with thresholds for predictions by group in place; adds to the notes."""
    if len(groups) < 2:
        raise InputError(
            f"{path}: found predictions of {len(groups)} group(s) of families, "
            "expected at least two to tell apart"
        )
    routing, wrong = fit_routing(groups, priors, criteria)
    counts = ", ".join(f"{len(maps)} {group}" for group, maps in groups.items())
    scarce = [str(group) for group, maps in groups.items() if len(maps) < MIN_MAPS]
    notes.append(f"[routing] fitted to predictions in {path}: {counts}.")
    if scarce:
        notes.append(f"Caution: fewer than {MIN_MAPS} predictions of {', '.join(scarce)}.")
    notes += [f"{name}: {count} of them on its wrong side." for name, count in wrong.items()]
    return replace(priors, routing=routing)


def fit_denoiser(
    train: Path,
    out: Path,
    priors: Priors,
    steps: int,
    limit: int = 500,
    force: bool = False,
    report: Callable[[str], object] | None = None,
) -> tuple[Priors, str]:
    """A denoiser trained on the maps of Style B in files; its weights are written to a file.

    Parameters
    ----------
    train, limit, force
        As for `fit_priors`.
    out : Path
        File of the weights, .npz; one that stands there is replaced.
    priors : Priors
        Source of all else.
    steps : int
        Batches; see `priors.denoiser_training.train`.
    report : callable, optional
        Told how far it is, every 100 batches.

    Returns
    -------
    priors : Priors
        That name the file.
    note : str
        What it was trained on.

    Raises
    ------
    InputError
        If there are no maps of Style B, and for files that cannot be used.
    """
    folders = family_maps(train, OPENFWI_FAMILIES)
    if "Style_B" not in folders:
        raise InputError(f"{train}: found no maps of Style_B, expected them for a denoiser")
    maps = read_maps(folders["Style_B"], limit, force)
    if len(maps) < 2:
        raise InputError(f"{train}: found one map of Style_B, expected at least 2 for a denoiser")

    def watch(step: int, loss: float, network: Denoiser) -> bool:
        if report is not None:
            report(f"denoiser: step {step} of {steps}, loss {loss:.3f}")
        return False

    held = np.arange(len(maps)) % 10 == 0  # to measure its errors on
    network = denoiser_training.train(maps[~held], steps=steps, watch=watch)
    denoiser_training.measure(network, maps[held])
    with atomic_path(out) as temporary:
        save_denoiser(network, temporary)
    learned = replace(priors.style_b_learned, weights=str(out.resolve()))
    note = f"[style_b_learned] {steps} batches of {(~held).sum()} maps of Style_B."
    return replace(priors, style_b_learned=learned), note


OneMap = tuple[Any, int]  # opened maps, and the index of one of them


def family_maps(
    root: Path, families: Iterable[str], made: str = "truth.npy"
) -> dict[str, list[OneMap]]:
    """The maps of each family that is present in a folder.

    Parameters
    ----------
    root : Path
        Folder with a folder or a file for each family, or one that scripts/make_samples.py wrote.
        Names are compared without case, "_" and "-".
    families : iterable of str
        Names of families.
    made : str
        The file of maps that is read in a folder of made samples; their families stand beside it.

    Returns
    -------
    dict of list of (Predictions, int)
        Where each map stands, in the order of the files.

    Raises
    ------
    InputError
        For files that cannot be used.
    """
    families = [*families]
    table = next((root / name for name in MADE if (root / name).is_file()), None)
    found: dict[str, list[OneMap]] = {}
    if table is not None and (root / made).is_file():
        maps = open_predictions(root / made)
        names = list(read_families(table).values())
        if len(names) != maps.count:
            raise InputError(
                f"{table}: found {len(names)} families for {maps.count} maps in {root / made}"
            )
        for k, name in enumerate(names):
            if name in families:
                found.setdefault(name, []).append((maps, k))
        return found
    for family, files in family_files(root, families).items():
        for path in files:
            maps = open_predictions(path)
            found.setdefault(family, []).extend((maps, k) for k in range(maps.count))
    return found


def family_files(root: Path, families: Iterable[str]) -> dict[str, list[Path]]:
    """Map files of each family that is present in a folder, in sorted order.

    Parameters
    ----------
    root : Path
        Folder with a folder or a file for each family.
    families : iterable of str
        Names of families.
    """

    def plain(name: str) -> str:
        return name.lower().replace("_", "").replace("-", "")

    names = {plain(family): family for family in families}
    found: dict[str, list[Path]] = {}
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


def read_maps(every: list[OneMap], limit: int, force: bool = False) -> NDArray[np.float64]:
    """Maps from where they stand.

    Parameters
    ----------
    every : list of (Predictions, int)
        All maps.
    limit : int
        Most maps to read; they are evenly spaced.
    force : bool
        Go on where they look like other units.

    Returns
    -------
    ndarray, shape (n, nz, nx)
        In m/s.

    Raises
    ------
    InputError
        For files and maps that cannot be used.
    """
    chosen = np.unique(np.linspace(0, len(every) - 1, min(limit, len(every))).round().astype(int))
    try:
        found = np.array(
            [
                check_prediction(maps.read(k), where=maps.where(k))
                for maps, k in (every[i] for i in chosen)
            ]
        )
    except SampleError as error:
        raise InputError(str(error)) from error
    finding, undo = recognise_maps([*found], OPENFWI)
    if finding is not None and (undo is not None or not is_plausible(found)):
        report_findings([finding], force, "Convert the maps, or give --force to go on as it is.")
    return found


def is_plausible(maps: NDArray[np.float64]) -> bool:
    """Whether maps may be velocities in m/s of some other ground than OpenFWI's."""
    return bool(maps.min() > SLOWEST and maps.max() < FASTEST)
