"""Routing: each test at its threshold, made samples of all families, and `fit-priors`."""

import subprocess
import sys
import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers import others_slow

from fwi_refine import priors
from fwi_refine.cli.commands.fit_priors import command
from fwi_refine.errors import InputError, OutputExistsError, SampleError
from fwi_refine.inversion.families import criteria
from fwi_refine.inversion.routes import classify
from fwi_refine.objective.connected import connected_areas
from fwi_refine.routing import OPENFWI_FAMILIES, Family, map_features
from fwi_refine.routing.classify import symmetry_rms
from fwi_refine.routing.edges import blended_edges
from fwi_refine.routing.thresholds import best_threshold, fit_routing
from fwi_refine.synthetic import make_map, make_start

PRIORS = priors.load()


def record(asymmetry=1.0, rows=1000):
    """A record whose first shot misses the mirrored last one by `asymmetry` rms."""
    shots = np.random.default_rng(0).standard_normal((5, rows, 70))
    shots[4] = shots[0, :, ::-1] + asymmetry * np.sign(shots[4])
    return shots


def two_layers(depth=40, upper=2000.0, lower=2600.0):
    v = np.full((70, 70), upper)
    v[depth:] = lower
    return v


def resized():
    """Two layers with a twentieth of the other in the cells beside their edge."""
    v = two_layers()
    v[39], v[40] = 2030.0, 2570.0
    return v


def test_the_record_alone_decides_for_flat_vel():
    rough = PRIORS.style_b.sample(0).numpy()
    for asymmetry, family in ((0.99e-4, Family.FLAT_VEL), (1.01e-4, Family.STYLE_B)):
        found = classify(rough, record(asymmetry), PRIORS)
        assert found.family is family
        assert found.evidence["symmetry_rms"] == pytest.approx(asymmetry, rel=1e-9)
    assert found.confidence < 0.02


def test_the_last_row_of_a_record_is_not_used():
    shots = record(0.0)
    shots[0, 999] += 100.0
    assert classify(resized(), shots, PRIORS).family is Family.FLAT_VEL
    shots[0, 998] += 100.0
    assert classify(resized(), shots, PRIORS).family is Family.BLENDED
    assert symmetry_rms(shots[:, :998]) == 0.0


def test_style_a_by_its_energy():
    draw = PRIORS.style_a.sample(0)
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal((70, 70)))
    found = classify(draw.numpy(), record(), PRIORS)
    assert found.family is Family.STYLE_A
    assert found.evidence["style_a_log_energy"] == pytest.approx(
        np.log(PRIORS.style_a.value(draw).item())
    )
    assert found.confidence > 0.9
    # The energy is known and the threshold is its logarithm: noise up to just under it.
    sizes = np.linspace(0.1, 5.0, 200)
    energies = [PRIORS.style_a.value(draw + size * noise).item() for size in sizes]
    last = int(np.searchsorted(energies, np.exp(13.0)))
    below = classify((draw + sizes[last - 1] * noise).numpy(), record(), PRIORS)
    above = classify((draw + sizes[last] * noise).numpy(), record(), PRIORS)
    assert (below.family, above.family) == (Family.STYLE_A, Family.STYLE_B)
    assert max(below.confidence, above.confidence) < 0.1


@pytest.mark.parametrize(("same", "family"), [(75, Family.STYLE_B), (76, Family.LAYERED)])
def test_style_b_by_the_most_frequent_velocity(same, family):
    v = 1500.0 + 2900.0 * np.random.default_rng(0).permutation(4900).reshape(70, 70) / 4899
    v = 3.0 * np.round(v / 3.0)  # at most six cells share a value
    v.flat[:same] = 9000.0
    found = classify(v, record(), PRIORS)
    assert found.evidence["style_b_cells"] == same
    assert found.family is family


@pytest.mark.parametrize(("blended", "family"), [(42, Family.LAYERED), (43, Family.BLENDED)])
def test_blended_by_the_edges(blended, family):
    """Of 50 edges, one a column, just less than 85 % and just more."""
    v = two_layers()
    v[:, :blended] = resized()[:, :blended]
    v[:, 50:] = 2000.0
    found = classify(v, record(), PRIORS)
    assert found.evidence["blended_edges"] == blended / 50
    assert found.family is family
    assert found.confidence < 0.08


@pytest.mark.parametrize(
    ("between", "blended"),
    [((), 0.0), ((0.03, 0.97), 0.0), ((0.05,), 1.0), ((0.05, 0.95), 1.0),
     ((0.1, 0.3, 0.6, 0.9), 1.0), ((0.1, 0.3, 0.5, 0.7, 0.9), 0.0)],
)  # fmt: skip
def test_an_edge_is_blended_by_one_to_four_cells(between, blended):
    column = np.array([2000.0] * 20 + [2000.0 + 600.0 * way for way in between] + [2600.0] * 30)
    for v in (column, column[::-1], column - 400.0):
        assert blended_edges(np.stack([v, v], 1)) == blended
    assert blended_edges(np.stack([0.09 * column], 1)) == 0.0  # a step of 54 m/s is no edge


def test_the_shallowest_edges_count():
    """Deep ones are known less well."""
    v = np.full((70, 70), 2000.0)
    v[10:] = 2300.0
    v[50], v[51:] = 2900.0, 3200.0
    assert blended_edges(v) == 0.0
    v[10] = 2200.0
    assert blended_edges(v) == 1.0


def test_areas_are_joined_by_edges_and_small_steps():
    v = np.array([[0.0, 10.0, 20.0], [50.0, 20.1, 90.0], [50.0, 90.0, 50.0]])
    labels = connected_areas(v, 10.0)
    assert labels[0, 0] == labels[0, 1] == labels[0, 2]  # a chain of steps of exactly 10
    assert labels[1, 1] != labels[0, 1]  # 10.1
    assert labels[1, 0] == labels[2, 0]
    assert labels[2, 2] not in (labels[1, 0], labels[1, 1])  # neighbours share an edge, no corner
    assert labels.max() + 1 == len(np.unique(labels)) == 6


def test_evidence_and_reason_are_complete_for_every_family():
    v = resized()
    for asymmetry, family in ((0.0, Family.FLAT_VEL), (1.0, Family.BLENDED)):
        found = classify(v, record(asymmetry), PRIORS)
        assert found.family is family
        names = {"symmetry_rms", "style_a_log_energy", "style_b_cells", "blended_edges"}
        assert set(found.evidence) == names | {f"{name}_threshold" for name in names}
        assert found.evidence["blended_edges_threshold"] == 0.85
        assert all(isinstance(number, float) for number in found.evidence.values())
        assert 0.0 <= found.confidence <= 1.0
        assert found.reason
        assert "\n" not in found.reason
    assert "blended edges 1.00 of 1 against 0.85" in found.reason


def test_a_threshold_out_of_reach_turns_a_test_off():
    routing = replace(PRIORS.routing, blended_edges=1.5)
    found = classify(resized(), record(), replace(PRIORS, routing=routing))
    assert found.family is Family.LAYERED


@pytest.mark.parametrize(
    ("prediction", "shots", "message"),
    [
        (np.zeros((70, 69)), record(), r"prediction: found shape \(70, 69\)"),
        (np.full((70, 70), np.nan), record(), r"prediction: found 4900 of 4900 values not finite"),
        (two_layers(), record()[:4], r"record: found shape \(4, 1000, 70\)"),
        (two_layers(), np.zeros((5, 1000, 70)), r"record: found only zeros"),
    ],
)
def test_what_cannot_be_classified_is_an_error(prediction, shots, message):
    with pytest.raises(SampleError, match=message):
        classify(prediction, shots, PRIORS)


def test_priors_of_another_grid_are_an_error():
    other = replace(PRIORS, style_a=replace(PRIORS.style_a, shape=(40, 40)))
    with pytest.raises(ValueError, match=r"shape \(70, 70\), expected \(40, 40\)"):
        classify(two_layers(), record(), other)


def made_starts(count):
    """family name -> (count, 70, 70) network-like starts."""
    starts = {}
    for number, family in enumerate(OPENFWI_FAMILIES):
        rngs = [np.random.default_rng([7, number, k]) for k in range(count)]
        drawn = (make_start(make_map(family, rng), family, rng) for rng in rngs)
        starts[family] = np.stack([*drawn])
    return starts


FEW = 4  # of each family


@pytest.fixture(scope="module")
def starts():
    return made_starts(FEW)


@pytest.mark.parametrize("count", others_slow([FEW, 20]))
def test_made_samples_find_their_families(count, starts):
    # The record of a FlatVel map is symmetric to rounding, that of any other is not: the physics
    # is tested elsewhere, so two records stand for all.
    symmetric, other = record(2e-5), record()
    wrong, edges = [], []
    for name, maps in (starts if count == FEW else made_starts(count)).items():
        family = OPENFWI_FAMILIES[name]
        shots = symmetric if family is Family.FLAT_VEL else other
        found = [classify(v, shots, PRIORS) for v in maps]
        missed = [c for c in found if c.family is not family]
        alike = {Family.BLENDED, Family.LAYERED}  # one recipe, which looks at edges once more
        wrong += [(name, c.reason) for c in missed if {family, c.family} != alike]
        edges += [(name, c.reason) for c in missed if {family, c.family} == alike]
    assert len(wrong) <= 0.01 * count * len(starts), wrong
    assert len(edges) <= 0.02 * count * len(starts), edges


def test_separate_takes_the_middle_of_the_gap_or_the_fewest_errors():
    assert best_threshold(np.array([1.0, 2.0]), np.array([4.0, 9.0])) == (3.0, 0)
    assert best_threshold(np.array([1.0, 2.0, 8.0]), np.array([4.0, 7.0, 9.0])) == (3.0, 1)
    threshold, wrong = best_threshold(np.array([5.0]), np.array([1.0]))
    assert wrong == 1
    assert threshold in (0.0, 6.0)


def test_fitted_thresholds_separate_the_starts_and_lie_between_them(starts):
    groups = {}
    for name, maps in starts.items():
        groups.setdefault(OPENFWI_FAMILIES[name], []).extend(maps)
    routing, wrong = fit_routing(groups, PRIORS, criteria())
    assert wrong == {"style_a_log_energy": 0, "style_b_cells": 0, "blended_edges": 0}
    style_a = [map_features(v, PRIORS, criteria())["style_a_log_energy"] for v in starts["Style_A"]]
    others = [
        map_features(v, PRIORS, criteria())["style_a_log_energy"]
        for name, maps in starts.items()
        if name != "Style_A" and not name.startswith("FlatVel")
        for v in maps
    ]
    assert routing.style_a_log_energy == pytest.approx((max(style_a) + min(others)) / 2)
    assert routing.symmetry_rms == PRIORS.routing.symmetry_rms
    del groups[Family.BLENDED]
    kept, _ = fit_routing(groups, PRIORS, criteria())
    assert kept.blended_edges == PRIORS.routing.blended_edges


@pytest.fixture
def train(tmp_path):
    """Draws from other priors than the published, in the layout of the released data."""
    truth = {
        "Style_A": replace(PRIORS.style_a, length=5.0, sigma=250.0, noise=2.0),
        "Style_B": replace(PRIORS.style_b, length=1.5, sigma=100.0, noise=30.0),
    }
    for family, process in truth.items():
        folder = tmp_path / "train" / family / "model"
        folder.mkdir(parents=True)
        for shard in (1, 2):
            maps = [process.sample(10 * shard + k).numpy() for k in range(6)]
            np.save(folder / f"model{shard}.npy", np.stack(maps)[:, None].astype(np.float32))
        (folder.parent / "data").mkdir()
        np.save(folder.parent / "data" / "data1.npy", np.zeros(3))  # records: not read
    return tmp_path / "train", truth


def run(*arguments):
    return CliRunner().invoke(command, [str(a) for a in arguments])


def test_fit_priors_writes_a_file_that_load_reads(train, tmp_path):
    folder, truth = train
    out = tmp_path / "priors.toml"
    result = run(folder, "--out", out)
    assert result.exit_code == 0, result.output
    fitted = priors.load(out)
    for process, family in ((fitted.style_a, "Style_A"), (fitted.style_b, "Style_B")):
        for name in ("length", "sigma", "noise"):
            expected = getattr(truth[family], name)
            assert getattr(process, name) == pytest.approx(expected, rel=0.1), (family, name)
    assert fitted.routing == PRIORS.routing
    assert "Caution: style_a_log_energy belongs to" in result.output
    text = out.read_text()
    assert text.startswith("# Written by fwi-refine")
    assert "maximum likelihood on 12 maps of Style_A" in text
    sections = {"style_a", "style_b", "style_b_variation", "style_b_learned", "routing"}
    assert set(tomllib.loads(text)) == sections
    variation = fitted.style_b_variation
    steps = truth["Style_B"]  # neighbours differ by sqrt(2 (variance - covariance)), normal
    near = steps.sigma**2 * -np.expm1(-1 / (2 * steps.length**2)) + steps.noise**2
    assert variation.scale == pytest.approx(2.85 * 2 * np.sqrt(near / np.pi), rel=0.05)
    assert variation.diagonal_scale > variation.scale
    assert variation.spread == PRIORS.style_b_variation.spread


def test_fit_priors_trains_a_denoiser(train, tmp_path):
    folder, _ = train
    out, weights = tmp_path / "priors.toml", tmp_path / "mine.npz"
    result = run(folder, "--out", out, "--denoiser", weights, "--steps", 2, "--limit", 3)
    assert result.exit_code == 0, result.output
    assert "denoiser: step 2 of 2" in result.output
    assert "# [style_b_learned] 2 batches of 2 maps of Style_B." in out.read_text()
    learned = priors.load(out).style_b_learned
    assert learned.weights == str(weights)
    theirs = PRIORS.style_b_learned.prior(PRIORS.style_b)
    assert learned.prior(PRIORS.style_b).denoiser is not theirs.denoiser
    again = run(folder, "--out", tmp_path / "p.toml", "--denoiser", weights, "--steps", 2)
    assert again.exit_code != 0
    assert not (tmp_path / "p.toml").exists()


def test_fit_priors_fits_thresholds_to_predictions(train, starts, tmp_path):
    folder, _ = train
    predictions, out = tmp_path / "predictions", tmp_path / "priors.toml"
    predictions.mkdir()
    for name, maps in starts.items():
        np.save(predictions / f"{name}.npy", maps.astype(np.float32))
    base = tmp_path / "base.toml"
    base.write_text("[routing]\nstyle_b_bin = 2.5\n")
    result = run(folder, "--out", out, "--predictions", predictions, "--priors", base)
    assert result.exit_code == 0, result.output
    fitted = priors.load(out)
    assert fitted.routing.style_b_bin == 2.5
    shots = record()
    for name, maps in starts.items():
        if name.startswith("FlatVel"):
            continue
        found = {classify(v, shots, fitted).family for v in maps}
        assert found == {OPENFWI_FAMILIES[name]}


def test_fit_priors_keeps_what_it_has_no_maps_for(train, tmp_path):
    folder, _ = train
    (folder / "Style_B").rename(tmp_path / "elsewhere")
    result = run(folder, "--out", tmp_path / "priors.toml", "--limit", 4)
    assert result.exit_code == 0, result.output
    assert priors.load(tmp_path / "priors.toml").style_b == PRIORS.style_b
    assert "[style_b] not fitted" in result.output
    assert "on 4 maps of Style_A" in result.output


def test_fit_priors_reads_made_samples_and_cautions_on_few(train, tmp_path):
    """The layout that scripts/make_samples.py writes gives what a folder for each family does."""
    folder, _ = train
    maps = [np.load(folder / f"Style_A/model/model{k}.npy")[:, 0] for k in (1, 2)]
    others = np.full((2, 70, 70), 2000, "f4")
    made = tmp_path / "made"
    made.mkdir()
    np.save(made / "truth.npy", np.concatenate([others, *maps]))
    rows = [f"id{k},{'FlatVel_A' if k < 2 else 'Style_A'}" for k in range(14)]
    (made / "families.csv").write_text("\n".join(["id,family", *rows]))
    result = run(made, "--out", tmp_path / "made.toml")
    assert result.exit_code == 0, result.output
    assert "Caution: 12 maps are few" in result.output
    assert run(folder, "--out", tmp_path / "folder.toml").exit_code == 0
    fitted = [priors.load(tmp_path / f"{name}.toml") for name in ("made", "folder")]
    assert fitted[0].style_a == fitted[1].style_a
    (made / "families.csv").write_text("id,family\nid0,Style_A\n")
    error = run(made, "--out", tmp_path / "x.toml").exception
    assert "found 1 families for 14 maps" in str(error)


def test_fit_priors_refuses_what_it_cannot_use(train, tmp_path):
    folder, _ = train
    out = tmp_path / "priors.toml"
    out.write_text("mine")
    assert isinstance(run(folder, "--out", out).exception, OutputExistsError)
    assert out.read_text() == "mine"
    assert run(folder, "--out", out, "--overwrite").exit_code == 0

    fresh, empty = tmp_path / "fresh.toml", tmp_path / "empty"
    empty.mkdir()
    nothing = run(empty, "--out", fresh).exception
    assert isinstance(nothing, InputError)
    assert "expected Style_A or Style_B" in str(nothing)
    bad = np.full((3, 70, 70), 2000.0)
    bad[1, 2, 3] = np.nan
    np.save(folder / "Style_A.npy", bad)
    broken = run(folder, "--out", fresh).exception
    assert isinstance(broken, InputError)
    assert "row 2, column 3" in str(broken)
    base = tmp_path / "base.toml"
    base.write_text("[style_a]\nlength = -1\n")
    wrong = run(folder, "--out", fresh, "--priors", base).exception
    assert isinstance(wrong, InputError)
    assert "base.toml: style_a.length is -1" in str(wrong)
    assert not fresh.exists()


def test_help_imports_neither_torch_nor_h5py():
    code = (
        "import sys; from fwi_refine.cli.commands.fit_priors import command\n"
        "try: command(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert not {'torch', 'h5py', 'scipy', 'sklearn'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "TRAIN" in result.stdout
