"""The inputs of `blend`: several predictions of the same samples, and their records or truth."""

import functools
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fwi_refine import io
from fwi_refine.errors import SampleError
from fwi_refine.io.convert import AS_THEY_ARE, Conversion
from fwi_refine.io.inputs import (
    AUTO,
    indices_in,
    known_families,
    open_converted_predictions,
    open_converted_records,
    open_true_maps,
)
from fwi_refine.io.predictions import Predictions
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.validate import check_prediction, check_record

if TYPE_CHECKING:
    from fwi_refine.analysis.blend import LabelScore, MisfitScore
    from fwi_refine.priors import Priors
    from fwi_refine.wave import Simulator

PathLike = str | os.PathLike[str]

EVERYTHING = "all"  # the one family, where none were asked for

log = logging.getLogger(__name__)


class Ensemble:
    """Maps of the same samples from several files, in the order of the first.

    Parameters
    ----------
    paths : sequence of path-like
        Predictions, two files or more.
    ids_file : path-like, optional
        Ids of the first file's maps, one a line.
    records, truth : path-like, optional
        What is known of the samples.
    survey : Survey
        That of the samples.
    conversion : Conversion
        Of the predictions and the records, and of true maps in the units of the predictions.

    Attributes
    ----------
    count : int
        How many samples there are.
    shape : tuple of int
        Shape of the first file's maps as a whole.
    names : list of str
        Of the members.
    ids : list of str or None
        Of the samples.
    has_truth, has_records : bool
        Whether these were given.
    sources : list of (Predictions, sequence of int)
        The members, each with the indices of the samples in it.
    true_maps : (Predictions, sequence of int) or None
        The same of the true maps.
    records, pairs : Records, list of Pair
        The records and which belongs to which sample, where they were given.

    Raises
    ------
    InputError
        If any of it cannot be read, or does not match.
    """

    def __init__(
        self,
        paths: Sequence[PathLike],
        ids_file: PathLike | None = None,
        records: PathLike | None = None,
        truth: PathLike | None = None,
        survey: Survey = OPENFWI,
        conversion: Conversion = AS_THEY_ARE,
    ) -> None:
        self.survey = survey
        first = open_converted_predictions(paths[0], survey, conversion)
        listed = io.read_ids(ids_file) if ids_file else None
        ids = io.resolve_ids(first.ids, listed, first.count, paths[0])
        self.count, self.shape, self.names = first.count, first.shape, [str(p) for p in paths]
        self.sources: list[tuple[Predictions, Sequence[int]]] = [(first, range(first.count))]
        for path in paths[1:]:
            other = open_converted_predictions(path, survey, conversion)
            self.sources.append((other, indices_in(other, first, ids)))
        self.has_truth = truth is not None
        self.true_maps: tuple[Predictions, Sequence[int]] | None = None
        if truth is not None:
            true_maps = open_true_maps(truth, survey, conversion)
            self.true_maps = true_maps, indices_in(true_maps, first, ids)
        self.has_records = records is not None
        if records is not None:
            self.records = open_converted_records(records, survey, conversion)
            order = getattr(first, "order", None)
            self.pairs = io.pair(ids, first.count, self.records, order)
            ids = [pair.id for pair in self.pairs]
        self.ids = ids

    def describe(self, k: int) -> str:
        """Sample k as messages call it."""
        return self.ids[k] if self.ids else f"number {k + 1}"

    def maps(self, k: int) -> list[NDArray[np.float64] | None]:
        """The map of each member, (nz, nx) m/s, None for one that cannot be used."""
        found: list[NDArray[np.float64] | None] = []
        for source, indices in self.sources:
            try:
                found.append(self._read(source, indices[k]))
            except SampleError as error:
                log.warning("%s: left out: %s", self.describe(k), error)
                found.append(None)
        return found

    def first(self, k: int) -> NDArray[np.float32]:
        """The first member's map as it stands in the file: what a sample that fails keeps."""
        source, indices = self.sources[0]
        return io.read_start(source, indices[k], self.survey)

    def truth(self, k: int) -> NDArray[np.float64]:
        """True map of sample k, (nz, nx) m/s, checked. Raises SampleError."""
        assert self.true_maps is not None  # see `has_truth`
        source, indices = self.true_maps
        return self._read(source, indices[k])

    def record(self, k: int) -> NDArray[Any]:
        """Record of sample k, (shots, rows, receivers), checked. Raises SampleError."""
        pair = self.pairs[k]
        if pair.problem is not None:
            raise SampleError(pair.problem)
        assert pair.record is not None  # as there is no problem
        where = self.records.where(pair.record)
        return check_record(self.records.read(pair.record), survey=self.survey, where=where)

    def _read(self, source: Predictions, k: int) -> NDArray[np.float64]:
        return check_prediction(source.read(k), survey=self.survey, where=source.where(k))

    @functools.cached_property
    def simulator(self) -> "Simulator":
        """The simulator of the survey, made when it is first asked for."""
        from fwi_refine.wave import Simulator

        simulator = Simulator(self.survey)
        log.info("kernel: %s", simulator.kernel)
        return simulator

    def score(self, ks: Iterable[int]) -> "tuple[LabelScore | MisfitScore, int]":
        """A score of weights, by the truth if it was given, else by the records.

        Parameters
        ----------
        ks : iterable of int
            Samples to measure.

        Returns
        -------
        score : LabelScore or MisfitScore
            By those samples that can be used.
        count : int
            How many these are.
        """
        from fwi_refine.analysis.blend import LabelScore, MisfitScore

        maps: list[NDArray[np.float32]] = []
        known: list[NDArray[Any]] = []
        for k in ks:
            usable = [v for v in self.maps(k) if v is not None]
            if len(usable) < len(self.sources):
                continue
            try:
                known.append(self.truth(k) if self.has_truth else self.record(k))
            except SampleError as error:
                log.warning("%s: weights are found without it: %s", self.describe(k), error)
                continue
            maps.append(np.stack(usable).astype(np.float32))
        if self.has_truth:
            return LabelScore(maps, known), len(maps)
        return MisfitScore(maps, known, self.simulator), len(maps)


def family_of_each(
    ensemble: Ensemble,
    families: PathLike | None,
    priors: "Priors | None" = None,
    tracked: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> tuple[Sequence[str | None], dict[int, str]]:
    """The family of each sample.

    Parameters
    ----------
    ensemble : Ensemble
        The samples.
    families : path-like or None
        None (all are one family), a file, or "auto".
    priors : Priors, optional
        Needed for "auto".
    tracked : callable, optional
        Gives the samples as they are classified, and shows how many these are.

    Returns
    -------
    families : sequence of str or None
        None where a family cannot be told.
    problems : dict
        Why it cannot be, by index.

    Raises
    ------
    InputError
        If the file cannot be read, or does not match the samples.
    """
    if families is None:
        return [EVERYTHING] * ensemble.count, {}
    if str(families) != AUTO:
        return known_families(families, ensemble.ids, ensemble.count), {}
    from fwi_refine.inversion.routes import classify

    assert priors is not None  # as the families are to be told
    found: list[str | None] = []
    problems: dict[int, str] = {}
    for k in tracked(range(ensemble.count)):
        try:
            usable = [v for v in ensemble.maps(k) if v is not None]
            if not usable:
                raise SampleError("no prediction of it can be used")
            found.append(
                str(classify(usable[0], ensemble.record(k), priors, ensemble.survey).family)
            )
        except SampleError as error:
            found.append(None)
            problems[k] = str(error)
    return found, problems
