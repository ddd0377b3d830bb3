"""The registry of families: complete, and open to one more."""

import sys

import noisy_cases as cases
import numpy as np
import pytest
import torch
from wave_cases import TWO_SHOTS as SURVEY

from fwi_refine.inversion import families
from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.families import (
    METHODS,
    NAMES,
    criteria,
    find_family,
    inferred,
    names,
    register,
)
from fwi_refine.inversion.families.choices import every_cell, layers_smoothed, newton
from fwi_refine.inversion.families.definition import FamilyDefinition
from fwi_refine.inversion.optimisers import LBFGS, GaussNewtonStep, KrylovGaussNewton
from fwi_refine.inversion.recipe import Recipe
from fwi_refine.inversion.routes import classify
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.priors import load
from fwi_refine.routing import OPENFWI_FAMILIES, Family
from fwi_refine.synthetic import FAMILIES
from fwi_refine.wave import released_record
from fwi_refine.wave.cpu_library import load as load_native

NATIVE = pytest.mark.skipif(load_native() is None, reason="the compiled kernel was not built")


def test_the_registry_holds_the_families_of_the_routing():
    """Each has a test that tells its samples, but the one for the rest; none without made samples
    or a user who asks for it. "general" is never inferred."""
    routes = {str(family) for family in Family}
    assert routes == {name for name in NAMES if find_family(name).openfwi}
    assert routes - {*criteria()} == {"layered"}
    assert {*inferred()} == {*criteria(), "layered"}
    assert "general" not in inferred()


@pytest.mark.parametrize("name", NAMES)
def test_every_family_has_stages_for_far_starts(name):
    """Lower frequencies, from the lowest on, which near starts leave out."""
    stages = find_family(name).recipe("gauss-newton").stages
    far = [stage for stage in stages if stage.data.frequency is not None]
    frequencies = [stage.data.frequency for stage in far]
    assert far == list(stages[: len(far)])
    assert frequencies == sorted(frequencies)
    assert frequencies[:3] == [0.15, 0.22, 0.32]
    assert all(stage.skip_if is not None for stage in far)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["style-a", "style-b", "flat-vel"])
def test_a_start_hundreds_of_metres_per_second_off(name):
    truth, _ = cases.MAPS[name]()
    rows = np.arange(20)[:, None]
    wave = np.zeros(25) if name == "flat-vel" else np.arange(25) / 9
    start = np.clip(truth + 250 * np.sin(rows / 5 + wave + 1), 1450, 4900)
    assert cases.error(start, truth) > 120
    how = {"survey": cases.SURVEY, "family": name, "method": "gauss-newton"}
    found = refine_sample(start, cases.record_of(truth), **how)
    assert "poor fit" not in found.flags
    assert cases.error(found.velocity, truth) < 15


@pytest.mark.parametrize("name", NAMES)
def test_every_family_is_complete(name):
    """Its name, made samples, where to look next, and for each method stages that can be run."""
    family = find_family(name)
    assert family.name == name
    assert set(family.openfwi) == {k for k, route in OPENFWI_FAMILIES.items() if route == name}
    assert set(family.openfwi) <= set(FAMILIES)
    assert set(family.others) <= set(NAMES) - {name}
    v = torch.linspace(1500, 4500, 4900, dtype=torch.float64).reshape(70, 70)
    priors = load()
    for method in METHODS:
        recipe = family.recipe(method)
        last = recipe.assignment and recipe.assignment.between(1.0, 1.0)
        relaxed = () if recipe.assignment is None else sum(recipe.assignment.relaxed, ())
        for stage in (*recipe.stages, *recipe.if_blended, *relaxed, *([last] if last else [])):
            parameters = stage.unknowns(v, priors)
            at = parameters.prior_coordinates(parameters.from_velocity(v, v.min()))
            value, gradient = stage.prior(v, priors).value_and_gradient(at)
            assert np.isfinite(float(value))
            assert torch.isfinite(gradient).all()
    with pytest.raises(ValueError, match="method 'none'"):
        family.recipe("none")


@pytest.mark.parametrize("name", NAMES)
def test_matrix_free_steps_need_no_matrix(name):
    """Every stage that is left is one by conjugate gradients or by gradients alone."""
    recipe = find_family(name).recipe("matrix-free")
    assert recipe.stages
    assert recipe.assignment is None
    assert not recipe.if_blended
    for stage in recipe.stages:
        assert isinstance(stage.optimiser, KrylovGaussNewton | LBFGS | GaussNewtonStep)


def test_an_unknown_family_is_named():
    with pytest.raises(ValueError, match="family 'salt': expected one of flat-vel"):
        find_family("salt")


@pytest.fixture
def layers():
    """(start, record): two layers, and a start 20 m/s off."""
    truth = torch.full(SURVEY.shape, 2000.0, dtype=torch.float64)
    truth[6:] = 2600.0
    return (truth + 20).numpy(), released_record(truth, survey=SURVEY).numpy()


@NATIVE
def test_a_family_is_added_by_one_definition(layers, monkeypatch):
    monkeypatch.setattr(families, "_registered", {})
    once = newton(every_cell, layers_smoothed(10.0), weight=1e-10)
    recipe = Recipe((once,), round=False)
    register(FamilyDefinition("salt", (), gauss_newton=recipe, published=recipe))
    assert names() == (*NAMES, "salt")
    refined = refine_sample(*layers, survey=SURVEY, family="salt")
    assert refined.family == "salt"
    assert refined.status == "refined"
    assert refined.misfit_after < 0.2 * refined.misfit_before


SALT = """
from fwi_refine.inversion.families.choices import every_cell, layers_smoothed, newton
from fwi_refine.inversion.families.definition import FamilyDefinition
from fwi_refine.inversion.optimisers import LBFGS, GaussNewtonStep, KrylovGaussNewton
from fwi_refine.inversion.recipe import Recipe
from fwi_refine.routing import Criterion

def salt_cells(v, record, priors):
    return float((v > 4400).sum())

once = Recipe((newton(every_cell, layers_smoothed(10.0), weight=1e-10),), round=False)
FAMILY = FamilyDefinition(
    "salt", (), gauss_newton=once, published=once, criterion=Criterion(
        "salt_cells", salt_cells, "salt in {:.0f} cells against {:.0f}", above=True, threshold=50.0
    ),
)
"""


def test_a_family_is_added_by_one_file_and_one_line(monkeypatch, tmp_path):
    """Its samples are told by its own test, asked where no earlier one holds."""
    (tmp_path / "salt.py").write_text(SALT)
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    monkeypatch.setattr(families, "NAMES", (*NAMES, "salt"))
    monkeypatch.delitem(sys.modules, f"{families.__name__}.salt", raising=False)
    v = np.repeat([1700.0, 2300.0, 3100.0, 2600.0], [1190, 1190, 1190, 1330]).reshape(70, 70)
    record = np.random.default_rng(0).standard_normal((5, 1000, 70))
    assert classify(v, record, load()).family == "layered"
    v[30:40, 30:40] = 4480.0
    found = classify(v, record, load())
    assert found.family == "salt"
    assert found.reason == "salt in 100 cells against 50"
    assert found.evidence["salt_cells_threshold"] == 50.0
    assert found.confidence == 0.5
    v[:] = 2000.0
    v[19], v[20], v[21:] = 2100.0, 4380.0, 4480.0
    assert classify(v, record, load()).family is Family.BLENDED


@NATIVE
@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("limit", [1, 5, 12, 60])
def test_a_budget_is_never_exceeded(limit, family, method, layers, monkeypatch):
    """Every simulation is charged: none is made that the report does not count."""
    start, record = layers
    charged = []
    charge = Budget.charge
    monkeypatch.setattr(Budget, "charge", lambda b, cost: (charged.append(cost), charge(b, cost)))
    refined = refine_sample(
        start, record, survey=SURVEY, family=family, method=method, max_evaluations=limit
    )
    assert 1 <= refined.evaluations <= limit
    assert sum(charged) <= limit
    assert refined.objective_after <= refined.objective_before
    assert (refined.status == "refined") <= (refined.misfit_after < refined.misfit_before)
    if limit == 1:
        assert refined.status == "unchanged"
        assert "stopped early" in refined.flags


@NATIVE
@pytest.mark.slow
@pytest.mark.parametrize("chosen", ["layered", "blended"])
@pytest.mark.parametrize("made", ["layered", "blended"])
def test_edges_decide_between_layered_and_blended(made, chosen):
    """Either family's recipe ends as the map's edges tell, and the result names that family."""
    truth, start = cases.MAPS[made]()
    record = cases.record_of(truth)
    found = refine_sample(start, record, survey=cases.SURVEY, family=chosen)
    assert found.family == made
    assert cases.error(found.velocity, truth) < 0.02 < 40 < cases.error(start, truth)
    assert found.expected_error is not None
    assert not found.flags
