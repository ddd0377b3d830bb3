"""What `blend` is given: several predictions of the same samples, and what is known of these."""

import functools
import logging

import numpy as np

from fwi_refine import io
from fwi_refine.errors import SampleError
from fwi_refine.io.convert import AS_THEY_ARE
from fwi_refine.io.inputs import (
    AUTO,
    indices_in,
    known_families,
    open_converted_predictions,
    open_converted_records,
)
from fwi_refine.survey import OPENFWI
from fwi_refine.survey.validate import check_prediction, check_record

EVERYTHING = "all"  # the one family, where none were asked for

log = logging.getLogger(__name__)


class Ensemble:
    """Maps of the same samples from several files, in the order of the first.

    Raises InputError if any of it cannot be read, or does not match.
    """

    def __init__(
        self,
        paths,
        ids_file=None,
        records=None,
        truth=None,
        survey=OPENFWI,
        conversion=AS_THEY_ARE,
    ):
        self.survey = survey
        first = open_converted_predictions(paths[0], survey, conversion)
        ids = io.resolve_ids(first.ids, ids_file and io.read_ids(ids_file), first.count, paths[0])
        self.count, self.shape, self.names = first.count, first.shape, [str(p) for p in paths]
        self._sources = [(first, range(first.count))]
        for path in paths[1:]:
            other = open_converted_predictions(path, survey, conversion)
            self._sources.append((other, indices_in(other, first, ids)))
        self.has_truth = truth is not None
        if truth is not None:
            true_maps = io.open_predictions(truth, survey)
            self._truth = true_maps, indices_in(true_maps, first, ids)
        self.has_records = records is not None
        if records is not None:
            self._records = open_converted_records(records, survey, conversion)
            self._pairs = io.pair(ids, first.count, self._records)
            ids = [pair.id for pair in self._pairs]
        self.ids = ids

    def describe(self, k) -> str:
        return self.ids[k] if self.ids else f"number {k + 1}"

    def maps(self, k) -> list:
        """(nz, nx) of each member, None for one that cannot be used."""
        found = []
        for source, indices in self._sources:
            try:
                found.append(self._read(source, indices[k]))
            except SampleError as error:
                log.warning("%s: left out: %s", self.describe(k), error)
                found.append(None)
        return found

    def first(self, k) -> np.ndarray:
        """The first member's map as it stands in the file: what a sample that fails keeps."""
        source, indices = self._sources[0]
        return io.read_start(source, indices[k], self.survey)

    @property
    def members(self):
        """The sources of the maps, in their order."""
        return [source for source, _ in self._sources]

    def truth(self, k) -> np.ndarray:
        source, indices = self._truth
        return self._read(source, indices[k])

    def record(self, k) -> np.ndarray:
        """(shots, rows, receivers), checked. Raises SampleError."""
        pair = self._pairs[k]
        if pair.problem is not None:
            raise SampleError(pair.problem)
        where = self._records.where(pair.record)
        return check_record(self._records.read(pair.record), survey=self.survey, where=where)

    def _read(self, source, k):
        return check_prediction(source.read(k), survey=self.survey, where=source.where(k))

    @functools.cached_property
    def simulator(self):
        from fwi_refine.wave import Simulator

        simulator = Simulator(self.survey)
        log.info("kernel: %s", simulator.kernel)
        return simulator

    def score(self, ks):
        """(score of weights by those samples that can be used, how many these are)."""
        from fwi_refine.analysis.blend import LabelScore, MisfitScore

        maps, known = [], []
        for k in ks:
            found = self.maps(k)
            if any(v is None for v in found):
                continue
            try:
                known.append(self.truth(k) if self.has_truth else self.record(k))
            except SampleError as error:
                log.warning("%s: weights are found without it: %s", self.describe(k), error)
                continue
            maps.append(np.stack(found).astype(np.float32))
        if self.has_truth:
            return LabelScore(maps, known), len(maps)
        return MisfitScore(maps, known, self.simulator), len(maps)


def family_of_each(ensemble, families, priors=None):
    """(family of each sample, None where it cannot be told; index -> why it cannot be).

    families: None, a file, or "auto", for which `priors` are needed
    """
    if families is None:
        return [EVERYTHING] * ensemble.count, {}
    if str(families) != AUTO:
        return known_families(families, ensemble.ids, ensemble.count), {}
    from tqdm import tqdm

    from fwi_refine.routing import classify

    found, problems = [], {}
    for k in tqdm(range(ensemble.count), unit="map", desc="classify", disable=None):
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
