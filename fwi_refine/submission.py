"""Writes maps as the competition's CSV: header `oid_ypos,x_1,x_3,...`, values map[row, 1::2]."""

from pathlib import Path

import numpy as np

from fwi_refine.errors import InputError, SampleError
from fwi_refine.io.outputs import atomic_path
from fwi_refine.io.submission_csv import KEY, header, split_key
from fwi_refine.survey import OPENFWI
from fwi_refine.validate import check_prediction


def write_submission(predictions, ids, path, *, like=None, survey=OPENFWI) -> int:
    """Writes the maps to `path`, a row of a map a line; returns how many maps were written.

    predictions: as io.open_predictions gives them; ids: one for each map. like: a sample
    submission whose lines give the order; without it the maps come in their own. Maps are read
    and written one at a time. Raises InputError, and leaves nothing behind, if an id is missing,
    stands twice, or belongs to a map that is not finite.
    """
    places = {name: k for k, name in enumerate(ids)}
    if len(places) != len(ids):
        double = next(name for k, name in enumerate(ids) if places[name] != k)
        raise InputError(f"duplicate id {double!r} in {predictions.path}: expected it once")
    keys = _keys_of_ids(ids, survey) if like is None else _keys_of_file(like, survey)
    missing, written = {}, set()
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(",".join(header(survey.shape[1])) + "\n")
        current, values = None, None
        for name, row in keys:
            if name not in places:
                missing[name] = True  # a dict keeps their order
                continue
            if name != current:
                current, values = name, _read(predictions, places[name], survey)
                written.add(name)
            if not missing:
                file.write(f"{name}_y_{row},{','.join(map(str, values[row, 1::2]))}\n")
        if missing:
            raise InputError(
                f"{predictions.path} holds no map for {len(missing)} ids of {like}, the first "
                f"is {next(iter(missing))!r}; nothing was written"
            )
    return len(written)


def _read(predictions, k, survey):
    try:
        checked = check_prediction(predictions.read(k), survey=survey, where=predictions.where(k))
    except SampleError as error:
        raise InputError(f"{error}; nothing was written") from error
    # The shortest text that reads back as the same float32.
    return checked.astype(np.float32)


def _keys_of_ids(ids, survey):
    for name in ids:
        for row in range(survey.shape[0]):
            yield name, row


def _keys_of_file(path, survey):
    """(id, row) of each line of a sample submission."""
    path = Path(path)
    try:
        with open(path, encoding="utf-8") as file:
            first = file.readline().strip().split(",")
            if first[0] != KEY:
                raise InputError(f"{path}: found the first column {first[0]!r}, expected {KEY!r}")
            for number, line in enumerate(file, start=2):
                if not line.strip():
                    continue
                key = line.partition(",")[0].strip()
                try:
                    yield split_key(key, survey.shape[0])
                except ValueError as error:
                    raise InputError(f"{path}, line {number}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
