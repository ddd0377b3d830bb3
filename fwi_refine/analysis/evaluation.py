"""Tables of how far maps are from the truth: by sample, by family and by depth."""

import logging
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from fwi_refine import io
from fwi_refine.analysis import metrics
from fwi_refine.errors import SampleError
from fwi_refine.inversion.levels.exact import prove
from fwi_refine.io.convert import AS_THEY_ARE, Conversion
from fwi_refine.io.inputs import indices_in, open_converted_records
from fwi_refine.io.order import Order
from fwi_refine.io.predictions import Predictions
from fwi_refine.survey import Survey
from fwi_refine.survey.validate import check_record
from fwi_refine.wave import Simulator

OVERALL = "all"
# Rms misfit, in float64, above which no map is exact: rounding leaves some 1e-5.
MISFIT_OF_EXACT = 1e-3

# What a map (nz, nx) has in common with its record: "mean_square_misfit" and "exact", see
# `MapRecords.compare`.
Compare = Callable[[NDArray[Any]], dict[str, float]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ComparedMap:
    """A map beside the truth.

    Parameters
    ----------
    name : str
        Its id.
    family : str or None
        Its family, where known.
    v, truth : ndarray, (nz, nx)
        The map and the true map, m/s.
    compare : callable or None
        Compares a map with its record, see `MapRecords.compare`.
    """

    name: str
    family: str | None
    v: NDArray[Any]
    truth: NDArray[Any]
    compare: Compare | None = None


def _measure(pair: ComparedMap) -> dict[str, Any]:
    v, truth = pair.v, pair.truth
    measured = {
        "mae": metrics.mean_absolute_error(v, truth),
        "mse": metrics.root_mean_square_error(v, truth) ** 2,
        "score": metrics.leaderboard_error(v, truth),
        "ssim": metrics.structural_similarity(v, truth),
    }
    return measured | (pair.compare(v) if pair.compare else {})


def _rooted(measured: dict[str, Any]) -> dict[str, Any]:
    """The measures as they are reported: squared ones are averaged before their root."""
    names = {"mse": "rmse", "mean_square_misfit": "misfit_rms"}
    return {names.get(k, k): math.sqrt(v) if k in names else v for k, v in measured.items()}


class BySample:
    """One row for each sample, in the order of the maps.

    Parameters
    ----------
    survey : Survey
        That of the maps.
    """

    def __init__(self, survey: Survey) -> None:
        self._rows: list[dict[str, Any]] = []

    def add(self, pair: ComparedMap) -> None:
        """Adds one sample."""
        which = {"id": pair.name} | ({} if pair.family is None else {"family": pair.family})
        self._rows.append(which | _rooted(_measure(pair)))

    def rows(self) -> list[dict[str, Any]]:
        """The table so far: values by name of the column."""
        return self._rows


class ByFamily:
    """Means over the samples of each family, and over all.

    Parameters
    ----------
    survey : Survey
        That of the maps.
    """

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._groups: dict[str, dict[str, Any]] = defaultdict(lambda: defaultdict(float))
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, pair: ComparedMap) -> None:
        """Adds one sample."""
        measured = self._measure(pair)
        for group in (OVERALL, *(() if pair.family is None else (pair.family,))):
            self._counts[group] += 1
            for key, value in measured.items():
                self._groups[group][key] += value

    @staticmethod
    def _measure(pair: ComparedMap) -> dict[str, Any]:
        return _measure(pair)

    def _means(self) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """(family, number of samples, means) of each group, all samples last."""
        for group in sorted(self._groups, key=lambda name: (name == OVERALL, name)):
            count = self._counts[group]
            yield group, count, {k: v / count for k, v in self._groups[group].items()}

    def rows(self) -> list[dict[str, Any]]:
        """The table: a row for each family, and the last one for all samples."""
        return [{"family": g, "samples": n, **_rooted(means)} for g, n, means in self._means()]


class ByDepth(ByFamily):
    """One row for each row of the maps, for each family and for all.

    Parameters
    ----------
    survey : Survey
        That of the maps.
    """

    @staticmethod
    def _measure(pair: ComparedMap) -> dict[str, Any]:
        return metrics.error_by_depth(pair.v, pair.truth)

    def rows(self) -> list[dict[str, Any]]:
        """The table: a row for each depth, family by family, all samples last."""
        rows = []
        for group, count, means in self._means():
            for k in range(self._survey.shape[0]):
                depth = k * self._survey.spacing
                which = {"family": group, "row": k, "depth": depth, "samples": count}
                rows.append(which | _rooted({key: float(value[k]) for key, value in means.items()}))
        return rows


TABLES: dict[str, type[BySample] | type[ByFamily]] = {
    "family": ByFamily,
    "depth": ByDepth,
    "sample": BySample,
}


def match(
    maps: Predictions, true_maps: Predictions, listed: Sequence[str] | None
) -> tuple[list[str] | None, Sequence[int]]:
    """Which true map belongs to each map: by id where both have ids, else by position.

    Parameters
    ----------
    maps, true_maps : Predictions
        Maps of the same samples.
    listed : sequence of str or None
        Ids that were given in a list: of `maps`, or of `true_maps` where only `maps` have ids of
        their own, as a submission has.

    Returns
    -------
    ids : list of str or None
        Of the maps, where any are known.
    indices : sequence of int
        Index in `true_maps` of each map.

    Raises
    ------
    InputError
        If the counts or the ids do not match.
    """
    if maps.ids is not None and true_maps.ids is None and listed is not None:
        return list(maps.ids), indices_in(true_maps, maps, maps.ids, listed)
    names = io.resolve_ids(maps.ids, listed, maps.count, maps.path)
    if maps.ids is not None and true_maps.ids is None:
        log.warning("%s has no ids: taken in the order of %s; --ids FILE gives them",
                    true_maps.path, maps.path)  # fmt: skip
    return names or true_maps.ids, indices_in(true_maps, maps, names)


class MapRecords:
    """The record of each map, and the mean square misfit to it.

    Parameters
    ----------
    path : path-like
        Where the records stand.
    names : sequence of str or None
        Ids of the maps.
    count : int
        How many maps there are.
    survey : Survey
        That of the records.
    conversion : Conversion
        Of the records.
    order : Order or None
        That of the maps, where it is one of files.

    Attributes
    ----------
    records : Records
        The opened records.
    pairs : list of Pair
        Which of them belongs to which map.

    Raises
    ------
    InputError
        If the records cannot be read, or do not match the maps.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        names: Sequence[str] | None,
        count: int,
        survey: Survey,
        conversion: Conversion = AS_THEY_ARE,
        order: Order | None = None,
    ) -> None:
        self.survey = survey
        self.records = open_converted_records(path, survey, conversion)
        self.pairs = io.pair(names, count, self.records, order)
        self._simulator = Simulator(survey)
        self._last: tuple[int, NDArray[Any]] | None = None
        log.info("kernel: %s", self._simulator.kernel)

    def read(self, k: int) -> NDArray[Any]:
        """Record of map k, (shots, rows, receivers), checked. Raises SampleError."""
        if self._last is None or self._last[0] != k:
            pair = self.pairs[k]
            if pair.problem is not None:
                raise SampleError(pair.problem)
            assert pair.record is not None  # as there is no problem
            where = self.records.where(pair.record)
            record = self.records.read(pair.record)
            self._last = k, check_record(record, survey=self.survey, where=where)
        return self._last[1]

    def compare(self, k: int, v: NDArray[Any]) -> dict[str, float]:
        """The agreement of a map with its record.

        Parameters
        ----------
        k : int
            Which record.
        v : ndarray, (nz, nx)
            The map, m/s.

        Returns
        -------
        dict
            "mean_square_misfit", and "exact": 1.0 for a map that its record proves, as every
            sample is equal in the released data's arithmetic, else 0.0.

        Raises
        ------
        SampleError
            For records that cannot be read, and maps that cannot be simulated.
        """
        record, maps = self.read(k), torch.as_tensor(v)[None]
        d = torch.as_tensor(record[:, : self.survey.n_steps], dtype=torch.float64)
        try:
            misfit = self._simulator.misfit(maps, d[None]).item()
        except ValueError as error:
            raise SampleError(f"{self.pairs[k].id}: {error}") from error
        exact = (
            misfit < (MISFIT_OF_EXACT * self.survey.unit) ** 2
            and prove(maps[0], record, self._simulator).exact
        )
        return {"mean_square_misfit": misfit, "exact": float(bool(exact))}
