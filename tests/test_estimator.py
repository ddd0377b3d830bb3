"""The classifier for scikit-learn: it decides as the routing does, and keeps the conventions."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from fwi_refine.api.estimator import FamilyClassifier
from fwi_refine.errors import SampleError
from fwi_refine.inversion.families import criteria
from fwi_refine.inversion.routes import classify
from fwi_refine.priors import load
from fwi_refine.routing import OPENFWI_FAMILIES, Family, feature_names
from fwi_refine.routing.thresholds import fit_routing
from fwi_refine.synthetic import make_map, make_start

PRIORS = load()
EACH = 2  # samples of each of OpenFWI's families


@pytest.fixture(scope="module")
def samples():
    """(X, y): network-like starts of all families. The record of a FlatVel map is symmetric to
    rounding and that of any other is not; no more of it matters here."""
    other = np.random.default_rng(0).standard_normal((5, 1000, 70)).astype(np.float32)
    symmetric = (other + other[::-1, :, ::-1]) / 2
    X, y = [], []
    for number, (name, family) in enumerate(OPENFWI_FAMILIES.items()):
        for k in range(EACH):
            rng = np.random.default_rng([7, number, k])
            v = make_start(make_map(name, rng), name, rng)
            X.append((v, symmetric if family is Family.FLAT_VEL else other))
            y.append(family)
    return X, y


@pytest.fixture(scope="module")
def fitted(samples):
    return FamilyClassifier().fit(*samples)


def test_it_decides_as_the_routing_does(samples, fitted):
    X, y = samples
    expected = [classify(v, record, fitted.priors_) for v, record in X]
    assert fitted.explain(X) == expected
    assert fitted.predict(X).tolist() == [str(found.family) for found in expected]
    right = [found.family == name for found, name in zip(expected, y, strict=True)]
    assert fitted.score(X, y) == np.mean(right)
    assert fitted.score(X, y) >= 0.98


def test_it_learns_what_fit_priors_does(samples, fitted):
    groups = {}
    for (v, _), name in zip(*samples, strict=True):
        groups.setdefault(name, []).append(v)
    routing, wrong = fit_routing(groups, PRIORS, criteria())
    assert fitted.priors_ == replace(PRIORS, routing=routing)
    assert fitted.wrong_ == wrong
    assert fitted.priors_.routing != PRIORS.routing
    assert fitted.classes_.tolist() == sorted(Family)


def test_processes_are_fitted_where_asked_for():
    truth = {
        "style-a": replace(PRIORS.style_a, length=5.0, sigma=250.0, noise=2.0),
        "style-b": replace(PRIORS.style_b, length=1.5, sigma=100.0, noise=30.0),
    }
    X, y = [], []
    for name, process in truth.items():
        X += [(process.sample(seed), None) for seed in range(6)]
        y += [name] * 6
    found = FamilyClassifier(fit_processes=True).fit(X, y).priors_
    assert found.style_a.length == pytest.approx(5.0, rel=0.1)
    assert found.style_b.noise == pytest.approx(30.0, rel=0.1)
    kept = FamilyClassifier(fit_processes=True).fit(X[:6], y[:6]).priors_
    assert kept.style_a == found.style_a
    assert kept.style_b == PRIORS.style_b
    assert FamilyClassifier().fit(X, y).priors_.style_a == PRIORS.style_a


def test_priors_of_your_own_are_the_base(samples):
    X, y = samples
    base = replace(PRIORS, routing=replace(PRIORS.routing, symmetry_rms=1e9, style_b_bin=2.5))
    found = FamilyClassifier(priors=base).fit(X, y)
    assert found.priors_.routing.symmetry_rms == 1e9
    assert found.priors_.routing.style_b_bin == 2.5
    assert set(found.predict(X)) == {"flat-vel"}  # every record is symmetric to that


@pytest.mark.slow
def test_the_table_serves_other_classifiers(samples, fitted):
    X, y = samples
    table = fitted.transform(X)
    assert table.shape == (len(X), len(feature_names(criteria())))
    assert fitted.get_feature_names_out().tolist() == list(feature_names(criteria()))
    evidence = classify(*X[11], PRIORS).evidence
    assert table[11].tolist() == [evidence[name] for name in feature_names(criteria())]
    assert np.array_equal(FamilyClassifier().fit_transform(X, y), table)
    other = make_pipeline(
        FamilyClassifier(), StandardScaler(), LogisticRegression(C=100.0, max_iter=1000)
    )
    assert other.fit(X, y).score(X, y) > 0.8
    assert other.predict_proba(X[:3]).shape == (3, 5)


@pytest.mark.slow
def test_cross_validation_and_grid_search(samples):
    X, y = samples
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    scores = cross_val_score(FamilyClassifier(), X, y, cv=folds, error_score="raise")
    assert scores.min() >= 0.9
    coarse = replace(PRIORS, routing=replace(PRIORS.routing, style_b_bin=1e4))  # one bin
    search = GridSearchCV(
        FamilyClassifier(), {"priors": [coarse, None]}, cv=folds, error_score="raise"
    )
    assert search.fit(X, y).best_params_ == {"priors": None}


def test_copies_and_tensors(samples, fitted):
    X, _ = samples
    fresh = clone(FamilyClassifier(priors=PRIORS, fit_processes=True))
    assert fresh.get_params() == {
        "priors": PRIORS,
        "survey": None,
        "fit_processes": True,
        "force": False,
    }
    assert not hasattr(fresh, "priors_")
    again = pickle.loads(pickle.dumps(fitted))
    part = [(torch.from_numpy(v), torch.from_numpy(record)) for v, record in X[::9]]
    assert again.predict(part).tolist() == fitted.predict(X).tolist()[::9]
    assert again.set_params(fit_processes=True).fit_processes


def test_order_and_company_do_not_matter(samples, fitted):
    X, y = samples
    order = np.random.default_rng(1).permutation(len(X))
    moved = FamilyClassifier().fit([X[k] for k in order], np.array(y)[order])
    assert moved.priors_ == fitted.priors_
    assert fitted.predict([X[17]]).tolist() == fitted.predict(X).tolist()[17:18]
    assert fitted.predict([]).shape == (0,)


def test_what_cannot_be_used_is_named(samples, fitted):
    X, y = samples
    with pytest.raises(NotFittedError):
        FamilyClassifier().predict(X)
    with pytest.raises(ValueError, match="y: found 'FlatVel_A', expected one of flat-vel"):
        FamilyClassifier().fit(X[:2], ["style-a", "FlatVel_A"])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        FamilyClassifier().fit(X, y[:-1])
    bad = [*X[:2], (X[2][0] * np.nan, X[2][1])]
    with pytest.raises(SampleError, match="prediction of sample 2: found 4900 of 4900"):
        FamilyClassifier().fit(bad, y[:3])
    with pytest.raises(SampleError, match="sample 2: prediction: found 4900 of 4900"):
        fitted.predict(bad)
    with pytest.raises(SampleError, match="sample 0: record: found shape"):
        fitted.predict([(X[0][0], X[0][1][:4])])


@pytest.mark.parametrize(
    "name",
    [
        "estimator_cloneable",
        "estimator_tags_renamed",
        "valid_tag_types",
        "estimator_repr",
        "no_attributes_set_in_init",
        "parameters_default_constructible",
        "do_not_raise_errors_in_init_or_set_params",
        "get_params_invariance",
        "set_params",
        "mixin_order",
    ],
)
def test_conventions_of_scikit_learn(name):
    """All of scikit-learn's own checks that bring no data: theirs are tables, not samples."""
    check = getattr(estimator_checks, f"check_{name}", None)
    if check is None:
        pytest.skip("this version of scikit-learn does not check that")
    check("FamilyClassifier", FamilyClassifier())


@pytest.mark.parametrize(
    ("name", "value"),
    [("priors", []), ("priors", "p.toml"), ("survey", 0), ("survey", "s"), ("fit_processes", "no")],
)
def test_parameters_that_are_none(samples, name, value):
    X, y = samples
    with pytest.raises(ValueError, match=f"{name} .*expected"):
        FamilyClassifier(**{name: value}).fit(X, y)


@pytest.mark.parametrize("change", [lambda X: X[0], lambda X: [(*x, 1) for x in X], len])
def test_what_are_no_pairs(samples, fitted, change):
    with pytest.raises(ValueError, match=r"expected pairs \(map, record\)"):
        fitted.predict(change(samples[0]))
