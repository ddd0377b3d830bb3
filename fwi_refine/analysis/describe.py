"""The description of a file: kind, shape, range, units, sampling, family and survey."""

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwi_refine import io
from fwi_refine.errors import InputError, SampleError
from fwi_refine.files import lines, open_text
from fwi_refine.io.hdf5 import Hdf5Array, is_hdf5
from fwi_refine.io.npy import NpyArray
from fwi_refine.io.npz import SIGNATURE as NPZ_SIGNATURE
from fwi_refine.io.npz import NpzArray
from fwi_refine.io.records import HDF5_NAMES
from fwi_refine.io.submission_csv import KEY, split_key
from fwi_refine.routing.checks.form import is_record
from fwi_refine.routing.checks.recognise import recognise
from fwi_refine.routing.families import OPENFWI_FAMILIES
from fwi_refine.survey import OPENFWI, Survey, read_survey

MAX_VALUES_READ = 20  # maps or records whose values are read, evenly spaced
LEVELS = 20  # a map of at most so many velocities has layers
FAMILY_HINT = "told from a map and its record: fwi-refine classify"
NUMBERS = "fiub"  # kinds of numpy's types that maps, records, weights and masks have
MAPS = ("velocity", "predictions", "maps")

Facts = list[tuple[str, str]]


def describe_file(path: Path, survey: Survey = OPENFWI) -> Facts:
    """The description of a file or directory.

    Parameters
    ----------
    path : Path
        Maps, records, a training set, a run, a survey, or a table of this program.
    survey : Survey
        Tells maps from records.

    Returns
    -------
    list of (str, str)
        Names and values, in the order in which they are to be read.

    Raises
    ------
    InputError
        If there is nothing, or nothing that is understood.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or directory")
    if path.is_dir():
        return _directory(path, survey)
    if path.suffix.lower() == ".toml":
        return [("what", "a survey"), *_survey(read_survey(path))]
    if path.suffix.lower() == ".csv":
        return _table(path, survey)
    return _array(path, survey)


def _directory(path: Path, survey: Survey) -> Facts:
    if (path / "run.toml").is_file():
        from fwi_refine.runs import RunDirectory, read_state

        state = read_state(RunDirectory(path))
        done = f"{state.done} of {state.samples} samples done; see fwi-refine status {path}"
        return [("what", "a run directory"), ("samples", done)]
    if (path / "predictions.npy").is_file() and (path / "seismic").is_dir():
        return [
            ("what", "a folder of samples, as scripts/make_samples.py writes it"),
            *((f"predictions: {name}", text) for name, text in
              _array(path / "predictions.npy", survey)),
            *((f"records: {name}", text) for name, text in _directory(path / "seismic", survey)),
        ]  # fmt: skip
    records = io.open_records(path, survey)
    first = records.read(0)
    if first.dtype.kind not in NUMBERS:
        return [("what", "no maps and no records, which are real numbers"),
                ("files", str(len(records.ids))), ("type", str(first.dtype))]  # fmt: skip
    if first.shape[-2:] == survey.shape and not is_record(first.shape, survey):
        maps = io.open_predictions(path, survey)
        return [("what", "a directory of velocity maps"),
                *_maps(maps.count, maps.read, first.dtype, path, survey)]  # fmt: skip
    what = "records" if records.named else "a training set of records, in shards"
    truth = records.truth(0) is not None
    facts: Facts = [("what", what + (" with their true maps" if truth else ""))]
    return [*facts, *_records(len(records.ids), records.read, first.dtype, path, survey)]


def _array(path: Path, survey: Survey) -> Facts:
    with open(path, "rb") as file:
        start = file.read(8)
        hdf5 = is_hdf5(file)
    array: Any
    if hdf5:
        array = Hdf5Array(path, (*MAPS, *HDF5_NAMES))
    elif start.startswith(NPZ_SIGNATURE):
        array = NpzArray(path, (*MAPS, *HDF5_NAMES))
    elif start.startswith(b"\x93NUMPY"):
        try:
            array = NpyArray(path)
        except SampleError as error:
            raise InputError(str(error)) from error
    else:
        raise InputError(
            f"{path}: neither .npy, .npz, HDF5, .toml, .csv nor a directory of such files"
        )
    shape = array.shape
    facts: Facts = [("shape", " x ".join(map(str, shape)))]
    if array.dtype.kind not in NUMBERS:
        return [("what", "no maps and no records, which are real numbers"), *facts,
                ("type", str(array.dtype))]  # fmt: skip
    one = shape == survey.shape or (len(shape) == 3 and is_record(shape, survey))
    read = (lambda k: array.read()) if one and isinstance(array, NpyArray) else array.row
    count = 1 if one else len(array)
    inner = shape if one else shape[1:]
    if inner[-2:] == survey.shape and inner[:-2] in ((), (1,)):
        return [("what", "velocity maps"), *facts,
                *_maps(count, read, array.dtype, path, survey)]  # fmt: skip
    if len(inner) == 3:
        return [("what", "records"), *facts, *_records(count, read, array.dtype, path, survey)]
    return [
        ("what", "an array that fits no survey that is known: name it with --survey"),
        *facts,
        ("type", str(array.dtype)),
    ]


def _maps(count: int, read: Callable[[int], Any], dtype: Any, path: Path, survey: Survey) -> Facts:
    """Facts of maps."""
    maps = [np.asarray(v).reshape(survey.shape) for v in _some(count, read)]
    findings = recognise(maps, [], survey)
    units = findings[0].text if findings else "m/s, as it seems"
    return [
        ("maps", str(count)),
        ("type", str(dtype)),
        ("range", _range(maps)),
        ("units", units + (f" ({findings[0].option})" if findings and findings[0].option else "")),
        ("velocities", _velocities(maps)),
        ("family", _family(path) or FAMILY_HINT),
        *_survey(survey),
    ]


def _records(
    count: int, read: Callable[[int], Any], dtype: Any, path: Path, survey: Survey
) -> Facts:
    """Facts of records."""
    records = _some(count, read)
    facts: Facts = [
        ("records", f"{count}, {' x '.join(map(str, np.shape(records[0])))} each"),
        ("type", str(dtype)),
        ("range", _range(records)),
        ("family", _family(path) or _families(path) or FAMILY_HINT),
    ]
    if not all(is_record(np.shape(d), survey) for d in records):
        findings = recognise([], records, survey)
        text = "; ".join(f"{f.text} ({f.option})" for f in findings)
        return [*facts, ("survey", text or "none that is known: name it with --survey")]
    findings = recognise([], records[:2], survey)
    seem = "; ".join(f.text + (f" ({f.option})" if f.option else "") for f in findings)
    return [*facts, ("units", seem or "as simulated: nothing speaks against it"), *_survey(survey)]


def _some(count: int, read: Callable[[int], Any]) -> list[NDArray[Any]]:
    """Evenly spaced ones that can be read. Raises InputError where none can."""
    found, problem = [], ""
    for k in np.unique(np.linspace(0, count - 1, min(count, MAX_VALUES_READ)).astype(int)):
        try:
            found.append(np.asarray(read(int(k))))
        except SampleError as error:
            problem = str(error)
    if not found:
        raise InputError(problem or "holds nothing")
    return found


def _range(arrays: Sequence[NDArray[Any]], of: str = "") -> str:
    """Least and largest value, and rms; of: how many were looked at, by default the arrays."""
    values = np.concatenate([np.asarray(a, np.float64).ravel() for a in arrays])
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "no finite value"
    rms = math.sqrt(float(np.mean(np.square(finite))))
    bad = values.size - finite.size
    text = f"{finite.min():.6g} to {finite.max():.6g}, rms {rms:.4g}"
    return (
        text
        + (f", {bad} values not finite" if bad else "")
        + f" (in {of or len(arrays)} looked at)"
    )


def _velocities(maps: Sequence[NDArray[Any]]) -> str:
    """How maps are made up: layers of whole numbers, or anything."""
    levels = [len(np.unique(v)) for v in maps]
    flat = sum(bool((v == v[:, :1]).all()) for v in maps)
    whole = sum(bool((v == np.round(v)).all()) for v in maps)
    layered = sum(n <= LEVELS for n in levels)
    return (
        f"{layered} of {len(maps)} with at most {LEVELS} velocities, {flat} of flat layers, "
        f"{whole} of whole numbers"
    )


def _families(path: Path) -> str | None:
    """The families that the folders in a folder are named for."""
    if not path.is_dir():
        return None
    found = sorted(filter(None, (_named(inner.name) for inner in path.iterdir() if inner.is_dir())))
    return f"{', '.join(found)}, by the names of their folders" if found else None


def _named(text: str) -> str | None:
    """OpenFWI's family of that name."""
    plain = {name.lower().replace("_", ""): name for name in OPENFWI_FAMILIES}
    return plain.get(text.lower().replace("_", "").replace("-", ""))


def _family(path: Path) -> str | None:
    """The family that a folder or file is named for."""
    for part in (path.absolute().stem, *reversed(path.absolute().parts)):
        name = _named(part)
        if name:
            return f"{name}, by the name of its folder or file; refined as {OPENFWI_FAMILIES[name]}"
    return None


def _survey(survey: Survey) -> Facts:
    nz, nx = survey.shape
    shots, steps, receivers = survey.record_shape
    name = "that of OpenFWI" if survey == OPENFWI else "described by a file"
    return [
        ("survey", f"{name}: {nz} x {nx} cells of {survey.spacing:g} m, {shots} shots, "
                   f"{receivers} receivers, wavelet of {survey.frequency:g} Hz"),
        ("sampling", f"{steps} steps of {1000 * survey.dt:g} ms"),
    ]  # fmt: skip


# Columns with which a table of this program begins, and what it is.
TABLES = {
    ("id", "family", "evidence"): "a report of refine, a row for each sample",
    ("id", "stage", "evaluations"): "a history of refine: misfits after every iteration",
    ("id", "family"): "families of samples, as --families and --ids take them",
}


def _table(path: Path, survey: Survey) -> Facts:
    try:
        with open_text(path) as file:
            rows = csv.reader(lines(file, path))
            header = tuple(next(rows, ()))
            if header[:1] == (KEY,):
                return _submission(path, header, rows, survey)
            count = sum(1 for _ in rows)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a table ({error})") from error
    known = (text for start, text in TABLES.items() if header[: len(start)] == start)
    what = next(known, "a table that is not of this program")
    return [("what", what), ("rows", str(count)), ("columns", ", ".join(header[:40]))]


def _submission(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[str]], survey: Survey
) -> Facts:
    """Facts of a submission, by its lines after the header."""
    lines_of: Counter[str] = Counter()
    values = []
    for number, (key, *row) in enumerate(filter(None, rows), start=2):  # without empty lines
        try:
            lines_of[split_key(key, survey.shape[0])[0]] += 1
            if len(lines_of) <= MAX_VALUES_READ:
                values.append(np.array(row, np.float64))
        except ValueError as error:
            raise InputError(f"{path}, line {number}, of {key}: {error}") from error
    if not lines_of:
        return [("what", "a submission without maps")]
    each = sorted(set(lines_of.values()))
    seen = min(len(lines_of), MAX_VALUES_READ)
    columns = ", ".join(header[1:] if len(header) < 5 else (*header[1:3], "...", header[-1]))
    return [
        ("what", "a submission to the competition"),
        ("maps", f"{len(lines_of)}, {' or '.join(map(str, each))} lines each"),
        ("ids", f"{next(iter(lines_of))} to {next(reversed(lines_of))}"),
        ("columns", columns),
        ("range", _range(values, f"{seen} maps")),
        ("scored", "fwi-refine evaluate, with the true maps"),
    ]  # fmt: skip
