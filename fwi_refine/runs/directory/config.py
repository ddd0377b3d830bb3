"""The description of a run: samples, settings and inputs, in a table to be stored and compared.

Two runs whose tables agree give the same results, so a run is continued only with the table that
it was begun with. Where the input files and the denoiser's weights stand may change, what they are
may not.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from fwi_refine.inversion.method import choose_prior
from fwi_refine.io import Inputs
from fwi_refine.machine_faults import is_machine_fault
from fwi_refine.priors import Priors, to_table
from fwi_refine.runs.settings import Settings, identity

FORMAT = 1
FILE = "run.toml"

_NOT_COMPARED = "path"  # of an input: it may stand elsewhere on another machine
# settings that no result depends on; whether it is a GPU the kind of kernel says
_NO_RESULT = ("threads", "device", "kernel", "per_job")
_TABLES = ("priors", "survey")  # settings that are tables of their own
_ARRAYS = ("weights", "fixed", "bounds")  # settings of which a digest is kept
_POSITIONS = ("survey.sources", "survey.receivers")
_WAVELET = "survey.given_wavelet"


def describe(inputs: Inputs, settings: Settings, chunk_size: int) -> dict[str, Any]:
    """The table of a run.

    Parameters
    ----------
    inputs : Inputs
        Opened predictions, records, pairs and candidates.
    settings : Settings
        What is done to every sample.
    chunk_size : int
        Samples of a part.

    Raises
    ------
    OSError
        If an input file cannot be looked at, or the weights of the denoiser that is used not read.
    """
    version, kernel = identity(settings)
    chosen = {
        field.name: getattr(settings, field.name)
        for field in fields(Settings)
        if field.name not in (*_TABLES, *_ARRAYS, *_NO_RESULT)
    }
    if chosen["source"] == "known":  # runs of before there was a choice stay what they were
        del chosen["source"]
    if chosen["dtype"] == "float32":
        del chosen["dtype"]
    known = [pair.record for pair in inputs.pairs if pair.record is not None]
    names = [
        f"{pair.id}\t{'' if pair.record is None else inputs.records.ids[pair.record]}"
        for pair in inputs.pairs
    ]
    others = [source for _, source, _ in inputs.candidates[1:]]
    table = {
        "format": FORMAT,
        "program": {"version": version, "kernel": kernel},
        "samples": {
            "count": len(inputs.pairs),
            "shape": inputs.predictions.shape[1:],
            "chunk_size": chunk_size,
            "ids": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        },
        "settings": {name: value for name, value in chosen.items() if value is not None},
        "priors": priors_of(settings.priors),
        "survey": {k: v for k, v in asdict(settings.survey).items() if v is not None},
        "inputs": {
            "predictions": files_of(inputs.predictions.path, inputs.predictions.files()),
            "records": files_of(inputs.records.path, inputs.records.files(known)),
            "candidates": [files_of(source.path, source.files()) for source in others],
        },
    }
    if changed := inputs.conversion.differences():  # runs of inputs as they are stay what they were
        table["conversion"] = changed
    arrays = {name: getattr(settings, name) for name in _ARRAYS}
    if given := {name: _digest(array) for name, array in arrays.items() if array is not None}:
        table["arrays"] = given
    if choose_prior(settings.prior, settings.survey) in ("auto", "learned"):
        table["denoiser"] = _content(settings.priors.style_b_learned.file)
    copied: dict[str, Any] = json.loads(json.dumps(table))  # as TOML gives it: lists, no tuples
    return copied


def priors_of(priors: Priors) -> dict[str, dict[str, float | str]]:
    """Their numbers. The denoiser's file counts by its content, and only where it is used."""
    return to_table(replace(priors, style_b_learned=replace(priors.style_b_learned, weights="")))


def _content(path: Path) -> dict[str, str]:
    """Where a small file stands, and the SHA-256 of what it holds."""
    return {"path": _shown_path(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _digest(array: Any) -> str:
    """SHA-256 of an array, or of several."""
    parts = [np.ascontiguousarray(part) for part in (array if type(array) is tuple else (array,))]
    texts = (str(part.shape).encode() + part.tobytes() for part in parts)
    return hashlib.sha256(b"".join(texts)).hexdigest()


def files_of(path: Path, files: Iterable[Path]) -> dict[str, Any]:
    """The files that an input consists of, as tables have them.

    Reading them all would take hours: as `make` does, a file counts as changed when its size or
    time of modification has.
    """
    lines, size = [], 0
    for file in files:
        state = _state(file)
        size += state.st_size
        lines.append(f"{file.name}\t{state.st_size}\t{state.st_mtime_ns}")
    digest = hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()
    return {"path": _shown_path(path), "files": len(lines), "bytes": size, "digest": digest}


def _shown_path(path: Path) -> str:
    """As text that TOML can hold."""
    return os.fsencode(path.absolute()).decode(errors="backslashreplace")


def _state(file: Path) -> os.stat_result:
    """Of a file; of a link that leads nowhere, which fails as a sample, its own."""
    try:
        return os.stat(file)
    except OSError as error:
        if is_machine_fault(error):
            raise
        return os.lstat(file)


def config_hash(config: dict[str, Any]) -> str:
    """SHA-256 of what is compared of a table."""
    return hashlib.sha256(json.dumps(_flat(config), sort_keys=True).encode()).hexdigest()


def differences(stored: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """The differences of two tables, a line each; empty where they are those of the same run."""
    old, new = _flat(stored), _flat(given)
    lines = []
    for name in _POSITIONS:
        found = [[flat[k] for k in flat if k.startswith(f"{name}.")] for flat in (old, new)]
        if found[0] != found[1]:
            before, after = (len(numbers) // 2 for numbers in found)
            lines.append(f"{name}: other positions, {before} in the run, {after} now")
    wavelets = [[flat[k] for k in flat if k.startswith(_WAVELET)] for flat in (old, new)]
    if wavelets[0] != wavelets[1]:
        lines.append(f"{_WAVELET}: another wavelet")
    for key in [*old, *(key for key in new if key not in old)]:
        if old.get(key) == new.get(key) or key.startswith((*_POSITIONS, _WAVELET)):
            continue
        if key.endswith(".digest"):
            what = key.removesuffix(".digest")
            lines.append(f"{what}: names, sizes or modification times of its files have changed")
        elif key == "denoiser.sha256":
            lines.append("denoiser: other weights")
        elif key == "samples.ids":
            lines.append("samples.ids: other ids, or the same in another order")
        else:
            lines.append(f"{key}: {_shown(old, key)} in the run, {_shown(new, key)} now")
    return lines


def _shown(flat: dict[str, Any], key: str) -> str:
    return repr(flat[key]) if key in flat else "not set"


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """{"a.b": value} of nested tables and lists, without what is not compared."""
    items: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return {name: value}
    found: dict[str, Any] = {}
    for key, item in items:
        if key != _NOT_COMPARED:
            found |= _flat(item, f"{name}.{key}" if name else str(key))
    return found
