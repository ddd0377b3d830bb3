"""A run opened to be looked at: its rows, and whatever is known of a sample, side by side.

A run is a run directory, or the maps that refine wrote with the report beside them. Maps alone,
of a network for instance, can be looked at too.
"""

import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_refine import io
from fwi_refine.analysis.metrics import mean_absolute_error
from fwi_refine.analysis.run_files import OPEN, Files, inputs_of, survey_of
from fwi_refine.analysis.run_view import RunView
from fwi_refine.errors import InputError, SampleError
from fwi_refine.io.convert import AS_THEY_ARE, Conversion, conversion_of, is_outside
from fwi_refine.io.history import Step
from fwi_refine.io.inputs import (
    open_converted_predictions,
    open_converted_records,
)
from fwi_refine.io.predictions import Predictions
from fwi_refine.io.record_sources import Records
from fwi_refine.io.report import Row, read_report
from fwi_refine.runs.directory import Contents, RunDirectory
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.validate import check_record
from fwi_refine.wave import Simulator, released_record

# By what samples are sorted, worst first: columns of the report.
SORTED_BY = {"error": "mae_after", "misfit": "misfit_after", "expected-error": "expected_error"}

log = logging.getLogger(__name__)


class OpenedRun:
    """The samples of a run, in its order.

    Parameters
    ----------
    path : path-like
        A run directory, or maps.
    files : Files, optional
        What else is given.
    survey : Survey
        That of the maps; a run directory has its own.
    conversion : Conversion
        Of the start and the records, and of maps that no report stands beside; a run directory has
        its own.

    Attributes
    ----------
    rows : list of Row
        The report, with the errors that a given truth tells.
    config : dict
        The table of a run directory, else empty.
    unfinished : int
        How many samples of a run directory have no row yet.
    survey : Survey
        As given, or that of the run directory.

    Raises
    ------
    InputError
        If a file cannot be read, or does not belong to the others.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        files: Files | None = None,
        survey: Survey = OPENFWI,
        conversion: Conversion = AS_THEY_ARE,
    ) -> None:
        self.path, self.survey, self.files = Path(path), survey, files or Files()
        self.config: dict[str, Any] = {}
        self.unfinished = 0
        self.rows: list[Row]
        self._maps: Contents | Predictions
        self._records: Records | None
        self._records_at: list[int | None]  # where there are records
        self._conversion = conversion  # of predictions and records
        self._named_records = self.files.records is not None
        names = self._open_directory() if self.is_run_directory(path) else self._open_maps()
        self._find_inputs(names)
        self._measure_errors()

    @staticmethod
    def is_run_directory(path: str | os.PathLike[str]) -> bool:
        """Whether this is a run directory, and no maps."""
        return (Path(path) / "run.toml").is_file()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def maps_given(self) -> list[Predictions]:
        """The maps of files that were given, but not the expected errors."""
        own = [] if isinstance(self._maps, Contents) else [self._maps]
        named = {
            name: self._sources[name][0] for name in ("start", "truth") if name in self._sources
        }
        if isinstance(self._maps, Contents):  # its predictions were looked at when it was begun
            named.pop("start", None)
        return [*own, *named.values()]

    @property
    def records_given(self) -> bool:
        """Whether there are records that the run itself was not begun with."""
        begun_with = isinstance(self._maps, Contents) and not self._named_records
        return self._records is not None and not begun_with

    def record(self, k: int) -> NDArray[Any]:
        """The record of sample k as it is stored. Raises SampleError where it has none."""
        found = self._record_of(k)
        if found is None:
            raise SampleError(f"{self.rows[k].id}: has no record")
        records, index = found
        return records.read(index)

    def order(self, by: str) -> list[int]:
        """Samples sorted by a key of `SORTED_BY`, worst first; those without a value last."""
        values = [getattr(row, SORTED_BY[by]) for row in self.rows]
        return sorted(range(len(self)), key=lambda k: (values[k] is None, -(values[k] or 0.0)))

    def find(self, name: str) -> int:
        """The number of a sample. Raises InputError if there is no such id."""
        for k, row in enumerate(self.rows):
            if row.id == name:
                return k
        raise InputError(
            f"{self.path}: found no sample {name!r} among {len(self)}, the first of which is "
            f"{self.rows[0].id!r}; ids come from a report, from records or from --ids"
        )

    def map(self, name: str, k: int) -> NDArray[Any] | None:
        """One map of sample k.

        Parameters
        ----------
        name : str
            "refined", "start", "truth" or "deviation".
        k : int
            Number of the sample.

        Returns
        -------
        ndarray or None, (nz, nx)
            m/s; None: not known; NaN where it has no usable shape. The refined map of a sample
            that failed is its start.
        """
        if name == "refined":
            return self._refined(k)
        if name in self._sources:
            source, indices = self._sources[name]
            index = indices[k]
            if index is not None:
                return io.read_start(source, index, self.survey)
        if name == "deviation" and isinstance(self._maps, Contents):
            return self._maps.read_other(name, k)
        return self._truth_beside_record(k) if name == "truth" else None

    def view(self, k: int, with_record: bool = True) -> RunView:
        """All that is known of one sample.

        Parameters
        ----------
        k : int
            Number of the sample.
        with_record : bool
            Read its record, and simulate that of the refined map.

        Returns
        -------
        RunView
        """
        maps = {name: self.map(name, k) for name in ("start", "truth", "deviation")}
        refined, measured, simulated = self._refined(k), None, None
        if with_record:
            measured = self._read_record(k)
        if measured is not None:
            simulated = self._simulate(refined, self.rows[k])
        return RunView(
            self.rows[k], refined, self.survey, **maps, measured=measured, simulated=simulated
        )

    def history(self, k: int) -> list[Step]:
        """How the misfit of sample k fell, as a run directory keeps it; empty where unknown."""
        steps = self._maps.history(k) if isinstance(self._maps, Contents) else ()
        return [Step(*step) for step in steps]

    def _refined(self, k: int) -> NDArray[np.float32]:
        return io.read_start(self._maps, k, self.survey)

    def _open_directory(self) -> list[str | None]:
        """Ids of the whole run, None of those that are not finished."""
        if self.files.report is not None:
            raise InputError(
                f"--report {self.files.report}: {self.path} is a run directory and has its own"
            )
        run = RunDirectory(self.path)
        self._maps = contents = Contents(run)
        self.rows, self.config = contents.rows, run.config
        self.survey = survey_of(run)
        self._conversion = conversion_of(run.config.get("conversion", {}))
        if not self.rows:
            raise InputError(f"{self.path}: no sample of this run is finished yet")
        self.unfinished = run.count - len(self.rows)
        given = {name: path for name, path in vars(self.files).items() if path is not None}
        self.files = Files(**(inputs_of(run.config) | given))
        names: list[str | None] = [None] * run.count
        for number, row in zip(contents.numbers, self.rows, strict=True):
            names[number] = row.id
        return names

    def _open_maps(self) -> list[str]:
        """Ids of the maps: those of the report, or of anything else that has as many."""
        own = self._conversion if self.files.report is None else AS_THEY_ARE
        self._maps = open_converted_predictions(self.path, self.survey, own)
        count, files = self._maps.count, self.files
        if files.report is None:
            ids = io.resolve_ids(self._maps.ids, self._listed_ids(), count, self.path)
            if ids is None and files.records is not None:
                ids = io.open_records(files.records).ids
            if ids is None or len(ids) != count:
                ids = [f"{k:06d}" for k in range(count)]
            self.rows = [Row(name, status="") for name in ids]
        else:
            self.rows = read_report(files.report)
            if len(self.rows) != count:
                raise InputError(
                    f"found {count} maps in {self.path} and {len(self.rows)} samples in "
                    f"{files.report}, expected as many"
                )
        return [row.id for row in self.rows]

    def _listed_ids(self) -> list[str] | None:
        return io.read_ids(self.files.ids) if self.files.ids else None

    def _find_inputs(self, names: Sequence[str | None]) -> None:
        """Opens what else is given and finds each sample in it."""
        ids, files = [row.id for row in self.rows], self.files
        opened = {
            name: OPEN[name](path, self.survey, self._conversion)
            for name, path in vars(files).items()
            if name in ("start", "truth", "deviation") and path is not None
        }
        self._records = (
            open_converted_records(files.records, self.survey, self._conversion)
            if files.records
            else None
        )
        orders: list[Sequence[Any] | None] = [names, self._listed_ids()]
        orders += [source.ids for source in opened.values()]
        if self._records is not None:
            known = self._records.ids
            # of a part of the samples, predictions without ids are in the order of their records
            orders += [known] if io.is_part_of(ids, known) else []
            self._records_at = io.find_indices(
                ids, known, len(known), orders, f"records {files.records}"
            )
        self._sources = {
            name: (source, io.find_indices(ids, source.ids, source.count, orders, str(source.path)))
            for name, source in opened.items()
        }

    def _measure_errors(self) -> None:
        """Fills in the errors against a truth that was given; refine knew of no other."""
        if "truth" not in self._sources:
            return
        for k, row in enumerate(self.rows):
            truth, start, refined = self.map("truth", k), self.map("start", k), self._refined(k)
            before = row.mae_before if start is None else _error(start, truth)
            self.rows[k] = replace(row, mae_before=before, mae_after=_error(refined, truth))

    def _record_of(self, k: int) -> tuple[Records, int] | None:
        """The records and where that of sample k is among them, None where it has none."""
        if self._records is None:
            return None
        index = self._records_at[k]
        return None if index is None else (self._records, index)

    def _truth_beside_record(self, k: int) -> NDArray[np.float32] | None:
        found = self._record_of(k)
        if found is None:
            return None
        records, index = found
        values = records.truth(index)
        if (
            values is None
            or values.size != np.prod(self.survey.shape)
            or is_outside(values, self.survey)
        ):
            return None
        return values.reshape(self.survey.shape).astype(np.float32)

    def _read_record(self, k: int) -> NDArray[np.float64] | None:
        found = self._record_of(k)
        if found is None:
            return None
        records, index = found
        where = f"record {records.where(index)}"
        try:
            record = check_record(records.read(index), survey=self.survey, where=where)
        except SampleError as error:
            log.warning("%s", error)
            return None
        return record[:, : self.survey.n_steps].astype(np.float64)

    @functools.cached_property
    def _simulator(self) -> Simulator:
        return Simulator(self.survey)

    def _simulate(self, v: NDArray[np.float32], row: Row) -> NDArray[np.float64] | None:
        velocity = torch.as_tensor(v).double()
        if row.exact == "yes":  # in the arithmetic by which it is proven nothing is left
            return released_record(velocity, survey=self.survey).double().numpy()
        vmin = torch.tensor([row.vmin or v.min()], dtype=torch.float64)
        try:
            return self._simulator.forward(velocity[None], vmin)[0].numpy()
        except ValueError as error:
            log.warning("the map of %s cannot be simulated: %s", row.id, error)
            return None


def _error(v: NDArray[Any], truth: NDArray[Any] | None) -> float | None:
    if truth is None or not (np.isfinite(v).all() and np.isfinite(truth).all()):
        return None
    return mean_absolute_error(v, truth)
