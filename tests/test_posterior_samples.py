"""Maps drawn from the posterior: their covariance, and the file they end in."""

import dataclasses

import h5py
import numpy as np
import pytest
import torch
from jacobian_cases import SMALL, textured
from run_cases import expected_maps, trivial, write_inputs
from small_samples import PROCESS

from fwi_refine import refine as refine_arrays
from fwi_refine.cli import run
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.inversion.uncertainty import posterior_samples
from fwi_refine.objective.parameterisation import Full
from fwi_refine.priors import load
from fwi_refine.runs import one_sample
from fwi_refine.wave import Simulator

SHAPE = (3, 4)
NAMES = ["a", "b", "bad", "c", "d"]


def test_their_covariance_is_the_inverse_of_the_precision():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(13, 13, generator=generator, dtype=torch.float64)
    precision = (root @ root.T / 13 + torch.eye(13)) / 4  # some 2 m/s
    parameters = Full(SHAPE)
    x = parameters.from_velocity(torch.full(SHAPE, 3000.0))
    draws = torch.randn(20000, 13, generator=generator, dtype=torch.float64)
    found = posterior_samples(x, precision.clone(), parameters, draws).flatten(1)
    expected = torch.linalg.inv(precision)[:12, :12]
    # 2 / sqrt(20000) is 1.4 %, of the largest variance
    assert (torch.cov(found.T) - expected).abs().max() < 0.05 * expected.max()
    assert (found.mean(0) - 3000.0).abs().max() < 0.1


def test_an_indefinite_precision_has_none():
    parameters = Full(SHAPE)
    x = parameters.from_velocity(torch.full(SHAPE, 3000.0))
    matrix = torch.ones(13, 13).double()
    assert posterior_samples(x, matrix, parameters, torch.ones(2, 13).double()) is None


@pytest.fixture(scope="module")
def small():
    """(start, record, options) of a small survey."""
    truth = textured(SMALL, 5, rough=30.0)
    start = (truth + 60.0 * torch.sin(torch.arange(12.0).double()[:, None] / 2)).numpy()
    record = Simulator(SMALL).forward(truth[None])[0].numpy()
    priors = dataclasses.replace(load(), style_a=PROCESS, style_b=PROCESS)
    return start, record, {"survey": SMALL, "priors": priors, "family": "style-b"}


def test_they_spread_as_the_deviation_says_and_are_the_same_again(small):
    start, record, options = small
    # the curvature is known after few steps as well
    options = options | {"prior": "gp", "max_evaluations": 160}
    found, again = (refine_sample(start, record, samples=200, **options) for _ in range(2))
    assert found.samples.shape == (200, *SMALL.shape)
    assert found.samples.dtype == np.float32
    assert np.array_equal(found.samples, again.samples)
    seen = found.deviation > 1.0
    ratio = found.samples.std(0)[seen] / found.deviation[seen]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.1)
    assert refine_sample(start, record, **options).samples is None
    result = refine_arrays(
        np.stack([start, np.full_like(start, np.nan)]),
        np.stack([record, record]),
        samples=2,
        force=True,
        **options,
    )
    assert np.array_equal(result.samples[0], found.samples[:2])
    assert np.isnan(result.samples[1]).all()


@pytest.fixture
def refine(tmp_path, monkeypatch, unchecked):
    monkeypatch.setattr(one_sample, "refine_one", trivial)
    case = write_inputs(tmp_path, NAMES)
    inputs = [case / "starts.npy", case / "seismic", "--ids", case / "ids.txt"]
    return lambda *more: run([str(a) for a in (*inputs, *more)])


@pytest.mark.slow
def test_the_file_with_and_without_a_run_directory(refine, tmp_path, capfd):
    assert refine("--out", tmp_path / "plain.npy", "--samples", 2) == 3
    assert "1 of 5 samples have no posterior, their maps are NaN" in capfd.readouterr().err
    keep = ["--run-dir", tmp_path / "run", "--chunk-size", 2, "--samples", 2]
    assert refine(*keep, "--out", tmp_path / "kept.npy") == 3
    assert run([str(a) for a in ("merge", tmp_path / "run", "--out", tmp_path / "m.npy")]) == 3
    for name in ("plain", "kept", "m"):
        with h5py.File(tmp_path / f"{name}.samples.h5") as file:
            assert [*file["ids"].asstr()] == NAMES
            found = file["samples"][()]
        assert (found.shape, found.dtype) == ((5, 2, 70, 70), np.float32)
        assert np.isnan(found[2]).all()
        good = [0, 1, 3, 4]
        expected = expected_maps(tmp_path)[good]
        np.testing.assert_allclose(found[good, 0], expected, rtol=1e-6)
        np.testing.assert_allclose(found[good, 1], expected + 1, rtol=1e-6)


def test_what_stands_there_is_not_replaced(refine, tmp_path, capsys):
    (tmp_path / "o.samples.h5").write_bytes(b"mine")
    assert refine("--out", tmp_path / "o.npy", "--samples", 2) == 2
    assert "o.samples.h5 exists already" in capsys.readouterr().err
    assert refine("--out", tmp_path / "o.npy") == 3  # without them it is not written
    assert (tmp_path / "o.samples.h5").read_bytes() == b"mine"
