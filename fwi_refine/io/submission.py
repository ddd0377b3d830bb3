"""Writes maps as the competition's CSV: header `oid_ypos,x_1,x_3,...`, values map[row, 1::2].

Maps are written one at a time, then the file is read back and compared with them before it gets
its name. Memory grows with the number of ids only. Numbers are made into text by orjson, some 15
times faster than Python does it, and read back by numpy, so that neither is checked by itself.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from fwi_refine.errors import FwiRefineError, InputError, SampleError
from fwi_refine.files import lines as lines_of
from fwi_refine.files import open_text
from fwi_refine.io.outputs import atomic_path
from fwi_refine.io.predictions import Predictions
from fwi_refine.io.submission_csv import KEY, header, split_key
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.validate import check_prediction

VALUES_PER_MAP = OPENFWI.shape[0] * (OPENFWI.shape[1] // 2)


def write_submission(
    predictions: Predictions,
    ids: Sequence[str],
    path: str | os.PathLike[str],
    *,
    like: str | os.PathLike[str] | None = None,
    decimals: int | None = None,
    survey: Survey = OPENFWI,
    advance: Callable[[], object] | None = None,
) -> int:
    """Writes maps as a submission, a row of a map a line. Leaves nothing behind where it fails.

    Parameters
    ----------
    predictions : Predictions
        Opened maps.
    ids : sequence of str
        One for each map.
    path : path-like
        The CSV to write.
    like : path-like, optional
        A sample submission whose lines give the order; without it the maps come in their own.
    decimals : int, optional
        Round the velocities; else they are the shortest text that reads back as the same float32.
    survey : Survey
        Gives the shape of a map.
    advance : callable, optional
        Called after each map that was written, and after each that was read back.

    Returns
    -------
    int
        How many maps were written.

    Raises
    ------
    InputError
        If an id is missing, stands twice, or belongs to a map that is not finite.
    FwiRefineError
        If the file was read back and is not as it was written.
    """
    indices = {name: k for k, name in enumerate(ids)}
    if len(indices) != len(ids):
        double = next(name for k, name in enumerate(ids) if indices[name] != k)
        raise InputError(f"duplicate id {double!r} in {predictions.path}: expected it once")
    lines = _Lines(predictions, indices, like, decimals, survey, advance or (lambda: None))
    with atomic_path(path) as temporary:
        written = lines.write(temporary)
        lines.check(temporary)
    return written


class _Lines:
    """The lines of a submission, as runs of lines that belong to one map."""

    def __init__(
        self,
        predictions: Predictions,
        indices: dict[str, int],
        like: str | os.PathLike[str] | None,
        decimals: int | None,
        survey: Survey,
        advance: Callable[[], object],
    ) -> None:
        self._predictions, self._indices = predictions, indices
        self._like, self._decimals, self._survey = like, decimals, survey
        self._advance = advance

    def write(self, path: Path) -> int:
        """Writes the file; returns how many maps it has."""
        missing: dict[str, bool] = {}
        written: set[str] = set()
        with open(path, "wb") as file:
            file.write(",".join(header(self._survey.shape[1])).encode() + b"\n")
            for name, rows in self._runs():
                if name not in self._indices:
                    missing[name] = True  # a dict keeps their order
                elif not missing:
                    key = _text(name).encode() + b"_y_"
                    # [[a,b,...],[c,d,...],...]
                    array = np.ascontiguousarray(self._values(name)[rows])
                    texts = orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2]
                    for row, text in zip(rows, texts.split(b"],["), strict=True):
                        file.write(b"%b%d,%b\n" % (key, row, text))
                    written.add(name)
                    self._advance()
        if missing:
            raise InputError(
                f"{self._predictions.path} holds no map for {len(missing)} ids of {self._like}, "
                f"the first is {next(iter(missing))!r}; nothing was written"
            )
        if not written:
            raise InputError(f"{self._like}: holds no ids; nothing was written")
        return len(written)

    def check(self, path: Path) -> None:
        """Raises FwiRefineError unless the file at `path` has these keys and values."""
        with open(path, encoding="utf-8") as file:
            number = 1
            if file.readline() != ",".join(header(self._survey.shape[1])) + "\n":
                raise _not_as_written(number)
            for name, rows in self._runs():
                lines = [line.partition(",") for line in islice(file, len(rows))]
                keys = [key for key, _, _ in lines]
                expected = self._values(name)[rows]
                if keys != [f"{name}_y_{row}" for row in rows] or not _equal(lines, expected):
                    raise _not_as_written(f"{number + 1} to {number + len(rows)}")
                number += len(rows)
                self._advance()
            if file.readline():
                raise _not_as_written(number + 1)

    def _runs(self) -> Iterator[tuple[str, list[int]]]:
        """(id, rows) of lines that follow one another and belong to one map."""
        if self._like is None:
            rows = [*range(self._survey.shape[0])]
            yield from ((name, rows) for name in self._indices)
            return
        for name, keys in groupby(_keys_of_file(self._like, self._survey), key=itemgetter(0)):
            yield name, [row for _, row in keys]

    def _values(self, name: str) -> NDArray[np.float32]:
        """The odd columns of a map, (nz, nx // 2) float32."""
        k = self._indices[name]
        where = self._predictions.where(k)
        try:
            v = check_prediction(self._predictions.read(k), survey=self._survey, where=where)
        except SampleError as error:
            raise InputError(f"{error}; nothing was written") from error
        if self._decimals is not None:
            v = np.round(v, self._decimals)
        with np.errstate(over="ignore"):
            values = v[:, 1::2].astype(np.float32)
        if not np.isfinite(values).all():
            raise InputError(f"{where}: found a value too large for float32; nothing was written")
        return values


def _text(name: str) -> str:
    if "," in name or '"' in name:
        raise InputError(f"id {name!r} cannot stand in a CSV without quotes; nothing was written")
    return name


def _equal(lines: list[tuple[str, str, str]], expected: NDArray[np.float32]) -> bool:
    try:
        found = np.loadtxt([text for _, _, text in lines], delimiter=",", ndmin=2, comments=None)
    except ValueError:
        return False
    return np.array_equal(found.astype(np.float32), expected)


def _not_as_written(lines: object) -> FwiRefineError:
    return FwiRefineError(
        f"the submission was read back, and is not as it was written in line {lines}: the maps "
        "changed meanwhile, or the disk failed; nothing was kept"
    )


def _keys_of_file(path: str | os.PathLike[str], survey: Survey) -> Iterator[tuple[str, int]]:
    """(id, row) of each line of a sample submission."""
    try:
        with open_text(path) as file:
            text = lines_of(file, path)
            first = next(text, "").strip().split(",")
            if first[0] != KEY:
                raise InputError(f"{path}: found the first column {first[0]!r}, expected {KEY!r}")
            for number, line in enumerate(text, start=2):
                key = line.partition(",")[0].rstrip()
                if not key and not line.strip():
                    continue
                try:
                    yield split_key(key, survey.shape[0])
                except ValueError as error:
                    raise InputError(f"{path}, line {number}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
