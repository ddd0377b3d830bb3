"""A run opened to be looked at: its rows, and whatever is known of a sample, side by side.

A run is a run directory, or the maps that refine wrote with the report beside them. Maps alone,
of a network for instance, can be looked at too.
"""

import functools
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fwi_refine import io
from fwi_refine.analysis.metrics import mean_absolute_error
from fwi_refine.errors import InputError, SampleError
from fwi_refine.io.convert import AS_THEY_ARE, conversion_of
from fwi_refine.io.inputs import open_converted_predictions, open_converted_records
from fwi_refine.io.report import Row, read_report
from fwi_refine.runs.directory import Contents, RunDirectory
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.validate import check_record
from fwi_refine.wave import Simulator

# By what samples are sorted, worst first: columns of the report.
SORTED_BY = {"error": "mae_after", "misfit": "misfit_after", "expected-error": "expected_error"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """Where the rest stands; None: not given. Maps have any of the forms of predictions."""

    report: Path | None = None  # of refine, CSV
    start: Path | None = None
    records: Path | None = None
    truth: Path | None = None
    deviation: Path | None = None
    ids: Path | None = None


@dataclass(frozen=True)
class RunView:
    """One sample, None what is not known of it. Maps (nz, nx) m/s, NaN in cells without a value.

    measured, simulated: records (shots, n_steps, receivers), the latter that of the refined map.
    """

    row: Row
    refined: np.ndarray
    survey: Survey = OPENFWI
    start: np.ndarray | None = None
    truth: np.ndarray | None = None
    deviation: np.ndarray | None = None
    measured: np.ndarray | None = None
    simulated: np.ndarray | None = None


class OpenedRun:
    """The samples of a run, in its order.

    rows: report.Row of each, with the errors that a given truth tells; config: the table of a run
    directory, else empty; unfinished: how many of its samples have no row yet; survey: as given, or
    that of the run directory. Raises InputError where a file cannot be read, or does not belong to
    the others.
    """

    def __init__(self, path, files: Files | None = None, survey: Survey = OPENFWI):
        self.path, self.survey, self.files = Path(path), survey, files or Files()
        self.config, self.unfinished = {}, 0
        self._conversion = AS_THEY_ARE  # of a run's own predictions and records
        names = self._open_directory() if self.is_run_directory(path) else self._open_maps()
        self._find_inputs(names)
        self._measure_errors()

    @staticmethod
    def is_run_directory(path) -> bool:
        return (Path(path) / "run.toml").is_file()

    def __len__(self) -> int:
        return len(self.rows)

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

    def map(self, name: str, k: int) -> np.ndarray | None:
        """Map k of "refined", "start", "truth" or "deviation", (nz, nx) float32; None: not known.

        NaN where it has no usable shape. The refined map of a sample that failed is its start.
        """
        if name == "refined":
            return io.read_start(self._maps, k, self.survey)
        source, indices = self._sources.get(name, (None, None))
        if source is not None and indices[k] is not None:
            return io.read_start(source, indices[k], self.survey)
        if name == "deviation" and self.config:
            return self._maps.read_other(name, k)
        return self._truth_beside_record(k) if name == "truth" else None

    def view(self, k: int, with_record: bool = True) -> RunView:
        """All that is known of sample k. with_record: read its record, and simulate another."""
        maps = {name: self.map(name, k) for name in ("start", "truth", "deviation")}
        refined, measured, simulated = self.map("refined", k), None, None
        if with_record and self._records is not None and self._records_at[k] is not None:
            measured = self._read_record(self._records_at[k])
        if measured is not None:
            simulated = self._simulate(refined, self.rows[k])
        return RunView(
            self.rows[k], refined, self.survey, **maps, measured=measured, simulated=simulated
        )

    def _open_directory(self):
        """Ids of the whole run, None of those that are not finished."""
        if self.files.report is not None:
            raise InputError(
                f"--report {self.files.report}: {self.path} is a run directory and has its own"
            )
        run = RunDirectory(self.path)
        self._maps = Contents(run)
        self.rows, self.config = self._maps.rows, run.config
        self.survey = _survey_of(run)
        self._conversion = conversion_of(run.config.get("conversion", {}))
        if not self.rows:
            raise InputError(f"{self.path}: no sample of this run is finished yet")
        self.unfinished = run.count - len(self.rows)
        given = {name: path for name, path in vars(self.files).items() if path is not None}
        self.files = Files(**(_inputs_of(run.config) | given))
        names = [None] * run.count
        for number, row in zip(self._maps.numbers, self.rows, strict=True):
            names[number] = row.id
        return names

    def _open_maps(self):
        """Ids of the maps: those of the report, or of anything else that has as many."""
        self._maps = io.open_predictions(self.path, self.survey)
        count, files = self._maps.count, self.files
        if files.report is None:
            ids = io.resolve_ids(
                self._maps.ids, files.ids and io.read_ids(files.ids), count, self.path
            )
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

    def _find_inputs(self, names):
        """Opens what else is given and finds each sample in it."""
        ids, files = [row.id for row in self.rows], self.files
        opened = {
            name: open_converted_predictions(
                path, self.survey, self._conversion if name == "start" else AS_THEY_ARE
            )
            for name, path in vars(files).items()
            if name in ("start", "truth", "deviation") and path is not None
        }
        self._records = files.records and open_converted_records(
            files.records, self.survey, self._conversion
        )
        orders = [names, files.ids and io.read_ids(files.ids)]
        orders += [source.ids for source in opened.values()]
        if self._records is not None:
            known = self._records.ids
            # of a part of the samples, predictions without ids are in the order of their records
            orders += [known] if io.is_part_of(ids, known) else []
            self._records_at = io.find_indices(
                ids, known, len(known), orders, f"records {files.records}"
            )
        self._sources = {
            name: (source, io.find_indices(ids, source.ids, source.count, orders, source.path))
            for name, source in opened.items()
        }

    def _measure_errors(self):
        """Fills in the errors against a truth that was given; refine knew of no other."""
        if "truth" not in self._sources:
            return
        for k, row in enumerate(self.rows):
            truth, start, refined = (self.map(name, k) for name in ("truth", "start", "refined"))
            before = row.mae_before if start is None else _error(start, truth)
            self.rows[k] = replace(row, mae_before=before, mae_after=_error(refined, truth))

    def _truth_beside_record(self, k):
        place = None if self._records is None else self._records_at[k]
        values = None if place is None else self._records.truth(place)
        if values is None or values.size != np.prod(self.survey.shape):
            return None
        return values.reshape(self.survey.shape).astype(np.float32)

    def _read_record(self, place):
        where = f"record {self._records.where(place)}"
        try:
            record = check_record(self._records.read(place), survey=self.survey, where=where)
        except SampleError as error:
            log.warning("%s", error)
            return None
        return record[:, : self.survey.n_steps].astype(np.float64)

    @functools.cached_property
    def _simulator(self):
        return Simulator(self.survey)

    def _simulate(self, v, row):
        vmin = torch.tensor([row.vmin or v.min()], dtype=torch.float64)
        try:
            return self._simulator.forward(torch.as_tensor(v[None]).double(), vmin)[0].numpy()
        except ValueError as error:
            log.warning("the map of %s cannot be simulated: %s", row.id, error)
            return None


def _survey_of(run) -> Survey:
    """The survey of a run, from its table. Raises InputError where it is none."""

    def tuples(value):
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    try:
        return Survey(**{name: tuples(value) for name, value in run.config["survey"].items()})
    except (TypeError, ValueError) as error:
        raise InputError(f"{run.path}: damaged: its survey cannot be used ({error})") from error


def _inputs_of(config) -> dict[str, Path]:
    """Where the inputs of a run stood when it was begun, those that are still there."""
    found = {}
    for name, key in (("start", "predictions"), ("records", "records")):
        path = Path(config["inputs"][key]["path"])
        if path.exists():
            found[name] = path
        else:
            log.warning("%s: the %s of the run are no longer there, and are left out", path, key)
    return found


def _error(v, truth) -> float | None:
    if truth is None or not (np.isfinite(v).all() and np.isfinite(truth).all()):
        return None
    return mean_absolute_error(v, truth)
