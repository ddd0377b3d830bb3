"""The routing as a scikit-learn classifier, which learns its thresholds from labelled samples."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from fwi_refine.api.options import check_priors
from fwi_refine.errors import InputError, SampleError
from fwi_refine.inversion.families import criteria, inferred
from fwi_refine.limits import truth_value
from fwi_refine.priors import GaussianProcess, Priors
from fwi_refine.routing import (
    Classification,
    Family,
    apply_thresholds,
    feature_names,
    fit_thresholds,
    map_features,
    sample_features,
)
from fwi_refine.routing.checks.inputs import ADVICE_FOR_ARRAYS, check_some
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.validate import check_prediction, check_survey, to_numpy

Sample = tuple[ArrayLike, ArrayLike | None]  # map (nz, nx) m/s and record


class FamilyClassifier(
    ClassifierMixin,  # type: ignore[misc]  # scikit-learn has no types
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Tells families apart, as `classify` does, by thresholds fitted to samples of your own.

    X is a list of pairs (map, record): a map (nz, nx) in m/s and its record (shots, rows,
    receivers), as `list(zip(maps, records))` makes of two arrays without copying them. y holds the
    family of each, a `Family` or its name; `OPENFWI_FAMILIES` has that of each of OpenFWI's ten.
    Lists can be indexed and split, so that cross-validation, pipelines and grid searches work.

    The numbers that decide are four, and `transform` gives them as a table: another classifier of
    scikit-learn may stand behind this one in a pipeline. There is no `predict_proba`, as
    a distance from a threshold is no probability; `explain` has the distances.

    Parameters
    ----------
    priors : Priors, optional
        What is kept where y lacks a family; by default those for OpenFWI. The symmetry of the
        record of a flat map is a matter of its rounding, and its threshold is always kept.
    survey : Survey, optional
        Survey of the maps and records, with the grid, sources and receivers of OpenFWI; by default
        that of OpenFWI.
    fit_processes : bool
        Also fit the Gaussian processes of Style A and B to the maps of these families, of each at
        least two. Not for maps that a network predicted, if `priors_` is to be used in refining:
        its process is that of the true maps.
    force : bool
        Goes on where maps look like other units.

    Attributes
    ----------
    priors_ : Priors
        With the fitted numbers in place, for `refine(..., priors=classifier.priors_)`.
    wrong_ : dict of int
        For each threshold that was fitted, the number of samples on its wrong side.
    classes_ : ndarray of str
        Names of all five families, in alphabetical order, whatever y held.

    Examples
    --------

    >>> import numpy as np
    >>> from fwi_refine import FamilyClassifier
    >>> rng = np.random.default_rng(0)
    >>> def sharp(depth):
    ...     return np.repeat([2000.0, 2600.0], [depth, 70 - depth])[:, None] * np.ones(70)
    >>> def blended(depth):
    ...     return (sharp(depth - 1) + sharp(depth)) / 2
    >>> record = rng.standard_normal((5, 1000, 70))  # only its symmetry matters here
    >>> X = [(make(d), record) for make in (blended, sharp) for d in range(20, 50, 3)]
    >>> y = ["blended"] * 10 + ["layered"] * 10
    >>> classifier = FamilyClassifier().fit(X, y)
    >>> classifier.predict(X[8:12]).tolist()
    ['blended', 'blended', 'layered', 'layered']
    >>> classifier.score(X, y)
    1.0
    >>> classifier.wrong_
    {'blended_edges': 0}
    """

    def __init__(
        self,
        priors: Priors | None = None,
        survey: Survey | None = None,
        fit_processes: bool = False,
        force: bool = False,
    ):
        self.priors = priors
        self.survey = survey
        self.fit_processes = fit_processes
        self.force = force

    def fit(self, X: Sequence[Sample], y: Sequence[str]) -> Self:
        """Learn from the maps; the records are not looked at, and may be None.

        Parameters
        ----------
        X : sequence of (array_like, array_like or None)
            Pairs of map (nz, nx) in m/s and record (shots, rows, receivers).
        y : sequence of str
            Family of each.

        Returns
        -------
        FamilyClassifier
            The classifier itself.

        Raises
        ------
        SampleError
            A ValueError, for the first map that cannot be used.
        InputError
            A ValueError, where maps are in other units.
        ValueError
            For a family that there is not.
        """
        check_consistent_length(X, y)
        self._check_inputs(X)
        groups: dict[str, list[NDArray[np.float64]]] = {}
        for k, ((v, _), name) in enumerate(zip(X, y, strict=True)):
            checked = check_prediction(
                to_numpy(v), survey=self._survey, where=f"prediction of sample {k}"
            )
            groups.setdefault(_family(name), []).append(checked)
        priors = check_priors(self.priors)
        if truth_value(self.fit_processes, "fit_processes"):
            for key, family in (("style_a", Family.STYLE_A), ("style_b", Family.STYLE_B)):
                if family in groups:
                    mean = getattr(priors, key).mean
                    fitted = GaussianProcess.fit(np.stack(groups[family]), mean=mean)
                    priors = priors.with_process(key, fitted)
        tests = criteria()
        measured = {
            name: [map_features(v, priors, tests) for v in maps] for name, maps in groups.items()
        }
        routing, self.wrong_ = fit_thresholds(measured, priors.routing, tests)
        self.priors_ = replace(priors, routing=routing)
        self.classes_ = np.array(sorted(inferred()), dtype=str)
        return self

    def transform(self, X: Sequence[Sample]) -> NDArray[np.float64]:
        """The numbers that are compared with thresholds.

        Parameters
        ----------
        X : sequence of (array_like, array_like)
            N pairs of map (nz, nx) in m/s and record (shots, rows, receivers).

        Returns
        -------
        ndarray, shape (N, 4)
            `get_feature_names_out` names the columns.

        Raises
        ------
        SampleError
            A ValueError, for the first sample that cannot be used.
        InputError
            A ValueError, where maps are in other units.
        """
        check_is_fitted(self)
        self._check_inputs(X)
        tests = criteria()
        rows = np.empty((len(X), len(tests)))
        for k, (v, record) in enumerate(X):
            try:
                found = sample_features(
                    to_numpy(v), to_numpy(record), self.priors_, self._survey, criteria=tests
                )
            except SampleError as error:
                raise SampleError(f"sample {k}: {error}") from error
            rows[k] = [found[name] for name in feature_names(tests)]
        return rows

    def explain(self, X: Sequence[Sample]) -> list[Classification]:
        """Family of each sample with confidence, evidence and reason, as `classify` gives them.

        Parameters
        ----------
        X : sequence of (array_like, array_like)
            Pairs of map (nz, nx) in m/s and record (shots, rows, receivers).

        Returns
        -------
        list of Classification
        """
        cells, tests = self._survey.shape[0] * self._survey.shape[1], criteria()
        measured = [
            dict(zip(feature_names(tests), row, strict=True)) for row in self.transform(X).tolist()
        ]
        return [apply_thresholds(row, self.priors_.routing, cells, tests) for row in measured]

    def predict(self, X: Sequence[Sample]) -> NDArray[np.str_]:
        """Family of each sample.

        Parameters
        ----------
        X : sequence of (array_like, array_like)
            N pairs of map (nz, nx) in m/s and record (shots, rows, receivers).

        Returns
        -------
        ndarray of str, shape (N,)
            Names of families.
        """
        return np.array([str(found.family) for found in self.explain(X)], self.classes_.dtype)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names of the columns of `transform`."""
        return np.array(feature_names(criteria()), dtype=object)

    def _check_inputs(self, X: Sequence[Sample]) -> None:
        """Raises InputError where a few maps seem to be in other units; of the records only the
        symmetry matters."""
        _check_pairs(X)
        check_some(
            len(X),
            lambda k: to_numpy(X[k][0]),
            self._survey,
            truth_value(self.force, "force"),
            advice=ADVICE_FOR_ARRAYS,
        )

    @property
    def _survey(self) -> Survey:
        return OPENFWI if self.survey is None else check_survey(self.survey)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # a list of pairs
        return tags


def _check_pairs(X: Any) -> None:
    """Raises InputError for what is no sequence of pairs."""
    try:
        pairs = all(len(x) == 2 for x in X)
    except TypeError:
        pairs = False
    if not pairs:
        raise InputError(
            "X: expected pairs (map, record), such as list(zip(maps, records)); a single one is "
            "[(map, record)]"
        )


def _family(name: str) -> str:
    if name in inferred():
        return str(name)
    raise ValueError(
        f"y: found {name!r}, expected one of {', '.join(inferred())}; OPENFWI_FAMILIES has that of "
        "each of OpenFWI's ten families"
    )
